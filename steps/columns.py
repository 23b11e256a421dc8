"""Columns renamed and added: changes of the catalogue that touch no row."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import BaseModel

from steps import alike, catalog, concurrently
from steps.base import (
    Context,
    DatabaseFault,
    Effect,
    Look,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Trace,
    Work,
)
from steps.dialect import Dialect, quote
from steps.shapes import Tie
from steps.words import Column, ColumnRef, Identifier, Model, Text


class Renamed(Model):
    """Both names."""

    table: str
    old: str
    new: str


class RenameColumn(Step):
    """A column under a new name; views, indexes and constraints follow, function bodies don't."""

    kind: ClassVar[str] = "rename_column"
    summary: ClassVar[str] = "rename a column: catalogue only, no row is touched"
    Before: ClassVar[type[BaseModel]] = Renamed

    column: Column
    to: Identifier

    def describe(self) -> str:
        return f"rename column {self.column} to {self.to}"

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

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("column", self.column.table, self.to, was=self.column.column),)

    def preflight(self, look: Look) -> list[str]:
        if self.verify(look).state is State.DONE:
            return []
        faults = catalog.too_long(self.to) + catalog.not_owned(look, self.column.table)
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
        ctx.patiently("rename", lambda work: concurrently.execute(work, [_rename(work, change)]))
        return StepResult()

    def revert(self, ctx: Context, before: BaseModel) -> None:
        """Rename it back."""
        if not isinstance(before, Renamed):
            raise TypeError(f"cannot revert from {before!r}")
        back = Renamed(table=before.table, old=before.new, new=before.old)
        ctx.patiently("rename", lambda work: concurrently.execute(work, [_rename(work, back)]))

    def _verify_dependants(self, look: Look) -> Effect:
        """SQLite keeps views and triggers as text, and with legacy_alter_table it leaves the old name in them."""
        done = Effect(State.DONE, f"{self.column.table}.{self.to} is there, {self.column.column} isn't")
        if look.dialect is Dialect.POSTGRESQL:
            return done
        broken = [one.name for one in catalog.dependants(look, self.column) if _fails(look, one.kind, one.name)]
        if broken:
            return Effect(State.PARTLY, f"renamed, but {', '.join(broken)} still names {self.column.column}")
        return done


def _rename(look: Look, change: Renamed) -> Statement:
    sql = f"ALTER TABLE {catalog.sql_name(look, change.table)} RENAME COLUMN {quote(change.old)} TO {quote(change.new)}"
    note = "prepared statements of running sessions fail once (0A000) and are prepared anew"
    pg = look.dialect is Dialect.POSTGRESQL
    return Statement(sql, lock=_lock(look), length="instant", table=change.table, note=note if pg else "")


def _fails(look: Look, kind: str, name: str) -> bool:
    """Whether a view can't be read any more. A trigger that still names the column can't be asked: it counts."""
    if kind != "view":
        return True
    try:
        look.columns(f"SELECT * FROM {catalog.sql_name(look, name)}")
    except DatabaseFault:
        return True
    return False


class Added(Model):
    """The column to take away again."""

    table: str
    column: str


