"""Requests to a running step: stops, holds and tuning, from signals, guards, the heartbeat and other terminals.

A request is only noted here, by any thread or by the signal handler; the step obeys at its next safe point. Cancelling
statements in flight is the exception, for when no safe point is reached in time.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType

from steps.contract import Tuning, Value

CANCEL_S = 1.0  # interval between attempts to cancel
HEARD_S = 3.0  # how long a cancelled statement may take to end before its connection is shut down
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Hold:
    """A request to hold the run. longest: seconds after which the run is stopped instead; None for a person's hold."""

    by: str
    reason: str
    longest: float | None = None


@dataclass
class Control:
    """All pending requests; the run is held as long as there is any hold.

    What several threads change is replaced as a whole under a lock, so that readers need none. The signal handler never
    takes this lock: it runs in the main thread, which may be holding it.
    """

    stop_by: str = ""
    stop_reason: str = ""
    signalled: bool = False  # a signal has asked for a stop; the next one cancels statements
    take_back: bool = False  # a guard asks for a rollback after the stop
    lease_lost: bool = False
    acting: bool = False  # a step is being applied
    interrupted: bool = False  # asked twice: statements in flight were cancelled
    cut_by: str = ""  # the guard that cancelled statements in flight
    cut_reason: str = ""
    holds: Mapping[str, Hold] = field(default_factory=dict)  # by holder
    ended: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # former holder → (who released it, why)
    standing: bool = False  # the run is being held at a safe point right now
    tuning: Tuning = field(default_factory=Tuning)  # as set by people
    limits: Mapping[str, Value] = field(default_factory=dict)  # limits.x as set by people; only guards use them
    brakes: Mapping[str, float] = field(default_factory=dict)  # guard → maximum batch duration in seconds
    orders_seen: int = 0  # number of the last order that was obeyed
    next_steer: float = 0.0  # when to read orders next (time.monotonic())
    changed: threading.Event = field(default_factory=threading.Event)
    cancel: Callable[[], None] | None = None
    cut_off: Callable[[float], None] | None = None  # shuts down connections that have been waiting since before a time
    ask: Callable[[str], bool] | None = None  # asks the person at the terminal a yes/no question
    say: Callable[[str], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask_stop(self, by: str, reason: str) -> None:
        """Ask for a stop at the next safe point; the first reason counts."""
        self._note_stop(by, reason)
        self.changed.set()

    def _note_stop(self, by: str, reason: str) -> None:
        if not self.stop_by:
            self.stop_by, self.stop_reason = by, reason

    def go_on(self) -> None:
        """Clear the stop request and all holds, before a rollback: what stopped the run must not stop its rollback."""
        self.stop_by = self.stop_reason = self.cut_by = self.cut_reason = ""
        self.signalled = False
        with self._lock:
            self.holds, self.brakes = {}, {}

    # ─── holds ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def hold(self, hold: Hold) -> None:
        """Hold the run from the next safe point on; a new hold replaces an older one of the same holder."""
        with self._lock:
            self.holds = {**self.holds, hold.by: hold}
        self.changed.set()

    def let_go(self, by: str, *, who: str, reason: str) -> None:
        """Release the hold of `by`. who: who released it."""
        with self._lock:
            if by not in self.holds:
                return
            self.holds = {name: one for name, one in self.holds.items() if name != by}
            self.ended = {**self.ended, by: (who, reason)}
        self.changed.set()

    def go(self, who: str, reason: str) -> None:
        """Release all holds, on a person's request."""
        for by in self.holds:
            self.let_go(by, who=who, reason=reason)

    # ─── tuning ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def brake(self, by: str, seconds: float | None) -> None:
        """Limit batches to so many seconds on behalf of `by`; None removes its limit."""
        with self._lock:
            others = {name: one for name, one in self.brakes.items() if name != by}
            self.brakes = others if seconds is None else {**others, by: seconds}

    @property
    def wanted(self) -> Tuning:
        """The effective tuning: what people asked for, within the limits of the guards."""
        limits = [*self.brakes.values()]
        if not limits:
            return self.tuning
        own = self.tuning.batch_seconds
        return self.tuning._replace(batch_seconds=min(limits if own is None else [own, *limits]))

    # ─── cancelling ─────────────────────────────────────────────────────────────────────────────────────────────────
    def cut(self, by: str, reason: str) -> None:
        """Cancel statements in flight, because a guard's stop was not obeyed in time. Called from the guards' thread."""
        self.cut_by, self.cut_reason = by, reason
        self.changed.set()
        if self.cancel is not None:
            self.cancel()

    def lose_lease(self) -> None:
        """Called by the heartbeat when another process has the lease.

        The database refuses our commits anyway (fencing); cancelling stops statements outside of transactions, too.
        """
        self.lease_lost = True
        self._cancel()

    def interrupt(self) -> None:
        """Cancel statements in flight; if the server doesn't respond to that, shut down the connections."""
        self.interrupted = True
        self._outside_of_the_handler(self.changed.set)
        self._outside_of_the_handler(self._insist)
        self._outside_of_the_handler(self._cut_off, time.monotonic())

    @staticmethod
    def _outside_of_the_handler(act: Callable[..., None], *arguments: object) -> None:
        """Run something in a thread of its own, because cancelling waits for the network, and because of locks.

        A signal handler may have interrupted the main thread while it held the lock of an event, or that with which the
        module threading starts its threads. Neither can be taken twice: waiting for it would never end.
        """
        with contextlib.suppress(RuntimeError):  # no more threads can be started
            _thread.start_new_thread(act, arguments)

    def _insist(self) -> None:
        """Cancel repeatedly until the step reacts: a single attempt may fall into the gap between two statements."""
        while self.cancel is not None:
            self.cancel()
            time.sleep(CANCEL_S)
            if not self.acting:
                return

    def _cut_off(self, since: float) -> None:
        time.sleep(HEARD_S)
        if self.cut_off is not None:
            self.cut_off(since)

    def _cancel(self) -> None:
        self.changed.set()
        if self.cancel is not None:
            threading.Thread(target=self.cancel, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up at once on any request."""
        self.changed.wait(seconds)
        self.changed.clear()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.signalled:
            self.interrupt()
            return
        self.signalled = True
        self._note_stop(name, "from the terminal or the system")
        self._outside_of_the_handler(self.changed.set)
        # RuntimeError: the signal interrupted a write to the same stream (reentrant call). OSError: the terminal is gone.
        with contextlib.suppress(RuntimeError, OSError):
            if self.say is not None:
                self.say(f"{name}: stopping at the next safe point; again to cancel what is running")


@contextlib.contextmanager
def signals(control: Control) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGHUP while the block runs: the first asks for a stop, the second cancels.

    Does nothing outside of the main thread, where Python can't install signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, control._on_signal) for number in SIGNALS}  # noqa: SLF001 - its own handler
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
