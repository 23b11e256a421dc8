"""One batch of a backfill: data, cursor, undo payload and counters, in one transaction."""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass

from steps.contract import Change, Row, RunPosition, StepError, Value, Work
from steps.ledger.tables import BEGAN, table
from steps.sql.dialect import literal, quote
from steps.types.backfill import store
from steps.types.backfill.payload import UndoPayload, drop, fallen, other, prune
from steps.types.backfill.sql import (
    Shape,
    Window,
    counts,
    is_null,
    is_value,
    json_of,
    judged,
    key_text,
    looked_at,
    rest,
    wrap,
)
from steps.types.backfill.store import DEAD_ACTION, DEFERRED, Totals, label_of, read_totals

TEMP = "temp.runbook_window"
# In a message of several transactions the server's statement_timestamp() is the message's.
_SET = f"nullif(current_setting('{BEGAN}', true), '')"  # empty once another transaction of this session had set it
HELD = "held or changed by another transaction"
BLANKED = "a trigger of the table set it back to NULL"
REWRITTEN = "a trigger of the table wrote another value than that of the source"
UNDONE = "a trigger of the table kept it from being written, set it back to NULL, or wrote another value"
KEYLESS = "its key is NULL, and NULL names no row"
SKIPPED = "a trigger of the table kept it from being written"
_BEGAN = f"greatest(statement_timestamp(), to_timestamp(CAST({_SET} AS double precision)))"


@dataclass(frozen=True)
class BatchSpec:
    """What to do in one transaction. returned: rows of a listed window that had been deferred and counted before.

    skip_locked: rows that the application holds are left out instead of waited for.
    """

    n: int
    worker: int
    lo: str
    window: Window
    skip_locked: bool = False
    returned: int = 0


@dataclass(frozen=True)
class BatchResult:
    """What one transaction did. taken: rows that the window held; hi: where it ended."""

    figures: Totals
    taken: int
    hi: str
    heap: int = 0  # the file that the pages were in, where the window was one of pages


def run_batch(work: Work, place: RunPosition, shape: Shape, order: BatchSpec) -> BatchResult:
    """Write one batch with its ledger rows; raises StepError where the source has several rows for one key."""
    params = batch_params(place, order)
    if shape.pg:
        row = work.row(statement(shape, order.window, skip_locked=order.skip_locked), params)
        outcome = outcome_of(row, shape)
        return _after_triggers(work, place, shape, order, outcome) if shape.triggers else outcome
    began = time.perf_counter()
    *steps, last = sqlite_statements(shape, order.window)
    for sql in steps:
        work.execute(sql, {**params, "ms": (time.perf_counter() - began) * 1000})
    return outcome_of(work.row(last, params), shape)


def _after_triggers(
    work: Work, place: RunPosition, shape: Shape, order: BatchSpec, outcome: BatchResult
) -> BatchResult:
    """What AFTER triggers set back to NULL is dead by name: they have acted when a statement ends, deferred ones by order."""
    held = UndoPayload.of(shape)
    if outcome.figures.written:
        work.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for message, found in ((BLANKED, fallen), (REWRITTEN, other)):
            keys = found(work, place, held, n=order.n)
            if keys:
                prune(work, place, held, n=order.n, keys=keys, now=True)
                store.bury(work, place, keys, message=message, n=order.n)
                moved = Totals(written=-len(keys), dead=len(keys))
                outcome = dataclasses.replace(outcome, figures=outcome.figures.plus(moved))
    if not shape.undo:
        drop(work, place, n=order.n)
    return outcome


def change(place: RunPosition, shape: Shape, order: BatchSpec) -> Change:
    """The batch as a transaction of PostgreSQL's that nobody looks into before COMMIT; `outcome_of` reads its row."""
    return Change(label_of(order.n), statement(shape, order.window, strict=True), batch_params(place, order))


def batch_params(place: RunPosition, order: BatchSpec) -> dict[str, Value]:
    """The values for the statements below."""
    own: dict[str, Value] = {
        "run": place.run,
        "step": place.step,
        "n": order.n,
        "worker": order.worker,
        "lo": order.lo,
        "end": order.window.end,
        "returned": order.returned,
    }
    return {**order.window.all_params(), **own}