class AddColumn(Step):
    """A new column. Taken back only while nobody has written values into it."""

    kind: ClassVar[str] = "add_column"
    summary: ClassVar[str] = "add a column; taken back only while it holds nothing but its default"
    Before: ClassVar[type[BaseModel]] = Added

    column: Column
    of_type: Text
    default: Text | None = None
    not_null: bool = False
    comment: str | None = None

    def describe(self) -> str:
        types = " / ".join(dict.fromkeys(self.of_type.texts.values()))
        return f"add column {self.column} {types}{' not null' * self.not_null}"

    def verify(self, look: Look) -> Effect:
        columns = catalog.columns(look, self.column.table)
        found = columns.get(self.column.column)
        if found is None:
            return Effect(State.NOT_DONE, f"{self.column.table} has no {self.column.column}")
        wanted, pg = self.of_type.text(look.dialect), look.dialect is Dialect.POSTGRESQL
        checks = (
            (alike.same_type(look, found.type, wanted), f"it is {found.type}, not {wanted}"),
            (found.not_null or not self.not_null, "it may be NULL"),
            (found.default is not None or self.default is None, "it has no default"),
            (not pg or self.comment is None or found.comment == self.comment, f"its comment is {found.comment!r}"),
        )
        if wrong := [words for good, words in checks if not good]:
            return Effect(State.PARTLY, f"{self.column} is there, but {', '.join(wrong)}")
        return Effect(State.DONE, f"{self.column} is there as {found.type}")

    def statements(self, look: Look) -> list[Statement]:
        table, name = catalog.sql_name(look, self.column.table), quote(self.column.column)
        default = self.default.text(look.dialect) if self.default else ""
        sql = (
            f"ALTER TABLE {table} ADD COLUMN {name} {self.of_type.text(look.dialect)}"
            f"{f' DEFAULT {default}' if default else ''}{' NOT NULL' * self.not_null}"
        )
        length = "one rewrite" if alike.volatile(look, default) or self._serial(look) else "instant"
        made = [Statement(sql, lock=_lock(look), length=length, table=self.column.table)]
        if self.comment is not None and look.dialect is Dialect.POSTGRESQL:
            text = f"COMMENT ON COLUMN {table}.{name} IS {catalog.literal(self.comment)}"
            made.append(Statement(text, lock="SHARE UPDATE EXCLUSIVE", length="instant", table=self.column.table))
        return made

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        return (Trace("column", self.column.table, self.column.column, type=self.of_type.text(look.dialect)),)

    def preflight(self, look: Look) -> list[str]:
        if self.verify(look).state is State.DONE:
            return []
        faults = catalog.too_long(self.column.column) + catalog.not_owned(look, self.column.table)
        if self.not_null and self.default is None and not self._serial(look) and _has_rows(look, self.column.table):
            faults.append(f"cannot add {self.column} as NOT NULL: the table has rows; give it a default")
        return faults

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            state, faults, statements = self.verify(look), self.preflight(look), self.statements(look)
        if state.state is State.PARTLY:
            faults.append(f"cannot add {self.column}: {state.evidence}")
        if faults:
            raise Refused("; ".join(faults))
        if state.state is State.NOT_DONE:
            ctx.remember(Added(table=self.column.table, column=self.column.column))
            ctx.patiently("add", lambda work: concurrently.execute(work, statements))
        return StepResult()

    def revert(self, ctx: Context, before: BaseModel) -> None:
        """Drop the column again, unless somebody wrote values into it."""
        if not isinstance(before, Added):
            raise TypeError(f"cannot revert from {before!r}")
        column = ColumnRef(table=before.table, column=before.column)
        with ctx.db.look() as look:
            if before.column in catalog.columns(look, before.table) and self._written(look, column):
                raise StepError(
                    f"cannot take {column} back: it holds values that this step didn't write, and dropping it "
                    "loses them; save and clear them, then roll back again"
                )
        ctx.patiently("drop", lambda work: _drop(work, column))

    def _serial(self, look: Look) -> bool:
        words = self.of_type.text(look.dialect).lower()
        return re.search(r"serial|\bidentity\b|\bgenerated\b", words) is not None

    def _written(self, look: Look, column: ColumnRef) -> bool:
        table, name = catalog.sql_name(look, column.table), quote(column.column)
        default = self.default.text(look.dialect) if self.default else ""
        if self._serial(look) or alike.volatile(look, default):
            return False  # each row had a value of its own from the beginning
        written = f"{name} IS NOT NULL"
        if default and look.dialect is Dialect.SQLITE:
            written = f"{name} IS NOT ({default})"
        elif default:  # as texts, because a json has no equality
            kind = catalog.columns(look, column.table)[column.column].type
            written = f"CAST({name} AS text) IS DISTINCT FROM CAST(CAST(({default}) AS {kind}) AS text)"
        return bool(look.rows(f"SELECT 1 AS one FROM {table} WHERE {written} LIMIT 1"))


def _drop(work: Work, column: ColumnRef) -> None:
    if column.column in catalog.columns(work, column.table):
        work.execute(f"ALTER TABLE {catalog.sql_name(work, column.table)} DROP COLUMN {quote(column.column)}")


def _has_rows(look: Look, table: str) -> bool:
    there = catalog.relation(look, table)
    return there is not None and bool(look.rows(f"SELECT 1 AS one FROM {catalog.sql_name(look, table)} LIMIT 1"))


def _lock(look: Look) -> str:
    return "ACCESS EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
