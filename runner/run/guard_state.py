"""A guard's state machine: turns samples into a level and an action. Pure: no clock, no thread."""

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
    """The escalation level of a guard."""

    FREE = 0
    HOLDS = 1
    HIBERNATES = 2


class Reading(NamedTuple):
    """One sample: the check's answer, and the values of the guard's other two expressions."""

    answer: Answer
    text: str
    resume: bool  # `that` and `resume:` hold, so the run may go on
    critical: bool


@dataclass
class Levels:
    """The state of one guard. `take` each sample, then read the requested actions: `hold`, `halvings`, `stop`, `warned`."""

    guard: Guard
    level: Level = Level.FREE
    hold: str = ""  # why to hold the run; "": don't
    stop: str = ""  # why to stop the run; "": don't
    halvings: int = 0  # how often to halve the batch duration
    warned: bool = False  # broken for long enough, and the action is only to warn
    suspected: bool = False  # critical once; sampled again soon, because it takes two in a row
    _recent: deque[bool] = field(default_factory=deque)  # the last samples: whether each was broken
    _since: float | None = None  # broken since (seconds of the caller's clock)
    _until: float = 0.0  # hibernates until
    _next_change: float = 0.0  # earliest time of the next change of `halvings`
    _acknowledged: Level = Level.FREE  # a person released a hold of this level; it is not taken again until a pass

    def take(self, reading: Reading, now: float, *, most_halvings: int = 0) -> None:
        """Process a sample. now: seconds, monotonic. most_halvings: more would make batches too small."""
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
        """A person released the hold: don't hold again at this level until the check has passed once."""
        self._acknowledged, self.level, self.hold = self.level, Level.FREE, ""

    def forget(self) -> None:
        """Drop earlier samples: they are too old to tell how long it has been broken."""
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
        """Whether it is broken now, and has been often enough and for long enough."""
        broken = reading.answer is not Answer.PASS and self._since is not None
        return broken and now - (self._since or 0.0) >= self.guard.hold_for

    def _critical(self, reading: Reading) -> bool:
        """Whether this is the second critical sample in a row; False if it hibernates already, or that was acknowledged."""
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
        """End the hold; undo the halvings one at a time."""
        if self.level is not Level.FREE:
            self.level, self.hold = Level.FREE, ""
            self.forget()
        if self.halvings and now >= self._next_change:
            self._change(-1, now)

    def _act(self, reading: Reading, now: float, most_halvings: int) -> None:
        """Take the guard's action. An undecided answer only holds: it must neither end the run nor let it continue."""
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
