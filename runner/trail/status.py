"""The status of a run, computed by a pure fold over the records of its trail.

status, report, resume and rollback all read a run through `fold`. Getters never write: reading a run leaves no trace.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import assert_never

from runner.common import person_names, private_files
from runner.common.durations import when
from runner.trail import events
from runner.trail.events import Json, Record, RunState, StepOutcome
from steps.contract import Answer, State, Value

PASSED = frozenset({StepOutcome.PASSED, StepOutcome.PASSED_EARLIER})


@dataclass
class StepStatus:
    """The status of one step, folded from its events."""

    id: str
    type: str = ""
    describe: str = ""
    started_at: str = ""
    outcome: StepOutcome | None = None
    seconds: float = 0.0
    results: dict[str, Value] = field(default_factory=dict)
    error: str = ""
    open: str = ""  # the action that was started and has no end yet: "apply" or "revert"
    doubtful: bool = False  # the database could not tell its outcome
    settled: bool | None = None
    gate: tuple[str, ...] = ()
    passed: Passed | None = None
    reverted: StepOutcome | None = None
    back: dict[str, Value] = field(default_factory=dict)  # results of its undo
    left: str = ""  # who decided to leave it in place in a rollback, and why

    @property
    def word(self) -> str:
        """The step's state for people."""
        if self.gate:
            return "waits"
        if self.doubtful:
            return "in doubt"
        if self.left:
            return "left standing"
        return "began and did not end" if self.open else (self.outcome or "not begun").replace("_", " ")

    @property
    def finished(self) -> bool:
        """Whether the step is finished: a resume doesn't run it again."""
        return self.outcome in {
            StepOutcome.DONE,
            StepOutcome.ALREADY_APPLIED,
            *PASSED,
            StepOutcome.CONTINUED,
            StepOutcome.SKIPPED,
        }

    @property
    def standing(self) -> bool:
        """Whether some of its change may be in the database, so that a rollback must consider it."""
        changed = {
            StepOutcome.DONE,
            StepOutcome.FAILED,
            StepOutcome.CRITERIA_NOT_MET,
            StepOutcome.PAUSED,
            StepOutcome.STOPPED,
            StepOutcome.CONTINUED,
        }
        return self.reverted is None and (self.outcome in changed or self.open != "")


@dataclass(frozen=True)
class Given:
    """An approval or evidence given at a gate, with its time and the approval digest it is bound to."""

    event: events.Approved | events.EvidenceGiven
    at: datetime
    digest: str


@dataclass(frozen=True)
class Passed:
    """A gate that was passed: for which approval digest, and who had operated the run by then."""

    digest: str
    operators: frozenset[str]
    earlier: bool = False  # in another run, whose approvals and evidence are not in this trail


@dataclass(frozen=True)
class Holding:
    """One hold on the run: its reason, and since when (ISO 8601)."""

    reason: str
    since: str


