"""The engine: takes a run through its playbook, step by step, and records events.

It names no step type, and a change counts as done only when the database says so.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from runner.common.durations import format_duration
from runner.common.errors import (
    Aborted,
    CriteriaNotMet,
    Interrupted,
    LeaseLost,
    RunbookError,
    RunRefused,
    StepFailed,
    TargetUnreachable,
    Waiting,
)
from runner.plan import approvals, judgements, original_gates, starting_point, window
from runner.plan import ask as gates
from runner.playbook import programs
from runner.playbook.check_builder import STATUS_AGE
from runner.playbook.model import Check, Entry
from runner.playbook.scope import Scope
from runner.run import balance, conditions
from runner.run.session import RunSession
from runner.run.step_run import StepRun, Undo
from runner.trail.events import (
    CheckAnswered,
    GateReached,
    NotDue,
    StepOutcome,
    StepStarted,
    StopRequested,
    WindowOverrun,
)
from runner.trail.status import StepStatus
from steps.contract import (
    QUERY_CANCELED,
    DatabaseFault,
    Effect,
    Gate,
    NoText,
    Paused,
    State,
    StepError,
    StepResult,
    Stopped,
    UsesFigures,
    Value,
)


class Unjudged(Waiting):
    """A check can't decide, but people may. need: the judgement that is asked for."""

    def __init__(self, need: str) -> None:
        super().__init__(f"for {need}")
        self.need = need


class EarlierRun(StepResult):
    """The run in which a gate before --from was passed."""

    run: str


