"""One batch of a fill: the rows, what the undo needs and the counters commit in one transaction."""

from __future__ import annotations

from steps.contract import RunPosition, StepError, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import table as ledger_table
from steps.types.backfill import store
from steps.types.backfill.payload import UndoPayload, rows_of
from steps.types.backfill.sql import Named
from steps.types.backfill.store import Totals
from steps.types.fill import sql
from steps.types.fill.shape import FillShape

SKIPPED = "a trigger of the table kept it from being written"
FINGERPRINT = Named("fingerprint", "text")


def payload_of(dialect: Dialect, table: str, key: tuple[Named, ...]) -> UndoPayload:
    """The layout of what the undo needs: a row's key, and a fingerprint of the row as it was written."""
    return UndoPayload(dialect, table, key, (FINGERPRINT,))


def run_batch(
    work: Work, place: RunPosition, shape: FillShape, *, table: str, n: int, window: tuple[int, int]
) -> Totals:
    """Write the rows of the work table with these numbers (after, up to) inside the caller's transaction; the counters."""
    lo, hi = window
    params: dict[str, Value] = {"run": place.run, "step": place.step, "n": n, "lo": lo, "hi": hi}
    if shape.pg:
        found = work.row(sql.statement(shape, table), params)
        seen, written = found.integer("seen"), found.integer("written")
        if shape.triggers and written:
            written = _as_triggers_left_them(work, place, shape, n=n)
    else:
        for one in sql.sqlite_statements(shape, table):
            work.execute(one, {name: value for name, value in params.items() if f":{name}" in one})
        seen, written = hi - lo, _kept(work, place, n=n)
    dead = _bury(work, place, shape, table=table, window=window) if shape.triggers else 0
    if written + dead > seen:
        raise StepError(
            f"cannot tell which rows were written into {shape.table}: a trigger of the table gave them other keys; take the "
            "key from the source as the trigger would make it"
        )
    return Totals(1, seen=seen, written=written, already=seen - written - dead, dead=dead)


def _kept(work: Work, place: RunPosition, *, n: int) -> int:
    sql_ = f"SELECT coalesce(sum(rows), 0) AS n FROM {ledger_table('undo', work.dialect)} WHERE run = :run AND step = :step AND n = :n"
    return work.row(sql_, {"run": place.run, "step": place.step, "n": n}).integer("n")


def _as_triggers_left_them(work: Work, place: RunPosition, shape: FillShape, *, n: int) -> int:
    """Keep for the undo the rows as AFTER triggers left them, which RETURNING didn't see; how many are there.

    Deferred triggers would fire only at COMMIT, when nothing can be recorded any more; SET CONSTRAINTS makes them fire now.
    """
    work.execute("SET CONSTRAINTS ALL IMMEDIATE")
    payload = payload_of(shape.dialect, shape.table, shape.key_columns)
    undo = ledger_table("undo", work.dialect)
    keys = ", ".join(f"rb_d.{name}" for name in payload.keys)
    now = f"""SELECT count(*) AS rows, array_agg(ARRAY[{keys}, {sql.fingerprint(shape.dialect, shape.whole)}]) AS payload
        FROM ({rows_of(payload, where="rb_x.n = :n")}) AS rb_d JOIN {shape.table} AS target ON {payload.matches}"""
    params: dict[str, Value] = {"run": place.run, "step": place.step, "n": n}
    ours = "run = :run AND step = :step AND n = :n"
    work.execute(
        f"""UPDATE {undo} SET rows = rb_f.rows, payload = coalesce(rb_f.payload, '{{}}') FROM ({now}) AS rb_f WHERE {ours}""",
        params,
    )
    work.execute(f"DELETE FROM {undo} WHERE {ours} AND rows = 0", params)
    return _kept(work, place, n=n)


def _bury(work: Work, place: RunPosition, shape: FillShape, *, table: str, window: tuple[int, int]) -> int:
    """Record the rows that a trigger kept from being written as dead; how many."""
    lo, hi = window
    keys = [row.text("key") for row in work.rows(sql.not_written(shape, table), {"lo": lo, "hi": hi})]
    if keys:
        store.recall(work, place, keys, message=SKIPPED, action=store.DEAD_ACTION)
    return len(keys)