@dataclass
class RunStatus:
    """The status of a run as its trail has it; built by `fold` and `add`."""

    started: events.RunStarted | None = None
    process: events.Process | None = None
    state: RunState = RunState.RUNNING
    exit_code: int | None = None
    what: str = ""
    why: str = ""
    steps: dict[str, StepStatus] = field(default_factory=dict)
    checks: list[events.CheckAnswered] = field(default_factory=list)
    approvals: list[events.Approved] = field(default_factory=list)
    evidence: list[events.EvidenceGiven] = field(default_factory=list)
    judgements: list[events.Judged] = field(default_factory=list)
    conditions: dict[str, events.CheckAnswered] = field(default_factory=dict)  # by step: what decided whether it runs
    not_due: list[events.NotDue] = field(default_factory=list)
    figures: dict[str, dict[str, Value]] = field(default_factory=dict)
    digest: str = ""
    approval_digest: str = ""
    source: dict[str, str] = field(default_factory=dict)
    started_at: str = ""
    last_at: str = ""
    holds: dict[str, Holding] = field(default_factory=dict)  # by whom the run is held
    alerts: dict[str, events.AlertRaised] = field(default_factory=dict)  # by monitor
    met_before: set[str] = field(default_factory=set)  # the playbook's preconditions that were asked, and held
    given: list[Given] = field(default_factory=list)  # approvals and evidence, with their time and what they are for
    operators: dict[str, str] = field(default_factory=dict)  # who has operated → the system's user, where it is known
    pace: dict[str, float] = field(default_factory=dict)  # what people last tuned
    programs: dict[str, str] | None = None  # files of the playbook's own → SHA-256; None where that wasn't recorded
    system_programs: dict[str, str] | None = None  # programs of the machine
    rolling_back: bool = False  # taking back has begun: there is no way forward any more
    epoch: int = 0
    head: str = ""
    length: int = 0
    out_of_order: list[int] = field(default_factory=list)  # numbers of records that are older than their predecessor

    @property
    def run(self) -> str:
        return self.started.run if self.started else ""

    @property
    def alert(self) -> str:
        """Since when its monitors alert, for people; "" where none does."""
        first = min((one.since for one in self.alerts.values()), default="")
        return f"alert since {when(datetime.fromisoformat(first))}" if first else ""

    @property
    def held(self) -> str:
        """Who holds the run, since when and why, for people; "" if it is not held."""
        return "; ".join(
            f"{one.reason} ({by}, since {when(datetime.fromisoformat(one.since), seconds=True)})"
            for by, one in tuple(self.holds.items())
        )

    def step(self, name: str) -> StepStatus:
        """The status of a step; a fresh one, which is not stored, if the step has not started."""
        return self.steps.get(name) or StepStatus(name)

    @property
    def begun(self) -> bool:
        """Whether any step or gate has started."""
        return bool(self.steps)

    def met(self, check: str) -> bool:
        """Whether one of the playbook's preconditions is recorded as passed."""
        return check in self.met_before

    @property
    def operator_users(self) -> frozenset[str]:
        """The OS users under which the run was operated."""
        return frozenset(self.operators.values())


def fold(records: Iterable[Record]) -> RunStatus:
    """Compute a run's status from its records, in order."""
    status = RunStatus()
    for record in records:
        add(status, record)
    return status


def add(status: RunStatus, record: Record) -> None:  # noqa: C901, PLR0912 - one flat match over the closed union
    """Update the status by one more record."""
    if record.at < status.last_at:  # comparable as text: both are UTC in the same format
        status.out_of_order.append(record.n)
    status.last_at, status.head, status.length = record.at, record.hash, record.n
    event = record.event
    match event:
        case (
            events.RunStarted()
            | events.RunResumed()
            | events.RunEnded()
            | events.RollbackStarted()
            | events.LeaseTaken()
            | events.Recovered()
        ):
            _run(status, event, record.at)
        case (
            events.StepStarted()
            | events.StepEnded()
            | events.StepVerified()
            | events.GateReached()
            | events.Settled()
            | events.RowsRequeued()
            | events.LeftStanding()
        ):
            _step(status, event, record.at)
        case events.CheckAnswered():
            _check(status, event)
        case events.NotDue():
            status.not_due.append(event)
        case events.Approved() | events.EvidenceGiven():
            _given(status, event, record.at)
        case events.Judged():
            status.judgements.append(event)
        case events.AlertRaised() | events.AlertEnded():
            alerted(status, event)
        case events.SqlByHand() | events.Tuned():
            _steered(status, event)
        case events.Held() | events.Released():
            _held(status, event, record.at)
        case (
            events.TornTail()
            | events.LedgerCreated()
            | events.LockWaited()
            | events.BlockerEnded()
            | events.Retried()
            | events.Noted()
            | events.StopRequested()
            | events.Closed()
            | events.WindowOverrun()
        ):
            pass  # shown by the report; they don't change the status
        case _:
            assert_never(event)


