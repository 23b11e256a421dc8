"""The summary of a run for its operator: state, whether it is safe to leave, cost of a rollback, contacts, next command.

The only source of it: exec, status, report, error messages and JSON all use this module.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta

from runner.common.durations import format_duration, when
from runner.plan import judgements, plan, window
from runner.plan.next_commands import REASON, Here, onward, waits_for
from runner.playbook.model import Entry, Playbook
from runner.trail import run_process
from runner.trail.events import RunState, StepOutcome
from runner.trail.status import RunStatus, StepStatus
from steps.contract import Resting

_ON_THE_WAY_BACK = frozenset(
    {
        RunState.RUNNING,
        RunState.ABORTED,
        RunState.FAILED,
        RunState.IN_DOUBT,
        RunState.ROLLBACK_FAILED,
    }
)
_OVER = frozenset({RunState.SUCCEEDED, RunState.ENDED_UNPROVEN, RunState.ROLLED_BACK})


@dataclass(frozen=True)
class Stop:
    """The five lines of a stop; the same in the terminal, in `status` and in status.json."""

    state: str
    leave: str
    back: str
    call: str
    then: str  # the next commands, one per line

    def labelled(self) -> list[tuple[str, str]]:
        return [
            ("state", self.state),
            ("leave it?", self.leave),
            ("take back", self.back),
            ("call", self.call),
            ("next", self.then),
        ]


def stop(playbook: Playbook, status: RunStatus, here: Here, *, more: str = "", first: str = "") -> Stop:
    """Summarise a run. more: further facts about the state that the trail doesn't have; first: what to do before all else."""
    return Stop(
        state="; ".join(part for part in (_state(playbook, status, here), more) if part),
        leave=_leave(playbook, status),
        back=_back(playbook, status, here),
        call=", ".join(f"{role.replace('_', ' ')}: {who}" for role, who in playbook.contacts.items())
        or "nobody is named in the playbook",
        then="\n".join(part for part in (first, onward(playbook, status, here).words()) if part),
    )


def alive(status: RunStatus) -> bool | None:
    """Whether the run's process is alive; None if that can't be determined from here."""
    if status.state is not RunState.RUNNING:
        return False
    return run_process.alive(status.process) if status.process is not None else None


def state_word(status: RunStatus, *, living: bool | None) -> str:
    """The state in a few words; a running run whose process is gone is called interrupted."""
    if status.state is RunState.RUNNING and living is False:
        return "interrupted: its process is gone"
    return status.state.replace("_", " ") + (f", {status.alert}" if status.alert else "")


def _state(playbook: Playbook, status: RunStatus, here: Here) -> str:
    words = state_word(status, living=here.alive) + (f", held: {status.held}" if status.held else "")
    words += "".join(f"; {one.monitor}: {one.text}" for one in status.alerts.values())
    words += f"; {counted(playbook, status)}"
    back = ", ".join(step.id for step in status.steps.values() if step.open == "revert")
    words += f"; {back} half taken back" if back else ""
    if here.obstacle is not None and status.state not in _OVER:
        words += f"; {here.obstacle.why}"
    at = _at(playbook, status)
    if status.state is RunState.WAITING:
        words += _judgements(playbook, status, beyond=at is None)
    if at is not None and status.state not in _OVER:
        needs = waits_for(playbook, status, at, here.now) if at.gate else []
        words += f"; {at.id} {_its(at, status)}" + (f" for {'; '.join(needs)}" if needs else "")
        words += ", and has all that it asks for" if at.gate and not needs else ""
    return words


def _judgements(playbook: Playbook, status: RunStatus, *, beyond: bool) -> str:
    """The judgements that a run waits for. beyond: it is past its last step, so it can't wait for anything else."""
    asked = judgements.open_ones(playbook, status)
    people = ", of ".join(f"{check} by {' or '.join(roles)}" for check, roles in asked.items())
    return f"; waits for a judgement of {people}" if asked else "; has all that it asks for" if beyond else ""


def _its(step: StepStatus, status: RunStatus) -> str:
    """The state of the current step, unless the run's state says the same."""
    return "is where it stopped" if step.word == status.state.replace("_", " ") else step.word


def counted(playbook: Playbook, status: RunStatus) -> str:
    """The number of steps done, and of steps undone: '1 of 4 steps done, 1 skipped, 2 taken back'."""
    steps = [status.steps[name] for name in playbook.ids if name in status.steps]
    skipped = sum(step.outcome is StepOutcome.SKIPPED for step in steps)
    done = sum(step.finished and step.reverted is None for step in steps) - skipped
    back = sum(step.reverted is not None for step in steps)
    more = [f"{count} {word}" for count, word in ((skipped, "skipped"), (back, "taken back")) if count]
    return ", ".join([f"{done} of {len(playbook.ids)} steps done", *more])


