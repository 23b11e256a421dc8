"""Drops a table: by default it is moved aside, whole and within an instant, and stands there until its way back isn't needed any more."""

from __future__ import annotations

from typing import Annotated, ClassVar

from steps.catalog import catalog, dropping, touched_tables
from steps.contract import (
    Context,
    Effect,
    Identifier,
    Identifiers,
    Look,
    Model,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import MORE, OFF
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.shared import absence, declared, kept_aside

_TABLES = {"table", "partitioned table", "partition"}


class DroppedTable(Model):
    """Where the table is kept, and what went along. kept: "" where its rows are lost. oid: the kept table's, 0 on SQLite."""

    gone: str
    table: str
    kept: str
    oid: int = 0
    taken: tuple[dropping.TakenAlong, ...] = ()


class DropTableResult(StepResult):
    """kept: where the table is kept, "" where it isn't; drop it there when the undo isn't needed any more."""

    kept: str = ""


class DropTable(Step[DroppedTable]):
    """Drops a table. It is kept aside for the undo, in the schema runbook_kept, unless `keep: false`.

    cascade: what may go with it, by name (views, foreign keys of other tables …); it is restored with the table. Anything else that
    depends on the table stops the run before it begins.
    """

    kind: ClassVar[str] = "drop_table"
    summary: ClassVar[str] = (
        "drop a table, kept aside for the way back; what depends on it goes only where it is listed"
    )
    Result: ClassVar[type[StepResult]] = DropTableResult

    table: Identifier
    keep: Annotated[bool, OFF] = True
    cascade: Annotated[Identifiers, MORE] = ()
    absent: absence.Absent = "refused"

    def describe(self) -> str:
        along = f", taking along {', '.join(self.cascade)}" if self.cascade else ""
        return f"drop table {self.table}{along}{' (absent: fine)' if self.absent == 'fine' else ''}"

    def one_way(self) -> str:
        return "" if self.keep else "its rows aren't kept (keep: false)"

    def back_if(self, look: Look | None) -> str:
        if look is None or not self._there(look):
            return "while the kept table is there, unless another of its name was made by then"
        rows = dropping.counted(dropping.count(look, self.table), "row")
        return f"while {self._kept(look)} is there, which keeps {rows}, unless another {self.table} was made by then"

    # ── before ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def verify(self, look: Look) -> Effect:
        found = catalog.relation(look, self.table)
        if found is None:
            return absence.effect(look, self._what(look), absent=self.absent)
        if found.kind not in _TABLES:
            return Effect(State.NOT_DONE, f"{self.table} is there: a {found.kind}")
        what = dropping.in_words(dropping.count(look, self.table), "row", dropping.goes_with(look, self._target))
        return Effect(State.NOT_DONE, f"{self.table} is there, a {found.kind}: {what}")

    def statements(self, look: Look) -> list[Statement]:
        if not self._there(look):
            return []
        return self._statements(look, dropping.goes_with(look, self._target))

    def _statements(self, look: Look, taken: list[dropping.TakenAlong]) -> list[Statement]:
        first = [one.drop for one in dropping.first(look, taken, self._target)]
        own = [one for one in taken if one.via == "own"]
        if self.keep:
            sqls = [*kept_aside.schema_made(look), *first, *self._aside(look, own)]
        else:
            sqls = [*first, f"DROP TABLE {catalog.sql_name(look, self.table)}"]
        lock = "ACCESS EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
        return [Statement(sql, lock=lock, length="instant", table=self.table) for sql in sqls]

    def _aside(self, look: Look, own: list[dropping.TakenAlong]) -> list[str]:
        """Move it aside. Its own foreign keys go: they would keep others from deleting the rows that they refer to."""
        name, kept = catalog.sql_name(look, self.table), self._kept(look)
        if look.dialect is Dialect.POSTGRESQL:
            keys = [one.drop for one in own if one.kind == "foreign key"]
            return [*keys, f"ALTER TABLE {name} SET SCHEMA {kept_aside.SCHEMA}"]
        gone = [f"DROP {one.kind.upper()} {quote(one.name)}" for one in own]
        return [*gone, *_renamed(name, kept.partition(".")[2])]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        gone = (Trace("dropped", self.table, catalog.named(look, self.table)[1]), *dropping.traces(look, self._target))
        if not self.keep or not self._there(look):
            return gone
        taken = dropping.goes_with(look, self._target)
        return (*gone, *kept_aside.traces(self._kept(look), self._relations(look, taken)))

    def preflight(self, look: Look) -> list[str]:
        found = catalog.relation(look, self.table)
        if found is None:
            return []
        if found.kind not in _TABLES:
            return [f"cannot drop {self.table}: it is a {found.kind}, not a table"]
        faults = catalog.not_owned(look, self.table)
        taken = dropping.goes_with(look, self._target)
        faults += dropping.refused(look, taken, self._target, self.cascade)
        if self.keep:
            faults += [f"cannot keep {self.table} aside: {why}" for why in self._not_kept(look, found.kind, taken)]
        return faults

    def _not_kept(self, look: Look, kind: str, taken: list[dropping.TakenAlong]) -> list[str]:
        reasons = kept_aside.no_room(look, self._kept(look), self._relations(look, taken))
        if kind != "table":
            reasons.append(f"it is a {kind}, which can't be moved alone; DETACH partitions, or write keep: false")
        keys = [one for one in catalog.constraints(look, self.table) if one.kind == "foreign key"]
        if keys and look.dialect is Dialect.SQLITE:
            reasons.append(
                "SQLite drops no foreign key alone, and the kept table's would go on guarding the rows that it refers to; "
                "rebuild_table without them first, or write keep: false"
            )
        if parents := _inherits(look, self.table):
            reasons.append(f"it inherits from {parents}, where its rows would still be seen; write keep: false")
        return reasons

    def _relations(self, look: Look, taken: list[dropping.TakenAlong]) -> list[str]:
        """Names of indexes and sequences that come along."""
        names = [one.name for one in taken if one.via == "own" and one.kind in {"index", "sequence"}]
        return names + [one.name for one in catalog.indexes(look, self.table) if one.constraint]

    # ── the change ──────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> DropTableResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            there = self._there(look)
        if there:
            ctx.patiently("drop", lambda work: self._drop(work, ctx))
        with ctx.db.look() as look:
            return self.result(look)

    def result(self, look: Look) -> DropTableResult:
        """Where the table is kept."""
        kept = self._kept(look) if self.keep else ""
        return DropTableResult(kept=kept if kept and catalog.relation(look, kept) else "")

    def _drop(self, work: Work, ctx: Context) -> None:
        if work.dialect is Dialect.POSTGRESQL:
            work.execute(f"LOCK TABLE {catalog.sql_name(work, self.table)} IN ACCESS EXCLUSIVE MODE")
        taken = dropping.goes_with(work, self._target)
        if faults := dropping.refused(
            work, taken, self._target, self.cascade
        ):  # somebody may have added to it meanwhile
            raise Refused("; ".join(faults))
        back = [one for one in taken if self._comes_back(work, one)]
        kept = self._kept(work) if self.keep else ""
        ctx.remember(
            DroppedTable(
                gone=self._what(work),
                table=".".join(catalog.named(work, self.table)),
                kept=kept,
                oid=kept_aside.oid(work, self.table),
                taken=tuple(back),
            )
        )
        declared.execute(work, self._statements(work, taken))

    def _comes_back(self, look: Look, one: dropping.TakenAlong) -> bool:
        """Whether its definition is needed for the way back: what moves along with the table comes back with it."""
        if one.via != "own" or look.dialect is Dialect.SQLITE:
            return bool(one.restore or one.index_definition)
        return one.kind == "foreign key"

    # ── undo ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def revert(self, ctx: Context, before: DroppedTable) -> None:
        """Move the kept table back, and restore what went along."""
        if not before.kept:
            raise StepError(f"cannot restore {self.table}: its rows weren't kept (keep: false)")
        ctx.patiently("back", lambda work: self._back(work, before))
        kept_aside.put_back(ctx, before.taken)

    def _back(self, work: Work, before: DroppedTable) -> None:
        found = catalog.relation(work, before.kept)
        if found is None:
            raise StepError(f"cannot restore {self.table}: {before.kept}, where it was kept, is gone")
        if before.oid and found.oid != before.oid:
            raise StepError(
                f"cannot restore {self.table}: {before.kept} is another table now (oid {found.oid}, then {before.oid})"
            )
        if catalog.relation(work, before.table) is not None:
            raise StepError(
                f"cannot restore {self.table}: somebody has made another one since; take that back or rename it, then roll back again"
            )
        schema, _, name = before.table.partition(".")
        kept = kept_aside.quoted(before.kept)
        if work.dialect is Dialect.POSTGRESQL:
            work.execute(f"ALTER TABLE {kept} SET SCHEMA {quote(schema)}")
            return
        for sql in _renamed(kept, name):
            work.execute(sql)

    # ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def _target(self) -> dropping.DropTarget:
        return dropping.DropTarget(self.table)

    def _there(self, look: Look) -> bool:
        return catalog.relation(look, self.table) is not None

    def _kept(self, look: Look) -> str:
        return kept_aside.name(look, catalog.named(look, self.table)[1])

    def _what(self, look: Look) -> str:
        return f"table {'.'.join(catalog.named(look, self.table))}"


def _renamed(name: str, to: str) -> list[str]:
    """SQLite's rename that leaves the texts of views, triggers and other tables alone."""
    rename = f"ALTER TABLE {name} RENAME TO {quote(to)}"
    return ["PRAGMA legacy_alter_table = ON", rename, "PRAGMA legacy_alter_table = OFF"]


def _inherits(look: Look, table: str) -> str:
    """The tables that it inherits from, without being a partition of one."""
    if look.dialect is Dialect.SQLITE:
        return ""
    sql = """SELECT CAST(i.inhparent::regclass AS text) AS name FROM pg_catalog.pg_inherits i
             JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
             WHERE i.inhrelid = CAST(:table AS regclass) ORDER BY i.inhseqno"""
    return ", ".join(row.text("name") for row in look.rows(sql, {"table": catalog.sql_name(look, table)}))