def _given(status: RunStatus, event: events.Approved | events.EvidenceGiven, at: str) -> None:
    """Bind it to an approval digest; evidence in old trails has none, so it gets the one in force at that time."""
    given_at = datetime.fromisoformat(event.server_at or at)  # validity is decided by the target's clock
    status.given.append(Given(event, given_at, event.approval_digest or status.approval_digest))
    if isinstance(event, events.Approved):
        status.approvals.append(event)
    else:
        status.evidence.append(event)


def _operated(status: RunStatus, name: str, user: str = "") -> None:
    """Remember an operator for good: gates that ask for four eyes don't count this person's approval any more."""
    status.operators[name] = user or status.operators.get(name, "")


_USUAL = {"batch_seconds": 0.25, "workers": 1.0, "rest": 9.0}  # defaults before any tuning; less `rest` is more load


def _steered(status: RunStatus, event: events.SqlByHand | events.Tuned) -> None:
    if isinstance(event, events.SqlByHand):
        _operated(status, event.by)
    else:
        _tuned(status, event)


def _tuned(status: RunStatus, event: events.Tuned) -> None:
    """Anybody may hold, stop or slow down a run; who speeds it up, loosens a limit or releases a hold is an operator."""
    numbers = {key: float(value) for key, value in event.settings.items() if isinstance(value, int | float)}
    before = {**_USUAL, **status.pace}
    status.pace |= {key: value for key, value in numbers.items() if key in {*_USUAL, "max_rows"}}
    faster = any(numbers.get(key, 0.0) > before.get(key, 0.0) for key in ("batch_seconds", "workers"))
    faster |= "max_rows" in before and numbers.get("max_rows", 0.0) > before["max_rows"]
    faster |= numbers.get("rest", before["rest"]) < before["rest"]
    looser = bool(event.settings.get("go")) or any(key.startswith("limits.") for key in event.settings)
    if (faster or looser) and not event.by.startswith(person_names.GUARD):
        _operated(status, event.by)


def alerted(status: RunStatus, event: events.AlertRaised | events.AlertEnded) -> None:
    """Fold one event of a monitor's alert."""
    if isinstance(event, events.AlertRaised):
        status.alerts[event.monitor] = event
    else:
        status.alerts.pop(event.monitor, None)


def _held(status: RunStatus, event: events.Held | events.Released, at: str) -> None:
    if isinstance(event, events.Held):
        known = status.holds.get(event.by)
        status.holds[event.by] = Holding(event.reason, known.since if known is not None else at)
    elif event.held_by:
        status.holds.pop(event.held_by, None)
    else:
        status.holds.clear()


def _run(
    status: RunStatus,
    event: events.RunStarted
    | events.RunResumed
    | events.RunEnded
    | events.RollbackStarted
    | events.LeaseTaken
    | events.Recovered,
    at: str,
) -> None:
    status.holds.clear()  # holds apply to a process, and this event means that the last one has ended
    status.alerts.clear()  # a run that goes on, or back, is not watched
    match event:
        case events.RunStarted():
            status.started, status.process, status.started_at = event, event.process, at
            status.digest, status.approval_digest = event.digest, event.approval_digest
            status.source, status.programs, status.system_programs = event.source, event.programs, event.system_programs
            _operated(status, event.process.operator, event.process.user)
        case events.RunResumed():
            _operated(status, event.process.operator, event.process.user)
            _resumed(status, event)
        case events.RunEnded():
            status.state, status.exit_code, status.what, status.why = (
                event.state,
                event.exit_code,
                event.what,
                event.why,
            )
        case events.RollbackStarted():
            _back_begun(status, event)
        case events.LeaseTaken():
            status.epoch = event.epoch
            # A process that lost its lease may still record its end before it notices. Whoever takes the lease is the
            # one that runs, so such an end is void.
            if status.state is not RunState.RUNNING:
                status.state, status.exit_code, status.what, status.why = RunState.RUNNING, None, "", ""
        case events.Recovered():
            status.figures = dict(event.figures)
        case _:
            assert_never(event)


