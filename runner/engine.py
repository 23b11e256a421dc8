"""The loop: plan in, events out; it names no step type and asks the database before it believes anything."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from runner import approvals, gates, plan
from runner.context import StepContext, Watcher
from runner.control import Control
from runner.database import RunDatabase
from runner.errors import (
    Aborted,
    CriteriaNotMet,
    InDoubt,
    RunbookError,
    RunRefused,
    StepFailed,
    TargetUnreachable,
    Waiting,
)
from runner.events import (
    CheckAnswered,
    Event,
    GateReached,
    Json,
    Outcome,
    Retried,
    StepEnded,
    StepStarted,
    StepVerified,
    StopAsked,
    jsonable,
)
from runner.model import Check, Entry, Playbook
from runner.status import RunStatus, StepStatus, add
from runner.trail import Trail
from steps import ledger
from steps.base import (
    DatabaseFault,
    Effect,
    Gate,
    Paused,
    Place,
    Recounted,
    State,
    StepError,
    StepResult,
    Stopped,
    UndoesRun,
    Value,
)
from steps.words import NoText

Listener = Callable[[Event], None]
Undo = Callable[[str, Entry], StepResult]


@dataclass
class Engine:
    """One process's work on one run."""

    playbook: Playbook
    database: RunDatabase
    trail: Trail
    status: RunStatus
    control: Control
    watcher: Watcher
    now: Callable[[], datetime]
    listeners: list[Listener] = field(default_factory=list)
    scope: dict[str, Value] = field(default_factory=dict)
    recorded: bool = True  # whether the ledger has a row of this run
    until: str = ""
    begin_at: str = ""
    wants_rollback: bool = False
    undo: Undo | None = None

    def emit(self, event: Event) -> None:
        """On disk first; then everyone else hears of it."""
        record = self.trail.append(event)
        add(self.status, record)
        for listener in self.listeners:
            listener(record.event)

    # ─── the whole ──────────────────────────────────────────────────────────────────────────────────────────────────
    def run(self) -> None:
        """Preconditions, steps in order, success criteria; whatever stops the run is raised as a RunbookError."""
        self._scope_of_figures()
        if not self.status.steps:
            self._ask(self.playbook.preconditions, role="precondition", what="the playbook's preconditions are not met")
        for entry in self.playbook.entries:
            if entry.id == self.until:
                self._stop_before(entry)
            if not self.status.step(entry.id).finished:
                self._entry(entry)
            if entry.id == self.begin_at:
                self.begin_at = ""
        self._ask(self.playbook.success_criteria, role="criterion", what="the playbook's success criteria are not met")

    def _stop_before(self, entry: Entry) -> None:
        self.emit(GateReached(step=entry.id, needs=("`--to` asked to stop before this step",)))
        raise Waiting(f"stopped before {entry.id}, as --to asked", then=f"runbook resume {self.status.run}")

    def _scope_of_figures(self) -> None:
        for name, figures in self.status.figures.items():
            self._learn(name, figures)

    def _learn(self, name: str, figures: Mapping[str, Json]) -> None:
        self.scope |= {f"{name}.{key}": cast("Value", value) for key, value in figures.items()}

    def _ask(
        self,
        checks: tuple[Check, ...],
        *,
        role: gates.Role,
        what: str,
        step: str = "",
        own: Mapping[str, Value] | None = None,
    ) -> None:
        """Answer checks, record each, and raise where one does not pass."""
        answers = gates.ask(checks, step=step, role=role, look=self.database.look, scope=self.scope, own=own)
        for answer in answers:
            self.emit(answer)
            if isinstance(answer, CheckAnswered):
                self._learn(answer.id, answer.result)
        unmet = gates.unmet(answers)
        if unmet:
            where = next((str(check.mark) for check in checks if check.id == unmet[0].id), "")
            raise CriteriaNotMet(
                f"{what}: {', '.join(f'{one.id} ({one.answer})' for one in unmet)} ({where})",
                why="; ".join(f"{one.id}: {one.text}" for one in unmet),
            )

    # ─── one step ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _entry(self, entry: Entry) -> None:
        step = self.status.step(entry.id)
        self._obey()
        self.database.at(entry.id)
        self.database.policy(lock=entry.lock, timeout=entry.timeout)
        if isinstance(entry.step, Gate):
            if not self.begin_at or self.begin_at == entry.id:
                self._gate(entry)
            return
        fresh = step.outcome is None and not step.open
        if fresh:
            what = f"step {entry.id} ({entry.mark}): its preconditions are not met"
            self._ask(entry.preconditions, role="precondition", what=what, step=entry.id)
            self._preflight(entry)
        effect = self._verify(entry, "before" if fresh else "in_doubt")
        outcome = self._before(entry, step, effect)
        if outcome is Outcome.ALREADY_SO:
            self._end(entry, Outcome.ALREADY_SO, began=time.monotonic(), result=self._recounted(entry))
            return
        self._carry_out(entry, step, done=outcome is Outcome.DONE)

    def _before(self, entry: Entry, step: StepStatus, effect: Effect) -> Outcome | None:
        """What the database's word means: ALREADY_SO and DONE need no act, None needs one."""
        acted = step.outcome is not None or bool(step.open)
        if self.begin_at and effect.state is not State.DONE:
            raise RunRefused(
                f"cannot begin at {self.begin_at}: step {entry.id} ({entry.mark}) before it is not done here",
                why=effect.evidence,
                state="nothing was changed",
                then="leave --from away",
            )
        if effect.state is State.DONE:
            return Outcome.DONE if acted else Outcome.ALREADY_SO
        if effect.state is State.UNKNOWN:
            if acted and step.settled is not None:
                return Outcome.DONE if step.settled else None
            if acted:
                raise InDoubt(
                    f"step {entry.id} ({entry.mark}) began and did not end, and the database can't tell whether it was done",
                    why=effect.evidence,
                    state="unknown for this step; all steps before it are done",
                    then=f"runbook settle {self.status.run} {entry.id} done|not-done --reason '…', then runbook resume {self.status.run}",
                )
            raise StepFailed(
                f"step {entry.id} ({entry.mark}) can't begin: the database is in a state that it does not know",
                why=effect.evidence,
                state="nothing was changed by this step",
                then=f"mend it by hand, then runbook resume {self.status.run}",
            )
        return None

    def _carry_out(self, entry: Entry, step: StepStatus, *, done: bool) -> None:
        """Apply where it is not done, verify, check the criteria, and record how it ended."""
        began = time.monotonic()
        try:
            result = self._recounted(entry) if done else self._apply(entry)
            if not done:
                effect = self._verify(entry, "after")
                if effect.state is not State.DONE:
                    raise StepError(f"the change was sent, but verify says {effect.state}: {effect.evidence}")
            what = f"step {entry.id} ({entry.mark}): its success criteria are not met"
            self._ask(entry.success_criteria, role="criterion", what=what, step=entry.id, own=dict(result))
        except CriteriaNotMet as error:
            self._end(entry, Outcome.CRITERIA_NOT_MET, began=began, result=self._recounted(entry), error=error.what)
            self._failed(entry, error)
        except Paused as pause:
            self._end(entry, Outcome.PAUSED, began=began, result=self._recounted(entry), error=str(pause))
            self.emit(GateReached(step=entry.id, needs=(str(pause),)))
            raise Waiting(
                f"step {entry.id} stands at its own gate", why=str(pause), state=entry.if_stopped_here,
                then=f"runbook resume {self.status.run}",
            ) from pause  # fmt: skip
        except Stopped as stop:
            self._end(entry, Outcome.STOPPED, began=began, result=self._recounted(entry), error=str(stop))
            self._stopped(entry, str(stop))
        except (StepError, NoText) as error:
            if self.control.interrupted:
                self._end(entry, Outcome.STOPPED, began=began, error=f"cancelled: {error}")
                self._stopped(entry, "cancelled by a second signal")
            self._end_failed(entry, began, error)
        else:
            self._end(entry, Outcome.DONE, began=began, result=result)

    def _end_failed(self, entry: Entry, began: float, error: Exception) -> None:
        fault = error if isinstance(error, DatabaseFault) else None
        if fault is not None and fault.lost:
            raise TargetUnreachable(  # no end is recorded: what was in flight is settled at resume, by the database
                f"step {entry.id} ({entry.mark}) lost the database: {error}",
                state="what had committed stays; what was in flight is settled when you resume",
                then=f"runbook resume {self.status.run}",
            ) from error
        sqlstate = fault.sqlstate if fault is not None else ""
        detail = f" ({fault.detail})" if fault is not None and fault.detail else ""
        self._end(
            entry,
            Outcome.FAILED,
            began=began,
            error=f"{error}{detail}",
            sqlstate=sqlstate,
            result=self._recounted(entry),
        )
        self._failed(
            entry,
            StepFailed(
                f"step {entry.id} ({entry.mark}) failed: {entry.step.describe()}",
                why=f"{error}{detail}" + (f" [{sqlstate}]" if sqlstate else ""),
            ),
        )

    def _failed(self, entry: Entry, error: RunbookError) -> None:
        """Stop, go on with the playbook's reason, or let the run be taken back (the workflow reads the policy)."""
        if entry.on_failure.policy == "continue":
            self._end(
                entry,
                Outcome.CONTINUED,
                began=time.monotonic(),
                error=f"{error.what}; goes on: {entry.on_failure.reason}",
            )
            return
        self.wants_rollback = entry.on_failure.policy == "rollback"
        raise error

    def _stopped(self, entry: Entry, reason: str) -> None:
        self.emit(StopAsked(by=self.control.stop_by or "signal", reason=self.control.stop_reason or reason))
        self.wants_rollback = self.control.take_back
        raise Aborted(
            f"stopped in step {entry.id} ({entry.mark}) at a safe point",
            why=reason,
            state=entry.if_stopped_here or "what had committed stays; the step goes on where it stood",
            then=f"runbook resume {self.status.run}",
        )

    def _obey(self) -> None:
        if self.control.stop_by:
            self.emit(StopAsked(by=self.control.stop_by, reason=self.control.stop_reason))
            raise Aborted(
                "stopped between two steps", why=self.control.stop_reason, then=f"runbook resume {self.status.run}"
            )

    # ─── parts of a step ────────────────────────────────────────────────────────────────────────────────────────────
    def _verify(self, entry: Entry, when: str) -> Effect:
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

    def _preflight(self, entry: Entry) -> None:
        """What the step itself finds in its way, now that all steps before it are done."""
        with self.database.look() as look:
            faults = plan.preflight(entry, look)
        if faults:
            raise CriteriaNotMet(
                f"step {entry.id} ({entry.mark}) would not work here", why="; ".join(faults), state="nothing was changed by this step",
                then=f"mend it, then runbook resume {self.status.run}",
            )  # fmt: skip

    def _apply(self, entry: Entry) -> StepResult:
        """Write-ahead, then act; connection classes are tried again, because the step goes on where the ledger says."""
        kind = entry.step.kind
        self.emit(StepStarted(step=entry.id, type=kind, action="apply", describe=entry.step.describe()))
        context = self._context(entry)
        attempt = 1
        while True:
            try:
                context.obey()
                if isinstance(entry.step, UndoesRun) and self.undo is not None:
                    return self.undo(entry.step.undoes(), entry)
                return entry.step.apply(context)
            except DatabaseFault as fault:
                if (
                    attempt >= entry.retry.attempts
                    or not fault.sqlstate.startswith(entry.retry.on)
                    or not fault.sqlstate
                ):
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

    def _doubt_after_loss(self, entry: Entry) -> None:
        """Before another try: a step that can't say what became of it is a person's to settle."""
        effect = self._verify(entry, "in_doubt")
        if effect.state is State.UNKNOWN:
            self._before(entry, self.status.step(entry.id), effect)

    def _context(self, entry: Entry) -> StepContext:
        return StepContext(
            db=self.database, entry=entry, run=self.status.run, emit=self.emit, control=self.control, watcher=self.watcher,
            scope=self.scope, lock=entry.lock, steered=self.recorded,
        )  # fmt: skip

    def _recounted(self, entry: Entry) -> StepResult:
        """A step's result from the ledger, where it keeps one; else an empty one."""
        if not isinstance(entry.step, Recounted):
            return StepResult()
        try:
            with self.database.look() as look:
                return entry.step.result(look)
        except StepError:
            return StepResult()

    def _gate(self, entry: Entry) -> None:
        """Criteria over all that came before, then what people bring; a gate that is not open ends the process."""
        step = entry.step
        if not isinstance(step, Gate):
            return
        began = time.monotonic()
        self.emit(StepStarted(step=entry.id, type=entry.step.kind, action="apply", describe=entry.step.describe()))
        checks = (*entry.preconditions, *entry.success_criteria)
        self._ask(checks, role="criterion", what=f"gate {entry.id} ({entry.mark}) stays shut", step=entry.id)
        needs = approvals.open_needs(step.needs(), self.status, step=entry.id, now=self.now())
        if needs:
            self.emit(GateReached(step=entry.id, needs=tuple(needs)))
            raise Waiting(
                f"waiting at {entry.id}: {'; '.join(needs)}",
                state=entry.if_stopped_here,
                then=f"runbook approve {self.status.run} --step {entry.id} --as NAME --role ROLE --reason '…', "
                f"then runbook resume {self.status.run}",
            )
        self._end(entry, Outcome.PASSED, began=began)

    def _end(  # noqa: PLR0913 - the fields of one record
        self,
        entry: Entry,
        outcome: Outcome,
        *,
        began: float,
        result: StepResult | None = None,
        error: str = "",
        sqlstate: str = "",
    ) -> None:
        """Record the outcome in the trail, then anchor the trail's head in the ledger."""
        results = jsonable(dict(result)) if result is not None else {}
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
        self._learn(entry.id, results)
        self.anchor(Place(self.status.run, entry.id, "apply"), outcome=outcome, results=results)

    def anchor(self, place: Place, *, outcome: Outcome, results: Mapping[str, Json]) -> None:
        """The head of the chain into the ledger, where whoever rewrites the trail can't rewrite it unseen."""
        if not self.recorded:
            return
        try:
            with self.database.own(fenced=bool(self.database.session.fence.epoch)) as work:
                ledger.end_step(
                    work,
                    place,
                    state=outcome,
                    results=json.dumps(results),
                    head=self.trail.head,
                    length=self.trail.length,
                )
        except DatabaseFault as fault:
            raise TargetUnreachable(
                f"cannot record the end of step {place.step} in the ledger: {fault}",
                state="the step's change stays; its end is in the trail",
                then=f"runbook resume {self.status.run}",
            ) from fault
