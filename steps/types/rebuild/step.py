"""Rebuilds a SQLite table for changes that its ALTER TABLE can't make, by the procedure of SQLite's manual (lang_altertable.html, 7).

One transaction, with foreign keys off since before BEGIN: create the new table, copy the rows, drop the old table, rename the
new one, recreate indexes and triggers, check foreign keys, COMMIT. A plain copy of the old rows is kept for the undo, which
restores the old table from it; the copy has no constraints, so that it blocks nobody's writes or deletes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from steps.catalog import catalog, compare, feasibility, scratch, touched_tables
from steps.contract import (
    Context,
    Effect,
    Identifier,
    Look,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Work,
    cutting,
    direction,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.rebuild import parts
from steps.types.rebuild.parts import OFF, Move, Rebuilt

_LENGTH = "one rewrite"


class RebuildResult(StepResult):
    """kept: the table with a copy of the old rows, "" where none was kept; drop it when the undo isn't needed any more."""

    rows: int
    kept: str = ""


class RebuildBack(StepResult):
    """lost: rows whose values in columns that the old definition doesn't have were dropped (`taken_back: drop`)."""

    lost: int = 0


class RebuildTable(Step[Rebuilt]):
    """Gives a SQLite table a new definition; rows, indexes, triggers and other tables' references to it are kept.

    definition: the text that follows CREATE TABLE name. values: a column's value, as SQL over the old row; by default that of the
    old column of the same name, or else the new column's default. drops: old columns that the new definition leaves out.
    """

    kind: ClassVar[str] = "rebuild_table"
    summary: ClassVar[str] = "SQLite: give a table a new definition, in one transaction as the manual says"
    only: ClassVar[str] = "sqlite"
    Result: ClassVar[type[StepResult]] = RebuildResult

    table: Identifier
    definition: Annotated[str, Field(min_length=1)]
    values: Mapping[Identifier, str] = {}
    drops: Annotated[tuple[Identifier, ...], direction.MORE] = ()
    keep_old: Annotated[bool, direction.OFF] = True
    taken_back: Annotated[Literal["unless_written", "drop"], direction.ladder("unless_written", "drop")] = (
        "unless_written"
    )

    def describe(self) -> str:
        return f"rebuild table {self.table} as {cutting.on_one_line(self.definition, 80)}"

    def one_way(self) -> str:
        return "" if self.keep_old else "the old rows aren't kept (keep_old: false)"

    def back_if(self, look: Look | None) -> str:
        del look
        there = f"while {self._kept()} is there, which has the old rows"
        if self.taken_back == "drop":
            return f"{there}; what the old definition has no place for is dropped (taken_back: drop)"
        return f"{there}, unless somebody writes by then what the old definition has no place for"

    def only_way_back_differs(self, before: Step) -> bool:
        """Whether `before` is the same rebuild but for `taken_back`."""
        return isinstance(before, RebuildTable) and before.model_copy(update={"taken_back": self.taken_back}) == self

    def misfits(self, dialect: Dialect) -> list[str]:
        """Faults that the text alone shows."""
        del dialect
        if self.definition.lstrip().startswith("("):
            return []
        return ["cannot read the definition: write what stands behind CREATE TABLE name, beginning with ("]

    # ── before ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def verify(self, look: Look) -> Effect:
        if look.dialect is not Dialect.SQLITE:
            return Effect(State.NOT_DONE, "only SQLite's tables are rebuilt")
        found, there = catalog.definition(look, self.table), catalog.relation(look, self.table)
        if there is None or there.kind != "table":
            return Effect(
                State.UNKNOWN, f"{self.table} is a {there.kind}" if there else f"there is no table {self.table}"
            )
        try:
            same = parts.same(self._create(self._bare(look)), found)
        except scratch.Unusable as fault:
            return Effect(State.UNKNOWN, str(fault))
        if same:
            return Effect(State.DONE, f"{self.table} has this definition")
        return Effect(State.NOT_DONE, f"{self.table} is {' '.join(found.split())}")

    def statements(self, look: Look) -> list[Statement]:
        if look.dialect is not Dialect.SQLITE or self.verify(look).state is not State.NOT_DONE:
            return []
        with scratch.memory(look) as memory:
            sqls = self._move(memory).statements()
        return [Statement(sql, lock="EXCLUSIVE", length=_LENGTH, table=self.table) for sql in sqls]

    def keeps_rows(self) -> bool:
        return True

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("table", self.table),)

    def preflight(self, look: Look) -> list[str]:
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        if state is State.UNKNOWN:
            return [f"cannot rebuild {self.table}: {evidence}"]
        try:
            with scratch.memory(look) as memory:
                move = self._move(memory)
                faults = self._unfit(look, move)
                if not faults:
                    self._try(memory, move)
        except StepError as fault:
            return [str(fault)]
        return [f"cannot rebuild {self.table}: {one}" for one in faults]

    def _try(self, memory: scratch.ScratchDatabase, move: Move) -> None:
        """Rehearse the whole rebuild in memory, without rows: finds conflicts with indexes, triggers and views."""
        with scratch.understood(f"rebuild {self.table}"):
            parts.safely(memory, lambda: move.carry_out(memory))
        after = self.verify(memory)
        if after.state is not State.DONE:
            raise StepError(
                f"cannot rebuild {self.table}: afterwards it would not be what was asked for: {after.evidence}"
            )

    def _unfit(self, look: Look, move: Move) -> list[str]:
        """Faults of the columns (missing or left over) and of the existing rows."""
        gone = [one for one in move.old if one not in move.new and one not in self.drops]
        reasons = [f"the new definition has no {one}; name it under drops, or keep it" for one in gone]
        reasons += [
            f"drops names {one}, which is no column that goes"
            for one in self.drops
            if one not in move.old or one in move.new
        ]
        reasons += [
            f"values names {one}, which the new definition hasn't" for one in self.values if one not in move.new
        ]
        if self.keep_old:
            if catalog.relation(look, move.kept):
                reasons.append(
                    f"{move.kept} is still there from an earlier rebuild: DROP TABLE {quote(move.kept)}, or rename it"
                )
            reasons += self._not_restorable(look, move)
        return reasons or move.nulls(look)

    def _not_restorable(self, look: Look, move: Move) -> list[str]:
        same = move.key and not set(move.key) & set(self.values) and move.key == move.new_key
        if not same:
            return [
                "old rows can't be put back without a primary key that stays the same; keep_old: false makes it one-way"
            ]
        null = " OR ".join(f"{quote(one)} IS NULL" for one in move.key)
        found = look.row(f"SELECT count(*) AS n FROM {quote(move.table)} WHERE {null}").integer("n")
        return [f"{found} rows have NULL in their primary key, so nobody could find them again"] * bool(found)

    # ── the change ──────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> RebuildResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
        ctx.patiently("rebuild", lambda work: self._rebuild(work, ctx), off=OFF)
        with ctx.db.look() as look:
            return self.result(look)

    def result(self, look: Look) -> RebuildResult:
        """The table's row count, and where the old rows are kept."""
        rows = look.row(f"SELECT count(*) AS n FROM {quote(self._bare(look))}").integer("n")
        kept = self._kept() if catalog.relation(look, self._kept()) else ""
        return RebuildResult(rows=rows, kept=kept)

    def _rebuild(self, work: Work, ctx: Context) -> None:
        with scratch.memory(work) as memory:
            move = self._move(memory)
        ctx.remember(move.before(catalog.definition(work, self.table), parts.pieces(work, move.table)))
        with feasibility.refusal_explained(f"rebuild {self.table}"):
            parts.safely(work, lambda: move.carry_out(work))

    # ── undo ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def revert(self, ctx: Context, before: Rebuilt) -> RebuildBack:
        """Restore the old table: with old values where nobody changed them since, else with the current ones."""
        found: list[int] = []
        ctx.patiently("back", lambda work: found.append(self._go_back(work, before)), off=OFF)
        return RebuildBack(lost=sum(found))

    def _go_back(self, work: Work, before: Rebuilt) -> int:
        if catalog.relation(work, before.kept) is None:
            raise StepError(
                f"cannot take the rebuild of {self.table} back: {before.kept}, which had its old rows, is gone"
            )
        lost = parts.homeless(work, before)
        if lost and self.taken_back != "drop":
            raise StepError(
                f"cannot take the rebuild of {self.table} back: {lost} rows hold values that somebody wrote since and that "
                f"the old definition has no place for, in {', '.join(before.only_new)}; save and clear them, or write "
                "taken_back: drop, then roll back again"
            )
        with feasibility.refusal_explained(
            f"take the rebuild of {self.table} back", then="mend the rows, then roll back again"
        ):
            parts.safely(work, lambda: parts.go_back(work, before))
        return lost

    # ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _bare(self, look: Look) -> str:
        return catalog.named(look, self.table)[1]

    def _create(self, name: str) -> str:
        return f"CREATE TABLE {quote(name)} {scratch.one_piece(self.definition, Dialect.SQLITE)}"

    def _kept(self) -> str:
        name = self.table.rpartition(".")[2]
        suffix = hashlib.sha256(f"{name} {compare.plain_sql(self.definition)}".encode()).hexdigest()[:8]
        return f"runbook_kept_{name.encode()[:40].decode(errors='ignore')}_{suffix}"

    def _move(self, memory: scratch.ScratchDatabase) -> Move:
        for one in self.values.values():
            scratch.one_piece(one, Dialect.SQLITE)
        create, name = self._create(parts.NEW), self._bare(memory)
        kept = self._kept() if self.keep_old else ""
        with scratch.understood(f"rebuild {self.table}"):
            return parts.move(memory, name, create=create, values=self.values, kept=kept)