def outcome_of(row: Row, shape: Shape) -> BatchResult:
    """What a batch's row says; raises StepError where the source has several rows for one key."""
    if row.integer("duplicate_source_rows"):
        found = ", ".join(pair.column for pair in shape.pairs)
        raise StepError(
            f"cannot choose a value: the source has more than one row for a key, so {found} must be unique in it; "
            "make it so with DISTINCT ON, GROUP BY or a narrower WHERE"
        )
    return BatchResult(
        read_totals(row), row.integer("taken"), row.text("hi"), row.integer("heap") if "heap" in row else 0
    )


# ─── PostgreSQL: one statement ──────────────────────────────────────────────────────────────────────────────────────
def statement(shape: Shape, window: Window, *, skip_locked: bool = False, strict: bool = False) -> str:
    """The whole batch. What it examined and what it writes is the same version of a row, because of xmin.

    A row that the application changes in between is not written but deferred; its own values are never overwritten.
    strict: where the source has several rows for a key the server divides by zero, so that it can't be committed.
    """
    return _statement(shape, window.form, skip_locked, strict)


@functools.lru_cache(maxsize=32)
def _statement(shape: Shape, window: Window, skip_locked: bool, strict: bool) -> str:  # noqa: FBT001 - of a cached function
    return f"""WITH rb_j AS MATERIALIZED ({judged(shape, looked_at(shape, window), known=window.fresh)}),
    {f"rb_rest AS MATERIALIZED ({rest(shape, window)})," if window.split else ""}
    {_locks(shape) if skip_locked else ""}
    rb_u AS ({update(shape, window, skip_locked=skip_locked)}),
    rb_tally AS MATERIALIZED ({_tally(shape, window, skip_locked=skip_locked)}),
    {f"rb_undo AS ({_undo(shape)})," if shape.undo or shape.triggers else ""}
    rb_late AS ({_late(shape, skip_locked=skip_locked)}),
    rb_batch AS ({_batch(shape)})
    SELECT *{", 1 / CASE WHEN duplicate_source_rows > 0 THEN 0 ELSE 1 END AS sound" if strict else ""} FROM rb_tally"""


def update(shape: Shape, window: Window, *, skip_locked: bool = False) -> str:
    """The UPDATE itself, of the judged rows rb_j."""
    sets = [f"{c.sql} = coalesce(target.{c.sql}, rb_j.rb_v{n})" for n, c in enumerate(shape.fill)]
    sets += [f"{quote(name)} = target.{quote(name)}" for name in shape.touched_columns]
    keys = ", ".join(f"rb_j.rb_k{n}" for n in range(len(shape.key)))
    written = ", ".join(
        f"CASE WHEN rb_j.rb_n{n} THEN CAST(target.{c.sql} AS text) END AS rb_o{n}" for n, c in enumerate(shape.fill)
    )
    bounds = f" AND {window.condition}" if window.pages else ""
    return f"""UPDATE {shape.table} AS target SET {", ".join(sets)} FROM {"rb_locked AS rb_j" if skip_locked else "rb_j"}
        WHERE {_same_version(shape)} AND rb_j.rb_c = 'written'{bounds}
        RETURNING {keys}, {written}, {blank_in_it(shape)} AS rb_null, {not_in_it(shape)} AS rb_blank, {_identity("rb_j", shape)}"""


def blank_in_it(shape: Shape) -> str:
    """Whether a value that the row was to get isn't in it: a BEFORE trigger has the last word."""
    each = [
        f"(rb_j.rb_n{n} AND {is_value(c, f'rb_j.rb_v{n}')} AND {is_null(c, f'target.{c.sql}')})"
        for n, c in enumerate(shape.fill)
    ]
    return "(" + " OR ".join(each) + ")"


def not_in_it(shape: Shape) -> str:
    """Whether anything else stands in the row than it was to get, as its column writes that: NULL, or a trigger's own value."""
    if not shape.triggers:
        return blank_in_it(shape)
    each = [
        f"(rb_j.rb_n{n} AND CAST(target.{c.sql} AS text) IS DISTINCT FROM CAST(CAST(rb_j.rb_v{n} AS {c.type}) AS text))"
        for n, c in enumerate(shape.fill)
    ]
    return f"({blank_in_it(shape)} OR {' OR '.join(each)})"