@dataclass
class Engine:
    """Executes one run in this process: chooses the next step, and acts on each answer."""

    session: RunSession
    undo: Undo
    until: str = ""
    begin_at: str = ""
    unproven: frozenset[str] = frozenset()  # steps whose end no anchor confirms; the database is asked again
    wants_rollback: bool = False

    # ─── the whole ──────────────────────────────────────────────────────────────────────────────────────────────────
    def run(self) -> None:
        """Check preconditions, execute the steps in order, check success criteria. Raises a RunbookError if the run stops."""
        self._scope_of_figures()
        self._ask(self._unasked(), role="precondition", what="the playbook's preconditions")
        behind: list[Entry] = []
        for entry in self.session.playbook.entries:
            if entry.id == self.until:
                self._stop_before(entry)
            if not self.session.status.step(entry.id).finished or entry.id in self.unproven:
                self._still_open(behind)
                self._await_window(entry)
                self._entry(entry)
            if entry.id == self.begin_at:
                self.begin_at = ""
            if isinstance(entry.step, Gate) and self._can_shut(entry):
                behind.append(entry)
        self._ask(self.session.playbook.success_criteria, role="criterion", what="the playbook as a whole")
        self._say_overrun()

    def _can_shut(self, gate: Entry) -> bool:
        """Whether this gate was passed, and may have to be asked again."""
        passed = self.session.status.step(gate.id).outcome is not StepOutcome.SKIPPED
        return passed and original_gates.can_shut(gate, self.session.playbook.kept_gates)

    def _say_overrun(self) -> None:
        """Record if the run exceeded its window: a step that started in time is not interrupted."""
        changing = [entry for entry in self.session.playbook.entries if entry.step.changes]
        left = self.session.window_left(changing[-1]) if changing else None
        if left is not None and left < 0:
            self.session.emit(WindowOverrun(seconds=round(-left, 1)))

    def _unasked(self) -> tuple[Check, ...]:
        """The playbook's preconditions to check: all before the first step, afterwards those that never passed."""
        checks = self.session.playbook.preconditions
        return tuple(check for check in checks if not (self.session.status.begun and self.session.status.met(check.id)))

    def _await_window(self, entry: Entry) -> None:
        """End the process with Waiting if the step changes something and the calendar is closed."""
        if self.session.outside_window or not entry.step.changes:
            return
        opening = window.opens(self.session.playbook, self.session.now())
        if opening is None:
            return
        words = f"the window opens at {window.shown(opening, self.session.playbook.open)}"
        self.session.emit(GateReached(step=entry.id, needs=(words,)))
        raise Waiting(f"before {entry.id}: {words}")

    def _stop_before(self, entry: Entry) -> None:
        self.session.emit(GateReached(step=entry.id, needs=("`--to` asked to stop before this step",)))
        raise Waiting(f"stopped before {entry.id}, as --to asked")

    def _scope_of_figures(self) -> None:
        for name, figures in self.session.status.figures.items():
            self.session.learn(name, figures)
        for step in self.session.status.steps.values():
            if step.outcome is StepOutcome.SKIPPED:
                self.session.scope.skip(step.id)

    def _ask(
        self,
        checks: tuple[Check, ...],
        *,
        role: gates.Role,
        what: str,
        step: str = "",
        own: Mapping[str, Value] | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Ask checks, record the answers, and raise CriteriaNotMet (or Unjudged) unless all pass."""
        self.session.same_programs(programs.used((), checks))
        answers = self._answers(checks, step=step, role=role, own=own, scope=scope)
        for answer in answers:
            self.session.emit(answer)
            if isinstance(answer, CheckAnswered):
                self.session.learn(answer.id, answer.result)
        unmet = gates.unmet(answers)
        if unmet and self.session.control.interrupted:
            raise Interrupted("cancelled while it looked", why=unmet[0].text)
        if unmet and (needs := judgements.awaited(unmet, checks)):
            raise Unjudged("; ".join(needs))
        if unmet:
            where = next((str(check.mark) for check in checks if check.id == unmet[0].id), "")
            raise CriteriaNotMet(
                f"{what}: {', '.join(f'{one.id} ({one.answer})' for one in unmet)} ({where})",
                why="; ".join(f"{one.id}: {one.text}" for one in unmet),
            )

    def _answers(
        self,
        checks: tuple[Check, ...],
        *,
        step: str,
        role: gates.Role,
        own: Mapping[str, Value] | None,
        scope: Scope | None,
    ) -> list[CheckAnswered | NotDue]:
        """Ask checks, repeat those with `within:` until they pass, and replace unknown answers by judgements."""
        ask = functools.partial(
            gates.ask, step=step, role=role, look=self.session.database.look, scope=scope or self.session.scope, own=own
        )
        began, answers = time.monotonic(), ask(checks)
        while pending := [
            check
            for check, answer in zip(checks, answers, strict=True)
            if check.within is not None and gates.unmet([answer]) and time.monotonic() - began < check.within
        ]:
            self.session.control.wait(min(check.every for check in pending))
            if self.session.control.stop_by:
                break
            again = {one.id: one for one in ask(pending)}
            answers = [again.get(one.id, one) for one in answers]
        return judgements.judged(answers, checks, self.session.status)

    # ─── one step ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _figured(self, entry: Entry) -> Entry:
        """The entry with figures of earlier steps and checks bound to its step's parameters."""
        step = entry.step
        if not isinstance(step, UsesFigures) or not step.figures():
            return entry
        missing = [name for name in step.figures() if self.session.scope.get(name) is None]
        if missing:
            skipped = "; ".join(filter(None, map(self.session.scope.why_absent, missing)))
            raise StepFailed(
                f"cannot begin step {entry.id} ({entry.mark}): {', '.join(missing)} is not known",
                why=skipped or "the step or check that finds it has not told it in this run",
                state="nothing was sent by this step",
            )
        return entry.model_copy(
            update={"step": step.with_figures({name: self.session.scope[name] for name in step.figures()})}
        )

    def _entry(self, entry: Entry) -> None:
        known = self.session.status.step(entry.id)
        self._obey(entry)
        self.session.database.at(entry.id, what=entry.step)
        self.session.database.policy(lock=entry.lock, timeout=entry.timeout)
        if conditions.skips(self._step(entry)):
            return
        step = self._step(self._figured(entry))
        self.session.database.at(entry.id, what=step.entry.step)
        if isinstance(entry.step, Gate):
            if self.begin_at and self.begin_at != entry.id:
                self._passed_earlier(step)
            else:
                self._gate(step)
            return
        effect = self._stands(step, fresh=known.outcome is None and not known.open)
        outcome = self._before(step, known, effect)
        if outcome is None:
            self.session.same_programs(programs.of_entry(step.entry))
        self._carry_out(step, outcome)

    def _step(self, entry: Entry) -> StepRun:
        return StepRun(self.session, entry, self.undo)

    def _stands(self, step: StepRun, *, fresh: bool) -> Effect:
        """The step's state according to the database; before its first start also check preconditions and obstacles."""
        entry = step.entry
        try:
            if fresh and not self.begin_at:
                what = f"step {entry.id} ({entry.mark}): its preconditions"
                self._ask(entry.preconditions, role="precondition", what=what, step=entry.id)
                step.preflight()
            return step.verify("before" if fresh else "in_doubt")
        except (StepError, NoText) as error:
            if isinstance(error, DatabaseFault) and (error.lost or self.session.control.interrupted):
                raise
            raise StepFailed(
                f"cannot see how step {entry.id} ({entry.mark}) stands",
                why=str(error),
                state="nothing was sent by this step" if fresh else "",
            ) from error

    def _before(self, step: StepRun, known: StepStatus, effect: Effect) -> StepOutcome | None:
        """Decide by the database's answer: None if the step must be applied, else the outcome that it has already."""
        entry = step.entry
        acted = known.outcome is not None or bool(known.open)
        if self.begin_at and effect.state is not State.DONE:
            raise RunRefused(
                f"cannot begin at {self.begin_at}: step {entry.id} ({entry.mark}) before it is not done here",
                why=effect.evidence,
                state="nothing was changed by this command",
                then="leave --from away",
            )
        if effect.state is State.DONE:
            return StepOutcome.DONE if acted else StepOutcome.ALREADY_APPLIED
        if effect.state is State.UNKNOWN:
            if acted and known.settled is not None:
                return StepOutcome.DONE if known.settled else None
            if acted:
                raise step.in_doubt(effect)
            raise StepFailed(
                f"step {entry.id} ({entry.mark}) can't begin: the database is in a state that it does not know",
                why=effect.evidence,
                state="nothing was changed by this step",
            )
        return None

    def _carry_out(self, step: StepRun, outcome: StepOutcome | None) -> None:
        """Apply the step unless it is done (outcome None), check its criteria, and record its end."""
        began, entry = time.monotonic(), step.entry
        checks = entry.success_criteria
        if outcome is StepOutcome.ALREADY_APPLIED:  # this run has no result of the step to check
            checks = tuple(check for check in checks if check.probe is not None or check.due)
        try:
            result = _applied(step) if outcome is None else step.recounted()
            what = f"step {entry.id} ({entry.mark})"
            self._ask(checks, role="criterion", what=what, step=entry.id, own=self._own(result))
            balance.refuse_part(entry, result)
        except Unjudged as wait:
            step.end(StepOutcome.PAUSED, began=began, result=step.recounted(), error=wait.what)
            self.session.emit(GateReached(step=entry.id, needs=(wait.need,)))
            raise
        except CriteriaNotMet as error:
            step.end(StepOutcome.CRITERIA_NOT_MET, began=began, result=step.recounted(), error=error.what)
            self._failed(step, error)
        except Paused as pause:
            self._paused(step, began, pause)
        except Stopped as stop:
            step.end(StepOutcome.STOPPED, began=began, result=step.recounted(), error=str(stop))
            self._stopped(entry, str(stop))
        except (StepError, NoText) as error:
            self._end_failed(step, began, error)
        else:
            step.end(outcome or StepOutcome.DONE, began=began, result=result)

    def _own(self, result: StepResult) -> Mapping[str, Value]:
        """What a step's own criteria may name: its result, and how current the run's status files are."""
        return {**dict(result), STATUS_AGE: self.session.watcher.status_age()}

    def _paused(self, step: StepRun, began: float, pause: Paused) -> None:
        told = f"{pause}{self._fits(step.entry, pause.needs_s)}"
        step.end(StepOutcome.PAUSED, began=began, result=step.recounted(), error=told)
        self.session.emit(GateReached(step=step.entry.id, needs=(told,)))
        raise Waiting(
            f"step {step.entry.id} stands at its own gate",
            why=told,
        ) from pause

    def _fits(self, entry: Entry, needs_s: float | None) -> str:
        """Whether the rest of a step fits into the window, in words."""
        left = self.session.window_left(entry)
        if left is None or needs_s is None:
            return ""
        room = f"{format_duration(max(left, 0.0))} are left of the window"
        return f"; {room}, in which that fits" if needs_s < left else f"; THAT DOES NOT FIT: {room}"

    def _end_failed(self, step: StepRun, began: float, error: Exception) -> None:
        entry, control = step.entry, self.session.control
        if control.lease_lost:
            raise LeaseLost(
                f"step {entry.id} ({entry.mark}) was cut short: another run took over this target",
                why=str(error),
                state="what this run committed stays; nothing more is sent",
                then="runbook status",
            ) from error
        if control.interrupted:
            step.end(StepOutcome.STOPPED, began=began, error=f"cancelled: {error}", result=step.recounted())
            self._stopped(entry, f"a second signal cancelled it: {error}")
        fault = error if isinstance(error, DatabaseFault) else None
        if control.cut_by and (fault is None or fault.sqlstate == QUERY_CANCELED):
            cut = f"cancelled by {control.cut_by}: {control.cut_reason}"
            step.end(StepOutcome.STOPPED, began=began, error=cut, result=step.recounted())
            self._stopped(entry, cut)
        if fault is not None and fault.lost:
            raise TargetUnreachable(  # no end is recorded: on resume the database is asked what became of work in flight
                f"step {entry.id} ({entry.mark}) lost the database: {error}",
                state="what had committed stays; what was in flight is settled when you resume",
            ) from error
        sqlstate = fault.sqlstate if fault is not None else ""
        detail = f" ({fault.detail})" if fault is not None and fault.detail else ""
        told = f"{error}{detail}"
        step.end(StepOutcome.FAILED, began=began, error=told, sqlstate=sqlstate, result=step.recounted())
        self._failed(
            step,
            StepFailed(
                f"step {entry.id} ({entry.mark}) could not {entry.step.describe()}",
                why=told + (f" [{sqlstate}]" if sqlstate else ""),
            ),
        )

    def _failed(self, step: StepRun, error: RunbookError) -> None:
        """Apply the step's failure policy: continue, stop, or stop and roll back (run_or_take_back reads `wants_rollback`)."""
        on_failure = step.entry.on_failure
        if on_failure.policy == "continue":
            told = f"{error.what}; goes on: {on_failure.reason}"
            step.end(StepOutcome.CONTINUED, began=time.monotonic(), error=told)
            return
        self.wants_rollback = on_failure.policy == "rollback" or self.session.control.take_back
        raise error

    def _stopped(self, entry: Entry, reason: str) -> None:
        control = self.session.control
        self.session.emit(StopRequested(by=control.stop_by or "signal", reason=control.stop_reason or reason))
        self.wants_rollback = control.take_back
        cut = control.interrupted or bool(control.cut_by)
        raise (Interrupted if control.interrupted else Aborted)(
            f"stopped in step {entry.id} ({entry.mark}){'' if cut else ' at a safe point'}",
            why=reason,
            state="what had committed stays; the step goes on where it stood",
        )

    def _obey(self, entry: Entry) -> None:
        """A safe point between two steps: read and obey orders."""
        try:
            self.session.context(entry).rest()
        except Stopped as stop:
            self.session.emit(StopRequested(by=self.session.control.stop_by, reason=self.session.control.stop_reason))
            self.wants_rollback = self.session.control.take_back
            raise Aborted(f"stopped between two steps, before {entry.id}", why=str(stop)) from stop

    # ─── gates ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _gate(self, gate: StepRun) -> None:
        """Pass a gate: check its criteria, then approvals and evidence. Raises Waiting if it is not open."""
        began, entry, session = time.monotonic(), gate.entry, self.session
        session.emit(StepStarted(step=entry.id, type=entry.step.kind, action="apply", describe=entry.step.describe()))
        try:
            gate.required()
        except CriteriaNotMet as error:
            gate.end(StepOutcome.CRITERIA_NOT_MET, began=began, error=error.what)
            self.wants_rollback = entry.on_failure.policy == "rollback"
            raise
        unmet = self._unmet(entry, again=session.status.step(entry.id).passed is not None)
        if unmet is None or entry.on_failure.policy == "continue":  # waives criteria, not approvals
            needs = original_gates.needs(entry, session.playbook.kept_gates)
            self._wait(entry, approvals.all_open(needs, session.status, step=entry.id, now=session.now()))
        if unmet is not None:
            gate.end(StepOutcome.CRITERIA_NOT_MET, began=began, error=unmet.what)
            self._failed(gate, unmet)
            return
        digest = session.status.approval_digest
        known = session.status.approvals
        approved = {one.name for one in known if (one.step, one.approval_digest) == (entry.id, digest)}
        until = approvals.until(session.status, step=entry.id, now=session.now())
        gate.end(StepOutcome.PASSED, began=began, kept=starting_point.record(digest, sorted(approved), until))

    def _unmet(self, entry: Entry, *, again: bool) -> CriteriaNotMet | None:
        """The error if the gate's checks don't pass; None if they do."""
        try:
            self._criteria(entry, again=again)
        except CriteriaNotMet as error:
            return error
        return None

    def _wait(self, entry: Entry, needs: list[str]) -> None:
        if needs:
            self.session.emit(GateReached(step=entry.id, needs=tuple(needs)))
            raise Waiting(f"at {entry.id} for {'; '.join(needs)}")

    def _criteria(self, entry: Entry, *, again: bool) -> None:
        """Ask the gate's checks; once it was passed, only those marked `still`."""
        now, kept = (
            tuple(check for check in checks if check.still or not again)
            for checks in original_gates.checks(entry, self.session.playbook.kept_gates)
        )
        what = f"gate {entry.id} ({entry.mark}) stays shut"
        self._ask(now, role="criterion", what=what, step=entry.id)
        if kept:
            then = self.session.status.started.limits if self.session.status.started else {}
            scope = self.session.scope.tuned({f"limits.{name}": cast("Value", value) for name, value in then.items()})
            self._ask(
                kept, role="criterion", what=f"{what}, as it stood when the run began", step=entry.id, scope=scope
            )

    def _still_open(self, gates_behind: list[Entry]) -> None:
        """Before a step: check passed gates again, if what they were passed for has changed or expired."""
        session = self.session
        for entry in gates_behind:
            gate, needs = self._step(entry), original_gates.needs(entry, session.playbook.kept_gates)
            if any(approvals.lapsed(one, session.status, step=entry.id, now=session.now()) for one in needs):
                self._gate(gate)
                continue
            try:
                self._criteria(entry, again=True)
            except CriteriaNotMet as error:
                gate.end(StepOutcome.CRITERIA_NOT_MET, began=time.monotonic(), error=error.what)
                self._failed(gate, error)

    def _passed_earlier(self, gate: StepRun) -> None:
        """Record a gate before --from as passed in an earlier run (which was checked before this run started)."""
        started = self.session.status.started
        passed_in = started.passed_in if started else {}
        if gate.entry.id not in passed_in:
            raise RunRefused(
                f"cannot begin at {self.begin_at}: gate {gate.entry.id} ({gate.entry.mark}) before it is not passed",
                why="its condition holds, and no earlier run passed it on this target",
                state="nothing was changed by this command",
                then="leave --from away",
            )
        earlier = EarlierRun(run=passed_in[gate.entry.id])
        gate.end(StepOutcome.PASSED_EARLIER, began=time.monotonic(), result=earlier)


def _applied(step: StepRun) -> StepResult:
    """Apply the step, then verify: it is done only if the database says so."""
    result = step.apply()
    effect = step.verify("after")
    if effect.state is not State.DONE:
        said = effect.state.replace("_", " ")
        raise StepError(
            f"it ended without an error, but asked for its change the database says {said}: {effect.evidence}"
        )
    return result
