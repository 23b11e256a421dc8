"""The undo of a backfill: resets exactly the rows that it wrote, where they still hold the written values, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from steps.catalog import catalog
from steps.contract import Context, DatabaseFault, Look, Model, Progress, RunPosition, StepError, Value, Work
from steps.contract.dialect import Dialect
from steps.contract.errors import KEPT_TOO_LONG
from steps.ledger.tables import table as ledger_table
from steps.sql.dialect import quote
from steps.types.backfill import store
from steps.types.backfill.errors import Meaning, meaning
from steps.types.backfill.payload import UndoPayload, rows_of
from steps.types.backfill.sql import Named, is_null, unwrap
from steps.types.backfill.store import REFUSED
from steps.types.backfill.tables import members
from steps.types.backfill.throttle import Pace, Throttle, rest_for

TEMP = "temp.runbook_back"
# Why a row is left alone.
CHANGED = "changed since"
KEPT = "a trigger of the table kept it as it is, or somebody changed it just then"
REWRITTEN = "a trigger of the table wrote it back"
_FROM_A_BACKUP = "nothing of it was taken back; bring the ledger's rows back from a backup, or leave the step standing"
FIRST = 1000  # rows of the first batch
FEWEST = 100  # rows of any batch
SECONDS = 0.25  # target duration of a batch; less while others work


class Written(Model):
    """What a backfill records before its first change: the table, its key, and the columns it may fill."""

    table: str  # qualified and quoted
    key: tuple[Named, ...]
    fill: tuple[Named, ...]
    oid: int = 0  # of the table; 0 where it has none, and in what older versions kept
    clears: bool = False  # the columns were emptied


@dataclass(frozen=True)
class Taken:
    """Rows restored, and rows left alone because somebody changed them since."""

    restored: int
    refused: int


def take_back(ctx: Context, written: Written, *, throttle: Throttle) -> Taken:
    """Undo the batches of a backfill, newest first; a repeated call continues where it stopped.

    Raises StepError where the ledger or the table don't permit it, and Stopped.
    """
    with ctx.db.look() as look:
        spec = _undo_spec(look, written)

    def undo(label: str, place: RunPosition, part: Part) -> None:
        _undo_with_retries(ctx, label, place, spec, part)

    return take_back_batches(ctx, undo, throttle=throttle)


def take_back_batches(ctx: Context, undo: Callable[[str, RunPosition, Part], None], *, throttle: Throttle) -> Taken:
    """Undo the batches of the step that this connection serves, newest first, each part by `undo` in a commit of its own.

    `undo` gets the commit's label; it records the rows restored and refused in the ledger's batch of that number.
    """
    with ctx.db.look() as look:
        place = _position(look)
        kept, done = store.kept(look, run=place.run, step=place.step), set(ctx.db.committed())
        taken = _so_far(look, place)
        reached = store.reached(look, RunPosition(place.run, place.step, "revert"))
    total = sum(one.rows for one in kept)
    pace, speed = Pace(ctx.db, throttle), 0.0
    for one in kept:
        # the label without "to …" is that of a batch's last part: the batch is done
        at = one.rows if f"undo {one.n}" in done else reached.get(one.n, 0)
        while at < one.rows:
            tuning = ctx.pulse(_progress(taken, total))
            pace.look(len(done), tuning)
            longest = min(tuning.batch_seconds or SECONDS, tuning.hold / 2 or SECONDS)
            wanted = int(speed * pace.seconds(longest)) if speed else FIRST
            upto = min(at + max(wanted, FEWEST), one.rows) if ctx.db.dialect is Dialect.POSTGRESQL else one.rows
            part, began = Part(one.n, at, upto), time.monotonic()
            label = f"undo {one.n}" + (f" to {upto}" if upto < one.rows else "")
            undo(label, place, part)
            done.add(label)
            seconds = max(time.monotonic() - began, 0.001)
            speed, at = (upto - at) / seconds, upto
            with ctx.db.look() as look:
                taken = _so_far(look, place)
            rest_for(pace.rest(seconds), lambda taken=taken: ctx.pulse(_progress(taken, total)))  # type: ignore[misc]  # as above
    if taken.restored + taken.refused != total:
        raise StepError(
            f"cannot account for all rows: {taken.restored} restored and {taken.refused} refused of {total} written"
        )
    ctx.pulse(_progress(taken, total))
    ctx.patiently(
        "undo end", lambda work: store.keep_document(work, RunPosition(place.run, place.step, "revert"), "{}")
    )
    return taken


def _position(look: Look) -> RunPosition:
    """The run, step and action of this connection; raises StepError where the ledger's record of the step is incomplete."""
    if look.place is None:
        raise StepError("cannot take back rows outside of a run")
    _require_complete(look, look.place)
    return look.place


