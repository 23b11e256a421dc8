"""Workers over a list of ranges: as many threads as are wanted just now, each with a connection of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

LOOK_S = 0.5  # how often it is looked whether a worker is wanted that isn't there


class RangeWorker(Protocol):
    """Goes over one range, for as long as `stays()`; says whether nothing of it is left to do."""

    rate: float

    def go_over(self, number: int, stays: Callable[[], bool]) -> bool: ...


class Dismissed(Exception):
    """Another worker met a fault: this one stops at its safe point."""


class WorkerPool:
    """Gives out ranges; the first fault of any worker ends the work of all, each at its safe point.

    A worker that is no longer wanted gives its range back. `done` is called in a thread that ends.
    """

    def __init__(self, *, wanted: int, done: Callable[[], None]) -> None:
        self.wanted, self._done = wanted, done
        self.workers: list[RangeWorker] = []
        self._todo: deque[int] = deque()
        self._threads: dict[int, threading.Thread] = {}
        self._fault: BaseException | None = None
        self._changed = threading.Condition()

    def work(self, todo: Iterable[int], employ: Callable[[], RangeWorker]) -> None:
        """Go over all these ranges; raises what a worker raised."""
        self._todo, self._fault = deque(todo), None
        try:
            with self._changed:
                while self._at_work():
                    self._send_out(employ)
                    self._changed.wait(LOOK_S)
        finally:
            if self._at_work():  # this thread was interrupted
                self._fault = Dismissed()
            for thread in list(self._threads.values()):
                thread.join()
        self._raise()

    def _at_work(self) -> bool:
        return self._fault is None and bool(self._todo or self._threads)

    def _raise(self) -> None:
        fault, self._fault = self._fault, None  # who goes on after it is not dismissed by it
        if fault is not None:
            raise fault

    def want(self, workers: int) -> None:
        """From here on so many are wanted: more are sent out at once, those too many stop at their safe points."""
        if workers != self.wanted:
            with self._changed:
                self.wanted = workers
                self._changed.notify_all()

    @property
    def rate(self) -> float:
        """Of all who are at work, together."""
        return sum(worker.rate for worker in self.workers)

    def check(self) -> None:
        """Raise where the work has been ended by another's fault."""
        if self._fault is not None:
            raise Dismissed

    def _send_out(self, employ: Callable[[], RangeWorker]) -> None:
        places = [n for n in range(max(1, self.wanted)) if n not in self._threads]
        for place in places[: len(self._todo)]:
            thread = threading.Thread(target=self._life, args=(place, employ()), name=f"worker {place + 1}")
            self._threads[place] = thread
            thread.start()

    def _life(self, place: int, worker: RangeWorker) -> None:
        self.workers.append(worker)
        try:
            while (number := self._next(place)) is not None:
                if not worker.go_over(number, lambda: place < self.wanted):
                    self._give_back(number)
        except BaseException as fault:  # noqa: BLE001 - raised again in the thread that waits
            with self._changed:
                self._fault = self._fault or fault
        finally:
            self._done()
            with self._changed:
                self.workers.remove(worker)
                del self._threads[place]
                self._changed.notify_all()

    def _next(self, place: int) -> int | None:
        with self._changed:
            wanted = self._fault is None and place < max(1, self.wanted)
            return self._todo.popleft() if wanted and self._todo else None

    def _give_back(self, number: int) -> None:
        with self._changed:
            self._todo.appendleft(number)
