"""What is done with one step: ask, write ahead, act, record the end, and anchor it in the ledger."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runner.common.errors import CriteriaNotMet, InDoubt, RunRefused, StepFailed, TargetUnreachable
from runner.plan import ask, foresight, requirements, window
from runner.plan.ask import fields
from runner.playbook import programs
from runner.playbook.model import Entry, Playbook
from runner.playbook.scope import Scope
from runner.run.context import StepContext, Watcher
from runner.run.control import Control
from runner.target import identity
from runner.target.database import RunDatabase
from runner.trail.events import Event, NotDue, Retried, StepEnded, StepOutcome, StepStarted, StepVerified
from runner.trail.status import RunStatus, add
from runner.trail.trail import Trail
from steps.contract import (
    DatabaseFault,
    Effect,
    Recounted,
    RunPosition,
    State,
    StepError,
    StepResult,
    UndoesRun,
    Uses,
    Value,
)
from steps.contract.values import bounded, in_json
from steps.ledger import step_commits

if TYPE_CHECKING:
    from runner.run.guards import GuardMonitor

Listener = Callable[[Event], None]
Undo = Callable[[UndoesRun, Entry], StepResult]


@dataclass
class StepRun:
    """What can be done with one step; the engine says when."""

    playbook: Playbook
    database: RunDatabase
    trail: Trail
    status: RunStatus
    control: Control
    watcher: Watcher
    now: Callable[[], datetime]
    listeners: list[Listener] = field(default_factory=list)
    scope: Scope = field(default_factory=Scope)
    outside_window: bool = False  # a person said why the run goes on although its window is shut
    recorded: bool = True  # whether the ledger has a row of this run
    undo: Undo | None = None
    _telling: threading.Lock = field(default_factory=threading.Lock)  # guards speak from a thread of their own

    def emit(self, event: Event) -> None:
        """On disk first; then everyone else hears of it. One at a time; no signal handler comes here."""
        with self._telling:
            record = self.trail.append(event)
            add(self.status, record)
            for listener in self.listeners:
                listener(record.event)

    def learn(self, name: str, figures: Mapping[str, Value]) -> None:
        self.scope.learn(name, figures)

    def verify(self, entry: Entry, when: str) -> Effect:
        with self.database.look() as look:
            effect = entry.step.verify(look)
        if when == "before" and effect.state is State.NOT_DONE:
            return effect  # the ordinary case: the record of the start says it all
        self.emit(
            StepVerified.model_validate(
                {"step": entry.id, "when": when, "state": effect.state, "evidence": effect.evidence}
            )
        )
        return effect

    def preflight(self, entry: Entry) -> None:
        """What the step itself finds in its way, now that all steps before it are done."""
        with self.database.look() as look:
            faults = foresight.in_the_way(entry, look)
        if faults:
            raise CriteriaNotMet(
                f"step {entry.id} ({entry.mark}) would not work here", why="; ".join(faults), state="nothing was changed by this step",
            )  # fmt: skip

    def same_programs(self, uses: list[Uses]) -> None:
        """Right before they are run: the files are those with which the run began, or that somebody accepted."""
        known = self.status.programs
        if known is None or not uses:
            return
        every = {**known, **self.playbook.programs, **(self.status.system_programs or {})}
        wrong = programs.exchanged(uses, Path(self.playbook.file).parent, every)
        if wrong:
            raise StepFailed(
                f"cannot run {', '.join(wrong)}: changed since the run began, or another one than was approved",
                state="nothing of it was run",
                then=f"look at it; then runbook resume {self.status.run} --accept-changes --reason '…' (voids the approvals)",
            )

    def required(self, entry: Entry) -> None:
        """What the playbook requires may have been taken back while it waited."""
        if not self.playbook.requires:
            return
        with self.database.look() as look:
            answers, _ = requirements.ask(self.playbook, look)
        for answer in answers:
            self.emit(answer)
        unmet = ask.unmet(answers)
        if unmet:
            raise CriteriaNotMet(
                f"gate {entry.id} ({entry.mark}) stays shut: what the playbook requires no longer stands: "
                f"{', '.join(one.id for one in unmet)}",
                why="; ".join(f"{one.id}: {one.text}" for one in unmet),
            )

    def apply(self, entry: Entry) -> StepResult:
        """Write-ahead, then act; connection classes are tried again, because the step goes on where the ledger says."""
        kind = entry.step.kind
        self.emit(StepStarted(step=entry.id, type=kind, action="apply", describe=entry.step.describe()))
        context = self.context(entry)
        entry = self._with_guards_of_here(entry)
        if not entry.guards:
            return self._act(entry, context)
        context.sentry = self._sentry(entry)
        with context.sentry.watching():
            context.rest()  # a guard that is broken already holds the step before it begins
            return self._act(entry, context)

    def _act(self, entry: Entry, context: StepContext) -> StepResult:
        """Tries count anew where the step came further in between: a long step may lose its connection every hour."""
        self.control.acting = True
        try:
            return self._tried(entry, context)
        finally:
            self.control.acting = False

    def _tried(self, entry: Entry, context: StepContext) -> StepResult:
        attempt, acts = 1, -1
        while True:
            try:
                context.obey()
                if isinstance(entry.step, UndoesRun) and self.undo is not None:
                    return self.undo(entry.step, entry)
                return entry.step.apply(context)
            except DatabaseFault as fault:
                if not fault.sqlstate or not fault.sqlstate.startswith(entry.retry.on):
                    raise
                if fault.lost:
                    self._await_server(entry, context, fault)
                before, acts = acts, len(self.database.committed())
                attempt = attempt if acts == before else 1
                if attempt >= entry.retry.attempts:
                    raise
                pause = random.uniform(0, min(entry.retry.longest_wait, entry.retry.first_wait * 2**attempt))  # noqa: S311 - jitter
                self.emit(
                    Retried(
                        step=entry.id,
                        attempt=attempt,
                        sqlstate=fault.sqlstate,
                        error=str(fault),
                        next_try_s=round(pause, 2),
                    )
                )
                self.control.wait(pause)
                attempt += 1
                self._doubt_after_loss(entry)

    def _await_server(self, entry: Entry, context: StepContext, fault: DatabaseFault) -> None:
        """A server that restarts is waited for, as long as the longest wait between two tries; then it must be the same one."""
        until = time.monotonic() + entry.retry.longest_wait
        while True:
            try:
                known = self.status.started.identity if self.status.started else {}
                moved = identity.another(self.database, known)
                break
            except DatabaseFault as still:
                if still.silent or time.monotonic() > until:
                    raise fault from still
            self.control.wait(0.2)
            context.obey()
        if moved:
            raise RunRefused(
                f"step {entry.id} ({entry.mark}) lost the database, and behind its address is another server now",
                why="; ".join(moved),
                state="what had committed stays where it was; a server that took over may lack the last of it",
                then="look at both servers; this run goes on only on the one on which it began",
            ) from fault

    def _doubt_after_loss(self, entry: Entry) -> None:
        """Before another try: a step that can't say what became of it is a person's to settle."""
        effect = self.verify(entry, "in_doubt")
        if effect.state is State.UNKNOWN:
            raise in_doubt(entry, effect)

    def _with_guards_of_here(self, entry: Entry) -> Entry:
        """Without guards on what this database doesn't have: SQLite has no standbys that could lag."""
        elsewhere = [
            guard.check
            for guard in entry.guards
            if guard.check.probe is not None and guard.check.probe.only not in {"", self.database.dialect}
        ]
        for check in elsewhere:
            self.emit(NotDue(step=entry.id, id=check.id, due=f"a target on {check.probe.only if check.probe else ''}"))
        return entry.model_copy(update={"guards": tuple(g for g in entry.guards if g.check not in elsewhere)})

    def _sentry(self, entry: Entry) -> GuardMonitor:
        """Who samples the step's guards while it runs."""
        from runner.run.guards import GuardMonitor

        return GuardMonitor(
            entry=entry, look=self.database.look, scope=self.scope, emit=self.emit, control=self.control,
            window_left=lambda: self.window_left(entry),
        )  # fmt: skip

    def window_left(self, entry: Entry) -> float | None:
        """Seconds in which this step may still change things; negative where that is over, None where nothing limits it."""
        ends = window.ends(self.playbook, self.status, step=entry.id, now=self.now())
        return None if ends is None else (ends - self.now()).total_seconds()

    def _window_of(self, entry: Entry) -> Callable[[], float | None]:
        """The limit that the step's safe points keep to: none for gates, nor where a person said to go on outside."""
        bound = entry.step.changes and not self.outside_window
        return (lambda: self.window_left(entry)) if bound else (lambda: None)

    def context(self, entry: Entry) -> StepContext:
        """What the step is lent."""
        return StepContext(
            db=self.database, entry=entry, run=self.status.run, emit=self.emit, control=self.control, watcher=self.watcher,
            scope=self.scope, lock=entry.lock, steered=self.recorded, intact=self.trail.intact, window_left=self._window_of(entry),
            operator=self.status.process.operator if self.status.process else "",
        )  # fmt: skip

    def recounted(self, entry: Entry) -> StepResult:
        """A step's result from the ledger, where it keeps one; else an empty one."""
        if not isinstance(entry.step, Recounted):
            return StepResult()
        try:
            with self.database.look() as look:
                return entry.step.result(look)
        except StepError:
            return StepResult()

    def end(
        self,
        entry: Entry,
        outcome: StepOutcome,
        *,
        began: float,
        result: StepResult | None = None,
        error: str = "",
        sqlstate: str = "",
        kept: Mapping[str, Value] | None = None,
    ) -> None:
        """Record the outcome in the trail, then anchor the trail's head in the ledger; `kept` stands there alone."""
        results = bounded(fields(result))
        seconds = round(time.monotonic() - began, 3)
        self.emit(
            StepEnded(
                step=entry.id,
                action="apply",
                outcome=outcome,
                seconds=seconds,
                results=results,
                error=error,
                sqlstate=sqlstate,
            )
        )
        self.learn(entry.id, results)
        # masked, as the trail has them
        told = {**self.status.step(entry.id).results, **(kept or {})}
        self.anchor(RunPosition(self.status.run, entry.id, "apply"), outcome=outcome, results=told)

    def anchor(self, place: RunPosition, *, outcome: StepOutcome, results: Mapping[str, Value]) -> None:
        """The head of the chain into the ledger, where whoever rewrites the trail can't rewrite it unseen."""
        if not self.recorded:
            return
        own = place.run == self.status.run  # else the steps are another run's, whose chain this is not
        try:
            with self.database.own() as work:
                step_commits.end_step(
                    work,
                    place,
                    state=outcome,
                    results=in_json(results),
                    head=self.trail.head if own else "",
                    length=self.trail.length if own else 0,
                )
        except DatabaseFault as fault:
            if self.control.interrupted:
                return  # the trail has it; whoever wants the end at once doesn't wait for a server that is gone
            raise TargetUnreachable(
                f"cannot record the end of step {place.step} in the ledger: {fault}",
                state="the step's change stays; its end is in the trail",
            ) from fault


def in_doubt(entry: Entry, effect: Effect) -> InDoubt:
    """Nobody but a person can say what became of this step."""
    return InDoubt(
        f"step {entry.id} ({entry.mark}) began and did not end, and the database can't tell whether it was done",
        why=effect.evidence,
        state="unknown for this step; all steps before it are done",
    )