def _at(playbook: Playbook, status: RunStatus) -> StepStatus | None:
    """The first unfinished step, if it has started."""
    first = next((name for name in playbook.ids if name not in status.steps or not status.steps[name].finished), "")
    return status.steps.get(first)


def _leave(playbook: Playbook, status: RunStatus) -> str:
    """Whether the run may be left as it is: `if_stopped_here` of the current step, else of the last one done."""
    if status.alerts:
        return (
            f"nothing is left half done, but {', '.join(status.alerts)} alert{'s' if len(status.alerts) == 1 else ''}"
        )
    if status.state in _OVER:
        return "yes: nothing is left half done"
    if status.state in {RunState.ROLLED_BACK_IN_PART, RunState.CLOSED}:
        return "yes, where what still stands may stay so: nobody goes on with it"
    if status.rolling_back and status.state in _ON_THE_WAY_BACK:
        return "no: it is half taken back; `next` goes on with that"
    begun = [name for name in playbook.ids if name in status.steps and _reached(status.steps[name])]
    changed = [name for name in begun if playbook.entry(name).step.changes]
    if not changed:
        return "yes: nothing was changed"
    since = begun[begun.index(changed[-1]) :]  # the last step that changed something, and the gates after it
    said = next((words for name in reversed(since) if (words := playbook.entry(name).if_stopped_here)), "")
    return (
        said
        or f"not said: the playbook has no if_stopped_here for {changed[-1]}; ask {next(iter(playbook.contacts.values()), 'its owner')}"
    )


def _reached(step: StepStatus) -> bool:
    """Whether it was begun; a step that was skipped has changed nothing."""
    return bool((step.outcome and step.outcome is not StepOutcome.SKIPPED) or step.open or step.gate)


def _back(playbook: Playbook, status: RunStatus, here: Here) -> str:
    """Whether and how the run can be rolled back, how long it will take, and by when to start it to stay in the window."""
    standing = [
        entry
        for entry in playbook.entries
        if entry.id in status.steps and status.steps[entry.id].standing and entry.step.changes and entry.step.lasting
    ]
    if not standing:
        return "nothing to take back"
    names = ", ".join(entry.id for entry in standing)
    if status.state in {RunState.ROLLED_BACK_IN_PART, RunState.CLOSED}:
        return f"done as far as it goes: {names} still stand{'s' if len(standing) == 1 else ''}"
    if playbook.rollback == "none":
        return f"no way back: {playbook.rollback_reason or 'the playbook says so'}"
    command = f"runbook rollback {shlex.quote(status.run)}"
    if one_way := [entry.id for entry in standing if plan.one_way(entry)]:
        keep = " ".join(f"--leave {shlex.quote(name)}" for name in one_way)
        rest = "" if len(one_way) == len(standing) else f"; all else: {_said(f'{command} {keep} {REASON}', here)}"
        return f"not as a whole: {', '.join(one_way)} {'is' if len(one_way) == 1 else 'are'} one way{rest}"
    first = "stop it first; then " if here.alive else ""
    return (
        f"{_length(standing, status)}: {first}{_said(command, here)}{_turn_back(playbook, standing, status, here.now)}"
    )


def _said(command: str, here: Here) -> str:
    return f"{command} {here.options}".rstrip()


def _seconds(standing: list[Entry], status: RunStatus, *, beside: bool) -> float:
    """Estimated seconds of a rollback: as long as the steps took. beside: including pauses made for other sessions."""
    return sum(
        status.steps[entry.id].seconds * _still_to_go(status.steps[entry.id]) * (1 + _rests(entry) * beside)
        for entry in standing
    )


def _still_to_go(step: StepStatus) -> float:
    """The share (0 to 1) of a step that is not undone yet, from its progress when its undo was stopped."""
    done, total = step.back.get("done"), step.back.get("total")
    return 1 - done / total if isinstance(done, int) and isinstance(total, int) and total else 1.0


def _rests(entry: Entry) -> float:
    return entry.step.rests() if isinstance(entry.step, Resting) else 0.0


def _length(standing: list[Entry], status: RunStatus) -> str:
    alone, beside = (max(_seconds(standing, status, beside=beside), 1.0) for beside in (False, True))
    more = f", up to {format_duration(beside)} while others work" if beside >= 2 * alone else ""
    return f"about {format_duration(alone)} (as long as it took){more}"


def _turn_back(playbook: Playbook, standing: list[Entry], status: RunStatus, now: datetime) -> str:
    ends = window.ends(playbook, status, step=standing[-1].id, now=now)
    if ends is None:
        return ""
    latest = ends - timedelta(seconds=_seconds(standing, status, beside=True))
    passed = " (that has passed: the window can no longer hold it)" if latest < now else ""
    return f"; turn back before {when(latest)}{passed}"