def _identity(alias: str, shape: Shape) -> str:
    return f"{alias}.rb_tid" + (f", {alias}.rb_rel" if shape.many else "")


def _same_version(shape: Shape) -> str:
    """By ctid to find it; by xmin because older servers don't look at the ctid again after waiting for a lock."""
    found = "target.ctid = rb_j.rb_tid AND target.xmin = rb_j.rb_xmin"
    if not shape.many:
        return found
    by_key = [f"target.{c.sql} = CAST(rb_j.rb_k{n} AS {c.type})" for n, c in enumerate(shape.key)]
    return " AND ".join([*by_key, "target.tableoid = rb_j.rb_rel", found])


def _locks(shape: Shape) -> str:
    return f"""rb_locked AS MATERIALIZED (SELECT rb_j.* FROM {shape.table} AS target JOIN rb_j
        ON {_same_version(shape)} WHERE rb_j.rb_c = 'written' FOR NO KEY UPDATE OF target SKIP LOCKED),"""


def _tally(shape: Shape, window: Window, *, skip_locked: bool) -> str:
    """Aggregates of rb_j come first; then the UPDATE runs, because it is counted; then what time and WAL it took."""
    last = "CAST(:end AS text)"
    if window.order:
        cursor = (
            f"rb_e.{_column(0)}"
            if window.pages
            else json_of(shape, [f"rb_e.{_column(n)}" for n in range(len(window.order))])
        )
        reached = f"(SELECT {cursor} FROM rb_j AS rb_e ORDER BY rb_e.rb_at DESC LIMIT 1)"
        last = f"CASE WHEN rb_c.taken < CAST(:rb_rows AS bigint) THEN {last} ELSE {reached} END"
    duplicate_source_rows = f"""CASE WHEN rb_c.wanted > rb_c.written THEN
        (SELECT count(*) - count(DISTINCT ({_identity("rb_e", shape)})) FROM rb_j AS rb_e) ELSE 0 END"""
    return f"""SELECT 1 AS batches, rb_c.taken, rb_c.seen - CAST(:returned AS bigint) AS seen, rb_c.written,
        rb_c.wanted, rb_c.already, rb_c.no_key, rb_c.not_in_source,
        rb_c.wanted - rb_c.written - rb_c.dead - CAST(:returned AS bigint) AS deferred, rb_c.dead,
        {last} AS hi, {duplicate_source_rows} AS duplicate_source_rows, rb_c.wal,
        {_heap(shape, window)} AS heap, 1000.0 * extract(epoch FROM rb_c.ended - {_BEGAN}) AS ms
        FROM (SELECT rb_g.*, rb_g.both[1] - rb_g.both[2] AS written, {_dead(skip_locked=skip_locked)} AS dead FROM
             (SELECT rb_f.*, (SELECT ARRAY[count(*), count(*) FILTER (WHERE rb_u.rb_blank)] FROM rb_u) AS both,
              clock_timestamp() AS ended,
              coalesce(CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), rb_f.lsn) AS bigint), 0) AS wal
              FROM (SELECT {counts(split=window.split)}, min(rb_j.rb_lsn) AS lsn FROM rb_j) AS rb_f OFFSET 0) AS rb_g
              OFFSET 0) AS rb_c"""


def _dead(*, skip_locked: bool) -> str:
    """Rows that a trigger blanked or, where the row was held by us and of the same version, left out."""
    return "(SELECT count(*) FROM rb_locked) - rb_g.both[1] + rb_g.both[2]" if skip_locked else "rb_g.both[2]"


def _heap(shape: Shape, window: Window) -> str:
    name = literal(shape.table)
    return f"coalesce(CAST(pg_relation_filenode(CAST({name} AS regclass)) AS bigint), 0)" if window.pages else "0"


def _column(n: int) -> str:
    return f"rb_o{n}"


