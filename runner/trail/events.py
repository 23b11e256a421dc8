"""The events of a run: a closed union of frozen models, written to the trail as JSON.

Names and fields of events are persisted: docs/trail-format.md specifies them, docs/glossary.md explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    TypeAdapter,
    ValidationInfo,
)

from runner.trail.states import RunKind as RunKind
from runner.trail.states import RunState as RunState
from runner.trail.states import StepOutcome as StepOutcome
from steps.contract import Answer, State, Value
from steps.contract.values import decode_all, encode_all

Json = JsonValue


def _typed(values: Any, info: ValidationInfo) -> Any:
    return decode_all(values) if info.mode == "json" else values


if TYPE_CHECKING:
    Figures: TypeAlias = dict[str, Value]
else:  # values are written together with their types, and read back as the same types
    Figures = Annotated[dict[str, Any], BeforeValidator(_typed), PlainSerializer(encode_all, when_used="json")]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False)


class Process(_Event):
    """A process that acts on a run. OS user and host are facts; `operator`, if given as an option, is only a claim."""

    operator: str
    user: str
    host: str
    pid: int
    started: float  # start time of the process in seconds since the epoch, as the OS reports it
    versions: dict[str, str]
    boot_id: str = ""  # id of the boot within which the pid is valid
    pid_ns: str = ""  # pid namespace: containers on one host share the boot, but not the pids
    ticks: int = 0  # start time in ticks since boot, which no change of the clock affects


class RunStarted(_Event):
    event: Literal["run_started"] = "run_started"
    run: str
    kind: RunKind
    playbook: str
    title: str
    file: str
    digest: str
    approval_digest: str
    source: dict[str, str]  # file name → text, as run
    steps: dict[str, str]  # step id → digest of what is written
    inputs: dict[str, Json]
    limits: dict[str, Json]
    target: str
    identity: dict[str, Json]
    process: Process
    until: str = ""  # a checkpoint to stop before, from --to
    undo_of: str = ""  # the run that this one takes back: for a way back as a run of its own; nothing sets it yet
    from_checkpoint: str = ""  # the checkpoint at which it began, from --from
    passed_in: dict[str, str] = Field(default_factory=dict)  # each gate before that → the run in which it was passed
    programs: dict[str, str] | None = None  # programs of the playbook's own → SHA-256; None in trails without the field
    system_programs: dict[str, str] | None = None  # programs of this machine, by path
    removes: tuple[str, ...] = ()  # playbooks whose earlier runs lose their effect by this one
    search_path: tuple[str, ...] = ()  # schemas in which names were looked up; () in trails without the field


class RunResumed(_Event):
    event: Literal["run_resumed"] = "run_resumed"
    process: Process
    reason: str = ""
    outside_window: bool = False  # it continues although its window is closed; `reason` says why
    changed_steps: tuple[str, ...] = ()
    digest: str = ""  # the playbook's, where it changed
    approval_digest: str = ""
    source: dict[str, str] | None = None
    steps: dict[str, str] | None = None
    programs: dict[str, str] | None = None
    system_programs: dict[str, str] | None = None
    changed_checks: tuple[str, ...] = ()  # the playbook's preconditions that were edited; they are asked again


class TornTail(_Event):
    """An incomplete last line, left by a kill, was cut off."""

    event: Literal["torn_tail"] = "torn_tail"
    bytes_cut: int


class LeaseTaken(_Event):
    event: Literal["lease_taken"] = "lease_taken"
    scope: str
    epoch: int
    previous_run: str = ""  # the run from whose dead process the lease was taken over


class LedgerCreated(_Event):
    event: Literal["ledger_created"] = "ledger_created"


class CheckAnswered(_Event):
    """The answer of one check, with the value of every operand."""

    event: Literal["check_answered"] = "check_answered"
    step: str  # "" for checks of the playbook itself
    role: Literal["precondition", "condition", "criterion", "guard", "requirement", "preflight"]
    id: str
    probe: str
    answer: Answer
    text: str
    that: str = ""
    operands: Figures = Field(default_factory=dict)
    result: Figures = Field(default_factory=dict)
    warned: bool = False
    records_only: bool = False
    judged_by: str = ""  # the person who answered for a check that could not decide
    seconds: float = 0.0
    sampled: int = 0  # guards: number of samples since the step started in this process
    broke: int = 0  # guards: how many of them did not pass


class NotDue(_Event):
    """A check that this playbook lists but another one, named in `due`, decides."""

    event: Literal["not_due"] = "not_due"
    step: str
    id: str
    due: str


class StepStarted(_Event):
    event: Literal["step_started"] = "step_started"
    step: str
    type: str
    action: Literal["apply", "revert"]
    describe: str
    attempt: int = 1  # a step taken up again is told by `retried`; nothing sets this yet


class StepVerified(_Event):
    """What the database said about a step's change."""

    event: Literal["step_verified"] = "step_verified"
    step: str
    when: Literal["before", "after", "in_doubt", "after_revert"]
    state: State
    evidence: str