def _require_complete(look: Look, place: RunPosition) -> None:
    """Raises StepError where batches or payloads are missing from the ledger: an undo would silently leave rows behind."""
    there = RunPosition(place.run, place.step, "apply")
    lost = store.without_figures(look, there)
    if lost:
        raise StepError(f"cannot take back {place.step}: the ledger has lost {lost:,} of its batches; {_FROM_A_BACKUP}")
    written = store.totals(look, there).written
    rows = sum(one.rows for one in store.kept(look, run=place.run, step=place.step))
    if rows < written:
        raise StepError(
            f"cannot take back {place.step}: of {written:,} rows that it wrote, the ledger has lost {written - rows:,}; "
            f"{_FROM_A_BACKUP}"
        )


@dataclass(frozen=True)
class Part:
    """A slice of one batch's payload: the rows numbered from `lo` (inclusive) to `hi` (exclusive), in one transaction."""

    n: int
    lo: int
    hi: int


@dataclass(frozen=True)
class UndoSpec:
    """How rows are reset. touched_columns: as for the backfill itself; triggers: whether an UPDATE fires any.

    parsed: where the text of a value differs, compare again after a cast to its type and back, since settings of the session
    (such as the time zone) affect the text.
    """

    written: Written
    dialect: Dialect
    touched_columns: tuple[str, ...] = ()
    triggers: bool = False
    parsed: bool = True

    @property
    def payload(self) -> UndoPayload:
        written = self.written
        return UndoPayload(self.dialect, written.table, written.key, written.fill, written.clears)


def _undo_spec(look: Look, written: Written) -> UndoSpec:
    """How to reset this table's rows; raises StepError where it isn't the table that was filled."""
    if look.dialect is Dialect.SQLITE:
        return UndoSpec(written, look.dialect)
    found = same_table(look, written.table, written.oid)
    fill, key = [one.name for one in written.fill], [one.name for one in written.key]
    triggers = any(one.triggers for one in members(look, found, key))
    return UndoSpec(written, look.dialect, catalog.touched_columns(look, found, fill), triggers)


def same_table(look: Look, table: str, oid: int) -> int:
    """The table's oid; raises StepError where it isn't the one (`oid`, 0 where unknown) that was written into."""
    found = look.row("SELECT CAST(to_regclass(:name) AS oid)::bigint AS oid", {"name": table}).maybe_integer("oid")
    if found is None or (oid and found != oid):
        what = "there is no such table" if found is None else f"it is another table now (oid {found}, then {oid})"
        raise StepError(
            f"cannot take back what was written into {table}: {what}; the rows that were written are not in it"
        )
    return found


def _undo_with_retries(ctx: Context, label: str, place: RunPosition, spec: UndoSpec, part: Part) -> None:
    """Undo one part in one transaction.

    A written value may no longer be valid for its type (a renamed enum label), so that casting it fails: then the part is
    repeated with values compared only as text.
    """
    try:
        ctx.patiently(label, lambda work: _undo_part(work, place, spec, part))
    except DatabaseFault as fault:
        if fault.sqlstate == KEPT_TOO_LONG or meaning(fault, spec.dialect) is not Meaning.DATA:
            raise
        ctx.patiently(label, lambda work: _undo_part(work, place, replace(spec, parsed=False), part))


@dataclass(frozen=True)
class UndoProgress:
    """How far the undo of a step has come: batches with a payload, batches undone, and whether it is complete."""

    kept: int
    taken: int
    ended: bool


def state_of(look: Look, *, run: str, step: str) -> UndoProgress:
    """The progress of a step's undo, from the ledger."""
    place = RunPosition(run, step, "revert")
    ended = store.document(look, place) is not None
    return UndoProgress(len(store.kept(look, run=run, step=step)), store.totals(look, place).batches, ended)


def _so_far(look: Look, place: RunPosition) -> Taken:
    totals = store.totals(look, RunPosition(place.run, place.step, "revert"))
    return Taken(totals.written, totals.dead)


def _progress(taken: Taken, total: int) -> Progress:
    figures: dict[str, Value] = {"restored": taken.restored, "refused": taken.refused}
    done = taken.restored + taken.refused
    return Progress(
        done, total, "rows", note=f"{taken.restored:,} restored, {taken.refused:,} refused", figures=figures
    )


def _undo_part(work: Work, place: RunPosition, spec: UndoSpec, part: Part) -> None:
    """Undo one part inside the caller's transaction, and record the counters and the rows left alone."""
    params: dict[str, Value] = {"run": place.run, "step": place.step, "n": part.n}
    if work.dialect is Dialect.SQLITE:
        for sql in _sqlite(spec):
            work.execute(sql, params)
        return
    params |= {"lo": part.lo, "hi": part.hi}
    work.row(_statement(spec), params)
    if spec.triggers:
        # deferred triggers would fire at COMMIT, when their effect can't be recorded any more
        work.execute("SET CONSTRAINTS ALL IMMEDIATE")
        count_as_refused(work, place, part, rows=work.execute(_written_back(spec), params))


