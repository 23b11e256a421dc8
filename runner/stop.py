"""What every stop tells: state, safe to leave or not, what taking back would take, whom to call, the next command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from runner import plan
from runner.events import RunState
from runner.model import Playbook
from runner.rate import span
from runner.status import RunStatus, StepStatus


@dataclass(frozen=True)
class Stop:
    """The five lines, the same in the terminal, in `status` and in status.json."""

    state: str
    leave: str
    back: str
    call: str
    then: str

    def lines(self) -> list[str]:
        return [
            f"state      {self.state}",
            f"leave it?  {self.leave}",
            f"take back  {self.back}",
            f"call       {self.call}",
            f"next       {self.then}",
        ]


def stop(playbook: Playbook, status: RunStatus, *, now: datetime, state: str = "", then: str = "") -> Stop:
    """How things stand for whoever sits there at night."""
    return Stop(
        state=state or _state(playbook, status),
        leave=_leave(playbook, status),
        back=_back(playbook, status, now),
        call=", ".join(f"{role.replace('_', ' ')}: {who}" for role, who in playbook.contacts.items())
        or "nobody is named in the playbook",
        then=then or next_command(status),
    )


def _state(playbook: Playbook, status: RunStatus) -> str:
    done = [name for name in playbook.ids if name in status.steps and status.steps[name].finished]
    at = _at(playbook, status)
    words = f"{len(done)} of {len(playbook.ids)} steps done"
    if at and at in status.steps:
        step = status.steps[at]
        words += f"; {at} {step.word}"
    return words


def _at(playbook: Playbook, status: RunStatus) -> str:
    """The first step that is not finished."""
    return next((name for name in playbook.ids if name not in status.steps or not status.steps[name].finished), "")


def _leave(playbook: Playbook, status: RunStatus) -> str:
    """The author's sentence for the place where the run stands: of the step at hand if it began, else of the last one done."""
    if status.state in {RunState.SUCCEEDED, RunState.ROLLED_BACK}:
        return "yes: nothing is left half done"
    begun = [name for name in playbook.ids if name in status.steps and _reached(status.steps[name])]
    changed = [name for name in begun if playbook.entry(name).step.changes]
    if not changed:
        return "yes: nothing was changed"
    since = begun[begun.index(changed[-1]) :]  # the last that changed something, and the gates behind it
    said = next((words for name in reversed(since) if (words := playbook.entry(name).if_stopped_here)), "")
    return (
        said
        or f"not said: the playbook has no if_stopped_here for {changed[-1]}; ask {next(iter(playbook.contacts.values()), 'its owner')}"
    )


def _reached(step: StepStatus) -> bool:
    return bool(step.outcome or step.open or step.gate)


def _back(playbook: Playbook, status: RunStatus, now: datetime) -> str:
    """About as long as it took, and so the latest time to turn back inside the window."""
    standing = [
        entry for entry in playbook.entries
        if entry.id in status.steps and status.steps[entry.id].standing and entry.step.changes and entry.step.lasting
    ]  # fmt: skip
    if not standing:
        return "nothing to take back"
    if status.state is RunState.ROLLED_BACK_IN_PART:
        return f"done as far as it goes: {', '.join(entry.id for entry in standing)} still stands"
    one_way = [entry.id for entry in standing if plan.one_way(entry)]
    if one_way:
        return f"not as a whole: {', '.join(one_way)} is one way; runbook rollback {status.run} --to {one_way[-1]}"
    seconds = sum(status.steps[entry.id].seconds for entry in standing)
    words = f"about {span(max(seconds, 1.0))} (as long as it took): runbook rollback {status.run}"
    if playbook.window is not None and status.started_at:
        ends = datetime.fromisoformat(status.started_at) + timedelta(seconds=playbook.window)
        latest = (ends - timedelta(seconds=seconds)).astimezone()
        passed = " (that has passed: the window can no longer hold it)" if latest < now else ""
        words += f"; turn back before {latest:%H:%M}{passed}"
    return words


def _doubtful(status: RunStatus) -> list[StepStatus]:
    return [one for one in status.steps.values() if one.open or one.doubtful]


def next_command(status: RunStatus) -> str:
    """The command to copy."""
    match status.state:
        case RunState.SUCCEEDED | RunState.ENDED_UNPROVEN | RunState.ROLLED_BACK | RunState.CLOSED:
            return f"runbook report {status.run}"
        case RunState.ROLLED_BACK_IN_PART:
            refused = any(step.back.get("refused") for step in status.steps.values())
            return f"runbook report {status.run}{' --rows refused' if refused else ''}"
        case RunState.IN_DOUBT if status.rolling_back and any(step.settled is not None for step in _doubtful(status)):
            return f"runbook rollback {status.run}"
        case RunState.IN_DOUBT:
            step = next((one.id for one in _doubtful(status)), "STEP")
            return f"runbook settle {status.run} {step} done|not-done --reason '…'"
        case RunState.ROLLBACK_FAILED | RunState.ABORTED if status.rolling_back:
            return f"runbook rollback {status.run}"
        case RunState.RUNNING:
            return f"runbook status {status.run}"
        case _:
            return f"runbook resume {status.run}"
