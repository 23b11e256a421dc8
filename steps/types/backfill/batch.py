"""One batch of a backfill: data, cursor, undo payload and counters commit in one transaction.

After a crash a batch is therefore either wholly done and recorded or not done at all, and a resume continues at the cursor of
the last committed one. On PostgreSQL the batch is a single statement of data-modifying CTEs, which all see the same snapshot.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass

from steps.contract import Change, Row, RunPosition, StepError, Value, Work
from steps.ledger.tables import BEGAN, table
from steps.sql.dialect import literal, quote
from steps.types.backfill import store
from steps.types.backfill.payload import UndoPayload, altered_keys, blanked_keys, drop, prune
from steps.types.backfill.sql import (
    Named,
    Shape,
    Window,
    counts,
    done,
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
# The start of the batch. statement_timestamp() is not enough: with pipelined transactions it is that of the whole message.
# A SET LOCAL leaves '' behind, and not NULL, once its transaction is over; hence nullif.
_SET = f"nullif(current_setting('{BEGAN}', true), '')"
HELD = "held or changed by another transaction"
BLANKED = "a trigger of the table set it back to NULL"
FILLED_AGAIN = "a trigger of the table wrote a value into it again"
REWRITTEN = "a trigger of the table wrote another value than that of the source"
UNDONE = "a trigger of the table kept it from being written, set it back to NULL, or wrote another value"
KEYLESS = "its key is NULL, and NULL names no row"
SKIPPED = "a trigger of the table kept it from being written"
_BEGAN = f"greatest(statement_timestamp(), to_timestamp(CAST({_SET} AS double precision)))"


@dataclass(frozen=True)
class BatchSpec:
    """A batch to run. n: its number in the step; worker: the number of its range; lo: the cursor where it starts.

    skip_locked: skip rows that others have locked instead of waiting for them.
    returned: how many rows of a listed window were counted before, as deferred.
    """

    n: int
    worker: int
    lo: str
    window: Window
    skip_locked: bool = False
    returned: int = 0


@dataclass(frozen=True)
class BatchResult:
    """The outcome of one batch. taken: the number of rows in the window; hi: the cursor where it ended."""

    figures: Totals
    taken: int
    hi: str
    heap: int = 0  # the heap's file (relfilenode) for a window of pages: another one than expected means a rewrite


def run_batch(work: Work, place: RunPosition, shape: Shape, spec: BatchSpec) -> BatchResult:
    """Run one batch inside the caller's transaction; raises StepError where the source has several rows for one key."""
    params = batch_params(place, spec)
    if shape.pg:
        row = work.row(statement(shape, spec.window, skip_locked=spec.skip_locked), params)
        outcome = outcome_of(row, shape)
        return _after_triggers(work, place, shape, spec, outcome) if shape.triggers else outcome
    began = time.perf_counter()
    *steps, last = sqlite_statements(shape, spec.window)
    for sql in steps:
        work.execute(sql, {**params, "ms": (time.perf_counter() - began) * 1000})
    return outcome_of(work.row(last, params), shape)


def _after_triggers(work: Work, place: RunPosition, shape: Shape, spec: BatchSpec, outcome: BatchResult) -> BatchResult:
    """Count rows that AFTER triggers changed as dead: RETURNING saw the row before these triggers fired.

    Deferred triggers would fire only at COMMIT, when nothing can be recorded any more; SET CONSTRAINTS makes them fire now.
    """
    payload = UndoPayload.of(shape)
    if outcome.figures.written:
        work.execute("SET CONSTRAINTS ALL IMMEDIATE")
        undone = ((blanked(shape), blanked_keys), *([] if shape.clears else [(REWRITTEN, altered_keys)]))
        for message, changed_keys in undone:
            keys = changed_keys(work, place, payload, n=spec.n)
            if keys:
                prune(work, place, payload, n=spec.n, keys=keys, now=True)
                store.bury(work, place, keys, message=message, n=spec.n)
                moved = Totals(written=-len(keys), dead=len(keys))
                outcome = dataclasses.replace(outcome, figures=outcome.figures.plus(moved))
    if not shape.undo:
        drop(work, place, n=spec.n)
    return outcome


def blanked(shape: Shape) -> str:
    """The message for a row in which a trigger undid what was written."""
    return FILLED_AGAIN if shape.clears else BLANKED


