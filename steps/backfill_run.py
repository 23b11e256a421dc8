"""One pass of a backfill: batch after batch in its order, what locks and bad rows do to it, the sweep at the end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from steps import passes
from steps.backfill_batch import Order, Outcome, run_batch
from steps.backfill_faults import Meaning, Trouble, meaning
from steps.backfill_figures import forecast, progress, size
from steps.backfill_order import Range, Route, Start, again, begin, first_of, heap_of, whole, window
from steps.backfill_plan import off, settings_for
from steps.backfill_sql import Shape, Window, left, listed, missed
from steps.base import (
    LOCK_NOT_AVAILABLE,
    AlreadyCommitted,
    Context,
    DatabaseFault,
    Look,
    Paused,
    Place,
    StepError,
    Tuning,
    Value,
)
from steps.passes import SWEEP, Batch, Letter, Totals
from steps.words import Model

AGAIN = 8  # tries of one batch after lock timeouts, deadlocks and serialization failures, before it is made smaller
RETURNS = 5  # times that deferred rows are returned to, with growing waits of up to 1.6 s
SMALLER, LARGER = 0.5, 1.2  # how fast the batch size may change, per batch
SMOOTHING = 0.3  # of the rate that guards read


@dataclass(frozen=True)
class Settings:
    """What the playbook asks of the pass."""

    seconds: float
    fewest: int
    most: int
    pause_written: int | None
    pause_batches: int | None
    ends: bool  # there the pass ends instead of waiting
    expect_work: bool
    dead_max: int
    dead_pct: float


class Document(Model):
    """The pass as the ledger keeps it: what was fixed at the beginning, and where it stands beside its batches."""

    route: Route
    start: Start
    paused: bool = False
    finished: bool = False
    left: int = 0


class Enough(Exception):
    """The pass reached what `stop_after` asks for: it ends well, and says what it left."""


class Pass:
    """A pass under way in one process; all that must outlive the process is in the ledger."""

    def __init__(self, ctx: Context, place: Place, shape: Shape, settings: Settings, route: Route) -> None:
        self.ctx, self.place, self.shape, self.settings = ctx, place, shape, settings
        self.document = Document(route=route, start=Start(ranges=(), rows=0, bytes=0))
        self.totals, self.number = Totals(), 0
        self.rows = float(min(max(1000, settings.fewest), settings.most))
        self.trouble = Trouble()
        self.rate, self.last_ms = 0.0, 0.0
        self.switched_off: tuple[str, ...] = ()

    # ─── the whole ──────────────────────────────────────────────────────────────────────────────────────────────────
    def run(self) -> Document:
        """Go from where the ledger says it stands to the end; raises Paused, Stopped, StepError."""
        self._open()
        if not self.document.finished:
            try:
                self._ranges()
                self._sweep()
            except Enough:
                self._count_left()
            self._close()
        return self.document

    def _ranges(self) -> None:
        if self.settings.ends and self.document.paused:
            raise Enough  # killed between the last batch and the end
        worker = 0
        while worker < len(self.document.start.ranges):
            self._range(worker)
            worker += 1

    def _open(self) -> None:
        with self.ctx.db.look() as look:
            text = passes.document(look, self.place)
            if text is None:
                start = begin(look, self.shape, self.document.route)
                self.document = self.document.model_copy(update={"start": start})
            else:
                self.document = Document.model_validate_json(text)
                self._reload(look)
        if text is None:
            self._first()
        else:
            self._follow()

    def _first(self) -> None:
        if self.document.start.rows == 0 and self.settings.expect_work:
            raise StepError(
                f"nothing to do: no row of {self.shape.table} is in range; look at `where` and at the table, or write "
                " expect_work: false where an empty range is right"
            )
        with self.ctx.db.commit("begin") as work:
            passes.keep_document(work, self.place, self.document.model_dump_json())

    def _reload(self, look: Look) -> None:
        self.totals, self.number = passes.totals(look, self.place), passes.last_number(look, self.place)

    def _follow(self) -> None:
        """Begin the heap again where VACUUM FULL or CLUSTER gave its rows new places; nothing is written twice."""
        if self.document.finished or not any(one.kind == "pages" for one in self.document.start.ranges):
            return
        with self.ctx.db.look() as look:
            heap = heap_of(look, self.shape)
            if heap == self.document.start.heap:
                return
            start = again(look, self.shape, self.document.start)
        self.document = self.document.model_copy(update={"start": start})
        with self.ctx.db.commit(f"heap {heap}") as work:
            passes.keep_document(work, self.place, self.document.model_dump_json())

    def _close(self) -> None:
        self.document = self.document.model_copy(update={"finished": True})
        with self.ctx.db.commit("end") as work:
            passes.keep_document(work, self.place, self.document.model_dump_json())

    # ─── one range ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _range(self, worker: int) -> None:
        part, heap = self.document.start.ranges[worker], self.document.start.heap
        if part.kind == "pages" and worker < len(self.document.start.ranges) - 1:
            return  # of a file that is gone
        with self.ctx.db.look() as look:
            at = passes.cursor(look, self.place, worker=worker) or part.lo
            rows, exact = self._next_rows(Tuning())
            self.switched_off = settings_for(look, self.shape, self._window(part, at, rows=rows, exact=exact))
        while at != part.hi and self.document.start.heap == heap:
            at = self._step(worker, at, tuning=self._pulse())

    def _step(self, worker: int, at: str, *, tuning: Tuning) -> str:
        """Try the next rows of a range; where the cursor stands then."""
        part, rows, exact = self.document.start.ranges[worker], *self._next_rows(tuning)
        order = Order(
            self.number + 1, worker, at, self._window(part, at, rows=rows, exact=exact), careful=self.trouble.careful
        )
        began = time.perf_counter()
        try:
            outcome = self._commit(order)
        except DatabaseFault as fault:
            return self._after(fault, order, rows=rows)
        except AlreadyCommitted:
            with self.ctx.db.look() as look:
                self._reload(look)
                return passes.cursor(look, self.place, worker=worker) or part.lo
        self.trouble.passed(max(outcome.taken, 1))
        self._adapt(outcome, time.perf_counter() - began, tuning=tuning)
        if part.kind == "pages" and outcome.heap != self.document.start.heap:
            self._follow()
        return outcome.hi

    def _next_rows(self, tuning: Tuning) -> tuple[int, bool]:
        """How many rows to look at, and whether it must not be one more (a page may hold more)."""
        most = min(self.settings.most, tuning.max_rows or self.settings.most)
        rows = max(1, min(int(self.rows), most))
        limits = [one for one in (self.trouble.cap, self._until_pause()) if one is not None]
        cut = min([rows, *limits])
        return cut, self.trouble.cap is not None or cut < rows

    def _until_pause(self) -> int | None:
        if self.settings.pause_written is None or self.document.paused:
            return None
        return max(1, self.settings.pause_written - self.totals.written)

    def _window(self, part: Range, at: str, *, rows: int, exact: bool) -> Window:
        start, route = self.document.start, self.document.route
        return window(self.shape, route, part, lo=at, start=start, rows=rows, exact=exact)

    def _commit(self, order: Order, *, keys: Sequence[str] = ()) -> Outcome:
        with self.ctx.db.commit(f"batch {order.n}") as work:
            if keys:
                order = replace(order, returned=passes.forget_deferred(work, self.place, _array(keys)))
            if self.switched_off:
                work.rows(off(self.switched_off))
            outcome = run_batch(work, self.place, self.shape, order)
            document = self._pausing(outcome)
            if document is not None:
                passes.keep_document(work, self.place, document.model_dump_json())
        self.totals, self.number = self.totals.plus(outcome.figures), order.n
        if document is not None:
            self.document = document
            if self.settings.ends:
                raise Enough
            with self.ctx.db.look() as look:
                raise Paused(forecast(self.totals, document.start, bytes_now=size(look, self.shape)))
        return outcome

    def _adapt(self, outcome: Outcome, seconds: float, *, tuning: Tuning) -> None:
        """Come nearer to the wanted duration, within bounds, so that one odd batch doesn't decide."""
        seconds = max(seconds, 0.0001)
        seen = outcome.figures.seen / seconds
        self.rate = seen if self.rate == 0.0 else self.rate + SMOOTHING * (seen - self.rate)
        self.last_ms = seconds * 1000
        if self.trouble.cap is None:
            wanted = (tuning.batch_seconds or self.settings.seconds) / seconds
            most = min(self.settings.most, tuning.max_rows or self.settings.most)
            self.rows = min(max(self.rows * min(max(wanted, SMALLER), LARGER), min(self.settings.fewest, most)), most)

    # ─── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _after(self, fault: DatabaseFault, order: Order, *, rows: int) -> str:
        """Wait, look closer or set aside; where the cursor stands then."""
        kind = meaning(fault, self.shape.dialect)
        if kind is Meaning.FATAL:
            raise fault
        if kind is Meaning.LOCK and self.trouble.tries < AGAIN:
            self._wait(fault)
        elif rows > 1:
            self.trouble.halve(rows)
        else:
            return self._single(order)
        return order.lo

    def _wait(self, fault: DatabaseFault) -> None:
        # Rows that the application holds are left out at the second try, which so needs no wait.
        first = fault.sqlstate == LOCK_NOT_AVAILABLE and not self.trouble.careful and self.shape.pg
        self.trouble.careful, self.trouble.tries = self.shape.pg, self.trouble.tries + 1
        if not first:
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**self.trouble.tries)))  # noqa: S311 - jitter, no secret

    def _single(self, order: Order) -> str:
        """One row is at fault: by its key, so that no other row can be taken for it."""
        part = self.document.start.ranges[order.worker]
        alone = self._window(part, order.lo, rows=1, exact=True)
        with self.ctx.db.look() as look:
            found = look.rows(first_of(self.shape, alone), alone.all_params())
        self.trouble = Trouble()
        if not found:
            return order.lo  # deleted meanwhile; the next try passes over its place
        key, place = found[0].text("key"), found[0].text("place")
        self._settle([key], worker=order.worker, lo=order.lo, hi=place)
        return place

    def _settle(self, keys: Sequence[str], *, worker: int, lo: str, hi: str) -> None:
        """Write these rows, and set aside each one that can't be written."""
        within = replace(listed(self.shape, keys), end=hi)
        order = Order(self.number + 1, worker, lo, within, careful=self.shape.pg)
        try:
            self._commit(order, keys=keys)
        except DatabaseFault as fault:
            kind = meaning(fault, self.shape.dialect)
            if kind is Meaning.FATAL:
                raise
            self._pulse()
            if len(keys) > 1:
                half = len(keys) // 2
                self._settle(keys[:half], worker=worker, lo=lo, hi=keys[half - 1])
                self._settle(keys[half:], worker=worker, lo=lo, hi=hi)
            else:
                self._set_aside(
                    fault, order, key=keys[0], action=passes.DEFERRED if kind is Meaning.LOCK else passes.DEAD_ACTION
                )

    def _set_aside(self, fault: DatabaseFault, order: Order, *, key: str, action: str) -> None:
        with self.ctx.db.commit(f"batch {order.n}") as work:
            known = passes.forget_deferred(work, self.place, _array([key]))
            dead = int(action == passes.DEAD_ACTION)
            figures = Totals(1, seen=1 - known, dead=dead, deferred=1 - dead - known)
            passes.add_letter(work, self.place, Letter(key, fault.sqlstate, str(fault)), action=action)
            passes.add_batch(work, self.place, Batch(order.n, order.worker, order.lo, order.window.end, figures))
        self.totals, self.number = self.totals.plus(figures), order.n
        allowed = min(self.settings.dead_max, ceil(self.document.start.rows * self.settings.dead_pct / 100))
        if self.totals.dead > allowed:
            raise StepError(
                f"cannot go on: {self.totals.dead} rows could not be written, and dead_letters allows {allowed} "
                f"(max {self.settings.dead_max}, {self.settings.dead_pct} % of {self.document.start.rows}); "
                f"the last one, {key}: {fault}"
            )

    # ─── the end ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _sweep(self) -> None:
        """Return to rows that were locked, then to rows that moved or came meanwhile, until one query finds none."""
        self._return_to_deferred()
        after, swept, found = "", 0, True
        while found and swept <= self.document.start.rows:
            keys = self._missed(after)
            found = bool(keys)
            for n in range(0, len(keys), max(1, int(self.rows))):
                self._pulse()
                part = keys[n : n + max(1, int(self.rows))]
                self._settle(part, worker=SWEEP, lo=part[0], hi=part[-1])
            after, swept = (keys[-1] if keys else after), swept + len(keys)
        if swept:
            self._return_to_deferred()
            self._count_left()

    def _missed(self, after: str) -> list[str]:
        within = whole(self.shape, self.document.route, self.document.start)
        sql, params = missed(self.shape, within, after=after, limit=10 * self.settings.most)
        with self.ctx.db.look() as look:
            try:
                return [row.text("key") for row in look.rows(sql, {**params, **self._ours()})]
            except DatabaseFault as fault:
                raise StepError(
                    f"cannot prove that no row was missed: {fault}; correct that row, then resume"
                ) from fault

    def _count_left(self) -> None:
        within = whole(self.shape, self.document.route, self.document.start)
        with self.ctx.db.look() as look:
            n = look.row(left(self.shape, within), {**within.params, **self._ours()}).integer("n")
        self.document = self.document.model_copy(update={"left": n})

    def _ours(self) -> dict[str, Value]:
        return {"run": self.place.run, "step": self.place.step, "rb_xid": self.document.start.start_xid}

    def _return_to_deferred(self) -> None:
        for attempt in range(RETURNS):
            with self.ctx.db.look() as look:
                ours = passes.letters(look, run=self.place.run, step=self.place.step, action=passes.DEFERRED)
            keys = [letter.key for letter in ours]
            if not keys:
                return
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * 0.1 * 2**attempt)  # noqa: S311 - jitter, no secret
            for n in range(0, len(keys), self.settings.most):
                self._pulse()
                part = keys[n : n + self.settings.most]
                self._settle(part, worker=SWEEP, lo=part[0], hi=part[-1])

    # ─── gates and progress ─────────────────────────────────────────────────────────────────────────────────────────
    def _pausing(self, outcome: Outcome) -> Document | None:
        """The document with its pause, where this batch reaches it: it commits with the batch, so resume goes on."""
        written, batches = self.totals.written + outcome.figures.written, self.totals.batches + 1
        reached = (self.settings.pause_written or 0) <= written if self.settings.pause_written else False
        reached = reached or (batches >= self.settings.pause_batches if self.settings.pause_batches else False)
        return self.document.model_copy(update={"paused": True}) if reached and not self.document.paused else None

    def _pulse(self) -> Tuning:
        rows, ms = int(self.rows), self.last_ms
        return self.ctx.pulse(progress(self.totals, self.document.start, rate=self.rate, rows=rows, ms=ms))


def _array(keys: Sequence[str]) -> str:
    return json.dumps(list(keys))
