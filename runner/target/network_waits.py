"""Every wait for PostgreSQL's answer has an end: a network that goes silent sends no error that would end it.

A wait that lasts is looked into from a connection of its own: does the server answer, and does our server process still
work for us? Where it doesn't, and where a wait is longer than the statement may take, the socket is shut down; the
driver then reports a lost connection, and what became of the work is settled as after any other loss.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

FIRST_S = 4.0  # how long a wait lasts before it is looked into
AGAIN_S = 10.0  # between two looks at a wait that is in order
CONFIRM_S = 2.0  # before what looked out of order is looked at again
PROBE_S = 5.0  # how long a look may take
MARGIN_S = 15.0  # beyond the longest time of the statement itself
TICK_S = 0.5


class Responsiveness(NamedTuple):
    """What a look found: whether the server answered at all, and since when which of its processes wait for us."""

    answered: bool
    idle: Mapping[int, str] = MappingProxyType({})  # pid → since when, in the server's words
    gone: frozenset[int] = frozenset()


Probe = Callable[[list[int]], Responsiveness]  # asks the server about these server processes; may hang


@dataclass
class _Wait:
    """One wait of one connection."""

    raw: Any
    pid: int  # of our server process
    began: float
    probe: Probe | None
    longest: float | None
    next_look: float
    suspect: str = ""  # what was out of order at the last look


@dataclass
class _Waits:
    """All of this process, and the thread that looks into those that last."""

    _known: dict[int, _Wait] = field(default_factory=dict)
    _numbers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    @contextlib.contextmanager
    def one(self, raw: Any, *, pid: int, probe: Probe | None, longest: float | None) -> Iterator[None]:
        """Within: this connection waits."""
        now = time.monotonic()
        wait = _Wait(raw, pid, now, probe, longest, now + FIRST_S)
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._known[number] = wait
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, daemon=True, name="waits")
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._known.pop(number, None)

    def cut(self, *, before: float) -> None:
        """Shut down the socket of each wait that began before this moment and still lasts."""
        with self._lock:
            for wait in self._known.values():
                if wait.began < before:
                    _shut(wait.raw)

    def _keep(self) -> None:
        while True:
            time.sleep(TICK_S)
            now = time.monotonic()
            with self._lock:
                late = [one for one in self._known.values() if one.longest and now - one.began > one.longest + MARGIN_S]
                due = [one for one in self._known.values() if one.probe is not None and now >= one.next_look]
            for one in late:
                self._end(one)
            if due:
                self._look_into(due, now)

    def _look_into(self, due: list[_Wait], now: float) -> None:
        """One look for all that wait, though they may be of several databases: each has its own way to ask."""
        for probe in {one.probe for one in due}:
            waits = [one for one in due if one.probe is probe]
            answer = _asked(probe, [one.pid for one in waits]) if probe else Responsiveness(True)
            for one in waits:
                found = (
                    "silent"
                    if not answer.answered
                    else "gone"
                    if one.pid in answer.gone
                    else answer.idle.get(one.pid, "")
                )
                if found and found == one.suspect:
                    self._end(one)
                one.suspect = found
                one.next_look = now + (CONFIRM_S if found else AGAIN_S)

    def _end(self, wait: _Wait) -> None:
        with self._lock:
            if wait in self._known.values():  # else its answer came just now
                _shut(wait.raw)


def _asked(probe: Probe, pids: list[int]) -> Responsiveness:
    """The probe's answer; none where it doesn't come in time, since it may hang in the same silence."""
    found: list[Responsiveness] = []
    thread = threading.Thread(target=lambda: found.append(probe(pids)), daemon=True, name="probe")
    thread.start()
    thread.join(PROBE_S + 1)
    return found[0] if found else Responsiveness(answered=False)


def _shut(raw: Any) -> None:
    """Both directions of the socket; the driver's own call then ends, in its own thread."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(raw.pgconn.socket)) as copy:
        copy.shutdown(socket.SHUT_RDWR)  # a fault: it was closed just now


ALL = _Waits()
