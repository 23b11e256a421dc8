"""One pass of a fill: the source into the work table, batches from there, rows to return to, what came into the source since."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from math import ceil

from steps.contract import (
    AlreadyCommitted,
    Context,
    DatabaseFault,
    Look,
    Model,
    RunPosition,
    StepError,
    Tuning,
    Value,
    Work,
)
from steps.sql.unreadable import UnreadableRow, attempt, caused_by_a_row
from steps.types.backfill import store
from steps.types.backfill.errors import Meaning, RetryState, meaning
from steps.types.backfill.limits import BatchSize, DeadLetters
from steps.types.backfill.store import SWEEP, Batch, DeadRow, Totals
from steps.types.backfill.throttle import Pace, Throttle, rest_for
from steps.types.backfill.worker import FIRST, LARGER, LARGER_ALONE, SMALLER, SMOOTHING
from steps.types.fill import sql, unreadable
from steps.types.fill.batch import run_batch
from steps.types.fill.progress import progress
from steps.types.fill.shape import FillShape

ROUNDS = (
    3  # times that the source is asked for rows that came meanwhile; one that grows for ever is not followed for ever
)
RETURNS = 5  # times that rows are returned to that others held, or that refer to rows of the same table
TRIES = 2  # of a batch that others hold up, before it is made smaller; of one row, before it is returned to later
FOREIGN_KEY = "23503"


class FillSettings(Model):
    """What the playbook asks of the pass."""

    batch: BatchSize
    throttle: Throttle
    dead: DeadLetters
    expect_work: bool


class FillState(Model):
    """The pass as the ledger keeps it beside its batches.

    in_range: rows of the source; ranges: the numbers (after, up to) of the rows of the work table that are to be written: those of
    the start, then those of each later look at the source. left: rows that are not in the table at the end, and not dead either.
    unreadable: keys of rows whose values the source can't compute; they are dead, and it isn't asked for them again.
    """

    oid: int
    in_range: int
    ranges: tuple[tuple[int, int], ...]
    late: int = 0  # rows that came into the source after the start
    looked: bool = False  # the source was asked until nothing new came, or ROUNDS times
    finished: bool = False
    left: int = 0
    unreadable: tuple[str, ...] = ()


class FillPass:
    """A pass under way in one process; all that must outlive the process is in the ledger and in the work table."""

    def __init__(
        self, ctx: Context, place: RunPosition, shape: FillShape, *, work: str, settings: FillSettings
    ) -> None:
        self.ctx, self.place, self.shape, self.settings = ctx, place, shape, settings
        self.work = work
        self.state = FillState(oid=shape.oid, in_range=0, ranges=())
        self.totals, self.number, self.rows = Totals(), 0, float(FIRST)
        self.trouble, self.pace = RetryState(), Pace(ctx.db, settings.throttle)
        self.rate, self.last_ms = 0.0, 0.0
        self.tuning = Tuning()

    def run(self) -> FillState:
        """Go from where the ledger says it stands to the end; raises Stopped, StepError."""
        self._open()
        while not self.state.finished:
            self._ranges()
            self._return_to_deferred()
            if self.state.looked or not self.totals.written or self._look_again() == 0:
                break
        if not self.state.finished and not self.totals.deferred:
            self._end()
        return self.state

    def reopen(self) -> None:
        """Return to the rows that were set aside when the pass goes on: the source is asked for them again."""
        self._open()
        with self.ctx.db.commit(f"reopen {self._numbered()}") as work:
            rows = store.reopen(work, self.place)
            self.state = self.state.model_copy(update={"unreadable": ()})
            bad = self._read(work, self._create)
            known = self._bury(work, bad)
            gone = work.execute(sql.forget_deferred(self.shape, self.work, there=False), self._ours())
            there = work.execute(sql.forget_deferred(self.shape, self.work, there=True), self._ours())
            late = len(bad) - known
            back = rows - gone - there - known
            figures = Totals(seen=late - gone, already=there, deferred=back, dead=len(bad) - rows)
            store.add_batch(work, self.place, Batch(self.number, SWEEP, "", "", figures))
            missing = _pending(work, self.work)
            come = missing - (self.totals.deferred + back) + late
            again = {
                "ranges": (*self.state.ranges, (0, missing)),
                "in_range": self.state.in_range - gone + come,
                "late": self.state.late + come,
            }
            self.state = self.state.model_copy(update={**again, "looked": False, "finished": False})
            self._keep(work)

    # ─── beginning ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _open(self) -> None:
        with self.ctx.db.look() as look:
            text = store.document(look, self.place)
            if text is not None:
                self.state = FillState.model_validate_json(text)
                self._reload(look)
        if text is None:
            self._first()
        elif self.state.oid and self.state.oid != self.shape.oid:
            raise StepError(
                f"cannot go on: {self.shape.table} is another table than the one that this step began on (oid "
                f"{self.shape.oid}, then {self.state.oid}): it was replaced; begin a new run for the new table"
            )

    def _reload(self, look: Look) -> None:
        self.totals, self.number = store.totals(look, self.place), store.last_number(look, self.place)

    def _first(self) -> None:
        """The source, once, into the work table, in one transaction with what is known of its rows then."""
        self.number = 1
        self.ctx.patiently("begin", self._begin)
        with self.ctx.db.look() as look:
            self._reload(look)
        self._keep_to_budget("the source can't compute them")

    def _begin(self, work: Work) -> None:
        self.state = FillState(oid=self.shape.oid, in_range=0, ranges=())  # it may be tried again
        bad = self._read(work, self._create)
        found = work.row(sql.figures_of_work(self.work))
        rows, there, keyless = (found.integer(name) for name in ("rows", "there", "keyless"))
        self._refuse(work, rows=rows + len(bad), there=there)
        begun = {"in_range": rows + len(bad), "ranges": ((0, rows - there - keyless),)}
        self.state = self.state.model_copy(update=begun)
        figures = Totals(1, seen=there + keyless + len(bad), already=there, no_key=keyless, dead=len(bad))
        self._bury(work, bad)
        store.add_batch(work, self.place, Batch(self.number, SWEEP, "", "", figures))
        self._keep(work)

    def _create(self, work: Work, shape: FillShape) -> int:
        return sum(work.execute(statement) for statement in sql.create_work(shape, self.work))

    def _read(self, work: Work, act: Callable[[Work, FillShape], int]) -> list[UnreadableRow]:
        """Ask the source; where single rows make that fail, ask it for all others. Those rows are then known as unreadable."""
        shape = unreadable.without(self.shape, self.state.unreadable)
        try:
            with attempt(work):
                act(work, shape)
            return []
        except DatabaseFault as fault:
            if not caused_by_a_row(fault, shape.dialect):
                raise
            bad = unreadable.find(work, shape, self.settings.dead)
            if not bad:
                raise
        keys = (*self.state.unreadable, *(one.key for one in bad))
        self.state = self.state.model_copy(update={"unreadable": keys})
        act(work, unreadable.without(self.shape, keys))
        return bad

    def _bury(self, work: Work, bad: Sequence[UnreadableRow]) -> int:
        """Record unreadable rows as dead; how many of them were to be tried again."""
        rows = [DeadRow(one.key, one.sqlstate, f"the source can't compute it: {one.message}") for one in bad]
        return sum(store.set_aside(work, self.place, one, action=store.DEAD_ACTION) for one in rows)

    def _refuse(self, work: Work, *, rows: int, there: int) -> None:
        """Raises StepError where nothing may be written; the transaction leaves nothing behind then."""
        if rows == 0 and self.settings.expect_work:
            raise StepError(
                "nothing to do: the source gives no row; look at it, or write expect_work: false where that is right"
            )
        several = work.rows(sql.duplicates(self.shape, self.work))
        if several:
            raise StepError(
                f"cannot choose a row: the source has {several[0].integer('n')} rows with the key {several[0].text('key')}; "
                "make it unique with DISTINCT ON, GROUP BY or a narrower WHERE"
            )
        if there and not self.shape.skip:
            example = work.row(sql.one_there(self.shape, self.work)).text("key")
            raise StepError(
                f"cannot fill {self.shape.table}: it has {there:,} of the source's {rows:,} rows already, as {example}, and "
                "on_conflict is refuse; nothing was written"
            )

    def _keep(self, work: Work) -> None:
        store.keep_document(work, self.place, self.state.model_dump_json())

    def _numbered(self) -> int:
        self.number += 1
        return self.number

    # ─── batches ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _ranges(self) -> None:
        with self.ctx.db.look() as look:
            reached = store.cursors(look, self.place)
        for number, (lo, hi) in enumerate(self.state.ranges):
            at = int(reached.get(number) or lo)
            while at < hi:
                self._pulse()
                at = self._step(number, at, hi)

    def _step(self, number: int, at: int, end: int) -> int:
        """Try the next rows of a range; where the cursor stands then."""
        rows = min(max(1, int(self.rows)), self._most(), self.trouble.cap or end, end - at)
        began = time.perf_counter()
        try:
            self._commit(number, at, at + rows)
        except DatabaseFault as fault:
            return self._after(fault, number, at, rows=rows)
        except AlreadyCommitted:
            with self.ctx.db.look() as look:
                self._reload(look)
                return int(store.cursors(look, self.place).get(number) or at)
        self.trouble.passed(rows)
        self._adapt(rows, time.perf_counter() - began)
        return at + rows

    def _commit(self, worker: int, lo: int, hi: int) -> None:
        n = self._numbered()
        with self.ctx.db.commit(store.label_of(n), durable=self.pace.busy) as work:
            returned = (
                work.execute(sql.returned(self.shape, self.work), self._window(lo, hi)) if self.totals.deferred else 0
            )
            began = time.perf_counter()
            figures = run_batch(work, self.place, self.shape, table=self.work, n=n, window=(lo, hi))
            ms = (time.perf_counter() - began) * 1000
            figures = figures.plus(Totals(seen=-returned, deferred=-returned, ms=ms))
            store.add_batch(work, self.place, Batch(n, worker, str(lo), str(hi), figures))
        self.totals = self.totals.plus(figures)
        self._keep_to_budget("a trigger of the table kept it from being written")

    def _after(self, fault: DatabaseFault, number: int, at: int, *, rows: int) -> int:
        """Wait, look closer or set aside; where the cursor stands then."""
        kind = meaning(fault, self.shape.dialect)
        if kind is Meaning.FATAL:
            raise fault
        if kind is Meaning.LOCK and self.trouble.tries < TRIES:
            self.trouble.tries += 1
            time.sleep(random.uniform(0, 0.05 * 2**self.trouble.tries))  # noqa: S311 - jitter, no secret
            return at
        if rows > 1:
            self.trouble.halve(rows)
            return at
        self.trouble = RetryState()
        self._set_aside(fault, number, at + 1)
        return at + 1

    def _set_aside(self, fault: DatabaseFault, number: int, row: int) -> None:
        """Record a row that can't be written: dead, or to be returned to."""
        again = number != SWEEP and self._may_pass_later(fault)
        n, action = self._numbered(), store.DEFERRED if again else store.DEAD_ACTION
        with self.ctx.db.commit(store.label_of(n)) as work:
            key = work.row(sql.key_of(self.shape, self.work), {"n": row}).text("key")
            known = store.set_aside(work, self.place, DeadRow(key, fault.sqlstate, str(fault)), action=action)
            dead = int(not again)
            figures = Totals(1, seen=1 - known, dead=dead, deferred=1 - dead - known)
            store.add_batch(work, self.place, Batch(n, number, str(row - 1), str(row), figures))
        self.totals = self.totals.plus(figures)
        self._keep_to_budget(f"the last one, {key}: {fault}")

    def _may_pass_later(self, fault: DatabaseFault) -> bool:
        own = fault.sqlstate == FOREIGN_KEY and self.shape.refers_to_itself
        return own or meaning(fault, self.shape.dialect) is Meaning.LOCK

    def _keep_to_budget(self, why: str) -> None:
        allowed = min(self.settings.dead.max, ceil(self.state.in_range * self.settings.dead.pct / 100))
        if self.totals.dead > allowed:
            raise StepError(
                f"cannot go on: {self.totals.dead} rows could not be written, and dead_letters allows {allowed} "
                f"(max {self.settings.dead.max}, {self.settings.dead.pct} % of {self.state.in_range}); {why}"
            )

    # ─── pace ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def _pulse(self) -> None:
        """A safe point, and the look at what others do."""
        told = progress(
            self.totals, self.state.in_range, rate=self.rate, rows=int(self.rows), ms=self.last_ms, pace=self.pace
        )
        self.tuning = self.ctx.pulse(told)
        self.pace.look(self.totals.batches, self.tuning)

    def _most(self) -> int:
        return min(self.settings.batch.rows[1], self.tuning.max_rows or self.settings.batch.rows[1])

    def _wanted(self) -> float:
        wanted = self.tuning.batch_seconds or self.settings.batch.time
        # half of the longest hold of a lock: a batch may turn out twice as long
        return self.pace.seconds(min(wanted, self.tuning.hold / 2 or wanted))

    def _adapt(self, rows: int, seconds: float) -> None:
        """Rest, and come nearer to the wanted duration, within bounds, so that one odd batch doesn't decide."""
        seconds = max(seconds, 0.0001)
        rest = self.pace.rest(seconds)
        rate = rows / (seconds + rest)
        self.rate = rate if self.rate == 0.0 else self.rate + SMOOTHING * (rate - self.rate)
        self.last_ms = seconds * 1000
        if self.trouble.cap is None:
            factor = min(max(self._wanted() / seconds, SMALLER), LARGER if self.pace.busy else LARGER_ALONE)
            self.rows = min(max(self.rows * factor, self.settings.batch.rows[0]), self._most())
        rest_for(rest, self._pulse)

    # ─── the end ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _return_to_deferred(self) -> None:
        """Try rows again that others held, or whose row of the same table wasn't there yet, for as long as that helps."""
        tries = 0
        while self.totals.deferred and tries < RETURNS:
            if tries:
                time.sleep(random.uniform(0.5, 1.0) * 0.1 * 2**tries)  # noqa: S311 - jitter, no secret
            before = self.totals.deferred
            with self.ctx.db.look() as look:
                numbers = [row.integer("n") for row in look.rows(sql.deferred(self.shape, self.work), self._ours())]
            for number in numbers:
                self._pulse()
                self._once_more(number, last=tries == RETURNS - 1)
            tries = 0 if self.totals.deferred < before else tries + 1

    def _once_more(self, row: int, *, last: bool) -> None:
        try:
            self._commit(SWEEP, row - 1, row)
        except DatabaseFault as fault:
            kind = meaning(fault, self.shape.dialect)
            if kind is Meaning.FATAL:
                raise
            if last and kind is not Meaning.LOCK:
                self._set_aside(fault, SWEEP, row)

    def _look_again(self) -> int:
        """The rows that came into the source since; how many."""
        with self.ctx.db.commit(f"look {self._numbered()}") as work:
            base = work.row(sql.last_number(self.work)).integer("n")
            bad = self._read(work, lambda work, shape: work.execute(sql.append_work(shape, self.work), {"base": base}))
            known = self._numbered_already(work, bad)
            bad = [one for one in bad if one.key not in known]
            self._bury(work, bad)
            figures = Totals(seen=len(bad), dead=len(bad))
            if bad:
                store.add_batch(work, self.place, Batch(self.number, SWEEP, "", "", figures))
            rows = work.row(sql.last_number(self.work)).integer("n") - base
            more = ((base, base + rows),) if rows else ()
            looked = rows == 0 or len(self.state.ranges) > ROUNDS
            come = rows + len(bad)
            grown = {"in_range": self.state.in_range + come, "late": self.state.late + come}
            ranges = (*self.state.ranges, *more)
            self.state = self.state.model_copy(update={**grown, "ranges": ranges, "looked": looked})
            self._keep(work)
        self.totals = self.totals.plus(figures)
        self._keep_to_budget("the source can't compute them")
        return rows + len(bad)

    def _numbered_already(self, work: Work, rows: Sequence[UnreadableRow]) -> set[str]:
        """The keys of those that the work table has: they could be read before."""
        keys = [one.key for one in rows]
        return {row.text("key") for row in work.rows(sql.those_in_work(self.shape, self.work, keys))} if keys else set()

    def _end(self) -> None:
        with self.ctx.db.commit(f"end {self._numbered()}") as work:
            left = work.row(sql.left(self.shape, self.work), self._ours()).integer("n")
            work.execute(f"DROP TABLE IF EXISTS {self.work}")
            self.state = self.state.model_copy(update={"finished": True, "left": left})
            self._keep(work)

    def _ours(self) -> dict[str, Value]:
        return {"run": self.place.run, "step": self.place.step}

    def _window(self, lo: int, hi: int) -> dict[str, Value]:
        return {**self._ours(), "lo": lo, "hi": hi}


def _pending(work: Work, table: str) -> int:
    found = work.row(sql.figures_of_work(table))
    return found.integer("rows") - found.integer("there") - found.integer("keyless")
