"""What may interrupt a running step: signals, guards, a lost lease and orders from another terminal meet here."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType

from steps.contract import Tuning, Value

CANCEL_S = 1.0  # between two cancellings
HEARD_S = 3.0  # how long a cancelled statement may take to end
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Hold:
    """Somebody wants the run to stand still. longest: seconds after which it ends the run instead; None for a person's."""

    by: str
    reason: str
    longest: float | None = None


@dataclass
class Control:
    """Asked for by anyone, obeyed at the next safe point.

    The run stands still as long as anybody holds it. What several threads change is replaced as a whole under a lock,
    which no signal handler takes.
    """

    stop_by: str = ""
    stop_reason: str = ""
    signalled: bool = False  # a person or the system asked, not a guard: the next signal cancels
    take_back: bool = False  # a guard wants more than a stop
    lease_lost: bool = False
    acting: bool = False  # a step is at work
    interrupted: bool = False  # asked twice: what is in flight was cancelled
    cut_by: str = ""  # the guard that cancelled what is in flight
    cut_reason: str = ""
    holds: Mapping[str, Hold] = field(default_factory=dict)  # by whom
    ended: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # by whom a hold was → who ended it, and why
    standing: bool = False  # the run stands still at a safe point right now
    tuning: Tuning = field(default_factory=Tuning)  # what a person wants
    limits: Mapping[str, Value] = field(default_factory=dict)  # a person's, for guards: limits.x
    brakes: Mapping[str, float] = field(default_factory=dict)  # by whom: batches of so many seconds at most
    orders_seen: int = 0  # the last control row that was obeyed
    next_steer: float = 0.0
    changed: threading.Event = field(default_factory=threading.Event)
    cancel: Callable[[], None] | None = None
    cut_off: Callable[[float], None] | None = None  # closes what has waited for the server since before this moment
    ask: Callable[[str], bool] | None = None  # a yes or no of the person at the terminal
    say: Callable[[str], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask_stop(self, by: str, reason: str) -> None:
        """Stop at the next safe point."""
        if not self.stop_by:
            self.stop_by, self.stop_reason = by, reason
        self.changed.set()

    def go_on(self) -> None:
        """What stopped the run has been obeyed; the way back is not to be stopped by it."""
        self.stop_by = self.stop_reason = self.cut_by = self.cut_reason = ""
        self.signalled = False
        with self._lock:
            self.holds, self.brakes = {}, {}

    # ─── holds ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def hold(self, hold: Hold) -> None:
        """Stand still from the next safe point on; a new hold by the same one takes the place of its old one."""
        with self._lock:
            self.holds = {**self.holds, hold.by: hold}
        self.changed.set()

    def let_go(self, by: str, *, who: str, reason: str) -> None:
        """This one's hold is over; `who` ended it."""
        with self._lock:
            if by not in self.holds:
                return
            self.holds = {name: one for name, one in self.holds.items() if name != by}
            self.ended = {**self.ended, by: (who, reason)}
        self.changed.set()

    def go(self, who: str, reason: str) -> None:
        """A person wants the run to go on, whoever holds it."""
        for by in self.holds:
            self.let_go(by, who=who, reason=reason)

    # ─── tuning ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def brake(self, by: str, seconds: float | None) -> None:
        """Batches of at most so many seconds; None: this one asks for nothing any more."""
        with self._lock:
            others = {name: one for name, one in self.brakes.items() if name != by}
            self.brakes = others if seconds is None else {**others, by: seconds}

    @property
    def wanted(self) -> Tuning:
        """What a person asked for, within what the guards allow."""
        limits = [*self.brakes.values()]
        if not limits:
            return self.tuning
        own = self.tuning.batch_seconds
        return self.tuning._replace(batch_seconds=min(limits if own is None else [own, *limits]))

    # ─── cancelling ─────────────────────────────────────────────────────────────────────────────────────────────────
    def cut(self, by: str, reason: str) -> None:
        """A guard's stop was not obeyed in time: cancel what is in flight. Called from the guards' thread."""
        self.cut_by, self.cut_reason = by, reason
        self.changed.set()
        if self.cancel is not None:
            self.cancel()

    def lose_lease(self) -> None:
        """The heartbeat found another epoch; the fence is the guarantee for commits, what runs outside of one is cancelled."""
        self.lease_lost = True
        self._cancel()

    def interrupt(self) -> None:
        """Cancel what is in flight; where the server doesn't even hear of that, close the connection."""
        self.interrupted = True
        self.changed.set()
        threading.Thread(target=self._insist, daemon=True).start()
        threading.Thread(target=self._cut_off, args=(time.monotonic(),), daemon=True).start()

    def _insist(self) -> None:
        """Until the step has heard: a cancelling may meet the gap between two statements."""
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
        """Sleep, but wake at once when somebody wants something."""
        self.changed.wait(seconds)
        self.changed.clear()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.signalled:
            self.interrupt()
            return
        self.signalled = True
        self.ask_stop(name, "from the terminal or the system")
        with contextlib.suppress(
            RuntimeError, OSError
        ):  # it may have come in the middle of a write, or the terminal is gone
            if self.say is not None:
                self.say(f"{name}: stopping at the next safe point; again to cancel what is running")


@contextlib.contextmanager
def signals(control: Control) -> Iterator[None]:
    """Within: the first signal asks for a stop, the second cancels. Only the main thread can be asked."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, control._on_signal) for number in SIGNALS}  # noqa: SLF001 - its own handler
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