def change(place: RunPosition, shape: Shape, spec: BatchSpec) -> Change:
    """The batch as a pipelined PostgreSQL transaction, whose row is read only after COMMIT (with `outcome_of`)."""
    return Change(label_of(spec.n), statement(shape, spec.window, strict=True), batch_params(place, spec))


def batch_params(place: RunPosition, spec: BatchSpec) -> dict[str, Value]:
    """The parameters of the statements below."""
    own: dict[str, Value] = {
        "run": place.run,
        "step": place.step,
        "n": spec.n,
        "worker": spec.worker,
        "lo": spec.lo,
        "end": spec.window.end,
        "returned": spec.returned,
    }
    return {**spec.window.all_params(), **own}


def outcome_of(row: Row, shape: Shape) -> BatchResult:
    """Read the row that a batch returned; raises StepError where the source has several rows for one key."""
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
    """The whole batch as one statement.

    It writes only the very row version that it examined, identified by xmin: a row that another transaction changes in
    between is deferred, and nobody's values are overwritten.
    strict: divide by zero where the source has several rows for a key, so that a pipelined transaction can't commit.
    """
    return _statement(shape, window.form, skip_locked, strict)


# The CTEs: rb_j examines and judges; MATERIALIZED, because it is read several times and must be evaluated only once, before
# the UPDATE. rb_u updates. rb_tally counts. rb_undo, rb_late and rb_batch write the ledger's rows. A data-modifying CTE runs
# even where nothing reads it; the order in which they run is determined only by who reads whom.
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
    sets = [_set(shape, c, n) for n, c in enumerate(shape.fill)]
    sets += [f"{quote(name)} = target.{quote(name)}" for name in shape.touched_columns]
    keys = ", ".join(f"rb_j.rb_k{n}" for n in range(len(shape.key)))
    written = ", ".join(f"{_kept(shape, c, n)} AS rb_o{n}" for n, c in enumerate(shape.fill))
    # the same page range as in rb_j, so that the planner can use a TID range scan
    bounds = f" AND {window.condition}" if window.pages else ""
    return f"""UPDATE {shape.table} AS target SET {", ".join(sets)} FROM {"rb_locked AS rb_j" if skip_locked else "rb_j"}
        WHERE {_same_version(shape)} AND rb_j.rb_c = 'written'{bounds}
        RETURNING {keys}, {written}, {blank_in_it(shape)} AS rb_null, {not_in_it(shape)} AS rb_blank, {_identity("rb_j", shape)}"""


def _set(shape: Shape, column: Named, n: int) -> str:
    return f"{column.sql} = " + ("NULL" if shape.clears else f"coalesce(target.{column.sql}, rb_j.rb_v{n})")


def _kept(shape: Shape, column: Named, n: int) -> str:
    """SQL for what the undo needs of a column: the written value; where it is emptied, the value that stood there."""
    value, now = f"CAST(target.{column.sql} AS text)", f"target.{column.sql}"
    if shape.clears:
        return f"CASE WHEN rb_j.rb_n{n} AND {is_null(column, now)} THEN rb_j.rb_v{n} END"
    return f"CASE WHEN rb_j.rb_n{n} THEN {value} END"


def blank_in_it(shape: Shape) -> str:
    """SQL that tells whether the UPDATE had no effect on a column of the row: a BEFORE trigger may have undone it."""
    if shape.clears:
        each = [f"(rb_j.rb_n{n} AND {is_value(c, f'target.{c.sql}')})" for n, c in enumerate(shape.fill)]
        return "(" + " OR ".join(each) + ")"
    each = [
        f"(rb_j.rb_n{n} AND {is_value(c, f'rb_j.rb_v{n}')} AND {is_null(c, f'target.{c.sql}')})"
        for n, c in enumerate(shape.fill)
    ]
    return "(" + " OR ".join(each) + ")"


def not_in_it(shape: Shape) -> str:
    """SQL that tells whether the row has another value than the UPDATE set: NULL, or one of a BEFORE trigger.

    Compared as text after a cast to the column's type, which may round or pad (numeric(10,2), char(5)).
    """
    if shape.clears or not shape.triggers:
        return blank_in_it(shape)
    each = [
        f"(rb_j.rb_n{n} AND CAST(target.{c.sql} AS text) IS DISTINCT FROM CAST(CAST(rb_j.rb_v{n} AS {c.type}) AS text))"
        for n, c in enumerate(shape.fill)
    ]
    return f"({blank_in_it(shape)} OR {' OR '.join(each)})"


