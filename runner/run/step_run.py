"""Executes one step: verify, record the start, apply with retries, record the end, anchor it in the ledger."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.common.errors import CriteriaNotMet, InDoubt, RunRefused
from runner.plan import ask, foresight, requirements
from runner.plan.ask import fields
from runner.playbook.model import Entry
from runner.run.context import StepContext
from runner.run.session import RunSession
from runner.target import identity
from runner.trail.events import NotDue, Retried, StepEnded, StepOutcome, StepStarted, StepVerified
from steps.contract import (
    DatabaseFault,
    Effect,
    Recounted,
    RunPosition,
    State,
    StepError,
    StepResult,
    UndoesRun,
    Value,
)
from steps.contract.values import bounded

if TYPE_CHECKING:
    from runner.run.guards import GuardMonitor

Undo = Callable[[UndoesRun, Entry], StepResult]
"""How a step that undoes another playbook's run is carried out."""


@dataclass(frozen=True)
class StepRun:
    """One step of a run: the operations on it. The engine decides when to use which."""

    session: RunSession
    entry: Entry
    undo: Undo

    def verify(self, when: str) -> Effect:
        with self.session.database.look() as look:
            effect = self.entry.step.verify(look)
        if when == "before" and effect.state is State.NOT_DONE:
            return effect  # the normal case; it needs no record beside step_started
        self.session.emit(
            StepVerified.model_validate(
                {"step": self.entry.id, "when": when, "state": effect.state, "evidence": effect.evidence}
            )
        )
        return effect

    def preflight(self) -> None:
        """Raise CriteriaNotMet if there are obstacles to the step, now that all earlier steps are done."""
        with self.session.database.look() as look:
            faults = foresight.in_the_way(self.entry, look)
        if faults:
            raise CriteriaNotMet(
                f"step {self.entry.id} ({self.entry.mark}) would not work here",
                why="; ".join(faults),
                state="nothing was changed by this step",
            )

    def required(self) -> None:
        """At a gate, check `requires:` again: a required run may have been undone while this one waited."""
        if not self.session.playbook.requires:
            return
        with self.session.database.look() as look:
            answers, _ = requirements.ask(self.session.playbook, look)
        for answer in answers:
            self.session.emit(answer)
        unmet = ask.unmet(answers)
        if unmet:
            raise CriteriaNotMet(
                f"gate {self.entry.id} ({self.entry.mark}) stays shut: what the playbook requires no longer stands: "
                f"{', '.join(one.id for one in unmet)}",
                why="; ".join(f"{one.id}: {one.text}" for one in unmet),
            )

    def apply(self) -> StepResult:
        """Record the start, then apply the step. Transient errors are retried: the step continues after its last commit."""
        step, session = self.entry.step, self.session
        session.emit(StepStarted(step=self.entry.id, type=step.kind, action="apply", describe=step.describe()))
        context = session.context(self.entry)
        guarded = self._with_guards_of_here()
        if not guarded.guards:
            return self._act(context)
        context.sentry = self._sentry(guarded)
        with context.sentry.watching():
            context.rest()  # a safe point: a guard that is broken already holds the step before it starts
            return self._act(context)

    def _act(self, context: StepContext) -> StepResult:
        self.session.control.acting = True
        try:
            return self._tried(context)
        finally:
            self.session.control.acting = False

    def _tried(self, context: StepContext) -> StepResult:
        """Retry transient errors. The counter resets with each commit: a long step may lose its connection every hour."""
        session, retry = self.session, self.entry.retry
        attempt, acts = 1, -1
        while True:
            try:
                context.obey()
                if isinstance(self.entry.step, UndoesRun):
                    return self.undo(self.entry.step, self.entry)
                return self.entry.step.apply(context)
            except DatabaseFault as fault:
                if not fault.sqlstate or not fault.sqlstate.startswith(retry.on):
                    raise
                if fault.lost:
                    self._await_server(context, fault)
                # Progress is measured in commits of this step, which are in the ledger whatever happened to the connection.
                before, acts = acts, len(session.database.committed())
                attempt = attempt if acts == before else 1
                if attempt >= retry.attempts:
                    raise
                pause = random.uniform(0, min(retry.longest_wait, retry.first_wait * 2**attempt))  # noqa: S311 - jitter
                session.emit(
                    Retried(
                        step=self.entry.id,
                        attempt=attempt,
                        sqlstate=fault.sqlstate,
                        error=str(fault),
                        next_try_s=round(pause, 2),
                    )
                )
                session.control.wait(pause)
                attempt += 1
                self._doubt_after_loss()

    def _await_server(self, context: StepContext, fault: DatabaseFault) -> None:
        """Wait for a server that restarts, up to retry.longest_wait; raises RunRefused if another server is there then."""
        until = time.monotonic() + self.entry.retry.longest_wait
        while True:
            try:
                known = self.session.status.started.identity if self.session.status.started else {}
                moved = identity.another(self.session.database, known)
                break
            except DatabaseFault as still:
                if still.silent or time.monotonic() > until:
                    raise fault from still
            self.session.control.wait(0.2)
            context.obey()
        if moved:
            raise RunRefused(
                f"step {self.entry.id} ({self.entry.mark}) lost the database, and behind its address is another server now",
                why="; ".join(moved),
                state="what had committed stays where it was; a server that took over may lack the last of it",
                then="look at both servers; this run goes on only on the one on which it began",
            ) from fault

    def _doubt_after_loss(self) -> None:
        """Before a retry: raise InDoubt if the database can't tell the outcome of the last attempt."""
        effect = self.verify("in_doubt")
        if effect.state is State.UNKNOWN:
            raise self.in_doubt(effect)

    def _with_guards_of_here(self) -> Entry:
        """The entry without guards that don't apply to this database (SQLite has no replicas)."""
        elsewhere = [
            guard.check
            for guard in self.entry.guards
            if guard.check.probe is not None and guard.check.probe.only not in {"", self.session.database.dialect}
        ]
        for check in elsewhere:
            due = f"a target on {check.probe.only if check.probe else ''}"
            self.session.emit(NotDue(step=self.entry.id, id=check.id, due=due))
        kept = tuple(guard for guard in self.entry.guards if guard.check not in elsewhere)
        return self.entry.model_copy(update={"guards": kept})

    def _sentry(self, guarded: Entry) -> GuardMonitor:
        """The monitor that samples the step's guards."""
        from runner.run.guards import GuardMonitor

        session = self.session
        return GuardMonitor(
            entry=guarded,
            look=session.database.look,
            scope=session.scope,
            emit=session.emit,
            control=session.control,
            window_left=lambda: session.window_left(guarded),
            status_age=session.watcher.status_age,
        )

    def recounted(self) -> StepResult:
        """The step's result as recomputed from the ledger; an empty one if it stores none."""
        if not isinstance(self.entry.step, Recounted):
            return StepResult()
        try:
            with self.session.database.look() as look:
                return self.entry.step.result(look)
        except StepError:
            return StepResult()

    def end(
        self,
        outcome: StepOutcome,
        *,
        began: float,
        result: StepResult | None = None,
        error: str = "",
        sqlstate: str = "",
        kept: Mapping[str, Value] | None = None,
    ) -> None:
        """Record the end in the trail, then anchor the trail's head in the ledger. kept: results for the ledger only."""
        session, name, results = self.session, self.entry.id, bounded(fields(result))
        seconds = round(time.monotonic() - began, 3)
        session.emit(
            StepEnded(
                step=name,
                action="apply",
                outcome=outcome,
                seconds=seconds,
                results=results,
                error=error,
                sqlstate=sqlstate,
            )
        )
        session.learn(name, results)
        # From the status, which has them masked, as in the trail.
        told = {**session.status.step(name).results, **(kept or {})}
        session.anchor(RunPosition(session.status.run, name, "apply"), outcome=outcome, results=told)

    def in_doubt(self, effect: Effect) -> InDoubt:
        """The error for a step whose outcome only a person can determine."""
        return InDoubt(
            f"step {self.entry.id} ({self.entry.mark}) began and did not end, and the database can't tell whether it was done",
            why=effect.evidence,
            state="unknown for this step; all steps before it are done",
        )
