"""One worker of a backfill: batch after batch of a range, and what locks and bad rows do to them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from steps.contract import LOCK_NOT_AVAILABLE, AlreadyCommitted, DatabaseFault, Look, Model, RunPosition, Tuning
from steps.sql.unreadable import caused_by_a_row
from steps.types.backfill import store
from steps.types.backfill.batch import BatchResult, BatchSpec
from steps.types.backfill.errors import Meaning, RetryState, meaning
from steps.types.backfill.planner import JoinChoice, joining
from steps.types.backfill.ranges import Range, Route, Start, first_of, page, window
from steps.types.backfill.reading import Unreadable, in_window
from steps.types.backfill.sql import Shape, Window, listed
from steps.types.backfill.store import DeadRow
from steps.types.backfill.throttle import Pace, Throttle, rest_for

FIRST = 1000  # rows of the first batch, where nobody else works
AGAIN = 8  # tries of one batch after lock timeouts, deadlocks and serialization failures, before it is made smaller
SMALLER, LARGER = 0.5, 2.0  # how fast the batch size may change, per batch
LARGER_ALONE = 4.0  # where nobody else works; rows that need nothing are soon gone over
DENSER = 32  # times as many rows a range of pages may hold as the one before, where VACUUM has left holes
SMOOTHING = 0.3  # of the rate that guards read
TOGETHER_S = 0.5  # that short batches may take which are sent together: until then nobody can stop or hold them


class PassSettings(Model):
    """What the playbook asks of the pass."""

    seconds: float
    fewest: int
    most: int
    workers: int
    throttle: Throttle
    pause_written: int | None
    pause_batches: int | None
    ends: bool  # there the pass ends instead of waiting
    expect_work: bool
    dead_max: int
    dead_pct: float


class PassState(Model):
    """The pass as the ledger keeps it: what was fixed at the beginning, and where it stands beside its batches."""

    route: Route
    start: Start
    paused: bool = False
    finished: bool = False
    left: int = 0

    def ended(self, settings: PassSettings, *, deferred: int) -> bool:
        """Whether nothing of it is left to do; what the sweep had to leave is swept again, and so are rows that were locked."""
        return self.finished and deferred == 0 and (settings.ends or self.left == 0)


@dataclass(frozen=True)
class Assignment:
    """What is the same for every worker of a pass for as long as this process is at it."""

    shape: Shape
    settings: PassSettings
    pace: Pace
    look: Callable[[], AbstractContextManager[Look]]


class PassPort(Protocol):
    """What a worker asks of its pass and tells it, from whichever thread it is in.

    An answer is true for the moment: other workers commit meanwhile, and may find that the table was rewritten.
    """

    place: RunPosition

    def state(self) -> PassState:
        """The pass as the ledger keeps it now."""
        ...

    def cursor(self, number: int) -> str:
        """Where this range stands."""
        ...

    def moved(self, number: int, at: str) -> str:
        """Take in where this range stands now, for whoever goes on with it; gives it back."""
        ...

    def until_pause(self) -> int | None:
        """Rows that may be written before the pass comes to its gate; None where there is none ahead."""
        ...

    def pause_ahead(self) -> bool: ...

    def numbered(self) -> int:
        """A number that no batch of this pass has had."""
        ...

    def pulse(self, *, rate: float, rows: int, ms: float) -> Tuning:
        """A safe point of a worker with this rate, batch size and last duration; raises what the pass was asked to do."""
        ...

    def commit(self, order: BatchSpec, *, keys: Sequence[str] = (), off: Sequence[str] = ()) -> BatchResult:
        """One batch, counted in; raises StepError where more rows are dead than the playbook allows."""
        ...

    def commit_all(self, orders: Sequence[BatchSpec], *, off: Sequence[str] = ()) -> list[BatchResult]:
        """Batches of pages in one message; of fewer of them than that, where one failed."""
        ...

    def set_aside(self, order: BatchSpec, row: DeadRow, *, action: str) -> None:
        """Commit that this row could not be written; raises StepError as `commit` does."""
        ...

    def leave_out(self, order: BatchSpec, bad: Unreadable) -> None:
        """Commit that these rows of a batch can't be read; the cursor stays. Raises StepError as `commit` does."""
        ...

    def caught_up(self, part: int) -> str:
        """Where this range stands by the ledger, after a batch of which it was not known that it had committed."""
        ...


