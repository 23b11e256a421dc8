"""Takes back what a backfill wrote: exactly its rows, only where they still hold what it wrote, batch by batch."""

from __future__ import annotations

import time
from dataclasses import dataclass

from steps import catalog, passes
from steps.backfill_pace import Pace, Throttle, rest_for
from steps.backfill_sql import Named
from steps.base import Context, Look, Place, Progress, StepError, Value, Work
from steps.dialect import Dialect, quote
from steps.ledger import table as ledger_table
from steps.passes import REFUSED
from steps.words import Model

TEMP = "temp.runbook_back"
# Compared as text: letters that a collation holds to be equal are another value, and some types have no equality.
_AS_TEXT = (
    "text",
    "character",
    "citext",
    "name",
    "json",
    "xml",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
)
CHANGED = "changed since"
FIRST = 1000  # rows of the first batch
FEWEST = 100
SECONDS = 0.25  # that a batch may take; less while others work


class Written(Model):
    """What a backfill keeps before its first change: where its rows are, and which columns it may fill."""

    table: str  # qualified and quoted
    key: tuple[Named, ...]
    fill: tuple[Named, ...]


@dataclass(frozen=True)
class Taken:
    """Rows set back to NULL where the run had written, and rows left alone because somebody changed them since."""

    restored: int
    refused: int


def take_back(ctx: Context, written: Written, *, throttle: Throttle) -> Taken:
    """Undo the batches of this place's step, the newest first; goes on where it stood; raises StepError, Stopped."""
    with ctx.db.look() as look:
        place = look.place
        if place is None:
            raise StepError("cannot take back rows outside of a run")
        kept, done = passes.kept(look, run=place.run, step=place.step), set(ctx.db.committed())
        taken = _so_far(look, place)
        reached = passes.reached(look, Place(place.run, place.step, "revert"))
        restated = _restated(look, written)
    total = sum(one.rows for one in kept)
    pace, speed = Pace(ctx.db, throttle), 0.0
    for one in kept:
        at = one.rows if f"undo {one.n}" in done else reached.get(one.n, 0)
        while at < one.rows:
            tuning = ctx.pulse(_progress(taken, total))
            pace.look(len(done), tuning)
            wanted = int(speed * pace.seconds(tuning.batch_seconds or SECONDS)) if speed else FIRST
            upto = min(at + max(wanted, FEWEST), one.rows) if ctx.db.dialect is Dialect.POSTGRESQL else one.rows
            part, began = Part(one.n, at, upto), time.monotonic()
            label = f"undo {one.n}" + (f" to {upto}" if upto < one.rows else "")
            ctx.patiently(label, lambda work, part=part: _one(work, place, written, part, restated))  # type: ignore[misc]  # part is bound
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
    ctx.patiently("undo end", lambda work: passes.keep_document(work, Place(place.run, place.step, "revert"), "{}"))
    return taken


@dataclass(frozen=True)
class Part:
    """Some rows of one batch of the way forward, by their numbers in its payload: from `lo` up to and without `hi`."""

    n: int
    lo: int
    hi: int


def _restated(look: Look, written: Written) -> tuple[str, ...]:
    if look.dialect is Dialect.SQLITE:
        return ()
    oid = look.row("SELECT CAST(CAST(:name AS regclass) AS oid)::bigint AS oid", {"name": written.table}).integer("oid")
    return catalog.restated(look, oid, [one.name for one in written.fill])


@dataclass(frozen=True)
class Back:
    """How far a step was taken back: batches that wrote rows, batches of them taken back, and whether it came to its end."""

    kept: int
    taken: int
    ended: bool


def state_of(look: Look, *, run: str, step: str) -> Back:
    """As the ledger has it."""
    place = Place(run, step, "revert")
    ended = passes.document(look, place) is not None
    return Back(len(passes.kept(look, run=run, step=step)), passes.totals(look, place).batches, ended)


def _so_far(look: Look, place: Place) -> Taken:
    totals = passes.totals(look, Place(place.run, place.step, "revert"))
    return Taken(totals.written, totals.dead)


def _progress(taken: Taken, total: int) -> Progress:
    figures: dict[str, Value] = {"restored": taken.restored, "refused": taken.refused}
    done = taken.restored + taken.refused
    return Progress(
        done, total, "rows", note=f"{taken.restored:,} restored, {taken.refused:,} refused", figures=figures
    )


def _one(work: Work, place: Place, written: Written, part: Part, restated: tuple[str, ...]) -> None:
    """One batch, with the list of what was refused, in one transaction."""
    params: dict[str, Value] = {"run": place.run, "step": place.step, "n": part.n}
    if work.dialect is Dialect.POSTGRESQL:
        work.row(_statement(written, restated), {**params, "lo": part.lo, "hi": part.hi})
        return
    for sql in _sqlite(written):
        work.execute(sql, params)


# ─── SQL ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _sets(written: Written) -> str:
    return ", ".join(
        f"{c.sql} = CASE WHEN rb_d.rb_o{n} IS NULL THEN target.{c.sql} END" for n, c in enumerate(written.fill)
    )


def _names(written: Written, alias: str) -> list[str]:
    return [f"{alias}.rb_k{n}" for n in range(len(written.key))]


