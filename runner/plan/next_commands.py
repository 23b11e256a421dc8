"""The next commands for a run in its current state; none of them would be refused."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime

from runner.plan import approvals, original_gates, window
from runner.plan import judgements as judging
from runner.plan.approvals import OpenNeed
from runner.playbook.model import Entry, Playbook
from runner.trail.events import RunState, StepOutcome
from runner.trail.status import RunStatus, StepStatus
from steps.contract import Answer, Gate, RunTakenBack, TakenBack, UndoesRun

REASON = "--reason '…'"


@dataclass(frozen=True)
class Onward:
    """Commands to copy, in order, and the condition under which they make sense."""

    commands: tuple[str, ...]
    when: str = ""

    def words(self) -> str:
        """For people: one command per line, then the condition."""
        return "\n".join([*self.commands, *([f"({self.when})"] if self.when else [])])


@dataclass(frozen=True)
class Obstacle:
    """Why a resume would be refused, and the remedy. every: other actions on the run would be refused, too."""

    why: str
    then: str
    every: bool = False


@dataclass(frozen=True)
class Here:
    """The circumstances in which somebody looks at a run.

    alive: whether its process is alive; None if unknown. options: what commands need to find the run, such as --runs.
    obstacle: why a resume would be refused, as far as files can tell.
    """

    now: datetime
    alive: bool | None = None
    options: str = ""
    obstacle: Obstacle | None = None


def onward(playbook: Playbook, status: RunStatus, here: Here) -> Onward:
    """The next commands for this run."""
    told = _onward(playbook, status, here)
    act = told.commands[0].split()[1]
    if here.obstacle is not None and (act == "resume" or (here.obstacle.every and act not in {"report", "tune"})):
        return Onward((here.obstacle.then,))
    return told


def _onward(playbook: Playbook, status: RunStatus, here: Here) -> Onward:
    say = _Say(status.run, here.options)
    if status.alerts:
        return _alerting(status, say)
    match status.state:
        case RunState.SUCCEEDED | RunState.ENDED_UNPROVEN | RunState.ROLLED_BACK | RunState.CLOSED:
            return Onward((say("report"),), _watching(playbook, status, here))
        case RunState.ROLLED_BACK_IN_PART:
            return Onward((say("report", "--rows refused" if refused(status) else ""),))
        case RunState.RUNNING:
            return _running(playbook, status, here, say)
        case RunState.IN_DOUBT if (step := unsettled(status)) is not None:
            words = [say("settle", f"{shlex.quote(step.id)} {answer} {REASON}") for answer in ("done", "not-done")]
            when = "one of the two, once you have looked at the database"
            if status.rolling_back and step.id in playbook.ids:
                when += f"; or keep {step.id}: `{say('rollback', f'--leave {shlex.quote(step.id)} {REASON}')}`"
            return Onward(tuple(words), when)
        case RunState.WAITING:
            return _waiting(playbook, status, here, say)
        case _:
            return _ended(playbook, status, here, say)


def _watching(playbook: Playbook, status: RunStatus, here: Here) -> str:
    """Who asks the monitors of a run that succeeded: nobody does by itself."""
    if not playbook.monitors or status.state not in {RunState.SUCCEEDED, RunState.ENDED_UNPROVEN}:
        return ""
    units = f"runbook monitor units {here.options}".rstrip()
    return f"its monitors are asked by whoever calls `runbook monitor once`: see `{units}`"


def _alerting(status: RunStatus, say: _Say) -> Onward:
    """For a run that succeeded, and of which a monitor alerts since."""
    name = next(iter(status.alerts))
    accept = say("monitor approve", f"{name} --for '3 days' {REASON}")
    when = f"mend what it shows, and the next `runbook monitor once` ends the alert; or accept it: `{accept}`"
    return Onward((say("monitor history", name),), when)


@dataclass(frozen=True)
class _Say:
    """Writes commands on one run, quoted for a shell."""

    run: str
    options: str

    def __call__(self, verb: str, rest: str = "") -> str:
        return " ".join(word for word in ("runbook", verb, shlex.quote(self.run), rest, self.options) if word)


def refused(status: RunStatus) -> bool:
    """Whether its rollback had to leave rows as they are."""
    return any(TakenBack.left_something(step.back) for step in status.steps.values())


def unsettled(status: RunStatus) -> StepStatus | None:
    """The step that a person must settle; None if there is none (any more)."""
    doubtful = (one for one in status.steps.values() if one.open or one.doubtful)
    waiting = [one for one in doubtful if one.settled is None]
    # An undo run's own step is open while a step that it undoes is in doubt: the latter must be settled.
    return next((one for one in waiting if one.doubtful), waiting[0] if waiting else None)


def _running(playbook: Playbook, status: RunStatus, here: Here, say: _Say) -> Onward:
    if here.alive is False:
        return _ended(playbook, status, here, say, when="")
    if status.holds:
        return Onward((say("tune", f"go {REASON}"),), "once what it is held for is over")
    if here.alive is None:
        host = status.process.host if status.process else "another host"
        return Onward((say("status"),), f"at {host}, where it runs; if that has died, `{say('resume')}` takes over")
    return Onward((say("tune", f"stop {REASON}"),), "to end it at its next safe point; else let it run")


def _ended(
    playbook: Playbook, status: RunStatus, here: Here, say: _Say, *, when: str = "once the cause is mended"
) -> Onward:
    """For a run that stopped: continue in its direction, forward or back."""
    if status.state is RunState.CRITERIA_NOT_MET and _undid_a_part(playbook, status):
        return Onward(
            (say("close", REASON),), "what it refused stays as it is, however often it is asked; its report says what"
        )
    if status.state in {RunState.ABORTED, RunState.IN_DOUBT}:
        when = ""
    if status.state is RunState.CRITERIA_NOT_MET and (instead := _otherwise(playbook, status)):
        again = _resume(playbook, status, here, say)
        first = f"runbook exec {shlex.quote(instead)} {here.options}".rstrip()
        return Onward((first, *again.commands), "the first takes it from here; the second asks again")
    if not status.rolling_back:
        return _resume(playbook, status, here, say, when=when)
    failed = next((one.id for one in status.steps.values() if one.open == "revert" and one.error and not one.left), "")
    if failed and when:
        when += f"; or keep {failed}: `{say('rollback', f'--leave {shlex.quote(failed)} {REASON}')}`"
    return Onward((say("rollback"),), when)


def _otherwise(playbook: Playbook, status: RunStatus) -> str:
    """The playbook that an unmet check names as what to run next; "" where none does."""
    of_steps = (one for entry in playbook.entries for one in (*entry.preconditions, *entry.success_criteria))
    checks = [*playbook.preconditions, *playbook.success_criteria, *of_steps]
    named = {check.id: check.otherwise for check in checks if check.otherwise}
    last = {answer.id: answer for answer in status.checks if answer.role in {"criterion", "precondition"}}
    unmet = (name for name in named if name in last and last[name].answer is not Answer.PASS)
    return next((named[name] for name in unmet if not last[name].records_only), "")


def _undid_a_part(playbook: Playbook, status: RunStatus) -> bool:
    """Whether a step that undoes another run has ended but had to leave something."""
    steps = (status.steps.get(entry.id) for entry in playbook.entries if isinstance(entry.step, UndoesRun))
    return any(
        one is not None and one.outcome is StepOutcome.CRITERIA_NOT_MET and RunTakenBack.left_something(one.results)
        for one in steps
    )


def _resume(playbook: Playbook, status: RunStatus, here: Here, say: _Say, *, when: str = "") -> Onward:
    """Resume; outside of the run's window later, or with a reason."""
    ahead = [
        e for e in playbook.entries if e.step.changes and (e.id not in status.steps or not status.steps[e.id].finished)
    ]
    shut = window.why_shut(playbook, status, now=here.now) if ahead else ""
    if not shut:
        return Onward((say("resume"),), when)
    if window.opens(playbook, here.now) is not None:
        return Onward((say("resume"),), shut)
    return Onward((say("resume", f"--outside-window {REASON}"), say("rollback")), f"one of the two: {shut}")