class Worker:
    """One worker's batch size, rate and troubles; all that must outlive the process is in the ledger."""

    def __init__(self, assignment: Assignment, port: PassPort) -> None:
        self._shape, self._settings = assignment.shape, assignment.settings
        self._pace, self._look, self._port = assignment.pace, assignment.look, port
        settings = self._settings
        share = self._pace.seconds(settings.seconds) / settings.seconds  # of the time that a batch may take alone
        self.rows = float(min(max(FIRST * share, settings.fewest), settings.most))
        self.tuning = Tuning()
        self.trouble = RetryState()
        self.rate, self.last_ms = 0.0, 0.0
        self._density = 0.0  # rows on a page, where the last batch was
        self.vanished = 0  # rows that were not met again under the key that they had: deleted, or given another one
        self._joining: dict[str, JoinChoice] = {}  # by kind of range
        self._alone = True  # the next batch: the first says how many rows fit; after a fault, what is wrong

    # ─── one range ──────────────────────────────────────────────────────────────────────────────────────────────────
    def go_over(self, number: int, stays: Callable[[], bool]) -> bool:
        """The rest of a range, for as long as this worker `stays`; whether nothing of it is left to do."""
        part, at = self._part(number), self._port.cursor(number)
        if at != part.hi and part.kind not in self._joining:
            self._joining[part.kind] = self._joining_of(part, at)
        while at != part.hi and self._port.state().start.stands(part):
            if not stays():
                return False
            self.pulse()
            orders = self._short_ones(number, at)
            at = self._port.moved(number, self._together(orders) if orders else self._step(number, at))
        return True

    def _part(self, number: int) -> Range:
        return self._port.state().start.ranges[number]

    def pulse(self) -> None:
        """A safe point; the next batch takes no longer than is wanted now, also where the last one was larger."""
        before = self._wanted()
        self.tuning = self._port.pulse(rate=self.rate, rows=int(self.rows), ms=self.last_ms)
        now = self._wanted()
        if now < before:
            self.rows = max(self.rows * now / before, min(self._settings.fewest, self.most))

    @property
    def most(self) -> int:
        """Rows that a batch may have."""
        return min(self._settings.most, self.tuning.max_rows or self._settings.most)

    @property
    def _fitting(self) -> int:
        """Rows that the next batch may have by its time."""
        return max(1, min(int(self.rows), self.most))

    def _wanted(self) -> float:
        wanted = self.tuning.batch_seconds or self._settings.seconds
        # half of the longest hold of a lock: a batch may turn out twice as long
        return self._pace.seconds(min(wanted, self.tuning.hold / 2 or wanted))

    def _joining_of(self, part: Range, at: str) -> JoinChoice:
        rows, exact = self._next_rows()
        with self._look() as look:
            return joining(look, self._shape, self._window(part, at, rows=rows, exact=exact))

    # ─── short batches ──────────────────────────────────────────────────────────────────────────────────────────────
    def _short_ones(self, number: int, at: str) -> list[BatchSpec]:
        """The next batches while others work, as many as may be sent together; [] where one must go alone."""
        part = self._part(number)
        trouble = self.trouble.skip_locked or self.trouble.cap is not None or self.trouble.bad
        fit = int(TOGETHER_S / self._wanted()) if self._pace.busy else 1
        alone = self._alone or trouble or self._shape.triggers or self._port.pause_ahead()
        if part.kind != "pages" or alone or fit < 2:
            return []
        windows: list[tuple[str, Window]] = []
        while at != part.hi and len(windows) < fit:
            within = self._window(part, at, rows=self._fitting, exact=False)
            windows.append((at, within))
            at = within.end
        if len(windows) < 2:
            return []  # and no number is used up
        return [BatchSpec(self._port.numbered(), number, lo, within) for lo, within in windows]

    def _together(self, orders: list[BatchSpec]) -> str:
        """Send these batches of pages in one message; where the cursor stands then."""
        first, began = orders[0], time.perf_counter()
        outcomes = self._port.commit_all(orders, off=self._joining["pages"].off_for(int(self.rows)))
        seconds = time.perf_counter() - began
        self._alone = len(outcomes) < len(orders)
        if not outcomes:
            return first.lo
        last = outcomes[-1]
        self._density = sum(one.taken for one in outcomes) / max(page(last.hi) - page(first.lo), 1)
        self._adapt(sum(one.figures.seen for one in outcomes), seconds, batches=len(orders))
        return last.hi

    # ─── one batch ──────────────────────────────────────────────────────────────────────────────────────────────────
    def _step(self, number: int, at: str) -> str:
        """Try the next rows of a range; where the cursor stands then."""
        part, rows, exact = self._part(number), *self._next_rows()
        within = self._window(part, at, rows=rows, exact=exact).without(self.trouble.bad)
        order = BatchSpec(self._port.numbered(), number, at, within, skip_locked=self.trouble.skip_locked)
        began = time.perf_counter()
        try:
            outcome = self._port.commit(order, off=self._joining[part.kind].off_for(rows))
        except DatabaseFault as fault:
            return self._after(fault, order, rows=rows)
        except AlreadyCommitted:
            return self._port.caught_up(number)
        self._alone = False
        self.trouble.passed(max(outcome.taken, 1))
        if part.kind == "pages":
            self._density = outcome.taken / max(page(outcome.hi) - page(at), 1)
        self._adapt(outcome.figures.seen, time.perf_counter() - began)
        return outcome.hi

    def _next_rows(self) -> tuple[int, bool]:
        """How many rows to look at, and whether it must not be one more (a page may hold more)."""
        rows, until, cap = self._fitting, self._port.until_pause(), self.trouble.cap
        a_page = max(self._density, self._port.state().start.rows_per_page)
        near = until is not None and until < max(DENSER * rows, a_page)
        return min(one for one in (rows, until, cap) if one is not None), cap is not None or near

    def _window(self, part: Range, at: str, *, rows: int, exact: bool) -> Window:
        state = self._port.state()
        return window(
            self._shape, state.route, part, lo=at, start=state.start, rows=rows, exact=exact, density=self._density
        )

    def _adapt(self, seen: int, seconds: float, *, batches: int = 1) -> None:
        """Rest, and come nearer to the wanted duration, within bounds, so that one odd batch doesn't decide."""
        each = max(seconds / batches, 0.0001)
        rest = batches * self._pace.rest(each)
        rate = seen / (max(seconds, 0.0001) + rest)
        self.rate = rate if self.rate == 0.0 else self.rate + SMOOTHING * (rate - self.rate)
        self.last_ms = each * 1000
        if self.trouble.cap is None:
            larger = LARGER if self._pace.busy else LARGER_ALONE
            factor = min(max(self._wanted() / each, SMALLER), larger)
            self.rows = min(max(self.rows * factor, min(self._settings.fewest, self.most)), self.most)
        rest_for(rest, self.pulse)

    # ─── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _after(self, fault: DatabaseFault, order: BatchSpec, *, rows: int) -> str:
        """Wait, look closer or set aside; where the cursor stands then."""
        kind = meaning(fault, self._shape.dialect)
        if kind is Meaning.FATAL:
            raise fault
        if kind is Meaning.LOCK and self.trouble.tries < AGAIN:
            self._wait(fault)
        elif self._leaves_out(fault, order):
            pass
        elif rows > 1:
            self.trouble.halve(rows)
        else:
            return self._single(order)
        return order.lo

    def _leaves_out(self, fault: DatabaseFault, order: BatchSpec) -> bool:
        """Whether the batch has rows that can't be read: they are dead from here on, and the next try goes on without them."""
        if self.trouble.readable or not caused_by_a_row(fault, self._shape.dialect):
            return False
        with self._look() as look:
            bad = in_window(look, self._shape, order.window, place=self._port.place, some=True)
        if set(bad.keys) <= set(self.trouble.bad):
            self.trouble.readable = True
            return False
        self._port.leave_out(order, bad)
        self.trouble.bad = bad.keys
        return True

    def _wait(self, fault: DatabaseFault) -> None:
        # Rows that the application holds are left out at the second try, which so needs no wait.
        pg = self._shape.pg
        first = fault.sqlstate == LOCK_NOT_AVAILABLE and not self.trouble.skip_locked and pg
        self.trouble.skip_locked, self.trouble.tries = pg, self.trouble.tries + 1
        if not first:
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**self.trouble.tries)))  # noqa: S311 - jitter, no secret

    def _single(self, order: BatchSpec) -> str:
        """One row is at fault: by its key, so that no other row can be taken for it."""
        alone = self._window(self._part(order.worker), order.lo, rows=1, exact=True)
        with self._look() as look:
            found = look.rows(first_of(self._shape, alone), alone.all_params())
        self.trouble = RetryState()
        if not found:
            return order.lo  # deleted meanwhile; the next try passes over its place
        key, place = found[0].text("key"), found[0].text("place")
        self.settle([key], worker=order.worker, lo=order.lo, hi=place)
        return place

    def settle_all(self, keys: Sequence[str], *, worker: int) -> None:
        """Write all these rows, in batches as long as others."""
        done = 0
        while done < len(keys):
            self.pulse()
            part = keys[done : done + max(1, int(self.rows))]
            self.settle(part, worker=worker, lo=part[0], hi=part[-1])
            done += len(part)

    def settle(self, keys: Sequence[str], *, worker: int, lo: str, hi: str) -> None:
        """Write these rows, and set aside each one that can't be written."""
        shape, port = self._shape, self._port
        within = replace(listed(shape, keys), end=hi)
        order = BatchSpec(port.numbered(), worker, lo, within, skip_locked=shape.pg)
        began = time.perf_counter()
        try:
            outcome = port.commit(order, keys=keys)
        except DatabaseFault as fault:
            kind = meaning(fault, shape.dialect)
            if kind is Meaning.FATAL:
                raise
            self.pulse()
            if len(keys) > 1:
                half = len(keys) // 2
                self.settle(keys[:half], worker=worker, lo=lo, hi=keys[half - 1])
                self.settle(keys[half:], worker=worker, lo=lo, hi=hi)
            else:
                action = store.DEFERRED if kind is Meaning.LOCK else store.DEAD_ACTION
                port.set_aside(order, self._dead(keys[0], fault), action=action)
        else:
            self.vanished += max(len(keys) - outcome.taken, 0)
            if worker == store.SWEEP:
                self._adapt(outcome.figures.seen, time.perf_counter() - began)

    def _dead(self, key: str, fault: DatabaseFault) -> DeadRow:
        """A row that fails alone, with the reason; whether it couldn't even be read is asked of it alone."""
        if caused_by_a_row(fault, self._shape.dialect):
            with self._look() as look:
                bad = in_window(look, self._shape, listed(self._shape, [key])).found
            if bad:
                return DeadRow.unreadable(bad[0])
        return DeadRow(key, fault.sqlstate, str(fault))


def array(keys: Sequence[str]) -> str:
    """Keys, each a JSON array, as one JSON array of texts."""
    return json.dumps(list(keys))
