"""Keeps a copy of what can't be derived again, before a later step destroys it; the copy outlives the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import field_validator

from steps.catalog import catalog
from steps.contract import (
    UNDEFINED,
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
    Unknown,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.ledger import step_commits
from steps.ledger import tables as ledger
from steps.sql.dialect import literal, quote
from steps.sql.queries import ReadQuery, require_all_rows, text_of
from steps.types import absence, kept_aside

NUMBER = "{rows}"  # in `counted`: how many
MISSING = "cannot keep anything"  # no further query can be asked in that snapshot
TRIES = 3  # of a copy whose rows others change meanwhile


class Kept(Model):
    """The copy, and what was in it when it was made. checksum: over all rows, in any order."""

    table: str  # qualified and quoted
    rows: int
    checksum: str


class KeepResult(StepResult):
    """rows: in the copy; copy_table: its name."""

    rows: int
    copy_table: str


@dataclass(frozen=True)
class Content:
    """What is in a table or comes from a query."""

    rows: int
    checksum: str


class Keep(Step[Kept]):
    """Copies a query's rows into a new table, compares copy and query, and leaves the copy there when the run ends.

    into: without a schema, `runbook_kept.NAME` (on SQLite `runbook_kept_NAME`), where it is no part of your schema. An existing
    table is never touched. counted: says in words how many rows there are, as {rows}. The undo drops the copy while it
    is as it was made; else you drop it when nobody needs it any more.
    """

    kind: ClassVar[str] = "keep"
    summary: ClassVar[str] = "copy what can't be derived again, before a later step destroys it"
    Result: ClassVar[type[StepResult]] = KeepResult

    what: ReadQuery
    into: Identifier
    because: str
    counted: str = f"{NUMBER} rows to keep"
    absent: absence.Absent = "refused"

    @field_validator("counted")
    @classmethod
    def _has_the_number(cls, text: str) -> str:
        if NUMBER not in text:
            raise ValueError(f"cannot say how many: write {NUMBER} where the number belongs")
        return text

    def describe(self) -> str:
        fine = " (absent: fine)" if self.absent == "fine" else ""
        return f"keep a copy of {self.what.name or 'a query'} in {self.into}{fine}: {self.because}"

    def back_if(self, look: Look | None) -> str:
        del look
        return "while the copy is as it was made"

    # ─── before ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def leaves(self, look: Look) -> tuple[Trace, ...]:
        return (Trace("table", _named(look, self.into)),)

    def statements(self, look: Look) -> list[Statement]:
        if self._missing(look):
            return []
        note = f"{self._counted(_count(look, self._source(look)))}; {self.because}"
        return [Statement(one, note=note) for one in self._made(look)]

    def preflight(self, look: Look) -> list[str]:
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        if evidence.startswith(MISSING):
            return [f"{evidence}; correct the query, or write absent: fine"]
        name, source = _named(look, self.into), self._source(look)
        faults = catalog.no_place_in(look, catalog.named(look, name)[0]) if "." in self.into else []
        if catalog.relation(look, name) is not None:
            faults.append(
                f"cannot keep a copy in {self.into}: {name} is there, with other content; name another table, or drop that one if "
                "nobody needs it"
            )
        elif "." not in self.into:
            faults += [f"cannot keep a copy in {self.into}: {one}" for one in kept_aside.no_room(look, name)]
        try:
            require_all_rows(look, source)
        except Unknown as fault:
            faults.append(f"cannot keep what can't be seen: {fault}")
        return faults

    def verify(self, look: Look) -> Effect:
        table, kept = _table(look, self.into), self._remembered(look)
        there = catalog.relation(look, _named(look, self.into)) is not None
        if kept is not None and there:
            return _compared(kept, _content(look, f"SELECT * FROM {kept.table}"))
        if kept is not None:
            return Effect(State.NOT_DONE, f"there is no {kept.table}; it had {kept.rows:,} rows")
        if missing := self._missing(look):
            if self.absent == "fine":
                return Effect(State.DONE, f"nothing to keep (absent: fine): {missing}")
            return Effect(State.NOT_DONE, f"{MISSING}: {missing}")
        source = _content(look, self._source(look)) if there else None
        if source is not None and source == _content(look, f"SELECT * FROM {table}"):
            return Effect(State.DONE, f"{table} has these {source.rows:,} rows already")
        rows = source.rows if source else _count(look, self._source(look))
        return Effect(State.NOT_DONE, f"{self._counted(rows)}, and no copy of them")

    def _remembered(self, look: Look) -> Kept | None:
        """What this run recorded of the copy; None before that, and outside of a run."""
        if look.place is None or not ledger.exists(look):
            return None
        text = step_commits.remembered(look, run=look.place.run, step=look.place.step)
        return None if text is None else Kept.model_validate_json(text)

    def _missing(self, look: Look) -> str:
        """Why the query can't be asked: something that it names isn't there; "" where it can."""
        try:
            look.columns(self._source(look))
        except DatabaseFault as fault:
            absent = fault.sqlstate in UNDEFINED or "no such" in str(fault)
            if not absent or look.assumed:
                raise
            return str(fault)
        return ""

    def _source(self, look: Look) -> str:
        return text_of(self.what, look)

    def _counted(self, rows: int) -> str:
        return self.counted.replace(NUMBER, f"{rows:,}")

    def _made(self, look: Look) -> list[str]:
        table = _table(look, self.into)
        schema = [] if "." in self.into else kept_aside.schema_made(look)
        made = f"CREATE TABLE {table} AS SELECT * FROM ({self._source(look)}) AS kept"
        if look.dialect is Dialect.SQLITE:
            return [made]
        return [*schema, made, f"COMMENT ON TABLE {table} IS {literal(f'kept by runbook: {self.because}')}"]

    # ─── the change ─────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> KeepResult:
        with ctx.db.look() as look:
            faults = self.preflight(look)
            source = None if faults or self._remembered(look) else _content(look, self._source(look))
        if faults:
            raise Refused("; ".join(faults))
        for last in (*[False] * (TRIES - 1), True):
            if source is not None:
                source = self._copy(ctx, source, last=last)
        with ctx.db.look() as look:
            return self.result(look)

    def _copy(self, ctx: Context, source: Content, *, last: bool) -> Content | None:
        """Make the copy, if it has what the query gave before; else what it gives now, as others have changed it."""
        found = source
        with ctx.db.look() as look:
            table = _table(look, self.into)
        ctx.remember(Kept(table=table, rows=source.rows, checksum=source.checksum))

        def make(work: Work) -> None:
            nonlocal found
            for statement in self._made(work):
                work.execute(statement)
            found = _content(work, f"SELECT * FROM {table}")
            if found != source:
                raise _Changed

        try:
            ctx.patiently("keep", make)
        except _Changed:
            if last:
                raise StepError(
                    f"cannot keep a copy that is sure: the rows changed while they were copied, {TRIES} times ({source.rows:,} "
                    f"rows, then {found.rows:,}); resume when nobody writes them"
                ) from None
            return found
        return None

    def result(self, look: Look) -> KeepResult:
        kept = self._remembered(look)
        if kept is None:
            raise StepError(f"no copy was made in {self.into}")
        return KeepResult(rows=kept.rows, copy_table=kept.table)

    def revert(self, ctx: Context, before: Kept) -> None:
        """Drop the copy while it is as it was made."""

        def drop(work: Work) -> None:
            if catalog.relation(work, _named(work, self.into)) is None:
                return
            now = _compared(before, _content(work, f"SELECT * FROM {before.table}"))
            if now.state is not State.DONE:
                raise StepError(f"cannot drop {before.table}: {now.evidence}; keep it, or drop it by hand")
            work.execute(f"DROP TABLE {before.table}")

        ctx.patiently("drop", drop)


class _Changed(Exception):
    """The copy has other rows than the query had just before."""


def _named(look: Look, into: str) -> str:
    """The copy's name, with its schema."""
    return ".".join(catalog.named(look, into)) if "." in into else kept_aside.name(look, into)


