"""One observation: ask the check within its time, decide what it means, and record it in the ledger.

A claim in the ledger keeps two processes from looking at the same time. The observation and the end of its claim commit
together, so a process that is killed leaves a claim that runs out, and no half observation.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TypeVar

from pydantic import ValidationError

from runner.common.durations import age
from runner.monitor.state import Judgement, LookResult, after, judge
from runner.monitor.watched import Watched
from runner.plan import ask
from runner.playbook.model import Monitor
from runner.playbook.monitor_builder import CHANGE
from runner.playbook.schedule import Due
from runner.playbook.scope import Scope
from runner.target.database import RunDatabase, Session
from runner.target.workplace import Connected
from runner.trail import run_process
from runner.trail.events import CheckAnswered, Process
from steps.contract import INSUFFICIENT_PRIVILEGE, Answer, DatabaseFault, Value, Work
from steps.contract.values import exact, in_json
from steps.ledger import monitors as ledger
from steps.ledger.monitors import MonitorAct, Observation

T = TypeVar("T")

MAY_NOT = frozenset(
    {INSUFFICIENT_PRIVILEGE, "25006"}
)  # the role may not write, or the server (a standby) or file is read-only
GRACE_S = 60.0  # how much longer than takes_at_most a claim holds: the time to record what was seen
CANCEL_S = 1.0  # how often what runs too long is cancelled again


@dataclass(frozen=True)
class Busy:
    """Another process is looking at this moment."""

    who: str


@dataclass
class Observer:
    """Looks, and records what it saw. records: False once the ledger has refused to be written by this role."""

    target: Connected
    process: Process
    records: bool = True
    why_not: str = ""

    def prepare(self) -> None:
        """Make sure that the ledger has the tables of monitors, or that this role can't make them."""
        with self.target.database.look() as look:
            if ledger.kept(look):
                return
        self._write(ledger.keep)

    def history(self, watched: Watched, monitor: Monitor) -> list[Observation]:
        """The earlier observations of this monitor, as many as its state depends on; newest first."""
        with self.target.database.look() as look:
            if not ledger.kept(look):
                return []
            name = monitor.check.id
            return ledger.observations(look, run=watched.run, monitor=name, most=max(monitor.last.samples, 2))

    def said(self, watched: Watched) -> list[MonitorAct]:
        """What people said about this run's monitors, newest first."""
        with self.target.database.look() as look:
            return ledger.acts(look, [watched.run])[watched.run] if ledger.kept(look) else []

    def claim(self, watched: Watched, monitor: Monitor) -> Busy | None:
        """Claim the monitor, so that nobody else looks meanwhile; Busy where somebody does."""
        run, name = watched.run, monitor.check.id
        with self.target.database.look() as look:
            there = ledger.claimed(look, run=run, monitor=name) if ledger.kept(look) else None
        dead = there.holder if there is not None and _dead(there.holder) else ""
        until = monitor.takes_at_most + GRACE_S

        def write(work: Work) -> bool:
            return ledger.claim(work, run=run, monitor=name, holder=self._holder, seconds=until, dead=dead)

        if self._write(write) is False:
            return Busy(_who(there.holder) if there is not None else "another process")
        return None

    def release(self, watched: Watched, monitor: Monitor) -> None:
        """Give the claim back without an observation."""
        self._write(lambda work: ledger.release(work, run=watched.run, monitor=monitor.check.id, holder=self._holder))

    def look(
        self, watched: Watched, monitor: Monitor, due: Due, history: Sequence[Observation], *, now: datetime
    ) -> Observation | None:
        """Ask the check and record the answer; None where another process took over because this one was too slow."""
        began = time.monotonic()
        judged, figures = self._judged(watched, monitor)
        seconds = round(time.monotonic() - began, 3)
        at = now.timestamp() + seconds
        state = after(monitor, history, judged, at)
        masks, spell = self.target.masks, self.target.database.spell
        document = masks.mask_data(json.loads(in_json({"figures": figures, "operands": judged.operands})))
        seen = Observation(
            run=watched.run,
            monitor=monitor.check.id,
            due_at=due.at.timestamp(),
            at=at,
            answer=judged.answer.value,
            text=spell(masks.mask(judged.text)),
            figures=spell(json.dumps(document)),
            broken_since=state.broken_since,
            alert_since=state.alert_since,
            seconds=seconds,
            missed=due.missed,
            host=self.process.host,
        )
        return None if self._write(lambda work: self._record(work, seen)) is False else seen

    def _record(self, work: Work, seen: Observation) -> bool:
        """Record the observation together with the end of its claim; False where the claim was taken over."""
        place = {"run": seen.run, "monitor": seen.monitor}
        if not ledger.release(work, **place, holder=self._holder):
            return False
        if gone := ledger.forget_ahead(work, **place):
            words = f"the server's clock has gone back; forgotten are {gone} later observation{'s' if gone > 1 else ''}"
            seen = replace(seen, text=f"{seen.text}; {words}")
        return ledger.add_observation(work, seen)

    @cached_property
    def _holder(self) -> str:
        return self.process.model_dump_json()

    def _write(self, act: Callable[[Work], T]) -> T | None:
        """Write to the ledger; None where this role may not, which is remembered: it goes on looking without a record."""
        if not self.records:
            return None
        try:
            with self.target.database.own(fenced=False) as work:
                return act(work)
        except DatabaseFault as fault:
            if fault.sqlstate not in MAY_NOT:
                raise
            self.records, self.why_not = False, str(fault)
            return None

    # ─── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _judged(self, watched: Watched, monitor: Monitor) -> tuple[Judgement, Mapping[str, Value]]:
        seen = _Names(monitor, watched)
        playbook = watched.playbook
        session = Session(look_s=monitor.takes_at_most)
        database = self.target.for_playbook(playbook.db_schema, playbook.search_path, session)
        try:
            with _bounded(database, monitor.takes_at_most) as late:
                (answer,) = ask.ask(
                    [monitor.check],
                    step="",
                    role="criterion",
                    look=database.look,
                    scope=Scope(watched.given),
                    more=seen.heard,
                )
        finally:
            database.close()
        if not isinstance(answer, CheckAnswered):
            raise TypeError("a monitor's check is asked here")
        if late.is_set():
            words = f"it took longer than {age(monitor.takes_at_most)} (takes_at_most), and was cancelled"
            return judge(monitor, LookResult(Answer.ERROR, words)), {}
        warns = f"; warns: {monitor.check.warn.text} does not hold" if answer.warned and monitor.check.warn else ""
        answered = LookResult(answer.answer, answer.text + warns, seen.names, answer.operands)
        return judge(monitor, answered), answer.result


