"""Renames columns: a catalogue change that touches no row."""

from __future__ import annotations

from typing import ClassVar

from steps.catalog import catalog, compiled_schema, feasibility, touched_tables
from steps.catalog.definitions import Tie
from steps.contract import Column, Context, Effect, Identifier, Look, Model, Refused, State, Statement, Step, StepResult
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.shared import declared


class Renamed(Model):
    """A column's old and new name."""

    table: str
    old: str
    new: str


class RenameColumn(Step[Renamed]):
    """Renames a column; views, indexes and constraints follow, function bodies don't."""

    kind: ClassVar[str] = "rename_column"
    summary: ClassVar[str] = "rename a column: catalogue only, no row is touched"

    column: Column
    to: Identifier

    def describe(self) -> str:
        return f"rename column {self.column} to {self.to}"

    def back_if(self, look: Look | None) -> str:
        del look
        return "unless another column has the old name by then"

    def verify(self, look: Look) -> Effect:
        names = catalog.columns(look, self.column.table)
        match self.column.column in names, self.to in names:
            case True, False:
                return Effect(State.NOT_DONE, f"{self.column} is there, {self.to} isn't")
            case False, True:
                return self._verify_dependants(look)
            case True, True:
                return Effect(State.PARTLY, f"{self.column.table} has both {self.column.column} and {self.to}")
            case _:
                what = f"has neither {self.column.column} nor {self.to}" if names else "isn't there"
                return Effect(State.UNKNOWN, f"{self.column.table} {what}")

    def statements(self, look: Look) -> list[Statement]:
        return [_rename(look, Renamed(table=self.column.table, old=self.column.column, new=self.to))]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.column.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("column", self.column.table, self.to, was=self.column.column),)

    def preflight(self, look: Look) -> list[str]:
        if self.verify(look).state is State.DONE:
            return []
        faults = catalog.not_owned(look, self.column.table)
        names = catalog.columns(look, self.column.table)
        if self.column.column in names and self.to in names:
            return [*faults, f"cannot rename {self.column}: {self.column.table} has a column {self.to} already"]
        if self.column.column in names:
            why = feasibility.not_to_be_renamed(look, self.column.table, self.column.column, self.to)
            faults += [f"cannot rename {self.column}: {one}" for one in why]
        bodies = [one for one in catalog.dependants(look, self.column) if one.how is Tie.TEXT]
        return faults + [
            f"cannot rename {self.column}: the {one} names it in its source and would fail when it next runs; "
            "change both in one transaction (a sql step)"
            for one in bodies
        ]

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            faults = self.preflight(look)
        if faults:
            raise Refused("; ".join(faults))
        change = Renamed(table=self.column.table, old=self.column.column, new=self.to)
        ctx.remember(change)
        ctx.patiently("rename", lambda work: declared.execute(work, [_rename(work, change)]))
        return StepResult()

    def revert(self, ctx: Context, before: Renamed) -> None:
        """Rename it back."""
        back = Renamed(table=before.table, old=before.new, new=before.old)
        ctx.patiently("rename", lambda work: declared.execute(work, [_rename(work, back)]))

    def _verify_dependants(self, look: Look) -> Effect:
        """SQLite stores views and triggers as text; with legacy_alter_table on, a rename leaves the old name in them."""
        done = Effect(State.DONE, f"{self.column.table}.{self.to} is there, {self.column.column} isn't")
        if look.dialect is Dialect.POSTGRESQL:
            return done
        if broken := compiled_schema.names_still(look, self.column):
            return Effect(State.PARTLY, f"renamed, but {', '.join(broken)} still names {self.column.column}")
        return done


def _rename(look: Look, change: Renamed) -> Statement:
    sql = f"ALTER TABLE {catalog.sql_name(look, change.table)} RENAME COLUMN {quote(change.old)} TO {quote(change.new)}"
    note = "prepared statements of running sessions fail once (0A000) and are prepared anew"
    pg = look.dialect is Dialect.POSTGRESQL
    return Statement(sql, lock=_lock(look), length="instant", table=change.table, note=note if pg else "")


def _lock(look: Look) -> str:
    return "ACCESS EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