def _table(look: Look, into: str) -> str:
    return catalog.sql_name(look, _named(look, into))


def _compared(kept: Kept, now: Content) -> Effect:
    if now == Content(kept.rows, kept.checksum):
        return Effect(State.DONE, f"{kept.table} has its {kept.rows:,} rows as they were copied")
    return Effect(State.PARTLY, f"{kept.table} was changed since: it has {now.rows:,} rows, and had {kept.rows:,}")


def _count(look: Look, source: str) -> int:
    return look.row(f"SELECT count(*) AS n FROM ({source}) AS kept").integer("n")


def _content(look: Look, source: str) -> Content:
    """The number of rows, and a checksum over the texts of all of them in any order: no two rows are told apart by their place."""
    if look.dialect is Dialect.SQLITE:
        names = look.columns(source)
        texts = " || ',' || ".join(f"quote(kept.{quote(name)})" for name in names)
        return _summed([row.text("t") for row in look.rows(f"SELECT {texts} AS t FROM ({source}) AS kept")])
    # 60 bits of each row's md5, so that the sum of any number of them is exact
    bits = "CAST(CAST('x' || left(md5(CAST(kept AS text)), 15) AS bit(60)) AS bigint)"
    row = look.row(f"SELECT count(*) AS n, CAST(coalesce(sum({bits}), 0) AS text) AS checksum FROM ({source}) AS kept")
    return Content(row.integer("n"), row.text("checksum"))


def _summed(texts: Sequence[str]) -> Content:
    total = sum(int(hashlib.md5(one.encode(), usedforsecurity=False).hexdigest()[:15], 16) for one in texts)
    return Content(len(texts), str(total))
