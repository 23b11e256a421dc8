"""What may interrupt a running step: signals, guards, a lost lease and orders from another terminal meet here."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

from steps.base import Tuning

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Control:
    """Asked for by anyone, obeyed at the next safe point."""

    stop_by: str = ""
    stop_reason: str = ""
    signalled: bool = False  # a person or the system asked, not a guard: the next signal cancels
    take_back: bool = False  # a guard wants more than a stop
    lease_lost: bool = False
    interrupted: bool = False  # asked twice: what is in flight was cancelled
    hold_by: str = ""
    hold_reason: str = ""
    tuning: Tuning = field(default_factory=Tuning)
    orders_seen: int = 0  # the last control row that was obeyed
    next_steer: float = 0.0
    changed: threading.Event = field(default_factory=threading.Event)
    cancel: Callable[[], None] | None = None
    say: Callable[[str], None] | None = None

    def ask_stop(self, by: str, reason: str) -> None:
        """Stop at the next safe point."""
        if not self.stop_by:
            self.stop_by, self.stop_reason = by, reason
        self.changed.set()

    def go_on(self) -> None:
        """What stopped the run has been obeyed; the way back is not to be stopped by it."""
        self.stop_by = self.stop_reason = self.hold_by = self.hold_reason = ""
        self.signalled = False

    def lose_lease(self) -> None:
        """The heartbeat found another epoch; the fence is the guarantee for commits, what runs outside of one is cancelled."""
        self.lease_lost = True
        self._cancel()

    def interrupt(self) -> None:
        """Cancel what is in flight."""
        self.interrupted = True
        self._cancel()

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
        self.ask_stop(name, f"{name} from the terminal or the system")
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
