"""A backfill's ledger tables: backfill_pass, batch, undo and skipped_row.

Progress is always the sum of committed batches and is stored nowhere else, so that no crash can make the two differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

from steps.contract import Look, Row, RunPosition, StepError, Value, Work, cutting
from steps.contract.dialect import Dialect
from steps.ledger import encoding
from steps.ledger.skipped_rows import UNREADABLE
from steps.ledger.step_commits import place_params
from steps.ledger.tables import exists, table
from steps.sql.unreadable import UnreadableRow

SWEEP = -1  # batch.worker of the final sweep, which visits rows that the ranges left unsettled
# skipped_row.action:
DEFERRED = "deferred"  # rows locked or changed by others, to be retried
DEAD_ACTION = "apply"  # rows that could not be written
AGAIN = "again"  # rows that had been written, were NULL again, and were written anew
REFUSED = "revert"  # rows that an undo leaves alone
_LABEL = "batch "  # followed by its number: the label of a batch's commit
_MESSAGE_LIMIT = 500  # characters; a driver's message can carry a whole row


@dataclass(frozen=True)
class Totals:
    """The counters of one batch or the sums of many. seen = written + already + no_key + not_in_source + deferred + dead."""

    batches: int = 0
    seen: int = 0
    written: int = 0
    already: int = 0
    no_key: int = 0
    not_in_source: int = 0
    deferred: int = 0
    dead: int = 0
    ms: float = 0.0

    def plus(self, other: Totals) -> Totals:
        return Totals(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Totals)})


@dataclass(frozen=True)
class Batch:
    """One committed batch. worker: the number of its range in the pass, or SWEEP; lo, hi: the cursor before and after."""

    n: int
    worker: int
    lo: str
    hi: str
    figures: Totals


_FIGURES = ("seen", "written", "already", "no_key", "not_in_source", "deferred", "dead", "ms")
_OURS = "run = :run AND step = :step AND action = :action"


# ─── the pass ───────────────────────────────────────────────────────────────────────────────────────────────────────
def document(look: Look, place: RunPosition) -> str | None:
    """The pass's state (JSON); None before the pass began, or where there is no ledger."""
    if not exists(look):
        return None
    rows = look.rows(f"SELECT document FROM {table('backfill_pass', look.dialect)} WHERE {_OURS}", place_params(place))
    return rows[0].text("document") if rows else None


def keep_document(work: Work, place: RunPosition, text: str) -> None:
    """Insert or replace the pass's state."""
    sql = f"""INSERT INTO {table("backfill_pass", work.dialect)} (run, step, action, document)
              VALUES (:run, :step, :action, :document)
              ON CONFLICT (run, step, action) DO UPDATE SET document = excluded.document"""
    work.execute(sql, {**place_params(place), "document": text})


# ─── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────
def totals(look: Look, place: RunPosition, *, worker: int | None = None) -> Totals:
    """The sums of a pass's committed batches, of all ranges or of one; raises StepError where they are inconsistent."""
    sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in _FIGURES)
    only, params = (
        ("", place_params(place))
        if worker is None
        else (" AND worker = :worker", {**place_params(place), "worker": worker})
    )
    sql = f"SELECT count(*) AS batches, {sums} FROM {table('batch', look.dialect)} WHERE {_OURS}{only}"
    found = read_totals(look.row(sql, params))
    return found if worker is not None else _sound(found, place)


def _sound(found: Totals, place: RunPosition) -> Totals:
    """Raises StepError where a sum is negative, or the parts don't add up: ledger rows were lost or altered."""
    parts = found.written + found.already + found.no_key + found.not_in_source + found.deferred + found.dead
    negative = [one.name for one in fields(Totals) if getattr(found, one.name) < 0]
    if negative or parts != found.seen:
        what = f"{', '.join(negative)} below 0" if negative else f"{found.seen} rows seen, {parts} accounted for"
        raise StepError(f"cannot believe the ledger's figures of {place.run}, step {place.step}: {what}")
    return found


def label_of(n: int) -> str:
    """The label of a batch's commit in the ledger."""
    return f"{_LABEL}{n}"


