"""What the engine lends to a step: safe points, patience with locks, and a memory for the way back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from runner import blockers, gates
from runner.control import Control
from runner.database import RunDatabase
from runner.errors import LeaseLost
from runner.events import CheckAnswered, Event, Held, LockWaited, Released, Tuned, jsonable
from runner.model import Entry, Guard, GuardAction, LockPolicy
from steps import ledger
from steps.base import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    SERIALIZATION,
    AlreadyCommitted,
    Answer,
    DatabaseFault,
    Progress,
    StepError,
    Stopped,
    Tuning,
    Value,
    Work,
)

Emit = Callable[[Event], None]
STEER_S = 1.0  # how often the ledger's control rows are read
GUARD_S = 5.0  # how often guards are sampled: a probe must cost at most 1 % of the time
HOLD_S = 1.0
_PATIENT = frozenset({LOCK_NOT_AVAILABLE, DEADLOCK, SERIALIZATION})


class Watcher(Protocol):
    """Sees how far a step has come; a live view, status.json."""

    def progress(self, step: str, progress: Progress) -> None: ...


@dataclass
class StepContext:
    """Implements steps.base.Context for one step of one run."""

    db: RunDatabase
    entry: Entry
    run: str
    emit: Emit
    control: Control
    watcher: Watcher
    scope: Mapping[str, Value]
    lock: LockPolicy
    steered: bool = True  # whether a ledger is there to be steered by
    _next_guards: float = 0.0
    _broken_since: dict[str, float] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _asked: set[str] = field(default_factory=set)

    # ─── safe points ────────────────────────────────────────────────────────────────────────────────────────────────
    def pulse(self, progress: Progress) -> Tuning:
        """Report, obey, and say what tuning is wanted; raises Stopped, or holds for as long as somebody wants it."""
        self.watcher.progress(self.entry.id, progress)
        self._guard(progress)
        self.rest()
        return self.control.tuning

    def rest(self) -> None:
        """A safe point without anything to report: read orders, obey, hold."""
        self._steer()
        self.obey()
        if self.control.hold_by:
            self._hold()

    def obey(self) -> None:
        """Raise what was asked for."""
        if self.control.lease_lost:
            raise LeaseLost(
                "another run took over this target",
                state="what this run committed stays; nothing more is sent",
                then="runbook status",
            )
        if self.control.stop_by:
            raise Stopped(f"stopped by {self.control.stop_by}: {self.control.stop_reason}")

    def _hold(self) -> None:
        began, by, reason = time.monotonic(), self.control.hold_by, self.control.hold_reason
        self.emit(Held(step=self.entry.id, by=by, reason=reason))
        while self.control.hold_by:
            self.control.wait(HOLD_S)
            self.control.next_steer = 0.0
            self._steer()
            self._guard(None)
            self.obey()
        self.emit(Released(step=self.entry.id, by=by, reason=reason, seconds=round(time.monotonic() - began, 1)))

    def _steer(self) -> None:
        """Read orders from the ledger's control rows."""
        if not self.steered or time.monotonic() < self.control.next_steer:
            return
        self.control.next_steer = time.monotonic() + STEER_S
        with self.db.look() as look:
            commands = ledger.commands(look, run=self.run, after=self.control.orders_seen)
        for command in commands:
            self.control.orders_seen = command.seq
            self._take(json.loads(command.order), by=command.by, reason=command.reason)

    def _take(self, order: Mapping[str, object], *, by: str, reason: str) -> None:
        self.emit(Tuned(by=by, reason=reason, order=jsonable(order)))
        if order.get("hold"):
            self.control.hold_by, self.control.hold_reason = by, reason or "asked to hold"
        if order.get("go"):
            self.control.hold_by = self.control.hold_reason = ""
        if order.get("stop"):
            self.control.ask_stop(by, reason)
        self.control.tuning = _tuned(self.control.tuning, order)

    # ─── guards ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _guard(self, progress: Progress | None) -> None:
        """Sample the step's guards; one that is broken for longer than its `for:` acts, and unknown counts as broken."""
        if not self.entry.guards or time.monotonic() < self._next_guards:
            return
        self._next_guards = time.monotonic() + GUARD_S
        figures = dict(progress.figures or {}) if progress is not None else {}
        for guard in self.entry.guards:
            if guard.check.probe is None and progress is None:
                continue
            (answer,) = gates.ask(
                [guard.check], step=self.entry.id, role="guard", look=self.db.look, scope=self.scope, own=figures
            )
            if isinstance(answer, CheckAnswered):
                self._judge(guard, answer)

    def _judge(self, guard: Guard, answer: CheckAnswered) -> None:
        name = guard.check.id
        self._first_answer(guard, answer)
        if answer.answer is Answer.PASS:
            self._broken_since.pop(name, None)
            self._warned.discard(name)
            if self.control.hold_by == f"guard {name}":
                self.control.hold_by = self.control.hold_reason = ""
            return
        since = self._broken_since.setdefault(name, time.monotonic())
        if time.monotonic() - since >= guard.hold_for and name not in self._warned:
            self._warned.add(name)
            self.emit(answer)
            self._act(guard, answer)

    def _first_answer(self, guard: Guard, answer: CheckAnswered) -> None:
        """The trail has each guard's first answer; one that can't answer at all is a fault before any work, not a hold for ever."""
        name, looks = guard.check.id, guard.check.probe is not None
        if name in self._asked or not (looks or answer.answer is Answer.PASS):
            return  # a rate of 0 before the first batch says nothing yet
        self._asked.add(name)
        self.emit(answer)
        if looks and answer.answer in {Answer.ERROR, Answer.UNKNOWN}:
            raise StepError(f"cannot begin: guard {name} can't be answered here: {answer.text}")

    def _act(self, guard: Guard, answer: CheckAnswered) -> None:
        by, reason = f"guard {guard.check.id}", f"{guard.check.id} answered {answer.answer}: {answer.text}"
        match guard.action:
            case GuardAction.WARN:
                pass  # the trail has it, and the live view shows it
            case GuardAction.HOLD:
                self.control.hold_by, self.control.hold_reason = by, reason
            case GuardAction.SMALLER_BATCHES:
                now = self.control.tuning
                self.control.tuning = Tuning(
                    batch_seconds=(now.batch_seconds or 0.25) / 2, workers=now.workers, max_rows=now.max_rows
                )
            case GuardAction.ABORT | GuardAction.ROLLBACK:
                self.control.take_back = guard.action is GuardAction.ROLLBACK
                self.control.ask_stop(by, reason)

    # ─── changing ───────────────────────────────────────────────────────────────────────────────────────────────────
    def remember(self, before: BaseModel) -> None:
        self.db.remember(before)

    def patiently(self, label: str, act: Callable[[Work], None]) -> None:
        """`act` in one commit, tried again with full jitter while the lock can't be had, within the total budget."""
        until = time.monotonic() + self.lock.retry_for
        attempt = 1
        while True:
            blocking: list[str] = []
            try:
                with blockers.watched(self.db) as blocking, self.db.commit(label) as work:
                    act(work)
                return
            except AlreadyCommitted:
                return
            except DatabaseFault as fault:
                if fault.sqlstate not in _PATIENT:
                    raise
                left = max(until - time.monotonic(), 0.0)
                pause = random.uniform(0, min(60.0, 0.1 * 2 ** min(attempt - 1, 10), left))  # noqa: S311 - jitter
                self.emit(
                    LockWaited(
                        step=self.entry.id, label=label, attempt=attempt, sqlstate=fault.sqlstate,
                        blockers=tuple(blocking), next_try_s=round(pause, 2),
                    )
                )  # fmt: skip
                if not left:
                    raise
            self.control.wait(pause)
            self.rest()
            attempt += 1


def take_up_orders(db: RunDatabase, control: Control, run: str) -> None:
    """Orders from before this process: how fast to go still holds, a stop or a hold was for the process that is gone."""
    with db.look() as look:
        earlier = ledger.commands(look, run=run, after=control.orders_seen) if ledger.exists(look) else []
    for command in earlier:
        control.orders_seen = command.seq
        control.tuning = _tuned(control.tuning, json.loads(command.order))


def _tuned(now: Tuning, order: Mapping[str, object]) -> Tuning:
    return Tuning(
        batch_seconds=_number(order.get("batch_seconds"), now.batch_seconds),
        workers=_count(order.get("workers"), now.workers),
        max_rows=_count(order.get("max_rows"), now.max_rows),
    )


def _number(value: object, otherwise: float | None) -> float | None:
    return float(value) if isinstance(value, int | float) else otherwise


def _count(value: object, otherwise: int | None) -> int | None:
    return int(value) if isinstance(value, int | float) else otherwise
