"""How a run stands: a pure fold of its trail, and status.json beside it for monitors that poll."""

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
    """One step: what was done to it, and what came of it."""

    id: str
    type: str = ""
    describe: str = ""
    started_at: str = ""
    outcome: StepOutcome | None = None
    seconds: float = 0.0
    results: dict[str, Value] = field(default_factory=dict)
    error: str = ""
    open: str = ""  # the action that began and did not end: "apply" or "revert"
    doubtful: bool = False  # the database couldn't tell what became of it
    settled: bool | None = None
    gate: tuple[str, ...] = ()
    passed: Passed | None = None
    reverted: StepOutcome | None = None
    back: dict[str, Value] = field(default_factory=dict)  # what taking it back came to
    left: str = ""  # who leaves it standing on the way back, and why

    @property
    def word(self) -> str:
        """How it stands, for people."""
        if self.gate:
            return "waits"
        if self.doubtful:
            return "in doubt"
        if self.left:
            return "left standing"
        return "began and did not end" if self.open else (self.outcome or "not begun").replace("_", " ")

    @property
    def finished(self) -> bool:
        """Done for good: a resume doesn't run it again."""
        return self.outcome in {StepOutcome.DONE, StepOutcome.ALREADY_APPLIED, *PASSED, StepOutcome.CONTINUED}

    @property
    def standing(self) -> bool:
        """Something of it may stand in the database, so that a rollback must look at it."""
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
    """What a person brought to a gate: when, and for which approval digest."""

    event: events.Approved | events.EvidenceGiven
    at: datetime
    digest: str


@dataclass(frozen=True)
class Passed:
    """A gate was passed: what for, and who had operated by then."""

    digest: str
    operators: frozenset[str]
    earlier: bool = False  # in another run, whose approvals and evidence are not in this trail


@dataclass(frozen=True)
class Holding:
    """Why somebody holds the run, and since when."""

    reason: str
    since: str


@dataclass
class RunStatus:
    """A run as its trail tells it."""

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
    not_due: list[events.NotDue] = field(default_factory=list)
    figures: dict[str, dict[str, Value]] = field(default_factory=dict)
    digest: str = ""
    approval_digest: str = ""
    source: dict[str, str] = field(default_factory=dict)
    started_at: str = ""
    last_at: str = ""
    holds: dict[str, Holding] = field(default_factory=dict)  # by whom the run is held
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
    out_of_order: list[int] = field(default_factory=list)  # records whose time lies before that of the one before them

    @property
    def run(self) -> str:
        return self.started.run if self.started else ""

    @property
    def held(self) -> str:
        """Who holds the run, since when and why, for people; "" where nobody does."""
        return "; ".join(
            f"{one.reason} ({by}, since {when(datetime.fromisoformat(one.since), seconds=True)})"
            for by, one in tuple(self.holds.items())
        )

    def step(self, name: str) -> StepStatus:
        """How a step stands; of one that has not begun an empty answer, which is not kept: asking changes nothing."""
        return self.steps.get(name) or StepStatus(name)

    @property
    def begun(self) -> bool:
        """Whether any step or gate has begun."""
        return bool(self.steps)

    def met(self, check: str) -> bool:
        """Whether one of the playbook's preconditions is recorded as passed."""
        return check in self.met_before

    @property
    def operator_users(self) -> frozenset[str]:
        """The system's users under whom somebody has operated."""
        return frozenset(self.operators.values())


def fold(records: Iterable[Record]) -> RunStatus:
    """Read a run through its records; status, report, resume and tests all use this one function."""
    status = RunStatus()
    for record in records:
        add(status, record)
    return status


def add(status: RunStatus, record: Record) -> None:  # noqa: C901, PLR0912 - one flat match over the closed union
    """Take in one more record."""
    if record.at < status.last_at:  # both as UTC in one form
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
        case events.SqlByHand() | events.Tuned():
            _steered(status, event)
        case events.Held():
            known = status.holds.get(event.by)
            status.holds[event.by] = Holding(event.reason, known.since if known is not None else record.at)
        case events.Released():
            _released(status, event)
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
            pass  # told by the report; they don't change how the run stands
        case _:
            assert_never(event)


def _given(status: RunStatus, event: events.Approved | events.EvidenceGiven, at: str) -> None:
    """Bound to a digest; evidence of earlier trails to the one that held when it was brought."""
    given_at = datetime.fromisoformat(event.server_at or at)  # the target's clock decides about validity
    status.given.append(Given(event, given_at, event.approval_digest or status.approval_digest))
    if isinstance(event, events.Approved):
        status.approvals.append(event)
    else:
        status.evidence.append(event)


def _operated(status: RunStatus, name: str, user: str = "") -> None:
    """Whoever has operated a run is its operator for good: what they approve of it doesn't count where that is asked."""
    status.operators[name] = user or status.operators.get(name, "")


_USUAL = {"batch_seconds": 0.25, "workers": 1.0, "rest": 9.0}  # before anybody tuned it; less of `rest` is more load


def _steered(status: RunStatus, event: events.SqlByHand | events.Tuned) -> None:
    if isinstance(event, events.SqlByHand):
        _operated(status, event.by)
    else:
        _tuned(status, event)


def _tuned(status: RunStatus, event: events.Tuned) -> None:
    """Holding, stopping and going slower are anybody's; who loosens a bound or lets go of a hold operates."""
    numbers = {key: float(value) for key, value in event.settings.items() if isinstance(value, int | float)}
    before = {**_USUAL, **status.pace}
    status.pace |= {key: value for key, value in numbers.items() if key in {*_USUAL, "max_rows"}}
    faster = any(numbers.get(key, 0.0) > before.get(key, 0.0) for key in ("batch_seconds", "workers"))
    faster |= "max_rows" in before and numbers.get("max_rows", 0.0) > before["max_rows"]
    faster |= numbers.get("rest", before["rest"]) < before["rest"]
    looser = bool(event.settings.get("go")) or any(key.startswith("limits.") for key in event.settings)
    if (faster or looser) and not event.by.startswith(person_names.GUARD):
        _operated(status, event.by)


def _released(status: RunStatus, event: events.Released) -> None:
    if event.held_by:
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
    status.holds.clear()  # whoever held it held a process that has ended
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
            if status.state is not RunState.RUNNING:  # what a process that had lost its lease still wrote in between
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
    if event.source is not None and event.steps is not None:
        status.source, status.programs, status.system_programs = event.source, event.programs, event.system_programs
        status.digest, status.approval_digest = event.digest, event.approval_digest


def _back_begun(status: RunStatus, event: events.RollbackStarted) -> None:
    for step in status.steps.values():
        if not status.rolling_back and step.settled is False:
            step.settled = None  # "not done" was said for the way there: a part of it may stand
        if status.state is RunState.ROLLED_BACK_IN_PART:
            step.left = ""  # a new way back: what the last one left is tried again
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
            step.gate, step.open = event.needs, ""  # whoever waits is not in doubt
            over = {*PASSED, StepOutcome.CONTINUED}  # what it was passed for is over
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
    if event.role in {"precondition", "criterion"} and event.result:  # also undecided: what was seen can be named later
        status.figures[event.id] = event.result


def write_status(directory: Path, document: dict[str, Json]) -> None:
    """Replace status.json in one move; derived from the trail, so it is not fsynced."""
    temporary = directory / f".status.{os.getpid()}.tmp"
    private_files.write(temporary, json.dumps(document, ensure_ascii=False) + "\n")
    temporary.replace(directory / "status.json")
