"""Limits every wait for an answer from PostgreSQL: a network that goes silent never reports an error.

A wait that lasts is probed over another connection: does the server answer, and does our server process still work for
us? If not, or if the wait exceeds the statement's own timeout, the socket is shut down. The driver then reports a lost
connection, and the outcome of the work is determined as after any other loss (lost_commit).
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

FIRST_S = 4.0  # age of a wait at its first probe
AGAIN_S = 10.0  # interval between probes of a healthy wait
CONFIRM_S = 2.0  # interval before a suspect wait is probed once more
PROBE_S = 5.0  # timeout of a probe
MARGIN_S = 15.0  # how far a wait may exceed the timeout of the statement
TICK_S = 0.5  # polling interval of the thread


class Responsiveness(NamedTuple):
    """Result of a probe: whether the server answered, which server processes are idle, and which are gone."""

    answered: bool
    idle: Mapping[int, str] = MappingProxyType({})  # pid → since when, as the server's text
    gone: frozenset[int] = frozenset()


Probe = Callable[[list[int]], Responsiveness]  # asks the server about these server processes; may hang


@dataclass
class _Wait:
    """One connection's wait for an answer; times are time.monotonic()."""

    raw: Any
    pid: int  # the server process that works for this connection
    began: float
    probe: Probe | None
    longest: float | None
    next_look: float
    suspect: str = ""  # finding of the last probe; acted upon only if the next one finds the same


@dataclass
class _Waits:
    """All waits of this process, and the thread that probes those that last."""

    _known: dict[int, _Wait] = field(default_factory=dict)
    _numbers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    @contextlib.contextmanager
    def one(self, raw: Any, *, pid: int, probe: Probe | None, longest: float | None) -> Iterator[None]:
        """Register a wait for as long as the block runs. longest: seconds that the statement may take; None: unlimited."""
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
        # Probing is done without the lock: a probe may hang for seconds, and every query of every thread needs the lock.
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
        """Probe the due waits, once for each database. A wait ends only if two probes in a row find the same problem:
        an idle server process may just have sent the answer that we wait for.
        """
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
            if wait in self._known.values():  # else its answer has just arrived
                _shut(wait.raw)


def _asked(probe: Probe, pids: list[int]) -> Responsiveness:
    """Run a probe in a thread of its own, because it may hang in the same silence; unanswered if it takes too long."""
    found: list[Responsiveness] = []
    thread = threading.Thread(target=lambda: found.append(probe(pids)), daemon=True, name="probe")
    thread.start()
    thread.join(PROBE_S + 1)
    return found[0] if found else Responsiveness(answered=False)


def _shut(raw: Any) -> None:
    """Shut down the socket in both directions, so that the driver's call returns in its own thread."""
    # On a duplicate: closing the descriptor itself would let another thread get the same number for its own file.
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(raw.pgconn.socket)) as copy:
        copy.shutdown(socket.SHUT_RDWR)  # raises if it has just been closed


ALL = _Waits()