def _identity(alias: str, shape: Shape) -> str:
    return f"{alias}.rb_tid" + (f", {alias}.rb_rel" if shape.many else "")


def _same_version(shape: Shape) -> str:
    """SQL that matches the examined version of a row: ctid finds it, xmin proves that it is still the same version.

    ctid alone does not: after waiting for a row lock, older servers don't check it again on the new version.
    """
    found = "target.ctid = rb_j.rb_tid AND target.xmin = rb_j.rb_xmin"
    if not shape.many:
        return found
    by_key = [f"target.{c.sql} = CAST(rb_j.rb_k{n} AS {c.type})" for n, c in enumerate(shape.key)]
    return " AND ".join([*by_key, "target.tableoid = rb_j.rb_rel", found])


def _locks(shape: Shape) -> str:
    """A CTE that locks the rows to be written, skipping those that others have locked.

    FOR NO KEY UPDATE is the lock of an UPDATE that changes no key; it doesn't conflict with foreign key checks (FOR KEY SHARE).
    """
    return f"""rb_locked AS MATERIALIZED (SELECT rb_j.* FROM {shape.table} AS target JOIN rb_j
        ON {_same_version(shape)} WHERE rb_j.rb_c = 'written' FOR NO KEY UPDATE OF target SKIP LOCKED),"""


def _tally(shape: Shape, window: Window, *, skip_locked: bool) -> str:
    """The counters of the batch, with the duration and the WAL of its UPDATE.

    The nested subqueries fix the order of evaluation: first the aggregates of rb_j, with the WAL position before the UPDATE; then
    the count of rb_u, which runs the UPDATE; then the clock and the WAL position. OFFSET 0 keeps the planner from merging them.
    `both` counts rb_u in one scan: all its rows, and those in which a trigger changed a value.
    """
    last = "CAST(:end AS text)"
    if window.order:
        cursor = (
            f"rb_e.{_column(0)}"
            if window.pages
            else json_of(shape, [f"rb_e.{_column(n)}" for n in range(len(window.order))])
        )
        reached = f"(SELECT {cursor} FROM rb_j AS rb_e ORDER BY rb_e.rb_at DESC LIMIT 1)"
        last = f"CASE WHEN rb_c.taken < CAST(:rb_rows AS bigint) THEN {last} ELSE {reached} END"
    # A row with two source rows is joined twice and updated once. So there can be duplicates only where the counts differ.
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
    """SQL for the number of rows that a trigger refused: it changed a value, or skipped a row that we had locked.

    Without rb_locked, a skipped row can't be told from one that another transaction changed; it counts as deferred then.
    """
    return "(SELECT count(*) FROM rb_locked) - rb_g.both[1] + rb_g.both[2]" if skip_locked else "rb_g.both[2]"


def _heap(shape: Shape, window: Window) -> str:
    """SQL for the heap's file: VACUUM FULL or CLUSTER in between gave all rows other TIDs, and the range means nothing then."""
    name = literal(shape.table)
    return f"coalesce(CAST(pg_relation_filenode(CAST({name} AS regclass)) AS bigint), 0)" if window.pages else "0"


def _column(n: int) -> str:
    return f"rb_o{n}"


def _undo(shape: Shape) -> str:
    """The INSERT of the undo payload: for each row the key's values, then each written column's value or NULL, all as text.

    A row in which a trigger changed values is kept only if it holds any value at all.
    """
    values = [f"rb_u.rb_k{n}" for n in range(len(shape.key))] + [f"rb_u.rb_o{n}" for n in range(len(shape.fill))]
    some = f"num_nonnulls({', '.join(values[len(shape.key) :])}) > 0"
    return f"""INSERT INTO {table("undo", shape.dialect)} (run, step, n, rows, payload)
        SELECT CAST(:run AS text), CAST(:step AS text), CAST(:n AS bigint), count(*),
               array_agg(ARRAY[{", ".join(values)}]) FROM rb_u
        WHERE NOT rb_u.rb_blank OR {some} HAVING count(*) > 0"""