def seconds(look: Look, place: RunPosition) -> float:
    """The time that processes worked on the pass, rests and holds included.

    A process has one epoch of the lease; for each epoch this is the time from its first batch's start to its last batch's end.
    """
    span = "extract(epoch FROM max(b.at) - min(b.at - b.ms * interval '1 ms'))"
    if look.dialect is Dialect.SQLITE:
        span = "86400.0 * (max(julianday(b.at)) - min(julianday(b.at) - b.ms / 86400000.0))"
    ours = "b.run = :run AND b.step = :step AND b.action = :action"
    sql = f"""SELECT coalesce(sum(each.s), 0) AS s FROM (SELECT {span} AS s FROM {table("batch", look.dialect)} AS b
              JOIN {table("step_commit", look.dialect)} AS a ON a.run = b.run AND a.step = b.step AND a.action = b.action
              AND a.label = :label || b.n WHERE {ours} GROUP BY a.epoch) AS each"""
    return look.row(sql, {**place_params(place), "label": _LABEL}).number("s")


def without_figures(look: Look, place: RunPosition) -> int:
    """The number of batches that are committed, but missing from the batch table: rows of the ledger were deleted."""
    sql = f"""SELECT count(*) AS n FROM {table("step_commit", look.dialect)} AS a WHERE a.run = :run AND a.step = :step
              AND a.action = :action AND a.label LIKE '{_LABEL}%' AND NOT EXISTS (SELECT 1 FROM {table("batch", look.dialect)}
              AS b WHERE b.run = a.run AND b.step = a.step AND b.action = a.action AND a.label = :label || b.n)"""
    return look.row(sql, {**place_params(place), "label": _LABEL}).integer("n")


def server_wal(look: Look, place: RunPosition) -> int:
    """Bytes of WAL that the whole server, other sessions included, wrote during the batches so far; 0 on SQLite."""
    sql = f"SELECT coalesce(sum(server_wal_bytes), 0) AS n FROM {table('batch', look.dialect)} WHERE {_OURS}"
    return look.row(sql, place_params(place)).integer("n")


def read_totals(row: Row) -> Totals:
    """Read the counters from a row with a column for each of them."""
    counts = {one.name: row.integer(one.name) for one in fields(Totals) if one.name != "ms"}
    return Totals(**counts, ms=row.number("ms"))


def cursors(look: Look, place: RunPosition) -> dict[int, str]:
    """Range → the cursor after its last committed batch; ranges without one are absent."""
    sql = f"""SELECT worker, hi FROM (SELECT worker, hi, row_number() OVER (PARTITION BY worker ORDER BY n DESC) AS latest
              FROM {table("batch", look.dialect)} WHERE {_OURS} AND worker >= 0) AS each WHERE latest = 1"""
    return {row.integer("worker"): row.text("hi") for row in look.rows(sql, place_params(place))}


def batches(look: Look, place: RunPosition, *, first: int, last: int) -> list[Batch]:
    """The committed batches with these numbers, in order."""
    sql = f"""SELECT 1 AS batches, n, worker, lo, hi, {", ".join(_FIGURES)} FROM {table("batch", look.dialect)}
              WHERE {_OURS} AND n BETWEEN :first AND :last ORDER BY n"""
    rows = look.rows(sql, {**place_params(place), "first": first, "last": last})
    return [Batch(r.integer("n"), r.integer("worker"), r.text("lo"), r.text("hi"), read_totals(r)) for r in rows]


def reached(look: Look, place: RunPosition) -> dict[int, int]:
    """Batch → how many rows of its payload an undo has processed."""
    sql = f"SELECT n, hi FROM {table('batch', look.dialect)} WHERE {_OURS} AND hi IS NOT NULL"
    return {row.integer("n"): row.integer("hi") for row in look.rows(sql, place_params(place))}


def last_number(look: Look, place: RunPosition) -> int:
    """The number of the latest batch, 0 before the first."""
    sql = f"SELECT coalesce(max(n), 0) AS n FROM {table('batch', look.dialect)} WHERE {_OURS}"
    return look.row(sql, place_params(place)).integer("n")


def add_batch(work: Work, place: RunPosition, batch: Batch) -> None:
    """Record a batch whose figures are known here; most are recorded by the statement that makes them."""
    sql = f"""INSERT INTO {table("batch", work.dialect)} (run, step, action, n, worker, lo, hi, {", ".join(_FIGURES)})
              VALUES (:run, :step, :action, :n, :worker, :lo, :hi, {", ".join(":" + name for name in _FIGURES)})"""
    figures = {name: cast("Value", getattr(batch.figures, name)) for name in _FIGURES}
    where = {**place_params(place), "n": batch.n, "worker": batch.worker, "lo": batch.lo, "hi": batch.hi}
    work.execute(sql, {**where, **figures})


# ─── rows that were not written ─────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class DeadRow:
    """A row that could not be settled. key: a JSON array of the key's values."""

    key: str
    sqlstate: str
    message: str
    attempt: int = 1

    @staticmethod
    def unreadable(row: UnreadableRow) -> DeadRow:
        """A row at which the playbook's SQL fails, before anything could be written."""
        return DeadRow(row.key, row.sqlstate, f"{UNREADABLE}{row.message}")