def count_as_refused(work: Work, place: RunPosition, part: Part, *, rows: int) -> None:
    """Rows that had been counted as restored are refused after all."""
    sql = f"""UPDATE {ledger_table("batch", work.dialect)} SET written = written - :rows, dead = dead + :rows
        WHERE run = :run AND step = :step AND action = 'revert' AND n = :n"""
    work.execute(sql, {"run": place.run, "step": place.step, "n": part.n, "rows": rows})


# ─── SQL ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _sets(spec: UndoSpec) -> str:
    """The assignments: NULL where a value was written, and the old value where a column was emptied."""
    each = []
    for n, column in enumerate(spec.written.fill):
        old = f"CAST(rb_d.rb_o{n} AS {column.type})" if spec.dialect is Dialect.POSTGRESQL else unwrap(f"rb_d.rb_o{n}")
        restored = f" ELSE {old}" if spec.written.clears else ""
        each.append(f"{column.sql} = CASE WHEN rb_d.rb_o{n} IS NULL THEN target.{column.sql}{restored} END")
    return ", ".join(each)


def _names(written: Written, alias: str) -> list[str]:
    return [f"{alias}.rb_k{n}" for n in range(len(written.key))]


# A slice of a payload: unnest numbers the elements of the flattened array from 1, and each row has `width` of them.
_PART = "rb_x.n = :n AND rb_e.at > CAST(:lo AS bigint) * {width} AND rb_e.at <= CAST(:hi AS bigint) * {width}"


def part_rows(payload: UndoPayload) -> str:
    """The SELECT of the rows of one part of a payload (PostgreSQL)."""
    return rows_of(payload, where=_PART.format(width=len(payload.key) + len(payload.fill)))


def _statement(spec: UndoSpec) -> str:
    """One part as one statement; its UPDATE changes only rows that still hold what was written."""
    payload, written = spec.payload, spec.written
    ours = [f"(rb_d.rb_o{n} IS NULL OR {_unchanged(spec, c, n)})" for n, c in enumerate(written.fill)]
    again = [f"{quote(name)} = target.{quote(name)}" for name in spec.touched_columns]
    update = f"""UPDATE {written.table} AS target SET {", ".join([_sets(spec), *again])} FROM rb_d
        WHERE {" AND ".join([payload.matches, *ours])}
        RETURNING {", ".join(_names(written, "rb_d"))}, {payload.refilled} AS rb_back"""
    same = " AND ".join(f"rb_u.{name} = rb_d.{name}" for name in payload.keys)
    why = f"""CASE WHEN EXISTS (SELECT 1 FROM rb_u WHERE {same}) THEN '{REWRITTEN}' WHEN EXISTS (SELECT 1 FROM {written.table}
        AS target WHERE {" AND ".join([payload.matches, *ours])}) THEN '{KEPT}' ELSE '{CHANGED}' END"""
    return accounted(payload, update, why=why)


def accounted(payload: UndoPayload, change: str, *, why: str) -> str:
    """PostgreSQL: one part as one statement that takes back rows and records how many, and which not.

    rb_d: the payload's rows; rb_u: the change, which returns their keys, and rb_back where nothing was taken back after all;
    rb_t: the counters; rb_r: the rows left alone, with the reason `why`; rb_b: the batch's row, which sums up all its parts.
    """
    same = " AND ".join(f"rb_u.{name} = rb_d.{name}" for name in payload.keys)
    batch, skipped = (ledger_table(name, Dialect.POSTGRESQL) for name in ("batch", "skipped_row"))
    return f"""WITH rb_d AS MATERIALIZED ({part_rows(payload)}),
        rb_u AS ({change}),
        rb_t AS MATERIALIZED (SELECT (SELECT count(*) FROM rb_d) AS seen,
            (SELECT count(*) FROM rb_u WHERE NOT rb_u.rb_back) AS written),
        rb_r AS (INSERT INTO {skipped} (run, step, action, key, sqlstate, message, attempt)
            SELECT CAST(:run AS text), CAST(:step AS text), '{REFUSED}', {payload.key_text()}, '', {why}, 1 FROM rb_d
            WHERE (SELECT seen > written FROM rb_t) AND NOT EXISTS (SELECT 1 FROM rb_u WHERE NOT rb_u.rb_back AND {same})
            ON CONFLICT DO NOTHING),
        rb_b AS (INSERT INTO {batch} AS rb_was (run, step, action, n, worker, hi, seen, written, already, no_key,
            not_in_source, deferred, dead, ms)
            SELECT CAST(:run AS text), CAST(:step AS text), 'revert', CAST(:n AS bigint), 0, CAST(:hi AS text), seen,
            written, 0, 0, 0, 0, seen - written, 1000.0 * extract(epoch FROM clock_timestamp() - statement_timestamp())
            FROM rb_t ON CONFLICT (run, step, action, n) DO UPDATE SET hi = excluded.hi, ms = rb_was.ms + excluded.ms,
            seen = rb_was.seen + excluded.seen, written = rb_was.written + excluded.written,
            dead = rb_was.dead + excluded.dead)
        SELECT 1 AS batches, seen, written, 0 AS already, 0 AS no_key, 0 AS not_in_source, 0 AS deferred,
               seen - written AS dead, 0 AS ms FROM rb_t"""