def _late(shape: Shape, *, skip_locked: bool) -> str:
    """The INSERT of the rows that were not written, and why.

    `wanted > written` is a one-time filter: usually nothing is missing, and the anti-join over the batch is skipped.
    """
    mine, theirs = _identity("rb_j", shape), _identity("rb_u", shape)
    dead = f"({mine}) IN (SELECT {theirs} FROM rb_u)"
    undone = f"WHEN ({mine}) IN (SELECT {theirs} FROM rb_u WHERE rb_u.rb_null) THEN '{blanked(shape)}' "
    skipped = (
        f"WHEN ({mine}) IN (SELECT {_identity('rb_s', shape)} FROM rb_locked AS rb_s) THEN '{SKIPPED}'"
        if skip_locked
        else ""
    )
    return f"""INSERT INTO {table("skipped_row", shape.dialect)} (run, step, action, key, sqlstate, message, attempt)
        SELECT CAST(:run AS text), CAST(:step AS text), CASE WHEN rb_l.why = '{HELD}' THEN '{DEFERRED}' ELSE '{DEAD_ACTION}' END,
               rb_l.key, CASE WHEN rb_l.why = '{HELD}' THEN '55P03' ELSE '' END, rb_l.why, 1
        FROM (SELECT {key_text(shape, "rb_j")} AS key, CASE {undone}WHEN {dead} THEN '{REWRITTEN}' {skipped} ELSE '{HELD}' END AS why
              FROM rb_j WHERE rb_j.rb_c = 'written' AND (SELECT wanted > written FROM rb_tally)
              AND ({mine}) NOT IN (SELECT {theirs} FROM rb_u WHERE NOT rb_u.rb_blank)) AS rb_l ON CONFLICT DO NOTHING"""


def _batch(shape: Shape) -> str:
    return f"""INSERT INTO {table("batch", shape.dialect)} (run, step, action, n, worker, lo, hi, seen, written,
            already, no_key, not_in_source, deferred, dead, ms, server_wal_bytes)
        SELECT CAST(:run AS text), CAST(:step AS text), 'apply', CAST(:n AS bigint), CAST(:worker AS integer),
               CAST(:lo AS text), hi, seen, written, already, no_key, not_in_source, deferred, dead, ms, wal
        FROM rb_tally"""


# ─── SQLite: several statements; BEGIN IMMEDIATE keeps all other writers out until COMMIT ───────────────────────────
def sqlite_statements(shape: Shape, window: Window) -> list[str]:
    """The statements of a batch, in order; the last one returns the counters.

    SQLite has no data-modifying CTEs, so a temporary table takes the place of rb_j.
    """
    same = " AND ".join(f"target.{c.sql} = rb_j.rb_k{n}" for n, c in enumerate(shape.key))
    sets = ", ".join(_set(shape, c, n) for n, c in enumerate(shape.fill))
    return [
        f"DROP TABLE IF EXISTS {TEMP}",
        f"CREATE TEMP TABLE runbook_window AS {judged(shape, looked_at(shape, window))}",
        # OR ABORT overrides a constraint's own ON CONFLICT clause: REPLACE would delete conflicting rows, IGNORE skip ours
        f"UPDATE OR ABORT {shape.table} AS target SET {sets} FROM {TEMP} AS rb_j WHERE {same} AND rb_j.rb_c = 'written'",
        *([_sqlite_recount(shape, same), _sqlite_dead(shape)] if shape.triggers else []),
        *([_sqlite_undo(shape, same)] if shape.undo else []),
        _sqlite_batch(shape, window),
        _sqlite_figures(shape),
    ]


def _sqlite_recount(shape: Shape, same: str) -> str:
    """Mark rows as dead that lack a value they should have got: a trigger changed it, or the row's key is NULL."""
    all_there = " AND ".join(
        f"(NOT rb_j.rb_n{n} OR target.{c.sql} IS NULL)"
        if shape.clears
        else f"(NOT rb_j.rb_n{n} OR rb_j.rb_v{n} IS NULL OR target.{c.sql} COLLATE BINARY = rb_j.rb_v{n})"
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
    written = [f"rb_j.rb_n{n} AND {done(c, f'target.{c.sql}', clears=shape.clears)}" for n, c in enumerate(shape.fill)]
    stored = [wrap(f"rb_j.rb_v{n}") if shape.clears else f"quote(target.{c.sql})" for n, c in enumerate(shape.fill)]
    values += [f"CASE WHEN {one} THEN {value} END" for one, value in zip(written, stored, strict=True)]
    values[: len(shape.key)] = [wrap(one) for one in values[: len(shape.key)]]
    some = " OR ".join(f"({one})" for one in written)
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
