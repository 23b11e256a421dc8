"""Drops a constraint: a catalogue change of an instant, whose way back checks new rows at once and proves the old ones later."""

from __future__ import annotations

from typing import Annotated, ClassVar

from steps.catalog import catalog, dropping, touched_tables
from steps.catalog.definitions import ConstraintInfo
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
    StepResult,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import MORE
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.shared import absence, declared, kept_aside


class DroppedConstraint(Model):
    """The constraint and what went with it, as the server defines them."""

    gone: str
    taken: tuple[dropping.TakenAlong, ...]


class DropConstraint(Step[DroppedConstraint]):
    """Drops a constraint; the undo restores it as it was, validated if it was, with its index.

    cascade: foreign keys and views that may go with it, by name; they are restored with it.
    """

    kind: ClassVar[str] = "drop_constraint"
    summary: ClassVar[str] = "drop a constraint; revert restores it without blocking writes"
    only: ClassVar[str] = "postgresql"

    table: Identifier
    name: Identifier
    cascade: Annotated[Identifiers, MORE] = ()
    absent: absence.Absent = "refused"

    def describe(self) -> str:
        along = f", taking along {', '.join(self.cascade)}" if self.cascade else ""
        return f"drop constraint {self.name} of {self.table}{along}{' (absent: fine)' if self.absent == 'fine' else ''}"

    def back_if(self, look: Look | None) -> str:
        del look
        return "unless rows that it would refuse are written meanwhile"

    def verify(self, look: Look) -> Effect:
        if look.dialect is Dialect.SQLITE:
            return Effect(
                State.NOT_DONE, "SQLite drops no constraint alone: rebuild_table gives a table another definition"
            )
        found = self._found(look)
        if found is not None:
            valid = "" if found.validated else ", not validated"
            return Effect(State.NOT_DONE, f"constraint {self.name} of {self.table} is there: {found.definition}{valid}")
        if column := self._not_null_column(look):
            return Effect(
                State.UNKNOWN,
                f"{self.name} is the NOT NULL of {self.table}.{column}: ALTER COLUMN … DROP NOT NULL, in a sql step",
            )
        return absence.effect(look, self._what(look), absent=self.absent)

    def statements(self, look: Look) -> list[Statement]:
        if self._found(look) is None:
            return []
        return self._statements(look, dropping.goes_with(look, self._target))

    def _statements(self, look: Look, taken: list[dropping.TakenAlong]) -> list[Statement]:
        first = dropping.first(look, taken, self._target)
        own = f"ALTER TABLE {catalog.sql_name(look, self.table)} DROP CONSTRAINT {quote(self.name)}"
        sqls = [*(one.drop for one in first), own]
        return [Statement(sql, lock="ACCESS EXCLUSIVE", length="instant", table=self.table) for sql in sqls]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        return (Trace("dropped", self.table, self.name), *dropping.traces(look, self._target))

    def preflight(self, look: Look) -> list[str]:
        if self._found(look) is None:
            return []
        faults = catalog.not_owned(look, self.table)
        if why := self._itself(look).why_not:
            faults.append(f"cannot drop {self.name}: {why}")
        return faults + dropping.refused(look, dropping.goes_with(look, self._target), self._target, self.cascade)

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            if self._found(look) is None:
                return StepResult()
        ctx.patiently("drop", lambda work: self._drop(work, ctx))
        return StepResult()

    def _drop(self, work: Work, ctx: Context) -> None:
        work.execute(f"LOCK TABLE {catalog.sql_name(work, self.table)} IN ACCESS EXCLUSIVE MODE")
        taken = dropping.goes_with(work, self._target)
        if faults := dropping.refused(
            work, taken, self._target, self.cascade
        ):  # somebody may have added to it meanwhile
            raise Refused("; ".join(faults))
        ctx.remember(DroppedConstraint(gone=self._what(work), taken=(*taken, self._itself(work))))
        declared.execute(work, self._statements(work, taken))

    def revert(self, ctx: Context, before: DroppedConstraint) -> None:
        """Restore it, and what went with it."""
        kept_aside.put_back(ctx, before.taken)

    @property
    def _target(self) -> dropping.DropTarget:
        return dropping.DropTarget(self.table, constraint=self.name)

    def _itself(self, look: Look) -> dropping.TakenAlong:
        return dropping.itself(look, self._target)

    def _found(self, look: Look) -> ConstraintInfo | None:
        return next((one for one in catalog.constraints(look, self.table) if one.name == self.name), None)

    def _not_null_column(self, look: Look) -> str:
        """The column whose NOT NULL has this name: PostgreSQL 18 names them."""
        sql = """SELECT a.attname::text AS name FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = o.conrelid AND a.attnum = o.conkey[1]
                 WHERE o.conrelid = to_regclass(:table) AND o.conname = :name AND o.contype = 'n'"""
        rows = look.rows(sql, {"table": catalog.sql_name(look, self.table), "name": self.name})
        return rows[0].text("name") if rows else ""

    def _what(self, look: Look) -> str:
        return f"constraint {self.name} of {'.'.join(catalog.named(look, self.table))}"