def _statement(written: Written, restated: tuple[str, ...]) -> str:
    keys, values = len(written.key), range(len(written.fill))
    names = [f"rb_k{n}" for n in range(keys)] + [f"rb_o{n}" for n in values]
    width = len(names)
    read = [f"max(rb_e.text) FILTER (WHERE (rb_e.at - 1) % {width} = {n}) AS {name}" for n, name in enumerate(names)]
    found = [f"target.{c.sql} = CAST(rb_d.rb_k{n} AS {c.type})" for n, c in enumerate(written.key)]
    ours = [f"(rb_d.rb_o{n} IS NULL OR {_same(c, n)})" for n, c in enumerate(written.fill)]
    key = f"CAST(json_build_array({', '.join(_names(written, 'rb_d'))}) AS text)"
    same = " AND ".join(f"rb_u.rb_k{n} = rb_d.rb_k{n}" for n in range(keys))
    again = [f"{quote(name)} = target.{quote(name)}" for name in restated]
    batch, dead, undo = (ledger_table(name, Dialect.POSTGRESQL) for name in ("batch", "dead", "undo"))
    return f"""WITH rb_d AS MATERIALIZED (SELECT {", ".join(read)} FROM {undo} AS rb_x
            CROSS JOIN LATERAL unnest(rb_x.payload) WITH ORDINALITY AS rb_e (text, at)
            WHERE rb_x.run = :run AND rb_x.step = :step AND rb_x.n = :n AND rb_e.at > CAST(:lo AS bigint) * {width}
            AND rb_e.at <= CAST(:hi AS bigint) * {width} GROUP BY (rb_e.at - 1) / {width}),
        rb_u AS (UPDATE {written.table} AS target SET {", ".join([_sets(written), *again])} FROM rb_d WHERE {" AND ".join(found + ours)}
            RETURNING {", ".join(_names(written, "rb_d"))}),
        rb_t AS MATERIALIZED (SELECT (SELECT count(*) FROM rb_d) AS seen, (SELECT count(*) FROM rb_u) AS written),
        rb_r AS (INSERT INTO {dead} (run, step, action, key, sqlstate, message, attempt)
            SELECT CAST(:run AS text), CAST(:step AS text), '{REFUSED}', {key}, '', '{CHANGED}', 1 FROM rb_d
            WHERE (SELECT seen > written FROM rb_t) AND NOT EXISTS (SELECT 1 FROM rb_u WHERE {same})
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


def _same(column: Named, n: int) -> str:
    """Whether the column still holds what was written; a time with zone is compared as a moment."""
    if column.type.split("(")[0].split(" ")[0] in _AS_TEXT and not column.type.endswith("[]"):
        return f'CAST(target.{column.sql} AS text) COLLATE "C" IS NOT DISTINCT FROM rb_d.rb_o{n}'
    return f"target.{column.sql} IS NOT DISTINCT FROM CAST(rb_d.rb_o{n} AS {column.type})"


def _sqlite(written: Written) -> list[str]:
    keys = len(written.key)
    read = [f"json_extract(rb_e.value, '$[{n}]') AS rb_k{n}" for n in range(keys)]
    read += [f"json_extract(rb_e.value, '$[{keys + n}]') AS rb_o{n}" for n in range(len(written.fill))]
    found = " AND ".join(f"target.{c.sql} = rb_d.rb_k{n}" for n, c in enumerate(written.key))
    ours = " AND ".join(
        f"(rb_d.rb_o{n} IS NULL OR quote(target.{c.sql}) = rb_d.rb_o{n})" for n, c in enumerate(written.fill)
    )
    batch, dead, undo = (ledger_table(name, Dialect.SQLITE) for name in ("batch", "dead", "undo"))
    return [
        f"DROP TABLE IF EXISTS {TEMP}",
        f"""CREATE TEMP TABLE runbook_back AS SELECT {", ".join(read)}, 0 AS rb_ours FROM {undo} AS rb_x
            CROSS JOIN json_each(rb_x.payload) AS rb_e WHERE rb_x.run = :run AND rb_x.step = :step AND rb_x.n = :n""",
        f"""UPDATE {TEMP} AS rb_d SET rb_ours = 1 WHERE EXISTS (SELECT 1 FROM {written.table} AS target
            WHERE {found} AND {ours})""",
        f"UPDATE {written.table} AS target SET {_sets(written)} FROM {TEMP} AS rb_d WHERE {found} AND rb_d.rb_ours = 1",
        f"""INSERT INTO {dead} (run, step, action, key, sqlstate, message, attempt)
            SELECT :run, :step, '{REFUSED}', json_array({", ".join(_names(written, "rb_d"))}), '', '{CHANGED}', 1
            FROM {TEMP} AS rb_d WHERE rb_d.rb_ours = 0 ON CONFLICT DO NOTHING""",
        f"""INSERT INTO {batch} (run, step, action, n, worker, seen, written, already, no_key, not_in_source,
                deferred, dead, ms)
            SELECT :run, :step, 'revert', :n, 0, count(*), coalesce(sum(rb_ours), 0), 0, 0, 0, 0,
                   count(*) - coalesce(sum(rb_ours), 0), 0 FROM {TEMP}""",
    ]