def _resumed(status: RunStatus, event: events.RunResumed) -> None:
    status.met_before -= set(event.changed_checks)
    status.process, status.state, status.exit_code, status.what, status.why = (
        event.process,
        RunState.RUNNING,
        None,
        "",
        "",
    )
    for step in event.changed_steps:  # a changed condition is asked anew
        status.conditions.pop(step, None)
    if event.source is not None and event.steps is not None:
        status.source, status.programs, status.system_programs = event.source, event.programs, event.system_programs
        status.digest, status.approval_digest = event.digest, event.approval_digest


def _back_begun(status: RunStatus, event: events.RollbackStarted) -> None:
    for step in status.steps.values():
        if not status.rolling_back and step.settled is False:
            step.settled = None  # "not done" was about going forward: part of the change may still be in place
        if status.state is RunState.ROLLED_BACK_IN_PART:
            step.left = ""  # a further rollback tries again what the last one left in place
    status.process, status.state, status.exit_code = event.process, RunState.RUNNING, None
    status.what = status.why = ""
    status.rolling_back = True
    if event.source is not None:
        status.source, status.digest = event.source, event.digest


def _step(
    status: RunStatus,
    event: events.StepStarted
    | events.StepEnded
    | events.StepVerified
    | events.GateReached
    | events.Settled
    | events.RowsRequeued
    | events.LeftStanding,
    at: str,
) -> None:
    step = status.steps.setdefault(event.step, StepStatus(event.step))
    match event:
        case events.StepStarted():
            step.type, step.describe, step.open, step.settled = event.type, event.describe, event.action, None
            step.doubtful, step.gate = False, ()
            step.started_at, step.error = step.started_at or at, ""
        case events.StepEnded():
            _ended(status, step, event)
        case events.StepVerified():
            step.doubtful = event.when in {"in_doubt", "after_revert"} and event.state is State.UNKNOWN
        case events.GateReached():
            step.gate, step.open = event.needs, ""  # a step that waits at its gate is not in doubt
            over = {*PASSED, StepOutcome.CONTINUED}  # reaching it again voids an earlier pass
            step.outcome = None if step.outcome in over else step.outcome
        case events.Settled():
            step.settled = event.done
            _operated(status, event.by)
        case events.RowsRequeued():
            step.outcome = StepOutcome.STOPPED
        case events.LeftStanding():
            step.left, step.open, step.doubtful = f"{event.by}: {event.reason}", "", False
        case _:
            assert_never(event)


def _ended(status: RunStatus, step: StepStatus, event: events.StepEnded) -> None:
    step.open, step.doubtful, step.error, step.gate = "", False, event.error, ()
    if event.action == "revert":
        step.reverted = (
            event.outcome if event.outcome in {StepOutcome.REVERTED, StepOutcome.NOTHING_TO_REVERT} else None
        )
        step.open = "" if step.reverted else "revert"
        step.back = event.results
        return
    step.outcome, step.results = event.outcome, event.results
    step.seconds += event.seconds
    if event.outcome in {*PASSED, StepOutcome.CONTINUED}:
        earlier = event.outcome is StepOutcome.PASSED_EARLIER
        step.passed = Passed(status.approval_digest, frozenset(status.operators), earlier=earlier)
    if event.outcome not in PASSED and event.results:
        status.figures[event.step] = event.results


def _check(status: RunStatus, event: events.CheckAnswered) -> None:
    status.checks.append(event)
    if event.role == "precondition" and not event.step:
        held = event.answer is Answer.PASS or event.records_only
        (status.met_before.add if held else status.met_before.discard)(event.id)
    if event.role == "condition" and event.answer in {Answer.PASS, Answer.FAIL}:
        status.conditions[event.step] = event
    if (
        event.role in {"precondition", "condition", "criterion"} and event.result
    ):  # also if undecided: later steps may refer to it
        status.figures[event.id] = event.result


def write_status(file: Path, document: dict[str, Json]) -> None:
    """Replace a status file atomically (write and rename). Not fsynced: it can be derived from the trail at any time."""
    temporary = file.with_name(f".status.{os.getpid()}.tmp")
    private_files.write(temporary, json.dumps(document, ensure_ascii=False) + "\n")
    temporary.replace(file)
