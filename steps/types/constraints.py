"""Adds constraints without a long lock: first NOT VALID, which checks new rows only, then VALIDATE, which scans the old ones.

ADD … NOT VALID takes a strong lock for an instant. VALIDATE scans the table under SHARE UPDATE EXCLUSIVE, so reads and writes go
on. They are separate transactions, because a transaction keeps its strongest lock until its end. SET NOT NULL uses the validated
CHECK (… IS NOT NULL) as its proof, and skips the scan that it would otherwise do under ACCESS EXCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from steps.catalog import catalog, compare, feasibility, foreign_keys, scratch, touched_tables
from steps.catalog.definitions import ConstraintInfo, IndexInfo
from steps.contract import (
    Context,
    DatabaseFault,
    Effect,
    Identifier,
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
from steps.contract.direction import OFF
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.shared import concurrent_index, declared

SHOWN_ROWS = 5
COUNTED_ROWS = 10_000  # limit for counting violating rows; the message says "more than" beyond it
_VIOLATIONS = {"23502", "23503", "23514"}


class Earlier(Model):
    """What existed before: the definition of a NOT VALID constraint, or the index that became the constraint."""

    earlier: str = ""
    index: concurrent_index.KeptIndex | None = None


class AddConstraint(Step[Earlier]):
    """Adds a check, a foreign key or NOT NULL, or makes a unique index a constraint."""

    kind: ClassVar[str] = "add_constraint"
    summary: ClassVar[str] = "add a constraint for new rows at once, then prove the old ones without blocking writes"
    only: ClassVar[str] = "postgresql"

    table: Identifier
    name: Identifier
    check: Text | None = None
    foreign_key: foreign_keys.ForeignKey | None = None
    not_null: Identifier | None = None
    unique_index: Identifier | None = None
    validated: Annotated[bool, OFF] = Field(default=True, alias="validate")  # pydantic has a method of that name

    @model_validator(mode="after")
    def _one_kind(self) -> AddConstraint:
        kinds = (self.check, self.foreign_key, self.not_null, self.unique_index)
        if sum(one is not None for one in kinds) != 1:
            raise ValueError("cannot add the constraint: write one of check, foreign_key, not_null, unique_index")
        return self

    def describe(self) -> str:
        later = "" if self.validated or self.unique_index else ", not validated"
        return f"add constraint {self.name} to {self.table}: {self._what()}{later}"

    def back_if(self, look: Look | None) -> str:
        del look
        return "unless a foreign key refers to it by then" if self.unique_index else ""

    def verify(self, look: Look) -> Effect:
        try:
            return self._verify_sqlite(look) if look.dialect is Dialect.SQLITE else self._verify(look)
        except scratch.Unusable as fault:  # without a valid definition there is nothing to compare with
            return Effect(State.UNKNOWN, str(fault))

    def _verify(self, look: Look) -> Effect:
        columns, found = catalog.columns(look, self.table), self._found(look)
        if self.not_null and self.not_null not in columns:
            return Effect(State.UNKNOWN, f"{self.table} has no column {self.not_null}")
        if self.not_null and columns[self.not_null].not_null and found is None:
            return Effect(State.DONE, f"{self.table}.{self.not_null} is NOT NULL")
        if found is None:
            return Effect(State.NOT_DONE, f"no constraint {self.name} on {self.table}")
        return self._verify_found(look, found)

    def statements(self, look: Look) -> list[Statement]:
        return [one for phase in self._phases(look).values() for one in phase]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        made = Trace("constraint", self.table, self.name)
        return (made, Trace("not_null", self.table, self.not_null)) if self.not_null else (made,)

    def preflight(self, look: Look) -> list[str]:
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        if look.dialect is not Dialect.SQLITE and not catalog.columns(look, self.table):
            return [f"cannot add {self.name}: there is no table {self.table}"]
        faults = catalog.not_owned(look, self.table)
        if self.foreign_key and look.version < (18,) and catalog.partitioned(look, self.table):
            faults.append(f"cannot add {self.name}: {self.table} is partitioned, NOT VALID there needs PostgreSQL 18")
        index = catalog.index(look, self._index_name(look)) if self.unique_index else None
        if index is not None and not (index.unique and index.usable and not index.predicate):
            faults.append(f"cannot make {self.unique_index} a constraint: it must be unique, valid and without WHERE")
        if index is not None:
            faults += [f"cannot make {self.unique_index} a constraint: {why}" for why in self._not_its(look, index)]
        faults += [f"cannot add {self.name}: {why}" for why in feasibility.other_kind(look, self.table)]
        return faults or self._in_its_way(look, index, evidence if state is State.UNKNOWN else "")

    def _not_its(self, look: Look, index: IndexInfo) -> list[str]:
        schema, table = catalog.named(look, self.table)
        taken = self.name != index.name and catalog.relation(look, f"{schema}.{self.name}") is not None
        reasons = (
            (index.table != table, f"it is an index of {index.table}"),
            (index.constraint, f"the constraint {index.constraint} stands on it already"),
            (index.partitioned, "it belongs to a partitioned table"),
            (taken, f"something else is called {self.name}, and the index would get that name"),
        )
        return [why for holds, why in reasons if holds]

    def _in_its_way(self, look: Look, index: IndexInfo | None, unknown: str) -> list[str]:
        """Faults where the name is taken, or where the server refuses the definition on a copy of the table without rows."""
        if unknown:
            return [f"cannot add {self.name}: {unknown}"]
        try:
            found = self._found(look)
            difference = self._differs(look, found) if found else ""
            if self.check and look.dialect is not Dialect.SQLITE:
                compare.printed(look, self.table, self._condition(look))
            if self.foreign_key and not found and look.dialect is not Dialect.SQLITE:
                key = self.foreign_key
                acts = f"ON DELETE {key.on_delete.upper()} ON UPDATE {key.on_update.upper()}"
                feasibility.refuse_unless_it_refers(look, self.table, key.columns, key.table, key.targets, acts=acts)
            if index is not None and not found:
                feasibility.refuse_unless_it_makes(look, self.table, index)
        except scratch.Unusable as fault:
            return [f"cannot add {self.name}: {fault}"]
        return [f"cannot add {self.name}: a constraint of this name is there, but {difference}"] if difference else []

    def apply(self, ctx: Context) -> StepResult:
        """Add and validate in separate transactions, so that the strong lock of the first ends at once."""
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            phases, before = self._phases(look), self._before(look)
        ctx.remember(before)
        for label, statements in phases.items():
            self._run(ctx, label, statements)
        return StepResult()

    def revert(self, ctx: Context, before: Earlier) -> None:
        """Drop the constraint; restore what existed before."""
        ctx.patiently("drop", lambda work: self._drop(work, before))
        if before.index is not None:
            concurrent_index.create(ctx, before.index.build(ctx.db.dialect), label="index")

    # ── statements ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _phases(self, look: Look) -> Mapping[str, list[Statement]]:
        """Label → the statements of one transaction; phases that are already done are left out."""
        if look.dialect is Dialect.SQLITE:
            return {}
        table, name, found = catalog.sql_name(look, self.table), quote(self.name), self._found(look)
        phases: dict[str, list[Statement]] = {}
        if found is None:
            phases["add"] = [self._add(look, table)]
        if self.unique_index or not self.validated:
            return phases
        if found is None or not found.validated:
            sql = f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}"
            phases["validate"] = [Statement(sql, lock="SHARE UPDATE EXCLUSIVE", length="one scan", table=self.table)]
        if self.not_null:
            both = (f"ALTER COLUMN {quote(self.not_null)} SET NOT NULL", f"DROP CONSTRAINT {name}")
            phases["set"] = [self._instant(f"ALTER TABLE {table} {one}") for one in both]
        return phases

    def _add(self, look: Look, table: str) -> Statement:
        start = f"ALTER TABLE {table} ADD CONSTRAINT {quote(self.name)}"
        if self.unique_index:
            return self._instant(f"{start} UNIQUE USING INDEX {quote(self._index_name(look).partition('.')[2])}")
        if self.foreign_key is None:
            return self._instant(f"{start} CHECK ({self._condition(look)}) NOT VALID")
        key = self.foreign_key
        sql = f"{start} {foreign_keys.clause(look, key)} NOT VALID"
        note = f"also on {key.table}"
        return Statement(sql, lock="SHARE ROW EXCLUSIVE", length="instant", table=self.table, note=note)

    def _instant(self, sql: str) -> Statement:
        return Statement(sql, lock="ACCESS EXCLUSIVE", length="instant", table=self.table)

    def _run(self, ctx: Context, label: str, statements: list[Statement]) -> None:
        def act(work: Work) -> None:
            if label == "validate":  # a scan of the whole table, which blocks nobody
                work.execute("SET LOCAL statement_timeout = 0")
            declared.execute(work, statements)

        try:
            ctx.patiently(label, act)
        except DatabaseFault as fault:
            if label == "validate" and fault.sqlstate[:2] in ("22", "P0"):  # evaluating the condition fails on some row
                raise StepError(
                    f"cannot validate {self.name}: a row can't be asked: {scratch.fault_text(fault)}; the constraint stands and "
                    "guards new rows: mend that row, then resume"
                ) from fault
            if label != "validate" or fault.sqlstate not in _VIOLATIONS:
                raise
            with ctx.db.look() as look:
                raise StepError(self._named_violations(look)) from fault

    def _drop(self, work: Work, before: Earlier) -> None:
        table = catalog.sql_name(work, self.table)
        if self.not_null and not before.earlier:
            work.execute(f"ALTER TABLE {table} ALTER COLUMN {quote(self.not_null)} DROP NOT NULL")
        if self._found(work) is not None:
            work.execute(f"ALTER TABLE {table} DROP CONSTRAINT {quote(self.name)}")
        if before.earlier:
            work.execute(f"ALTER TABLE {table} ADD CONSTRAINT {quote(self.name)} {before.earlier}")

    # ── the existing constraint ─────────────────────────────────────────────────────────────────────────────────────
    def _found(self, look: Look) -> ConstraintInfo | None:
        return next((one for one in catalog.constraints(look, self.table) if one.name == self.name), None)

    def _before(self, look: Look) -> Earlier:
        found = self._found(look)
        index = catalog.index(look, self._index_name(look)) if self.unique_index else None
        return Earlier(
            earlier=found.definition if found else "", index=concurrent_index.KeptIndex.of(index) if index else None
        )

    def _verify_found(self, look: Look, found: ConstraintInfo) -> Effect:
        if difference := self._differs(look, found):
            return Effect(State.PARTLY, f"constraint {self.name} is there, but {difference}")
        if self.validated and not found.validated:
            return Effect(State.PARTLY, f"constraint {self.name} holds for new rows only: it isn't validated")
        if self.not_null and self.validated:
            return Effect(State.PARTLY, f"constraint {self.name} is validated, the column isn't NOT NULL yet")
        return Effect(State.DONE, f"constraint {self.name}: {found.definition}")

    def _differs(self, look: Look, found: ConstraintInfo) -> str:
        wanted = "foreign key" if self.foreign_key else "unique" if self.unique_index else "check"
        if found.kind != wanted:
            return f"it is a {found.kind}"
        if self.foreign_key is not None:
            same = foreign_keys.is_same(look, self.foreign_key, found)
        elif self.unique_index:
            same = not found.special and self._of_that_index(look, found)
        else:
            same = not found.special and compare.same_condition(
                look, self.table, has=found.expression, wants=self._condition(look)
            )
        return "" if same else f"it is {found.definition}"

    def _of_that_index(self, look: Look, found: ConstraintInfo) -> bool:
        """Whether the constraint was made from that index: USING INDEX renames it, so its former name must be free now."""
        name = self._index_name(look)
        if name.rpartition(".")[2] != self.name and catalog.index(look, name) is not None:
            return False
        from steps.ledger import step_commits  # imported here to keep loading a playbook fast

        place = look.place
        kept = step_commits.remembered(look, run=place.run, step=place.step) if place else None
        before = self.recall(kept).index if kept else None
        now = catalog.index(look, f"{catalog.named(look, self.table)[0]}.{found.name}")
        return (
            before is None
            or now is None
            or before.definition.partition(" USING ")[2] == now.definition.partition(" USING ")[2]
        )

    def _verify_sqlite(self, look: Look) -> Effect:
        """SQLite can't add a constraint, but the table may have been created with it."""
        columns, known = catalog.columns(look, self.table), catalog.constraints(look, self.table)
        if self.not_null:
            there = self.not_null in columns and columns[self.not_null].not_null
        elif self.foreign_key:
            there = any(foreign_keys.is_same(look, self.foreign_key, one) for one in known)
        elif self.unique_index:
            index = catalog.index(look, self._index_name(look))
            there = index is not None and index.unique
        else:
            wanted = compare.plain_sql(f"CHECK ({self._condition(look)})")
            there = wanted in compare.plain_sql(catalog.definition(look, self.table))
        if there:
            return Effect(State.DONE, f"the table {self.table} has it by its definition")
        return Effect(State.NOT_DONE, f"the table {self.table} doesn't have it, and SQLite can't add it")

    def _condition(self, look: Look) -> str:
        if self.not_null:
            return f"{quote(self.not_null)} IS NOT NULL"
        return self.check.text(look.dialect) if self.check else ""

    def _index_name(self, look: Look) -> str:
        return f"{catalog.named(look, self.table)[0]}.{(self.unique_index or '').rpartition('.')[2]}"

    def _what(self) -> str:
        if self.foreign_key:
            key = self.foreign_key
            return f"({', '.join(key.columns)}) references {key.table} ({', '.join(key.targets)})"
        if self.not_null:
            return f"{self.not_null} not null"
        return f"unique by {self.unique_index}" if self.unique_index else "check"

    def _named_violations(self, look: Look) -> str:
        rows = f"FROM {catalog.sql_name(look, self.table)} AS child WHERE {self._violated(look)}"
        count = look.row(f"SELECT count(*) AS n FROM (SELECT 1 {rows} LIMIT {COUNTED_ROWS + 1}) AS found").integer("n")
        key = catalog.primary_key(look, self.table)
        shown = look.rows(f"SELECT {_names(key) if key else '*'} {rows} LIMIT {SHOWN_ROWS}")
        named = "; ".join(", ".join(f"{name}={value!r}" for name, value in row.items()) for row in shown)
        many = f"more than {COUNTED_ROWS}" if count > COUNTED_ROWS else str(count)
        return (
            f"cannot validate {self.name}: {many} rows of {self.table} violate it, the first {len(shown)}: {named}; "
            "the constraint stands and guards new rows: mend these, then resume"
        )

    def _violated(self, look: Look) -> str:
        if self.foreign_key is None:
            return f"NOT ({self._condition(look)})"
        key = self.foreign_key
        pairs = list(zip(key.columns, key.targets, strict=True))
        present = " AND ".join(f"child.{quote(column)} IS NOT NULL" for column in key.columns)
        same = " AND ".join(f"parent.{quote(target)} = child.{quote(column)}" for column, target in pairs)
        return f"{present} AND NOT EXISTS (SELECT 1 FROM {catalog.sql_name(look, key.table)} AS parent WHERE {same})"


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(quote(one) for one in columns)