def set_aside(work: Work, place: RunPosition, letter: DeadRow, *, action: str) -> int:
    """Record a skipped row; returns 1 where it had been deferred before (its attempt count goes up), 0 where it is new."""
    values = {
        **place_params(place),
        "key": letter.key,
        "sqlstate": letter.sqlstate,
        "message": encoding.stored(work, cutting.shortened(cutting.masked(letter.message), _MESSAGE_LIMIT)),
    }
    values["action"] = action
    known = work.execute(
        f"""UPDATE {table("skipped_row", work.dialect)} SET action = :action, sqlstate = :sqlstate, message = :message,
            attempt = attempt + 1 WHERE run = :run AND step = :step AND action = '{DEFERRED}' AND key = :key""",
        values,
    )
    if not known:
        sql = f"""INSERT INTO {table("skipped_row", work.dialect)} (run, step, action, key, sqlstate, message, attempt)
                  VALUES (:run, :step, :action, :key, :sqlstate, :message, 1)"""
        work.execute(sql, values)
    return known


def bury(work: Work, place: RunPosition, keys: Sequence[str], *, message: str, n: int) -> None:
    """Turn rows that batch `n` counted as written into dead ones."""
    recall(work, place, keys, message=message, action=DEAD_ACTION)
    sql = f"UPDATE {table('batch', work.dialect)} SET written = written - :rows, dead = dead + :rows WHERE {_OURS} AND n = :n"
    work.execute(sql, {**place_params(place), "rows": len(keys), "n": n})


def recall(work: Work, place: RunPosition, keys: Sequence[str], *, message: str, action: str) -> None:
    """Record rows that were counted as written as skipped; the caller corrects the batch's counters."""
    skipped = table("skipped_row", work.dialect)
    rows = {
        **place_params(place),
        "action": action,
        "message": encoding.stored(work, message),
        "keys": json.dumps(list(keys)),
    }
    sqlstate = "55P03" if action == DEFERRED else ""
    work.execute(
        f"""INSERT INTO {skipped} (run, step, action, key, sqlstate, message, attempt)
            SELECT CAST(:run AS text), CAST(:step AS text), CAST(:action AS text), rb_l.value, '{sqlstate}',
                   CAST(:message AS text), 1
            FROM ({_listed(work)}) AS rb_l WHERE true ON CONFLICT DO NOTHING""",
        rows,
    )


def reopen(work: Work, place: RunPosition) -> int:
    """Turn dead rows into deferred ones, which a pass retries; returns how many there were."""
    sql = f"""UPDATE {table("skipped_row", work.dialect)} SET action = '{DEFERRED}'
              WHERE run = :run AND step = :step AND action = '{DEAD_ACTION}'"""
    return work.execute(sql, {"run": place.run, "step": place.step})


def letters(look: Look, *, run: str, step: str, action: str) -> list[DeadRow]:
    """The skipped rows with this action, in key order."""
    sql = f"""SELECT key, sqlstate, message, attempt FROM {table("skipped_row", look.dialect)} WHERE {_OURS} ORDER BY key"""
    rows = look.rows(sql, {"run": run, "step": step, "action": action})
    return [DeadRow(r.text("key"), r.text("sqlstate"), r.text("message"), r.integer("attempt")) for r in rows]


def forget_deferred(work: Work, place: RunPosition, keys: str) -> int:
    """Delete the records of deferred rows (keys: a JSON array of JSON texts); returns how many there were."""
    sql = f"DELETE FROM {table('skipped_row', work.dialect)} WHERE {_OURS} AND key IN ({_listed(work)})"
    return work.execute(sql, {**place_params(place), "action": DEFERRED, "keys": keys})


def _listed(work: Work) -> str:
    return (
        "SELECT value FROM json_array_elements_text(CAST(:keys AS json))"
        if work.dialect is Dialect.POSTGRESQL
        else "SELECT value FROM json_each(:keys)"
    )


# ─── undo ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class UndoCounts:
    """The number of rows of one batch that can be undone."""

    n: int
    rows: int


def kept(look: Look, *, run: str, step: str) -> list[UndoCounts]:
    """The batches of a step that have an undo payload, newest first."""
    sql = f"SELECT n, rows FROM {table('undo', look.dialect)} WHERE run = :run AND step = :step ORDER BY n DESC"
    return [UndoCounts(row.integer("n"), row.integer("rows")) for row in look.rows(sql, {"run": run, "step": step})]
