"""Drops a column; its values are kept aside, by primary key, for the way back."""

from __future__ import annotations

from typing import Annotated, ClassVar

from steps.catalog import catalog, column_text, descendants, dropping, feasibility, touched_tables
from steps.catalog.definitions import ColumnInfo
from steps.contract import (
    Column,
    ColumnRef,
    Context,
    Effect,
    Identifiers,
    Look,
    Model,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    TakenBack,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import MORE, OFF
from steps.contract.look import Trace
from steps.sql.dialect import literal, quote
from steps.types.shared import absence, column_rewrite, declared, kept_aside


class DroppedColumn(Model):
    """A column as it was. clauses: what follows its name in ADD COLUMN; after: SQL for all else about it.

    type_after, default_after: what it gets once its values are back, since a default would be evaluated for all rows, and a domain
    may refuse rows without a value; default_since: the value of rows that come meanwhile. not_null_name: of the constraint, which
    PostgreSQL 18 names. kept: the table with its values, "" where there are none to restore. key: the columns by which a row is
    found again.
    """

    gone: str
    column: ColumnRef
    clauses: str
    type_after: str = ""
    default_after: str = ""
    default_since: str = ""
    not_null: bool
    not_null_name: str = ""
    generated: bool
    after: tuple[str, ...] = ()
    kept: str = ""
    oid: int = 0
    key: tuple[str, ...] = ()
    taken: tuple[dropping.TakenAlong, ...] = ()


class DropColumnResult(StepResult):
    """kept: the table with the column's values, "" where none was needed; drop it when the undo isn't needed any more."""

    kept: str = ""


class DropColumn(Step[DroppedColumn]):
    """Drops a column. Its values are copied aside for the undo, under the lock, unless `keep: false`.

    What is about this column alone (its indexes, constraints) goes with it; whatever uses others too, or depends on it from
    elsewhere, goes only where `cascade` lists it by name. All of it comes back with the column, at the end of the table.
    """

    kind: ClassVar[str] = "drop_column"
    summary: ClassVar[str] = (
        "drop a column, its values kept aside for the way back; what depends on it goes only where it is listed"
    )
    Result: ClassVar[type[StepResult]] = DropColumnResult

    column: Column
    keep: Annotated[bool, OFF] = True
    cascade: Annotated[Identifiers, MORE] = ()
    absent: absence.Absent = "refused"

    def describe(self) -> str:
        along = f", taking along {', '.join(self.cascade)}" if self.cascade else ""
        return f"drop column {self.column}{along}{' (absent: fine)' if self.absent == 'fine' else ''}"

    def one_way(self) -> str:
        return "" if self.keep else "its values aren't kept (keep: false)"

    def back_if(self, look: Look | None) -> str:
        found = self._found(look) if look is not None else None
        if look is None or found is None:
            return "while the kept values are there, unless another column of its name was made by then"
        if found.generated:
            return "its values are computed anew, unless another column of its name was made by then"
        values = dropping.counted(self._values(look), "value")
        return f"while {self._kept(look)} is there, which keeps {values}, unless another {self.column} was made by then"

    # ── before ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def verify(self, look: Look) -> Effect:
        found = self._found(look)
        if found is not None:
            what = dropping.in_words(self._values(look), "value", dropping.goes_with(look, self._target))
            return Effect(State.NOT_DONE, f"{self.column} is there as {found.type}: {what}")
        missing = "" if catalog.columns(look, self.column.table) else f"there is no table {self.column.table}"
        return absence.effect(look, self._what(look), absent=self.absent, evidence=missing)

    def statements(self, look: Look) -> list[Statement]:
        found = self._found(look)
        if found is None:
            return []
        return self._statements(look, found, dropping.goes_with(look, self._target))

    def _statements(self, look: Look, found: ColumnInfo, taken: list[dropping.TakenAlong]) -> list[Statement]:
        lock = "ACCESS EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
        table, made = self.column.table, []
        if self._keeps(found):
            made = [Statement(sql, lock=lock, length="instant", table=table) for sql in kept_aside.schema_made(look)]
            made.append(Statement(self._copy(look, found), lock=lock, length="one scan", table=table))
        made += [
            Statement(one.drop, lock=lock, length="instant", table=table)
            for one in dropping.first(look, taken, self._target)
        ]
        sql = f"ALTER TABLE {catalog.sql_name(look, table)} DROP COLUMN {quote(self.column.column)}"
        length = "one rewrite" if look.dialect is Dialect.SQLITE else "instant"
        return [*made, Statement(sql, lock=lock, length=length, table=table)]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.column.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        found = self._found(look)
        kept = kept_aside.traces(self._kept(look)) if found is not None and self._keeps(found) else ()
        return (Trace("gone", self.column.table, self.column.column), *dropping.traces(look, self._target), *kept)

    def preflight(self, look: Look) -> list[str]:
        found = self._found(look)
        if found is None:
            return []
        faults = catalog.not_owned(look, self.column.table)
        faults += [
            f"cannot drop {self.column}: {why}"
            for why in feasibility.not_to_be_dropped(look, self.column.table, self.column.column)
        ]
        taken = dropping.goes_with(look, self._target)
        faults += dropping.refused(look, taken, self._target, self.cascade)
        faults += dropping.below(look, self._target, taken)
        if look.dialect is Dialect.SQLITE and not faults and (why := dropping.not_dropped(look, self._target)):
            faults.append(f"cannot drop {self.column}: {why}; rebuild_table gives the table a definition without it")
        if self.keep:
            faults += [
                f"cannot keep {self.column} for the way back: {why}" for why in self._not_kept(look, found, taken)
            ]
        return faults

    def _not_kept(self, look: Look, found: ColumnInfo, taken: list[dropping.TakenAlong]) -> list[str]:
        table, key = self.column.table, catalog.primary_key(look, self.column.table)
        sequences = [one.name for one in taken if one.kind == "sequence"]
        sqlite = look.dialect is Dialect.SQLITE
        if self._keeps(found):
            reasons = kept_aside.no_room(look, self._kept(look))
            reasons += [f"{table} has no primary key by which its values could be put back"] * (not key)
            reasons += ["it is part of the primary key, by which its values would be put back"] * (found.name in key)
            reasons += [why] if (why := _not_updated(look, table)) else []
            reasons += [f"{n} rows have NULL in the primary key"] if (n := _keyless(look, table, key)) else []
            reasons += [
                f"{one} has a default, grants, a comment or settings of its own for it, which would not come back"
                for one in descendants.differing(look, table, found.name)
            ]
            reasons += [f"row-level security hides rows of {table} from this role"] * catalog.row_security(
                look, table
            ).applies
        else:
            reasons = ["SQLite shows no generated column's expression: rebuild_table"] * sqlite
        reasons += [f"the next number of {', '.join(sequences)} would not come back"] * bool(sequences)
        reasons += ["it has an identity, whose next number would not come back"] * bool(found.identity)
        if sqlite and found.not_null and found.default is None:
            reasons.append("SQLite adds no NOT NULL column without a default: rebuild_table")
        elif sqlite and not found.generated and (why := column_text.read(look, table, found.name).why_not):
            reasons.append(f"{why}; rebuild_table gives the table a definition without it")
        return [f"{why}, or write keep: false" for why in reasons]

    # ── the change ──────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> DropColumnResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            found = self._found(look)
        if found is not None:
            ctx.patiently("drop", lambda work: self._drop(work, ctx))
        with ctx.db.look() as look:
            return self.result(look)

    def result(self, look: Look) -> DropColumnResult:
        """Where its values are kept."""
        kept = self._kept(look) if self.keep else ""
        return DropColumnResult(kept=kept if kept and catalog.relation(look, kept) else "")

    def _drop(self, work: Work, ctx: Context) -> None:
        if work.dialect is Dialect.POSTGRESQL:
            work.execute(f"LOCK TABLE {catalog.sql_name(work, self.column.table)} IN ACCESS EXCLUSIVE MODE")
        taken, found = dropping.goes_with(work, self._target), self._found(work)
        if faults := dropping.refused(
            work, taken, self._target, self.cascade
        ):  # somebody may have added to it meanwhile
            raise Refused("; ".join(faults))
        if found is None:
            raise Refused(f"cannot drop {self.column}: somebody has dropped or renamed it just now")
        before = self._before(work, found, taken)
        declared.execute(work, self._statements(work, found, taken))
        ctx.remember(before.model_copy(update={"oid": kept_aside.oid(work, before.kept) if before.kept else 0}))

    def _before(self, look: Look, found: ColumnInfo, taken: list[dropping.TakenAlong]) -> DroppedColumn:
        pg, kept = look.dialect is Dialect.POSTGRESQL, self._keeps(found)
        base, usual = _below_domain(look, self._target) if pg and kept else ("", "")
        collated = [f"COLLATE {found.collation}"] if found.collation else []
        words = [base or found.type, *collated]
        if found.generated and pg:
            words.append(f"GENERATED ALWAYS AS ({found.generated}) {_storage(look, self._target)}")
        if found.default is not None and not kept:
            words.append(f"DEFAULT {found.default}")
        own_text = "" if pg else column_text.read(look, self.column.table, found.name).clauses
        table, name = catalog.sql_name(look, self.column.table), quote(found.name)
        not_null, constrained = _not_null(look, self._target)
        comment = [f"COMMENT ON COLUMN {table}.{name} IS {literal(found.comment)}"] if found.comment else []
        return DroppedColumn(
            gone=self._what(look),
            column=self.column,
            clauses=" ".join(words) if pg else own_text,
            type_after=" ".join([found.type, *collated]) if base else "",
            default_after=(found.default or "") if pg and kept else "",
            default_since=(found.default or usual) if pg and kept else "",
            not_null=found.not_null and pg,  # on SQLite it is among the clauses
            not_null_name=not_null,
            generated=bool(found.generated),
            after=(
                *(f"ALTER TABLE {table} ALTER COLUMN {name} {one}" for one in found.settings),
                *(column_rewrite.grant(table, name, one) for one in found.grants),
                *comment,
                *constrained,
            ),
            kept=self._kept(look) if kept else "",
            key=catalog.primary_key(look, self.column.table),
            taken=tuple(one for one in taken if one.restore or one.index_definition),
        )

    # ── undo ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def revert(self, ctx: Context, before: DroppedColumn) -> TakenBack:
        """Add the column with its values again, and all that went with it."""
        if not self.keep:
            raise StepError(f"cannot restore {self.column}: its values weren't kept (keep: false)")
        restored: list[int] = []
        ctx.patiently("back", lambda work: restored.append(self._back(work, before)))
        kept_aside.put_back(ctx, before.taken, first=("generated column",))
        return TakenBack(restored=sum(restored))

    def _back(self, work: Work, before: DroppedColumn) -> int:
        self._refuse_unless_restorable(work, before)
        table, name = catalog.sql_name(work, before.column.table), quote(before.column.column)
        named = f"CONSTRAINT {quote(before.not_null_name)} NOT NULL" if before.not_null_name else "NOT NULL"
        at_once = f" {named}" * (before.not_null and (before.generated or work.dialect is Dialect.SQLITE))
        work.execute(f"ALTER TABLE {table} ADD COLUMN {name} {before.clauses}{at_once}")
        restored = _fill(work, before, table, name) if before.kept else 0
        if before.not_null and not at_once:
            with feasibility.refusal_explained(f"restore {self.column}", then="mend the rows, then roll back again"):
                set_it = f"ADD {named} {name}" if before.not_null_name else f"ALTER COLUMN {name} SET NOT NULL"
                work.execute(f"ALTER TABLE {table} {set_it}")
        for sql in before.after:
            work.execute(sql)
        dropping.put_back(work, [one for one in before.taken if one.kind == "generated column"])
        if before.kept:
            work.execute(f"DROP TABLE {kept_aside.quoted(before.kept)}")
        return restored

    def _refuse_unless_restorable(self, look: Look, before: DroppedColumn) -> None:
        why = ""
        if before.column.column in catalog.columns(look, before.column.table):
            why = "somebody has made another column of this name since; drop or rename it, then roll back again"
        elif before.kept and catalog.relation(look, before.kept) is None:
            why = f"{before.kept}, which had its values, is gone"
        elif before.kept and before.oid and kept_aside.oid(look, before.kept) != before.oid:
            why = f"{before.kept} is another table now"
        if why:
            raise StepError(f"cannot restore {self.column}: {why}")

    # ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def _target(self) -> dropping.DropTarget:
        return dropping.DropTarget(self.column.table, column=self.column.column)

    def _found(self, look: Look) -> ColumnInfo | None:
        return catalog.columns(look, self.column.table).get(self.column.column)

    def _keeps(self, found: ColumnInfo) -> bool:
        return self.keep and not found.generated

    def _values(self, look: Look) -> int:
        return dropping.count(look, self.column.table, f"{quote(self.column.column)} IS NOT NULL")

    def _copy(self, look: Look, found: ColumnInfo) -> str:
        """Where no default can fill them in, rows without a value need none restored."""
        names = ", ".join(map(quote, (*catalog.primary_key(look, self.column.table), found.name)))
        bare = found.default is None and not _below_domain(look, self._target)[0]
        some = f" WHERE {quote(found.name)} IS NOT NULL" if bare else ""
        kept = kept_aside.quoted(self._kept(look))
        return f"CREATE TABLE {kept} AS SELECT {names} FROM {catalog.sql_name(look, self.column.table)}{some}"

    def _kept(self, look: Look) -> str:
        return kept_aside.name_of_column(look, self.column.table, self.column.column)

    def _what(self, look: Look) -> str:
        return f"column {'.'.join((*catalog.named(look, self.column.table), self.column.column))}"


def _storage(look: Look, target: dropping.DropTarget) -> str:
    sql = """SELECT attgenerated = 's' AS stored FROM pg_catalog.pg_attribute
             WHERE attrelid = CAST(:table AS regclass) AND attname = :column"""
    row = look.row(sql, {"table": catalog.sql_name(look, target.table), "column": target.column})
    return "STORED" if row.flag("stored") else "VIRTUAL"


def _below_domain(look: Look, target: dropping.DropTarget) -> tuple[str, str]:
    """The type that the column's domain is made of, and the domain's default; "" where there is none."""
    if look.dialect is Dialect.SQLITE:
        return "", ""
    sql = """WITH RECURSIVE below AS (
               SELECT t.typtype, t.typbasetype, t.typtypmod, '' AS name, coalesce(t.typdefault, '') AS usual FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
               WHERE a.attrelid = CAST(:table AS regclass) AND a.attname = :column
               UNION ALL
               SELECT t.typtype, t.typbasetype, t.typtypmod, pg_catalog.format_type(t.oid, b.typtypmod), b.usual
               FROM below b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
             SELECT name, usual FROM below WHERE typtype <> 'd' AND name <> ''"""
    rows = look.rows(sql, {"table": catalog.sql_name(look, target.table), "column": target.column})
    return (rows[0].text("name"), rows[0].text("usual")) if rows else ("", "")


def _not_null(look: Look, target: dropping.DropTarget) -> tuple[str, tuple[str, ...]]:
    """The name of the constraint that is the column's NOT NULL, as PostgreSQL 18 has it, and what makes it as it was besides:
    its comment, and itself where it is not validated.
    """
    if look.dialect is Dialect.SQLITE:
        return "", ()
    sql = """SELECT o.conname::text AS name, pg_get_constraintdef(o.oid) AS definition, o.convalidated AS validated,
                    coalesce(obj_description(o.oid, 'pg_constraint'), '') AS comment
             FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_attribute a
             ON a.attrelid = o.conrelid AND o.conkey = ARRAY[a.attnum] AND a.attname = :column
             WHERE o.conrelid = CAST(:table AS regclass) AND o.contype = 'n'"""
    table = catalog.sql_name(look, target.table)
    rows = look.rows(sql, {"table": table, "column": target.column})
    if not rows:
        return "", ()
    [row] = rows
    name, after = quote(row.text("name")), []
    if not row.flag("validated"):
        after.append(f"ALTER TABLE {table} ADD CONSTRAINT {name} {row.text('definition')}")
    if row.text("comment"):
        after.append(f"COMMENT ON CONSTRAINT {name} ON {table} IS {literal(row.text('comment'))}")
    return row.text("name") if row.flag("validated") else "", tuple(after)


def _fill(work: Work, before: DroppedColumn, table: str, name: str) -> int:
    """Restore the values by key, with the table's triggers at rest: nothing is written that wasn't there before."""
    kept = kept_aside.quoted(before.kept)
    same = " AND ".join(f"target.{quote(one)} = kept.{quote(one)}" for one in before.key)
    resting = _resting(work, before.column.table)
    for sql in resting:
        work.execute(sql)
    restored = work.execute(f"UPDATE {table} AS target SET {name} = kept.{name} FROM {kept} AS kept WHERE {same}")
    if before.default_since:
        since = f"NOT EXISTS (SELECT 1 FROM {kept} AS kept WHERE {same})"
        work.execute(f"UPDATE {table} AS target SET {name} = {before.default_since} WHERE {since}")
    column = f"ALTER TABLE {table} ALTER COLUMN {name}"
    if before.type_after:
        work.execute(f"{column} TYPE {before.type_after}")
    if before.default_after:
        work.execute(f"{column} SET DEFAULT {before.default_after}")
    for sql in resting.values():
        work.execute(sql)
    return restored


def _resting(work: Work, table: str) -> dict[str, str]:
    """Statements that put each trigger of the table and its partitions to rest → those that wake it again."""
    if work.dialect is Dialect.SQLITE:
        return {f"DROP TRIGGER {quote(one.name)}": one.definition for one in catalog.triggers(work, table)}
    return descendants.enabled_triggers(work, table)


def _keyless(look: Look, table: str, key: tuple[str, ...]) -> int:
    """Rows that the key doesn't name: on SQLite a primary key may be NULL."""
    if look.dialect is Dialect.POSTGRESQL or not key:
        return 0
    return dropping.count(look, table, " OR ".join(f"{quote(one)} IS NULL" for one in key))


def _not_updated(look: Look, table: str) -> str:
    """Why the values couldn't be put back by an UPDATE of this table alone; "" where they can."""
    if look.dialect is Dialect.SQLITE:
        return ""
    sql = """SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '2') AS ruled,
                    c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid) AS inherited
             FROM pg_catalog.pg_class c WHERE c.oid = CAST(:table AS regclass)"""
    row = look.row(sql, {"table": catalog.sql_name(look, table)})
    if row.flag("inherited"):
        return f"other tables inherit from {table}, and their rows have keys of their own"
    return f"a rule of {table} stands for its UPDATEs" if row.flag("ruled") else ""