def _undo(shape: Shape) -> str:
    """What was written, a row of texts for each: the key's values, then each column's, NULL where it wasn't ours."""
    values = [f"rb_u.rb_k{n}" for n in range(len(shape.key))] + [f"rb_u.rb_o{n}" for n in range(len(shape.fill))]
    some = f"num_nonnulls({', '.join(values[len(shape.key) :])}) > 0"
    return f"""INSERT INTO {table("undo", shape.dialect)} (run, step, n, rows, payload)
        SELECT CAST(:run AS text), CAST(:step AS text), CAST(:n AS bigint), count(*),
               array_agg(ARRAY[{", ".join(values)}]) FROM rb_u
        WHERE NOT rb_u.rb_blank OR {some} HAVING count(*) > 0"""


def _late(shape: Shape, *, skip_locked: bool) -> str:
    """Keys of rows that were not written, and why; looked for only where the counts differ."""
    mine, theirs = _identity("rb_j", shape), _identity("rb_u", shape)
    dead = f"({mine}) IN (SELECT {theirs} FROM rb_u)"
    blanked = f"WHEN ({mine}) IN (SELECT {theirs} FROM rb_u WHERE rb_u.rb_null) THEN '{BLANKED}' "
    skipped = (
        f"WHEN ({mine}) IN (SELECT {_identity('rb_s', shape)} FROM rb_locked AS rb_s) THEN '{SKIPPED}'"
        if skip_locked
        else ""
    )
    return f"""INSERT INTO {table("skipped_row", shape.dialect)} (run, step, action, key, sqlstate, message, attempt)
        SELECT CAST(:run AS text), CAST(:step AS text), CASE WHEN rb_l.why = '{HELD}' THEN '{DEFERRED}' ELSE '{DEAD_ACTION}' END,
               rb_l.key, CASE WHEN rb_l.why = '{HELD}' THEN '55P03' ELSE '' END, rb_l.why, 1
        FROM (SELECT {key_text(shape, "rb_j")} AS key, CASE {blanked}WHEN {dead} THEN '{REWRITTEN}' {skipped} ELSE '{HELD}' END AS why
              FROM rb_j WHERE rb_j.rb_c = 'written' AND (SELECT wanted > written FROM rb_tally)
              AND ({mine}) NOT IN (SELECT {theirs} FROM rb_u WHERE NOT rb_u.rb_blank)) AS rb_l ON CONFLICT DO NOTHING"""


def _batch(shape: Shape) -> str:
    return f"""INSERT INTO {table("batch", shape.dialect)} (run, step, action, n, worker, lo, hi, seen, written,
            already, no_key, not_in_source, deferred, dead, ms, server_wal_bytes)
        SELECT CAST(:run AS text), CAST(:step AS text), 'apply', CAST(:n AS bigint), CAST(:worker AS integer),
               CAST(:lo AS text), hi, seen, written, already, no_key, not_in_source, deferred, dead, ms, wal
        FROM rb_tally"""


# ─── SQLite: one transaction, which nobody else writes in ───────────────────────────────────────────────────────────
def sqlite_statements(shape: Shape, window: Window) -> list[str]:
    """The batch in order; the last one gives the figures."""
    same = " AND ".join(f"target.{c.sql} = rb_j.rb_k{n}" for n, c in enumerate(shape.key))
    sets = ", ".join(f"{c.sql} = coalesce(target.{c.sql}, rb_j.rb_v{n})" for n, c in enumerate(shape.fill))
    return [
        f"DROP TABLE IF EXISTS {TEMP}",
        f"CREATE TEMP TABLE runbook_window AS {judged(shape, looked_at(shape, window))}",
        # OR ABORT: a constraint's own ON CONFLICT REPLACE would delete the rows that are in the way, IGNORE pass over them
        f"UPDATE OR ABORT {shape.table} AS target SET {sets} FROM {TEMP} AS rb_j WHERE {same} AND rb_j.rb_c = 'written'",
        *([_sqlite_recount(shape, same), _sqlite_dead(shape)] if shape.triggers else []),
        *([_sqlite_undo(shape, same)] if shape.undo else []),
        _sqlite_batch(shape, window),
        _sqlite_figures(shape),
    ]