class LockWaited(_Event):
    event: Literal["lock_waited"] = "lock_waited"
    step: str
    label: str
    attempt: int
    sqlstate: str
    blockers: tuple[str, ...]
    next_try_s: float


class BlockerEnded(_Event):
    """Another session that blocked a step was terminated. refused: why it was not, after all."""

    event: Literal["blocker_ended"] = "blocker_ended"
    step: str
    by: str
    pid: int
    user: str
    application: str
    refused: str = ""


class Retried(_Event):
    event: Literal["retried"] = "retried"
    step: str
    attempt: int
    sqlstate: str
    error: str
    next_try_s: float


class RowsRequeued(_Event):
    """Rows that a step had set aside will be tried again; the step is unfinished from here on."""

    event: Literal["rows_requeued"] = "rows_requeued"
    step: str
    rows: int


class StepEnded(_Event):
    event: Literal["step_ended"] = "step_ended"
    step: str
    action: Literal["apply", "revert"]
    outcome: StepOutcome
    seconds: float
    results: Figures = Field(default_factory=dict)
    error: str = ""
    sqlstate: str = ""


class GateReached(_Event):
    """The run waits at a gate; `needs` are those still open."""

    event: Literal["gate_reached"] = "gate_reached"
    step: str
    needs: tuple[str, ...]


class Approved(_Event):
    event: Literal["approved"] = "approved"
    step: str
    name: str  # a claim: an unsigned approval proves no more
    role: str
    reason: str
    approval_digest: str
    chain_head: str
    expires: str
    user: str
    host: str
    signed: bool = False
    trust: str = ""  # "proven" or "not asked": whether the ledger confirmed the trail up to here
    server_at: str = ""  # time by the target's clock; "" if it was not asked


class EvidenceGiven(_Event):
    event: Literal["evidence_given"] = "evidence_given"
    step: str
    name: str
    by: str
    reason: str
    file: str = ""
    sha256: str = ""
    expires: str = ""
    trust: str = ""  # "proven" or "not asked": whether the ledger confirmed the trail up to here
    approval_digest: str = ""  # what it was given for; "" in trails without the field
    user: str = ""
    server_at: str = ""  # time by the target's clock; "" if it was not asked


class Settled(_Event):
    event: Literal["settled"] = "settled"
    step: str
    done: bool
    by: str
    reason: str
    trust: str = ""  # "proven", "not asked" or "contradicted": whether the ledger confirmed the trail up to here


class Noted(_Event):
    event: Literal["noted"] = "noted"
    by: str
    text: str
    trust: str = ""  # "proven" or "not asked": whether the ledger confirmed the trail up to here


class SqlByHand(_Event):
    """A statement that a person sent within the run (break-glass)."""

    event: Literal["sql_by_hand"] = "sql_by_hand"
    by: str
    reason: str
    sql: str
    rows: int
    error: str = ""


class StopRequested(_Event):
    event: Literal["stop_requested"] = "stop_requested"
    by: str  # "SIGINT", "SIGTERM", "guard disk", "dana (tune)"
    reason: str


class Held(_Event):
    """The run is held; recorded again if the same holder gives another reason."""

    event: Literal["held"] = "held"
    step: str
    by: str
    reason: str


class Released(_Event):
    """A hold was released; the run continues once nobody holds it."""

    event: Literal["released"] = "released"
    step: str
    by: str
    reason: str
    seconds: float
    held_by: str = ""  # whose hold it was


