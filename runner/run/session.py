"""What all parts of one process's work on a run share: its database, its record, and how it is steered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from runner.common.errors import StepFailed, TargetUnreachable
from runner.plan import window
from runner.playbook import programs
from runner.playbook.model import Entry, Playbook
from runner.playbook.scope import Scope
from runner.run.context import StepContext, Watcher
from runner.run.control import Control
from runner.target.database import RunDatabase
from runner.trail.events import Event, StepOutcome
from runner.trail.status import RunStatus, add
from runner.trail.trail import Trail
from steps.contract import DatabaseFault, RunPosition, Uses, Value
from steps.contract.values import in_json
from steps.ledger import step_commits

Listener = Callable[[Event], None]


@dataclass
class RunSession:
    """The state of one run in this process, shared by the engine, its steps and the rollback."""

    playbook: Playbook
    database: RunDatabase
    trail: Trail
    status: RunStatus
    control: Control
    watcher: Watcher
    now: Callable[[], datetime]
    listeners: list[Listener] = field(default_factory=list)
    scope: Scope = field(default_factory=Scope)
    outside_window: bool = False  # a person accepted to continue although the window is closed
    recorded: bool = True  # whether the ledger has a row of this run
    _telling: threading.Lock = field(default_factory=threading.Lock)  # guards emit from a thread of their own

    # ─── the record ─────────────────────────────────────────────────────────────────────────────────────────────────
    def emit(self, event: Event) -> None:
        """Append an event, update the status, notify listeners; one at a time, never called from a signal handler."""
        with self._telling:
            # On disk first: nobody may see, and the engine may not act on, what a crash could still take back.
            record = self.trail.append(event)
            add(self.status, record)
            for listener in self.listeners:
                listener(record.event)

    def learn(self, name: str, figures: Mapping[str, Value]) -> None:
        """Make these figures available to later checks and steps."""
        self.scope.learn(name, figures)

    def anchor(self, place: RunPosition, *, outcome: StepOutcome, results: Mapping[str, Value]) -> None:
        """Store the head of the chain in the ledger, so that a rewritten trail is noticed."""
        if not self.recorded:
            return
        own = place.run == self.status.run  # else the steps belong to another run, of which this is not the chain
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
                return  # the trail has it; don't wait for a lost server after the second ^C
            raise TargetUnreachable(
                f"cannot record the end of step {place.step} in the ledger: {fault}",
                state="the step's change stays; its end is in the trail",
            ) from fault

    @property
    def proven(self) -> bool:
        """Whether a success criterion decided; those of skipped steps were not asked."""
        skipped = [step.id for step in self.status.steps.values() if step.outcome is StepOutcome.SKIPPED]
        return self.playbook.proves_without(skipped)

    # ─── for steps ──────────────────────────────────────────────────────────────────────────────────────────────────
    def context(self, entry: Entry, *, forward: bool = True) -> StepContext:
        """The context for a step. forward: check the trail and the window at each safe point; a rollback does neither."""
        context = StepContext(
            db=self.database,
            entry=entry,
            run=self.status.run,
            emit=self.emit,
            control=self.control,
            watcher=self.watcher,
            scope=self.scope,
            lock=entry.lock,
            steered=self.recorded,
            operator=self.status.process.operator if self.status.process else "",
            folder=self.trail.path.parent,
        )
        if forward:
            context.intact = self.trail.intact
            context.window_left = self._window_of(entry)
        return context

    def window_left(self, entry: Entry) -> float | None:
        """Seconds left in which this step may change things; negative if the window is over, None if there is no limit."""
        ends = window.ends(self.playbook, self.status, step=entry.id, now=self.now())
        return None if ends is None else (ends - self.now()).total_seconds()

    def _window_of(self, entry: Entry) -> Callable[[], float | None]:
        """The limit for the step's safe points; none for gates, or if a person accepted to continue outside the window."""
        bound = entry.step.changes and not self.outside_window
        return (lambda: self.window_left(entry)) if bound else (lambda: None)

    def same_programs(self, uses: list[Uses]) -> None:
        """Raise StepFailed if programs were replaced since the run started (or since a person accepted them)."""
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