def _sqlite_recount(shape: Shape, same: str) -> str:
    """Rows in which not all stands that they were to get: a trigger has the last word, and a key may be NULL."""
    all_there = " AND ".join(
        f"(NOT rb_j.rb_n{n} OR rb_j.rb_v{n} IS NULL OR target.{c.sql} COLLATE BINARY = rb_j.rb_v{n})"
        for n, c in enumerate(shape.fill)
    )
    return f"""UPDATE {TEMP} AS rb_j SET rb_c = 'dead' WHERE rb_j.rb_c = 'written' AND NOT EXISTS (
        SELECT 1 FROM {shape.table} AS target WHERE {same} AND {all_there})"""


def _sqlite_dead(shape: Shape) -> str:
    keyless = " OR ".join(f"rb_j.rb_k{n} IS NULL" for n in range(len(shape.key)))
    return f"""INSERT INTO {table("skipped_row", shape.dialect)} (run, step, action, key, sqlstate, message, attempt)
        SELECT :run, :step, '{DEAD_ACTION}', {key_text(shape, "rb_j")}, '',
               CASE WHEN {keyless} THEN '{KEYLESS}' ELSE '{UNDONE}' END, 1
        FROM {TEMP} AS rb_j WHERE rb_j.rb_c = 'dead' ON CONFLICT DO NOTHING"""


def _sqlite_undo(shape: Shape, same: str) -> str:
    values = [f"rb_j.rb_k{n}" for n in range(len(shape.key))]
    values += [
        f"CASE WHEN rb_j.rb_n{n} AND target.{c.sql} IS NOT NULL THEN quote(target.{c.sql}) END"
        for n, c in enumerate(shape.fill)
    ]
    values[: len(shape.key)] = [wrap(one) for one in values[: len(shape.key)]]
    some = " OR ".join(f"(rb_j.rb_n{n} AND target.{c.sql} IS NOT NULL)" for n, c in enumerate(shape.fill))
    return f"""INSERT INTO {table("undo", shape.dialect)} (run, step, n, rows, payload)
        SELECT :run, :step, :n, count(*), json_group_array(json_array({", ".join(values)}))
        FROM {TEMP} AS rb_j CROSS JOIN {shape.table} AS target
        WHERE {same} AND rb_j.rb_c IN ('written', 'dead') AND ({some}) HAVING count(*) > 0"""


def _sqlite_batch(shape: Shape, window: Window) -> str:
    last = ":end"
    if window.order:
        cursor = json_of(shape, [f"rb_e.{_column(n)}" for n in range(len(window.order))])
        reached = f"(SELECT {cursor} FROM {TEMP} AS rb_e ORDER BY rb_e.rb_at DESC LIMIT 1)"
        last = f"CASE WHEN rb_f.taken < :rb_rows THEN :end ELSE {reached} END"
    return f"""INSERT INTO {table("batch", shape.dialect)} (run, step, action, n, worker, lo, hi, seen, written,
            already, no_key, not_in_source, deferred, dead, ms)
        SELECT :run, :step, 'apply', :n, :worker, :lo, {last}, rb_f.seen - :returned, rb_f.wanted, rb_f.already,
               rb_f.no_key, rb_f.not_in_source, 0 - :returned, rb_f.dead, :ms
        FROM (SELECT {counts()}, count(*) FILTER (WHERE rb_j.rb_c = 'dead') AS dead FROM {TEMP} AS rb_j) AS rb_f"""


def _sqlite_figures(shape: Shape) -> str:
    unique = ", ".join(f"rb_e.rb_k{n}" for n in range(len(shape.key)))
    return f"""SELECT 1 AS batches, rb_b.*, (SELECT count(*) FROM {TEMP}) AS taken,
        (SELECT count(*) FROM {TEMP}) - (SELECT count(*) FROM (SELECT DISTINCT {unique} FROM {TEMP} AS rb_e)) AS duplicate_source_rows
        FROM {table("batch", shape.dialect)} AS rb_b
        WHERE rb_b.run = :run AND rb_b.step = :step AND rb_b.action = 'apply' AND rb_b.n = :n"""
