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
    take_back: bool = False  # a guard wants more than a stop
    lease_lost: bool = False
    interrupted: bool = False  # asked twice: what is in flight was cancelled
    hold_by: str = ""
    hold_reason: str = ""
    tuning: Tuning = field(default_factory=Tuning)
    changed: threading.Event = field(default_factory=threading.Event)
    cancel: Callable[[], None] | None = None
    say: Callable[[str], None] | None = None

    def ask_stop(self, by: str, reason: str) -> None:
        """Stop at the next safe point."""
        if not self.stop_by:
            self.stop_by, self.stop_reason = by, reason
        self.changed.set()

    def lose_lease(self) -> None:
        """The heartbeat found another epoch; the database's fence is the guarantee, this only ends the wait."""
        self.lease_lost = True
        self.changed.set()

    def interrupt(self) -> None:
        """Cancel what is in flight."""
        self.interrupted = True
        self.changed.set()
        if self.cancel is not None:
            threading.Thread(target=self.cancel, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Sleep, but wake at once when somebody wants something."""
        self.changed.wait(seconds)
        self.changed.clear()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.stop_by:
            self.interrupt()
            return
        self.ask_stop(name, f"{name} from the terminal or the system")
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