def _written_back(spec: UndoSpec) -> str:
    """The INSERT that records rows of a part whose values AFTER triggers have written back."""
    payload, skipped = spec.payload, ledger_table("skipped_row", spec.dialect)
    return f"""INSERT INTO {skipped} (run, step, action, key, sqlstate, message, attempt)
        SELECT CAST(:run AS text), CAST(:step AS text), '{REFUSED}', {payload.key_text()}, '', '{REWRITTEN}', 1
        FROM ({part_rows(spec.payload)}) AS rb_d JOIN {payload.table} AS target ON {payload.matches} WHERE {payload.refilled}
        ON CONFLICT DO NOTHING"""


def _unchanged(spec: UndoSpec, column: Named, n: int) -> str:
    """SQL that tells whether the column still holds the written value, compared as the server's text of both.

    An emptied column must still be NULL.

    Every type has a text form, but some have no equality operator (json), some treat different values as equal (a
    case-insensitive collation; 1.0 and 1.00), and an extension's operators may not be on the search path.
    """
    if spec.written.clears:
        return is_null(column, f"target.{column.sql}")
    text = f'CAST(target.{column.sql} AS text) COLLATE "C"'
    if not spec.parsed:
        return f"{text} = rb_d.rb_o{n}"
    return (
        f"CASE WHEN {text} = rb_d.rb_o{n} THEN true ELSE {text} = CAST(CAST(rb_d.rb_o{n} AS {column.type}) AS text) END"
    )


def _sqlite(spec: UndoSpec) -> list[str]:
    payload, written = spec.payload, spec.written
    ours = " AND ".join(
        f"(rb_d.rb_o{n} IS NULL OR {f'target.{c.sql} IS NULL' if written.clears else f'quote(target.{c.sql}) = rb_d.rb_o{n}'})"
        for n, c in enumerate(written.fill)
    )
    there = f"EXISTS (SELECT 1 FROM {written.table} AS target WHERE {payload.matches} AND "
    return [
        f"DROP TABLE IF EXISTS {TEMP}",
        f"CREATE TEMP TABLE runbook_back AS SELECT rb_d.*, '{CHANGED}' AS rb_why FROM ({rows_of(payload, where='rb_x.n = :n')}) AS rb_d",
        f"UPDATE {TEMP} AS rb_d SET rb_why = '' WHERE {there}{ours})",
        f"UPDATE OR ABORT {written.table} AS target SET {_sets(spec)} FROM {TEMP} AS rb_d WHERE {payload.matches} AND rb_d.rb_why = ''",
        f"UPDATE {TEMP} AS rb_d SET rb_why = '{REWRITTEN}' WHERE rb_d.rb_why = '' AND {there}{payload.refilled})",
        *sqlite_accounts(payload),
    ]


def sqlite_accounts(payload: UndoPayload) -> list[str]:
    """SQLite: the statements that record what became of a batch's rows in TEMP; rb_why: "" where it was taken back."""
    batch, skipped = (ledger_table(name, Dialect.SQLITE) for name in ("batch", "skipped_row"))
    return [
        f"""INSERT INTO {skipped} (run, step, action, key, sqlstate, message, attempt)
            SELECT :run, :step, '{REFUSED}', {payload.key_text()}, '', rb_d.rb_why, 1
            FROM {TEMP} AS rb_d WHERE rb_d.rb_why <> '' ON CONFLICT DO NOTHING""",
        f"""INSERT INTO {batch} (run, step, action, n, worker, seen, written, already, no_key, not_in_source,
                deferred, dead, ms)
            SELECT :run, :step, 'revert', :n, 0, count(*), count(*) FILTER (WHERE rb_why = ''), 0, 0, 0, 0,
                   count(*) FILTER (WHERE rb_why <> ''), 0 FROM {TEMP}""",
    ]