class Tuned(_Event):
    event: Literal["tuned"] = "tuned"
    by: str
    reason: str
    settings: dict[str, Json]


def order_words(order: Mapping[str, object]) -> str:
    """An order in the syntax of the command line: 'hold', 'batch=250ms rows=1000'."""
    typed = {"batch_seconds": "batch", "max_rows": "rows"}
    words = []
    for key, value in order.items():
        told = f"{value * 1000:g}ms" if key == "batch_seconds" and isinstance(value, int | float) else f"{value}"
        words.append(key if value is True else f"{typed.get(key, key)}={told}")
    return " ".join(words)


class RollbackStarted(_Event):
    event: Literal["rollback_started"] = "rollback_started"
    steps: tuple[str, ...]
    reason: str
    process: Process
    kept: tuple[str, ...] = ()  # steps that are in place and not undone: by the playbook's list, --to or --leave
    changed_steps: tuple[str, ...] = ()  # steps whose undo was corrected in the playbook since they ran
    digest: str = ""  # the playbook's, where it changed
    source: dict[str, str] | None = None


class LeftStanding(_Event):
    """A person decided that a step is not undone."""

    event: Literal["left_standing"] = "left_standing"
    step: str
    by: str
    reason: str


class Closed(_Event):
    """A person closed the run as it was; nothing was undone."""

    event: Literal["closed"] = "closed"
    by: str
    reason: str
    stands: tuple[str, ...]  # steps that left something in place, according to the ledger


class Recovered(_Event):
    """The run's folder was lost and recreated from the ledger; what only the trail had (approvals, checks) is gone."""

    event: Literal["recovered"] = "recovered"
    process: Process
    lost_head: str  # head hash of the lost trail, from the ledger
    lost_length: int
    figures: dict[str, Figures] = Field(default_factory=dict)  # figures of checks and steps, from the ledger


class Judged(_Event):
    """A person's answer in place of a check that could not decide."""

    event: Literal["judged"] = "judged"
    step: str  # "" for a check of the playbook itself
    id: str
    answer: Answer  # pass or fail
    name: str
    role: str
    reason: str
    approval_digest: str
    chain_head: str
    user: str
    host: str
    trust: str = ""


class WindowOverrun(_Event):
    """What had started within the run's window continued after its end."""

    event: Literal["window_overrun"] = "window_overrun"
    seconds: float


class AlertRaised(_Event):
    """A monitor of the run alerts; the run, which had succeeded, is open again."""

    event: Literal["alert_raised"] = "alert_raised"
    monitor: str
    since: str  # by the server's clock (ISO 8601)
    answer: Answer
    text: str
    trust: str = ""


class AlertEnded(_Event):
    """The alert is over: the check passes again, or a person approved or muted it, or the run is not watched any more."""

    event: Literal["alert_ended"] = "alert_ended"
    monitor: str
    text: str
    by: str = ""  # who approved or muted it
    trust: str = ""


class RunEnded(_Event):
    """The process ends; the state in which it leaves the run."""

    event: Literal["run_ended"] = "run_ended"
    state: RunState
    exit_code: int
    what: str = ""
    why: str = ""


Event = (
    RunStarted
    | RunResumed
    | TornTail
    | LeaseTaken
    | LedgerCreated
    | CheckAnswered
    | NotDue
    | StepStarted
    | StepVerified
    | LockWaited
    | BlockerEnded
    | Retried
    | RowsRequeued
    | StepEnded
    | GateReached
    | Approved
    | EvidenceGiven
    | Settled
    | Noted
    | SqlByHand
    | StopRequested
    | Held
    | Released
    | Tuned
    | RollbackStarted
    | LeftStanding
    | Closed
    | Recovered
    | WindowOverrun
    | Judged
    | AlertRaised
    | AlertEnded
    | RunEnded
)
ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class Record(BaseModel):
    """One line of the trail: an event with its number, time (ISO 8601, UTC), predecessor's hash and own hash."""

    model_config = ConfigDict(frozen=True)
    n: int
    at: str
    prev: str
    event: Annotated[Event, Field(discriminator="event")]
    hash: str = ""
