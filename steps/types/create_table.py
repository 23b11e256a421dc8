"""Creates tables; what stands under the name already is compared part by part with what was asked for.

The wanted table is made where nothing persists (a temporary table of the same name, or an empty database in memory) and read
back, so that both sides of the comparison are in the server's own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, PrivateAttr, model_validator

from steps.catalog import catalog, compare, dropping, feasibility, later_steps, scratch, touched_tables
from steps.catalog import foreign_keys as keys
from steps.catalog.definitions import ColumnInfo, ConstraintInfo
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
    Text,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import ladder
from steps.contract.look import Trace
from steps.sql.dialect import literal, quote
from steps.types.shared import declared

_TARGET = "runbook_target"


class CreatedTable(Model):
    """The table to drop in the undo."""

    table: str


class CreateTableBack(StepResult):
    """lost: rows that were dropped with the table (`taken_back: drop`)."""

    lost: int = 0


class WantedTable(NamedTuple):
    """The table as the server makes it from the playbook's definition; constraints without foreign keys."""

    columns: Mapping[str, ColumnInfo]
    constraints: Sequence[ConstraintInfo]


class CreateTable(Step[CreatedTable]):
    """Creates a table. The undo drops it while it has no rows, or with everything in it (`taken_back: drop`).

    columns: name → what follows the name in CREATE TABLE: type, NOT NULL, DEFAULT, GENERATED …. unique and foreign_keys: by the
    constraint's name. A table that is there and lacks a part of this is never taken for it.
    """

    kind: ClassVar[str] = "create_table"
    summary: ClassVar[str] = "create a table; taken back only while it has no rows"

    table: Identifier
    columns: Annotated[Mapping[Identifier, Text], Field(min_length=1)]
    primary_key: Identifiers = ()
    unique: Mapping[Identifier, Identifiers] = {}
    checks: Mapping[Identifier, Text] = {}
    foreign_keys: Mapping[Identifier, keys.ForeignKey] = {}
    comment: str | None = None
    taken_back: Annotated[Literal["unless_written", "drop"], ladder("unless_written", "drop")] = "unless_written"
    _later: later_steps.Later = PrivateAttr(default_factory=later_steps.Later)

    @model_validator(mode="after")
    def _of_its_columns(self) -> CreateTable:
        used = (self.primary_key, *self.unique.values(), *(one.columns for one in self.foreign_keys.values()))
        if odd := [name for names in used for name in names if name not in self.columns]:
            raise ValueError(f"cannot use {odd[0]!r} in a key: it is none of the table's columns")
        return self

    def describe(self) -> str:
        names = list(self.columns)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"create table {self.table} ({', '.join(names[:8])}{more})"

    def back_if(self, look: Look | None) -> str:
        del look
        if self.taken_back == "drop":
            return "with all rows that are in it by then (taken_back: drop)"
        return "unless it has rows by then (taken_back: drop would drop them all the same)"

    def only_way_back_differs(self, before: Step) -> bool:
        """Whether `before` is the same step but for `taken_back`."""
        return isinstance(before, CreateTable) and before.model_copy(update={"taken_back": self.taken_back}) == self

    def followed_by(self, later: Sequence[Step]) -> None:
        self._later = later_steps.Later(tuple(later))

    # ── what is there, and what is wanted ───────────────────────────────────────────────────────────────────────────
    def verify(self, look: Look) -> Effect:
        """Also DONE where later steps of the playbook have since altered its columns or added some."""
        there = catalog.relation(look, self.table)
        if there is None:
            return Effect(State.NOT_DONE, f"there is no table {self.table}")
        if there.kind != "table":
            return Effect(State.PARTLY, f"{self.table} is there, but it is a {there.kind}")
        try:
            wrong = self._differences(look, self._wanted(look), there.comment)
        except scratch.Unusable as fault:
            return Effect(State.UNKNOWN, f"{self.table} is there, and {fault}")
        if wrong:
            return Effect(State.PARTLY, f"{self.table} is there, but {', '.join(wrong)}")
        return Effect(State.DONE, f"{self.table} is there with its {len(self.columns)} columns")

    def _differences(self, look: Look, wanted: WantedTable, comment: str) -> list[str]:
        there = catalog.columns(look, self.table)
        now = {name: self._name_by_now(look, name, there) for name in wanted.columns}
        wrong = [
            words for name, one in wanted.columns.items() for words in self._column(look, one, there.get(now[name]))
        ]
        known = {*now.values(), *self._added_later(look)}
        wrong += [f"it has a column {name} besides" for name in there if name not in known]
        if all(name == later for name, later in now.items()):
            wrong += self._constraints(look, wanted)
        if look.dialect is Dialect.POSTGRESQL and self.comment is not None and comment != self.comment:
            wrong.append(f"its comment is {comment!r}")
        return wrong

    def _name_by_now(self, look: Look, column: str, there: Mapping[str, ColumnInfo]) -> str:
        names = self._later.names(look, self.table, column)
        return next((name for name in reversed(names) if name in there), column)

    def _added_later(self, look: Look) -> set[str]:
        return {one.name for one in self._later.of(look, self.table) if one.kind == "column"}

    def _column(self, look: Look, wanted: ColumnInfo, found: ColumnInfo | None) -> list[str]:
        if found is None:
            return [f"it has no {wanted.name}"]
        changed = {one.kind for one in self._later.changes(look, self.table, [wanted.name, found.name])}
        checks = (
            (found.type == wanted.type or "type" in changed, f"{found.name} is {found.type}, not {wanted.type}"),
            (
                found.generated == wanted.generated,
                f"{found.name} is {f'generated: {found.generated}' if found.generated else 'not generated'}",
            ),
            (
                self._spelled(look, found.default) == self._spelled(look, wanted.default)
                or changed & {"default", "type"},
                f"the default of {found.name} is {found.default or 'none'}",
            ),
            (
                found.not_null == wanted.not_null or "not_null" in changed,
                f"{found.name} {'is NOT NULL' if found.not_null else 'may be NULL'}",
            ),
            (found.identity == wanted.identity, f"{found.name} is {found.identity or 'no'} identity"),
            (
                found.collation == wanted.collation,
                f"the collation of {found.name} is {found.collation or 'the default'}",
            ),
        )
        return [words for good, words in checks if not good]

    def _spelled(self, look: Look, default: str | None) -> str | None:
        """A default with the names of its sequences unqualified; on SQLite in one spelling."""
        if default is None:
            return None
        if look.dialect is Dialect.SQLITE:
            return compare.plain_sql(default)
        schema = catalog.named(look, self.table)[0]
        plain = re.sub(r"\bpg_temp_\d+\.", "", default)
        return plain.replace(f"{quote(schema)}.", "").replace(f"{schema}.", "")

    def _constraints(self, look: Look, wanted: WantedTable) -> list[str]:
        there = catalog.constraints(look, self.table)
        held = {_meaning(one) for one in there if one.validated}
        missing = [_in_words(one) for one in wanted.constraints if _meaning(one) not in held]
        missing += [
            f"foreign key {name}"
            for name, key in self.foreign_keys.items()
            if not any(keys.is_same(look, key, one) and one.validated for one in there)
        ]
        if look.dialect is Dialect.SQLITE:
            missing += self._not_in_the_text(look)
        return [f"it has no {one}" for one in missing]

    def _not_in_the_text(self, look: Look) -> list[str]:
        """Checks and generated columns, which SQLite shows nowhere but in the text of CREATE TABLE."""
        text = compare.plain_sql(catalog.definition(look, self.table))
        texts = {f"check {name}": f"CHECK ({one.text(look.dialect)})" for name, one in self.checks.items()}
        for name, one in self.columns.items():
            sql = one.text(look.dialect)
            if re.search(r"\b(generated|check|as)\b", sql, re.IGNORECASE):
                texts[f"{name} {sql}"] = sql
        return [what for what, sql in texts.items() if compare.plain_sql(sql) not in text]

    def _wanted(self, look: Look) -> WantedTable:
        """Create the table where nothing persists, and read it back; raises scratch.Unusable where the server refuses it."""
        for one in (*self.columns.values(), *self.checks.values()):
            scratch.one_piece(one.text(look.dialect), look.dialect)
        name = catalog.named(look, self.table)[1]
        if look.dialect is Dialect.SQLITE:
            with scratch.nothing() as memory:
                with scratch.understood("create such a table"):
                    memory.execute(self._sql(memory, quote(name), referring=True))
                return WantedTable(catalog.columns(memory, name), catalog.constraints(memory, name))
        with look.trial("definition") as work:
            with scratch.understood("create such a table (foreign keys are a field of their own: foreign_keys)"):
                work.execute(self._sql(work, f"pg_temp.{quote(name)}", referring=False, kind="TEMPORARY TABLE"))
            schema = work.row("SELECT CAST(pg_my_temp_schema()::regnamespace AS text) AS name").text("name")
            found = WantedTable(
                catalog.columns(work, f"{schema}.{name}"), catalog.constraints(work, f"{schema}.{name}")
            )
            self._try_keys(look, work, name)
            return found

    def _try_keys(self, look: Look, work: Work, name: str) -> None:
        for n, (named, key) in enumerate(self.foreign_keys.items()):
            target = f"pg_temp.{quote(name)}"
            if catalog.named(look, key.table) != catalog.named(look, self.table):
                if any(catalog.named(look, one.table) == catalog.named(look, key.table) for one in look.assumed):
                    continue  # an earlier step of the plan creates or changes it: it can't be tried yet
                target = f"pg_temp.{_TARGET}_{n}"
                feasibility.refuse_unless_may_refer(look, key.table)
                with scratch.understood(f"refer to {key.table}"):
                    there = catalog.sql_name(look, key.table)
                    work.execute(f"CREATE TEMPORARY TABLE {_TARGET}_{n} (LIKE {there} INCLUDING INDEXES)")
            with scratch.understood(f"refer to {key.table} ({', '.join(key.targets)})"):
                clause = keys.clause(look, key, target)
                work.execute(f"ALTER TABLE pg_temp.{quote(name)} ADD CONSTRAINT {quote(named)} {clause}")

    # ── the change ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _sql(self, look: Look, name: str, *, referring: bool, kind: str = "TABLE") -> str:
        parts = [f"{quote(column)} {sql.text(look.dialect)}" for column, sql in self.columns.items()]
        if self.primary_key:
            parts.append(f"PRIMARY KEY ({', '.join(map(quote, self.primary_key))})")
        parts += [f"CONSTRAINT {quote(one)} UNIQUE ({', '.join(map(quote, of))})" for one, of in self.unique.items()]
        parts += [f"CONSTRAINT {quote(one)} CHECK ({sql.text(look.dialect)})" for one, sql in self.checks.items()]
        if referring:
            sqlite = look.dialect is Dialect.SQLITE  # where a key refers within its own schema only
            parts += [
                f"CONSTRAINT {quote(one)} "
                f"{keys.clause(look, key, quote(catalog.named(look, key.table)[1]) if sqlite else '')}"
                for one, key in self.foreign_keys.items()
            ]
        return f"CREATE {kind} {name} ({', '.join(parts)})"

    def statements(self, look: Look) -> list[Statement]:
        pg, name = look.dialect is Dialect.POSTGRESQL, catalog.sql_name(look, self.table)
        others = list(dict.fromkeys(one.table for one in self.foreign_keys.values() if one.table != self.table))
        lock = "EXCLUSIVE" if not pg else "SHARE ROW EXCLUSIVE" if others else ""
        note = f"the lock is on {', '.join(others)}" if pg and others else ""
        sql = self._sql(look, name, referring=True)
        made = [Statement(sql, lock=lock, length="instant" if lock else "", table=self.table, note=note)]
        if self.comment is not None and pg:
            made.append(Statement(f"COMMENT ON TABLE {name} IS {literal(self.comment)}", table=self.table))
        return made

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("table", self.table, self.table),)

    def preflight(self, look: Look) -> list[str]:
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        if state is not State.NOT_DONE:
            return [f"cannot create {self.table}: {evidence}"]
        try:
            self._wanted(look)
        except scratch.Unusable as fault:
            return [f"cannot create {self.table}: {fault}"]
        return [f"cannot create {self.table}: {why}" for why in feasibility.no_table_in(look, self.table)]

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            if self.verify(look).state is State.DONE:
                return StepResult()
        ctx.patiently("create", lambda work: self._create(work, ctx))
        return StepResult()

    def _create(self, work: Work, ctx: Context) -> None:
        with feasibility.refusal_explained(f"create {self.table}"):
            declared.execute(work, self.statements(work))
        ctx.remember(CreatedTable(table=self.table))

    # ── undo ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def revert(self, ctx: Context, before: CreatedTable) -> CreateTableBack:
        """Drop the table; raises StepError where it has rows, unless `taken_back: drop`, or where something depends on it."""
        lost: list[int] = []
        ctx.patiently("drop", lambda work: lost.append(self._drop(work, before)))
        return CreateTableBack(lost=sum(lost))

    def _drop(self, work: Work, before: CreatedTable) -> int:
        if catalog.relation(work, before.table) is None:
            return 0
        name, target = catalog.sql_name(work, before.table), dropping.DropTarget(before.table)
        if work.dialect is Dialect.POSTGRESQL:
            work.execute(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        if faults := dropping.refused(work, dropping.goes_with(work, target), target, ()):
            raise StepError(f"{'; '.join(faults)}: drop that first, then roll back again")
        lost = dropping.count(work, before.table)
        if lost and self.taken_back != "drop":
            raise StepError(
                f"cannot take {before.table} back: it has {lost} rows, and dropping it loses them; save and delete them, or write "
                "taken_back: drop, then roll back again"
            )
        work.execute(f"DROP TABLE {name}")
        return lost


def _meaning(one: ConstraintInfo) -> tuple[object, ...]:
    """A constraint without its name: the server chooses names where a playbook doesn't."""
    return (one.kind, one.columns, one.expression, one.special, one.definition if one.kind == "exclusion" else "")


def _in_words(one: ConstraintInfo) -> str:
    return f"{one.kind} {one.expression or '(' + ', '.join(one.columns) + ')'}"
