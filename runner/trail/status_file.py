"""Keeps status.json up to date during a run: at every change of state, otherwise at most five times a second."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runner.common.durations import Rate
from runner.trail.events import (
    Event,
    GateReached,
    Held,
    Json,
    Released,
    RollbackStarted,
    RunEnded,
    RunResumed,
    RunStarted,
    StepEnded,
    StepStarted,
    StopRequested,
)
from runner.trail.status import RunStatus, write_status
from steps.contract import Progress, pids
from steps.contract.values import readable_all

EVERY_S = 0.2  # minimum interval between two writes
BEAT_S = 3.0  # maximum interval, so that a killed run can be told from an idle one
VALID_S = 15.0  # the same time for which a lease is respected without a heartbeat
SHARE = 0.05  # maximum share of time spent writing: with 10,000 steps the file has some MB
AT_ONCE = (RunStarted, RunResumed, RunEnded, RollbackStarted, GateReached, StopRequested, Held, Released)


def _this_process() -> dict[str, Json]:
    own = pids.identify(os.getpid())
    return {
        "pid": own.pid,
        "host": socket.gethostname(),
        "boot_id": own.boot,
        "pid_ns": own.namespace,
        "ticks": own.ticks,
        "started": own.started,
    }


@dataclass
class StatusFile:
    """Writes a run's status to one or more files, from a thread of its own.

    They are derived from the trail and the last progress, so losing them loses nothing.
    """

    files: tuple[Path, ...]
    status: RunStatus
    extra: Callable[[], dict[str, Json]]
    _due: float = 0.0
    _stale: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _progress: dict[str, Json] = field(default_factory=dict)
    _rate: Rate = field(default_factory=Rate)
    _writer: dict[str, Json] = field(default_factory=_this_process)
    _beats: int = 0
    _written: dict[Path, float] = field(default_factory=dict)  # when each was last written (monotonic)

    def __post_init__(self) -> None:
        self._written = dict.fromkeys(self.files, time.monotonic())
        threading.Thread(target=self._keep, name="status.json", daemon=True).start()

    def progress(self, step: str, progress: Progress) -> None:
        self._rate.add(progress.done)
        left = self._rate.seconds_left(progress.total)
        self._progress = {
            "step": step,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
            "note": progress.note,
            "per_second": round(self._rate.now, 1),
            "seconds_left": None if left is None else round(left),
            "figures": readable_all(progress.figures or {}),
        }
        self._stale.set()

    def heard(self, event: Event) -> None:
        """Take note of an event: write at once if the run's state changed, else within EVERY_S."""
        if isinstance(event, StepStarted | StepEnded):
            self._progress, self._rate = {}, Rate()
        if isinstance(event, AT_ONCE):
            self.write()
        else:
            self._stale.set()

    def write(self) -> None:
        """Write the files now. A failure to write is ignored: it must not stop a run; `age` shows it."""
        with self._lock:
            self._stale.clear()
            began = time.monotonic()
            document = document_of(self.status) | self._signed() | {"progress": self._progress or None} | self.extra()
            for file in self.files:
                with contextlib.suppress(OSError):
                    write_status(file, document)
                    self._written[file] = time.monotonic()
            ended = time.monotonic()
            self._due = ended + max(EVERY_S, (ended - began) / SHARE)

    def age(self) -> float:
        """Seconds since the file that is furthest behind was written, or since the start if it never was."""
        return round(time.monotonic() - min(self._written.values()), 1)

    def _signed(self) -> dict[str, Json]:
        """Who wrote the file, and how long it is valid: a reader that sees it expired knows that the run's process is gone."""
        now = datetime.now(UTC)
        self._beats += 1
        until = now if self._closed.is_set() else now + timedelta(seconds=VALID_S)
        return {
            "writer": self._writer,
            "beat": self._beats,
            "written_at": now.isoformat(timespec="milliseconds"),
            "valid_until": until.isoformat(timespec="milliseconds"),
        }

    def close(self) -> None:
        self._closed.set()
        self._stale.set()
        self.write()

    def _keep(self) -> None:
        while True:
            self._stale.wait(BEAT_S)
            if self._closed.wait(max(0.0, self._due - time.monotonic())):
                return
            # The run's thread may add to a dict while this one reads it; the next round writes the newer state.
            with contextlib.suppress(RuntimeError):
                self.write()


def _condition(status: RunStatus, step: str) -> Json:
    """The answer to a step's `when:`; None where it has none, or wasn't asked yet."""
    known = status.conditions.get(step)
    return {"id": known.id, "answer": known.answer, "text": known.text} if known is not None else None


def document_of(status: RunStatus) -> dict[str, Json]:
    """A run's status as a JSON object; shared by status.json and `status --json`."""
    started = status.started
    return {
        "run": status.run,
        "playbook": started.playbook if started else None,
        "kind": started.kind if started else None,
        "target": started.target if started else None,
        "state": status.state,
        "exit_code": status.exit_code,
        "what": status.what,
        "why": status.why,
        "held": status.held,
        "holds": [{"by": by, "reason": one.reason, "since": one.since} for by, one in tuple(status.holds.items())],
        "alerts": [
            {"monitor": one.monitor, "since": one.since, "answer": one.answer, "text": one.text}
            for one in tuple(status.alerts.values())
        ],
        "started_at": status.started_at,
        "last_at": status.last_at,
        "trail": {"head": status.head, "length": status.length},
        "steps": [
            {
                "id": step.id,
                "type": step.type,
                "what": step.describe,
                "outcome": step.outcome,
                "condition": _condition(status, step.id),
                "open": step.open,
                "seconds": step.seconds,
                "error": step.error,
                "waits_for": list(step.gate),
                "reverted": step.reverted,
                "taken_back": readable_all(step.back),
                "left": step.left,
                "results": readable_all(step.results),
            }
            for step in tuple(status.steps.values())
        ],
    }
