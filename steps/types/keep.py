"""Keeps a copy of what can't be derived again, before a later step destroys it; the copy outlives the run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import field_validator

from steps.catalog import catalog
from steps.catalog.scratch import READ_ONLY, fault_text
from steps.contract import (
    INSUFFICIENT_PRIVILEGE,
    UNDEFINED,
    Context,
    DatabaseFault,
    Effect,
    Identifier,
    Look,
    Model,
    Refused,
    Row,
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
from steps.ledger import encoding, step_commits
from steps.ledger import tables as ledger
from steps.sql.dialect import literal, quote
from steps.sql.queries import ReadQuery, require_all_rows, text_of
from steps.types.shared import absence, kept_aside

NUMBER = "{rows}"  # in `counted`: how many
MISSING = "cannot keep anything"  # no further query can be asked in that snapshot


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
    table is never touched; where it has all of the rows, they are kept already. counted: says in words how many rows there are,
    as {rows}. The undo drops the copy while it is as it was made; else you drop it when nobody needs it any more.
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
                f"cannot keep a copy in {self.into}: {name} is there, with other content ({evidence}); it may be the only copy of that: "
                f"put it aside with ALTER TABLE {catalog.sql_name(look, name)} RENAME TO …, or let `into` name another table"
            )
        elif "." not in self.into:
            faults += [f"cannot keep a copy in {self.into}: {one}" for one in kept_aside.no_room(look, name)]
        try:
            require_all_rows(look, source)
        except Unknown as fault:
            faults.append(f"cannot keep what can't be seen: {fault}")
        return faults or self._no_table_of(look, source)

    def _no_table_of(self, look: Look, source: str) -> list[str]:
        """Why no table can have the query's columns: two of one name, or one that is no value."""
        if look.dialect is Dialect.SQLITE or look.assumed:
            return []
        try:
            with look.trial("columns") as work:
                work.execute(f"CREATE TEMPORARY TABLE runbook_columns AS {_whole(source)} WITH NO DATA")
        except DatabaseFault as fault:
            if fault.sqlstate in {READ_ONLY, INSUFFICIENT_PRIVILEGE}:
                return []  # it can't be asked beforehand
            return [f"cannot keep these columns: {fault_text(fault)}; give each a name and a type in the query"]
        return []

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
        if source is not None and self._held(look, table, source):
            return Effect(State.DONE, f"{table} has these {source.rows:,} rows already")
        rows = source.rows if source else _count(look, self._source(look))
        other = f"; {table} has {_count(look, f'SELECT * FROM {table}'):,} rows, not these" if there else ""
        return Effect(State.NOT_DONE, f"{self._counted(rows)}, and no copy of them{other}")

    def _held(self, look: Look, table: str, source: Content) -> bool:
        """Whether an earlier copy has all rows of the query, with the same columns. It may have more, which nobody can derive
        again either, once what they came from is gone: then the query gives no rows, and the copy is all that is left of them.
        """
        if source == _content(look, f"SELECT * FROM {table}"):
            return True
        if look.columns(self._source(look)) != look.columns(f"SELECT * FROM {table}"):
            return False
        missing = f"{_texts(look, self._source(look))} EXCEPT {_texts(look, f'SELECT * FROM {table}')}"
        return not look.row(f"SELECT EXISTS ({missing}) AS missing").flag("missing")

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
        made = f"CREATE TABLE {table} AS {_whole(self._source(look))}"
        if look.dialect is Dialect.SQLITE:
            return [made]
        reason = encoding.stored(look, f"kept by runbook: {self.because}")
        comment = f"COMMENT ON TABLE {table} IS {literal(reason)}"
        return [*schema, f"{made} WITH NO DATA", comment, _filled(table, self._source(look))]

    # ─── the change ─────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> KeepResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            kept = self._remembered(look)
        if kept is None:
            ctx.patiently("keep", lambda work: self._copy(work, ctx))
        with ctx.db.look() as look:
            return self.result(look)

    def _copy(self, work: Work, ctx: Context) -> None:
        """Make the copy and compare it with the query, in one snapshot: others may go on writing the rows."""
        table, source = _table(work, self.into), self._source(work)
        *made, last = self._made(work)
        for statement in made:
            work.execute(statement)
        if work.dialect is Dialect.SQLITE:
            work.execute(last)
            given = _content(work, source)
        else:
            given = _found(work.row(last))
        copied = _content(work, f"SELECT * FROM {table}")
        if copied != given:
            raise StepError(
                f"cannot keep a copy that is sure: it has {copied.rows:,} rows, and the query gave {given.rows:,}, not all of them "
                "the same; let the query give the same rows each time"
            )
        ctx.remember(Kept(table=table, rows=copied.rows, checksum=copied.checksum))

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
        return _summed([row.text("t") for row in look.rows(_texts(look, source))])
    return _found(look.row(f"SELECT {_FIGURES} FROM ({source}) AS kept"))


def _texts(look: Look, source: str) -> str:
    """A query for each row as one text, `t`."""
    text = "CAST(kept AS text)"
    if look.dialect is Dialect.SQLITE:
        text = " || ',' || ".join(f"quote(kept.{quote(name)})" for name in look.columns(source))
    return f"SELECT {text} AS t FROM ({source}) AS kept"


# rows, and a sum over 60 bits of each row's md5, which is exact for any number of them
_FIGURES = """count(*) AS n,
    CAST(coalesce(sum(CAST(CAST('x' || left(md5(CAST(kept AS text)), 15) AS bit(60)) AS bigint)), 0) AS text) AS checksum"""


def _filled(table: str, source: str) -> str:
    """The statement that asks the query once, fills the copy with its rows, and returns what it gave (PostgreSQL)."""
    return f"""WITH kept AS MATERIALIZED ({_whole(source)}), copied AS (INSERT INTO {table} SELECT * FROM kept)
        SELECT {_FIGURES} FROM kept"""


def _whole(source: str) -> str:
    return f"SELECT * FROM ({source}) AS kept"


def _found(row: Row) -> Content:
    return Content(row.integer("n"), row.text("checksum"))


def _summed(texts: Sequence[str]) -> Content:
    total = sum(int(hashlib.md5(one.encode(), usedforsecurity=False).hexdigest()[:15], 16) for one in texts)
    return Content(len(texts), str(total))
