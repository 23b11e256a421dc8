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
    """One process's work on one run, forward or back: the engine, its steps and the way back all hold the same one."""

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
    _telling: threading.Lock = field(default_factory=threading.Lock)  # guards speak from a thread of their own

    # ─── the record ─────────────────────────────────────────────────────────────────────────────────────────────────
    def emit(self, event: Event) -> None:
        """On disk first; then everyone else hears of it. One at a time; no signal handler comes here."""
        with self._telling:
            record = self.trail.append(event)
            add(self.status, record)
            for listener in self.listeners:
                listener(record.event)

    def learn(self, name: str, figures: Mapping[str, Value]) -> None:
        """Later checks and steps may use these figures."""
        self.scope.learn(name, figures)

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

    # ─── what steps are lent ────────────────────────────────────────────────────────────────────────────────────────
    def context(self, entry: Entry, *, forward: bool = True) -> StepContext:
        """What a step is lent. forward: also a check of the trail and the window's limit at each safe point; a way back has neither."""
        context = StepContext(
            db=self.database, entry=entry, run=self.status.run, emit=self.emit, control=self.control, watcher=self.watcher,
            scope=self.scope, lock=entry.lock, steered=self.recorded,
            operator=self.status.process.operator if self.status.process else "",
        )  # fmt: skip
        if forward:
            context.intact = self.trail.intact
            context.window_left = self._window_of(entry)
        return context

    def window_left(self, entry: Entry) -> float | None:
        """Seconds in which this step may still change things; negative where that is over, None where nothing limits it."""
        ends = window.ends(self.playbook, self.status, step=entry.id, now=self.now())
        return None if ends is None else (ends - self.now()).total_seconds()

    def _window_of(self, entry: Entry) -> Callable[[], float | None]:
        """The limit that the step's safe points keep to: none for gates, nor where a person said to go on outside."""
        bound = entry.step.changes and not self.outside_window
        return (lambda: self.window_left(entry)) if bound else (lambda: None)

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
