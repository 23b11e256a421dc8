"""What the samples of one guard come to: how badly it is broken, and what it therefore wants. No clock, no thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from runner.common.durations import format_duration
from runner.playbook.model import Guard, GuardAction
from steps.contract import Answer

UNDECIDED = frozenset({Answer.UNKNOWN, Answer.ERROR})


class Level(IntEnum):
    """How far a guard has gone."""

    FREE = 0
    HOLDS = 1
    HIBERNATES = 2


class Reading(NamedTuple):
    """One sample: the check's answer, and whether the guard's other two expressions hold."""

    answer: Answer
    text: str
    resume: bool  # all that must hold before the run goes on holds
    critical: bool


@dataclass
class Levels:
    """One guard's state; `take` each sample, then read what is wanted: `hold`, `halvings`, `stop`, `warned`."""

    guard: Guard
    level: Level = Level.FREE
    hold: str = ""  # why the run is to stand still
    stop: str = ""  # why it is to end
    halvings: int = 0  # how often the batch time is to be halved
    warned: bool = False  # broken for long enough, which is only to be told
    suspected: bool = False  # critical once: to be asked again soon
    _recent: deque[bool] = field(default_factory=deque)
    _since: float | None = None  # broken
    _until: float = 0.0  # hibernating
    _next_change: float = 0.0  # of the halvings
    _acknowledged: Level = Level.FREE

    def take(self, reading: Reading, now: float, *, most_halvings: int = 0) -> None:
        """Weigh one more sample. most_halvings: beyond it the batches would be too small."""
        self._count(reading, now)
        if reading.answer is Answer.PASS:
            self._acknowledged, self.warned = Level.FREE, False
        if self._critical(reading):
            self._go_critical(reading, now)
        elif self.level is Level.HIBERNATES and now < self._until:
            return
        elif reading.resume and not reading.critical:
            self._recover(now)
        elif self._ripe(reading, now):
            self._act(reading, now, most_halvings)

    def acknowledge(self) -> None:
        """A person let the run go on: as bad as it is now it holds no more, until it has passed once."""
        self._acknowledged, self.level, self.hold = self.level, Level.FREE, ""

    def forget(self) -> None:
        """What was seen is too old to say how long it has been broken."""
        self._recent.clear()
        self._since = None

    # ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _count(self, reading: Reading, now: float) -> None:
        self._recent.append(reading.answer is not Answer.PASS)
        if len(self._recent) > self.guard.last.samples:
            self._recent.popleft()
        if sum(self._recent) < self.guard.last.broken:
            self._since = None
        elif self._since is None:
            self._since = now

    def _ripe(self, reading: Reading, now: float) -> bool:
        """Whether it is broken now, often enough and for long enough."""
        broken = reading.answer is not Answer.PASS and self._since is not None
        return broken and now - (self._since or 0.0) >= self.guard.hold_for

    def _critical(self, reading: Reading) -> bool:
        """Whether this reading confirms the one before it; once it is known, nobody asks again."""
        known = Level.HIBERNATES in {self.level, self._acknowledged}
        confirmed = reading.critical and self.suspected and not known
        self.suspected = reading.critical and not confirmed and not known
        return confirmed

    def _go_critical(self, reading: Reading, now: float) -> None:
        guard = self.guard
        rule = f" ({guard.critical.text})" if guard.critical is not None else ""
        found = f"{guard.check.id} is critical{rule}, asked twice: {reading.text}"
        if guard.stops:
            self.stop = found
            return
        self.level, self._until = Level.HIBERNATES, now + guard.hibernate
        self.hold = f"{found}; hibernates for at least {format_duration(guard.hibernate)}"

    def _recover(self, now: float) -> None:
        """End the hold; bring the batches back one step at a time."""
        if self.level is not Level.FREE:
            self.level, self.hold = Level.FREE, ""
            self.forget()
        if self.halvings and now >= self._next_change:
            self._change(-1, now)

    def _act(self, reading: Reading, now: float, most_halvings: int) -> None:
        """What is unknown holds, whatever else the guard would do: nothing is ended, nor let through, on no knowledge."""
        reason = f"{self.guard.check.id} answered {reading.answer}: {reading.text}"
        match self.guard.action:
            case GuardAction.WARN:
                self.warned = True
            case GuardAction.ABORT | GuardAction.ROLLBACK if reading.answer not in UNDECIDED:
                self.stop = reason
            case GuardAction.SMALLER_BATCHES if reading.answer not in UNDECIDED and self.level < Level.HIBERNATES:
                self.level, self.hold = Level.FREE, ""
                if now >= self._next_change and self.halvings < most_halvings:
                    self._change(+1, now)
            case _:
                if self.level is Level.FREE and self._acknowledged is Level.FREE:
                    self.level, self.hold = Level.HOLDS, reason

    def _change(self, by: int, now: float) -> None:
        self.halvings += by
        self._next_change = now + max(self.guard.hold_for, self.guard.every)