# ─── at a gate ──────────────────────────────────────────────────────────────────────────────────────────────────────
def waits_for(playbook: Playbook, status: RunStatus, step: StepStatus, now: datetime) -> list[str]:
    """What a step waits for as of now (not as of when it was reached)."""
    entry = _gate(playbook, step.id)
    if entry is None or not isinstance(entry.step, Gate):
        return list(step.gate)
    return approvals.all_open(original_gates.needs(entry, playbook.kept_gates), status, step=step.id, now=now)


def _gate(playbook: Playbook, name: str) -> Entry | None:
    return next((entry for entry in playbook.entries if entry.id == name and isinstance(entry.step, Gate)), None)


def _waiting(playbook: Playbook, status: RunStatus, here: Here, say: _Say) -> Onward:
    judgements = [
        say("judge", f"{check} {answer} --as NAME --role {shlex.quote(roles[0])} {REASON}")
        for check, roles in judging.open_ones(playbook, status).items()
        for answer in ("pass", "fail")
    ]
    if judgements:
        return Onward(tuple(judgements), "one of the two for each check")
    gate = next((one for one in status.steps.values() if one.gate), None)
    needs = waits_for(playbook, status, gate, here.now) if gate is not None else []
    missing = [need for need in needs if isinstance(need, OpenNeed)]
    people = [
        say("approve", f"--step {shlex.quote(gate.id)} {_bring(need)} {REASON}")
        for need in missing
        if gate is not None and not need.opens
        for need in _each(need)
    ]
    times = "; ".join(need for need in missing if need.opens)
    return Onward(tuple(people), times) if people else _resume(playbook, status, here, say, when=times)


def _each(need: OpenNeed) -> list[OpenNeed]:
    """One need per role, if all of them are needed."""
    return [OpenNeed(need, roles=(role,)) for role in need.roles] if need.every else [need]


def _bring(need: OpenNeed) -> str:
    if need.evidence:
        return f"--evidence {shlex.quote(need.evidence)} --as NAME"
    who = shlex.quote(need.by[0]) if len(need.by) == 1 else "NAME"
    return f"--as {who}" + (f" --role {shlex.quote(need.roles[0])}" if need.roles else "")
