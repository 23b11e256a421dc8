"""Keeps status.json fresh while a run goes: renamed into place, at most five times a second and at every change of state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runner.events import Event, Json, StepEnded, StepStarted, jsonable
from runner.rate import Rate
from runner.status import RunStatus, write_status
from steps.base import Progress

EVERY_S = 0.2


@dataclass
class StatusFile:
    """Derived from the trail and the last progress; losing it loses nothing."""

    directories: tuple[Path, ...]
    status: RunStatus
    extra: Callable[[], dict[str, Json]]
    _last: float = 0.0
    _progress: dict[str, Json] = field(default_factory=dict)
    _rate: Rate = field(default_factory=Rate)

    def progress(self, step: str, progress: Progress) -> None:
        self._rate.add(progress.done)
        left = self._rate.seconds_left(progress.total)
        self._progress = {
            "step": step, "done": progress.done, "total": progress.total, "unit": progress.unit, "note": progress.note,
            "per_second": round(self._rate.now, 1), "seconds_left": None if left is None else round(left),
            "figures": jsonable(progress.figures or {}),
        }  # fmt: skip
        if time.monotonic() - self._last >= EVERY_S:
            self.write()

    def heard(self, event: Event) -> None:
        """Every event may change how the run stands."""
        if isinstance(event, StepStarted | StepEnded):
            self._progress, self._rate = {}, Rate()
        self.write()

    def write(self) -> None:
        """Never a reason for a run to fail."""
        self._last = time.monotonic()
        document = document_of(self.status) | {"progress": self._progress or None} | self.extra()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                write_status(directory, document)


def document_of(status: RunStatus) -> dict[str, Json]:
    """A run's status as JSON: the same for status.json and `status --json`."""
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
        "started_at": status.started_at,
        "last_at": status.last_at,
        "trail": {"head": status.head, "length": status.length},
        "steps": [
            {
                "id": step.id, "type": step.type, "what": step.describe, "outcome": step.outcome, "open": step.open,
                "seconds": step.seconds, "error": step.error, "waits_for": list(step.gate), "reverted": step.reverted,
                "results": step.results,
            }
            for step in status.steps.values()
        ],
    }  # fmt: skip
