"""The engine's services for a step: safe points, lock retries, and memory for its undo."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel

from runner.common.durations import format_duration
from runner.common.errors import LeaseLost
from runner.playbook.model import Entry, LockPolicy
from runner.run.control import Control, Hold
from runner.target import lock_waits
from runner.target.database import RunDatabase
from runner.target.ended_sessions import Enders
from runner.trail.events import Held, LockWaited, Released, Tuned
from steps.contract import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    SERIALIZATION,
    AlreadyCommitted,
    DatabaseFault,
    Progress,
    Stopped,
    Tuning,
    Value,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.errors import KEPT_TOO_LONG
from steps.contract.values import readable_all
from steps.ledger import tables
from steps.ledger.commands import commands_since

if TYPE_CHECKING:
    from runner.run.guards import Emit, GuardMonitor

STEER_S = 1.0  # interval of reading orders from the ledger
HOLD_S = 1.0  # polling interval while the run is held
WINDOW = "the window"  # requester of a stop when the window ends
_PATIENT = frozenset({LOCK_NOT_AVAILABLE, DEADLOCK, SERIALIZATION, KEPT_TOO_LONG})


class Watcher(Protocol):
    """Receives the progress of a step: the live view, status.json."""

    def progress(self, step: str, progress: Progress) -> None: ...
    def status_age(self) -> float | None:
        """Seconds since the status file that is furthest behind was written; None if there is none."""


@dataclass
class StepContext:
    """Implements steps.contract.step.Context for one step of one run."""

    db: RunDatabase
    entry: Entry
    run: str
    emit: Emit
    control: Control
    watcher: Watcher
    scope: Mapping[str, Value]
    lock: LockPolicy
    steered: bool = True  # whether there is a ledger to read orders from
    window_left: Callable[[], float | None] = lambda: None  # seconds; None: unlimited (always so for a rollback)
    sentry: GuardMonitor | None = None
    intact: Callable[[], None] = lambda: None  # raises TrailBroken if the trail's file was replaced or removed
    reported: Progress | None = None  # the last progress, reported at a safe point
    _pulsed: float | None = None
    operator: str = ""
    folder: Path | None = None
    _safe: threading.Lock = field(default_factory=threading.Lock)  # several workers may reach safe points at once

    # ─── safe points ────────────────────────────────────────────────────────────────────────────────────────────────
    def pulse(self, progress: Progress) -> Tuning:
        """A safe point: report progress, obey requests, return the tuning. Blocks while the run is held; raises Stopped."""
        self.reported = progress
        self.watcher.progress(self.entry.id, progress)
        if self.sentry is not None:
            self.sentry.heard(progress)
        self.rest()
        return self.control.wanted._replace(hold=self.lock.hold)

    def rest(self) -> None:
        """A safe point without progress: read orders, obey, hold."""
        with self._safe:
            self.intact()
            self._steer()
            self._keep_to_window()
            self.obey()
            if self.control.holds:
                self._hold()

    def _keep_to_window(self) -> None:
        """Ask for a stop if the next batch, estimated to take as long as the last one, doesn't fit into the window."""
        before, self._pulsed = self._pulsed, time.monotonic()
        left = self.window_left()
        if left is None:
            return
        usual = self._pulsed - before if before is not None else 0.0
        if left <= usual:
            over = (
                f"it was over {format_duration(-left)} ago" if left < 0 else f"{format_duration(left)} are left of it"
            )
            self.control.ask_stop(WINDOW, f"the run's window has no room for more: {over}")

    def obey(self) -> None:
        """Raise LeaseLost or Stopped if requested."""
        if self.control.lease_lost:
            raise LeaseLost(
                "another run took over this target",
                state="what this run committed stays; nothing more is sent",
                then="runbook status",
            )
        if self.control.stop_by:
            raise Stopped(f"stopped by {self.control.stop_by}: {self.control.stop_reason}")

    def _hold(self) -> None:
        """Wait until nobody holds the run any more."""
        told: dict[str, tuple[Hold, float]] = {}
        self.control.standing = True
        try:
            while holds := self.control.holds:
                self._tell(told, holds)
                self.control.wait(HOLD_S)
                self.control.next_steer = 0.0
                self._steer()
                self._end_long_hold(told)
                self.obey()
            self._tell(told, {})
        finally:
            self.control.standing = False

    def _tell(self, told: dict[str, tuple[Hold, float]], holds: Mapping[str, Hold]) -> None:
        """Record new, changed and released holds."""
        now = time.monotonic()
        for by, hold in holds.items():
            known, began = told.get(by, (None, now))
            if known != hold:
                told[by] = (hold, began)
                self.emit(Held(step=self.entry.id, by=by, reason=hold.reason))
        for by in [by for by in told if by not in holds]:
            hold, began = told.pop(by)
            who, reason = self.control.ended.get(by, (by, hold.reason))
            seconds = round(now - began, 1)
            self.emit(Released(step=self.entry.id, by=who, reason=reason, seconds=seconds, held_by=by))

    def _end_long_hold(self, told: Mapping[str, tuple[Hold, float]]) -> None:
        """Stop the run if a guard has held it for its longest_hold: a person must look, then the run can be resumed."""
        for by, (hold, began) in told.items():
            if hold.longest is not None and by in self.control.holds and time.monotonic() - began >= hold.longest:
                self.control.ask_stop(
                    by, f"it held the run for {format_duration(hold.longest)}, its longest_hold, because {hold.reason}"
                )

    def _steer(self) -> None:
        """Read new orders from the ledger (at most every STEER_S) and obey them."""
        if not self.steered or time.monotonic() < self.control.next_steer:
            return
        self.control.next_steer = time.monotonic() + STEER_S
        with self.db.look() as look:
            commands = commands_since(look, run=self.run, after=self.control.orders_seen)
        for command in commands:
            self.control.orders_seen = command.seq
            self._take(json.loads(command.order), by=command.by, reason=command.reason)

    def _take(self, order: Mapping[str, Value], *, by: str, reason: str) -> None:
        self.emit(Tuned(by=by, reason=reason, settings=readable_all(order)))
        if order.get("hold"):
            self.control.hold(Hold(by, reason or "asked to hold"))
        if order.get("go"):
            self.control.go(by, reason)
        if order.get("stop"):
            self.control.ask_stop(by, reason)
        _retune(self.control, order)

    # ─── changing ───────────────────────────────────────────────────────────────────────────────────────────────────
    def remember(self, before: BaseModel) -> None:
        self.db.remember(before)

    def patiently(self, label: str, act: Callable[[Work], None], *, off: Sequence[str] = ()) -> None:
        """Run `act` in one commit; while the lock is not available, retry with exponential backoff and full jitter, within
        the lock policy's retry_for.
        """

        def once(blocking: list[str]) -> None:
            with (
                contextlib.suppress(AlreadyCommitted),
                lock_waits.watched(self.db, blocking, enders=enders),
                self.db.commit(label, off=off) as work,
            ):
                act(work)

        enders = self._enders()
        self._again(label, once, enders)

    def patiently_outside(self, label: str, act: Callable[[Work], None], *, bounded: bool) -> None:
        """Like `patiently`, in autocommit. bounded: lock waits are short and retried; else the statement waits by itself."""

        def once(blocking: list[str]) -> None:
            with self.db.outside(label, bounded=bounded) as work:
                pid = work.row("SELECT pg_backend_pid() AS pid").integer("pid") if self._on_server else None
                with lock_waits.watched(self.db, blocking, pid=pid, enders=enders):
                    act(work)

        enders = self._enders()
        if bounded:
            self._again(label, once, enders)
        else:
            with self.db.outside(label) as work:
                act(work)

    @property
    def _on_server(self) -> bool:
        return self.db.dialect is Dialect.POSTGRESQL

    def _enders(self) -> Enders:
        ask = self.control.ask if self._on_server else None
        return Enders(self.entry.id, self.emit, self.lock.blockers.end, ask, self.operator)

    def _consult(self, enders: Enders, attempt: int) -> None:
        """Ask a person about blockers; between two attempts, when we hold no lock and wait for none."""
        for found in enders.candidates(attempt):
            with contextlib.suppress(DatabaseFault), self.db.look() as look:
                enders.consult(look, found)

    def _again(self, label: str, once: Callable[[list[str]], None], enders: Enders) -> None:
        until = time.monotonic() + self.lock.retry_for
        attempt = 1
        while True:
            blocking: list[str] = []
            try:
                return once(blocking)
            except DatabaseFault as fault:
                if fault.sqlstate not in _PATIENT:
                    raise
                left = max(until - time.monotonic(), 0.0)
                pause = random.uniform(0, min(60.0, 0.1 * 2 ** min(attempt - 1, 10), left))  # noqa: S311 - jitter
                self.emit(
                    LockWaited(
                        step=self.entry.id,
                        label=label,
                        attempt=attempt,
                        sqlstate=fault.sqlstate,
                        blockers=tuple(blocking),
                        next_try_s=round(pause, 2),
                    )
                )
                if not left:
                    raise
            self._consult(enders, attempt)
            self.control.wait(pause)
            self.rest()
            attempt += 1


def take_up_orders(db: RunDatabase, control: Control, run: str) -> None:
    """Take over orders given to an earlier process: tuning stays in force, stops and holds ended with that process."""
    with db.look() as look:
        earlier = commands_since(look, run=run, after=control.orders_seen) if tables.exists(look) else []
    for command in earlier:
        control.orders_seen = command.seq
        _retune(control, json.loads(command.order))


def _retune(control: Control, order: Mapping[str, Value]) -> None:
    now = control.tuning
    control.limits = {**control.limits, **{name: order[name] for name in order if name.startswith("limits.")}}
    control.tuning = Tuning(
        batch_seconds=_number(order.get("batch_seconds"), now.batch_seconds),
        workers=_count(order.get("workers"), now.workers),
        max_rows=_count(order.get("max_rows"), now.max_rows),
        rest=_number(order.get("rest"), now.rest),
    )


def _number(value: object, otherwise: float | None) -> float | None:
    return float(value) if isinstance(value, int | float) else otherwise


def _count(value: object, otherwise: int | None) -> int | None:
    return int(value) if isinstance(value, int | float) else otherwise