@dataclass
class _Names:
    """Collects the names for a monitor's own expressions, with the changes against the run."""

    monitor: Monitor
    watched: Watched

    def __post_init__(self) -> None:
        self.names: dict[str, Value] = {}

    def heard(self, values: Mapping[str, Value]) -> Mapping[str, Value]:
        then = self.watched.figures.get(self.monitor.against, {}) if self.monitor.against else {}
        more = (
            {f"{CHANGE}.{name}": _change(value, then.get(name)) for name, value in values.items()}
            if self.monitor.against
            else {}
        )
        self.names = {**values, **more, **self.watched.given}
        return more


def _change(now: Value, then: Value) -> Value:
    """By how many per cent a number has grown; None where either is no number, or it was 0."""
    later, earlier = exact(now), exact(then)
    numbers = [one for one in (later, earlier) if isinstance(one, int | Decimal) and not isinstance(one, bool)]
    if len(numbers) < 2 or not all(Decimal(one).is_finite() for one in numbers) or not numbers[1]:
        return None
    return round(float((Decimal(numbers[0]) - Decimal(numbers[1])) * 100 / Decimal(numbers[1])), 2)


@contextlib.contextmanager
def _bounded(database: RunDatabase, seconds: float) -> Iterator[threading.Event]:
    """Cancel whatever runs on this database once the time is over; yields an event that tells whether it was."""
    done, late = threading.Event(), threading.Event()

    def watch() -> None:
        if not done.wait(seconds):
            late.set()
            database.cancel()
        while not done.wait(CANCEL_S):
            database.cancel()

    thread = threading.Thread(target=watch, daemon=True, name="takes_at_most")
    thread.start()
    try:
        yield late
    finally:
        done.set()
        thread.join()


def _dead(holder: str) -> bool:
    process = _process(holder)
    return process is not None and run_process.alive(process) is False


def _who(holder: str) -> str:
    process = _process(holder)
    return f"{process.user} at {process.host}, pid {process.pid}" if process is not None else "another process"


def _process(holder: str) -> Process | None:
    try:
        return Process.model_validate_json(holder)
    except ValidationError:
        return None
