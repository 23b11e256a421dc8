"""A playbook as a value: what load makes of YAML, and all that plan and engine ever read."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, InstanceOf, JsonValue, field_validator, model_validator

from runner.playbook.yaml_reader import Mark
from steps.contract import Model, Probe, Query, Seconds, Step, refuse_unknown_zone, seconds
from steps.contract.fields import one_or_more
from steps.expressions.evaluate import Expression

FORMAT = 1
NAME = r"^[a-z][a-z0-9-]*$"
ID = r"^[a-z][a-z0-9_]*$"
CLOCK = r"^([01]\d|2[0-3]):[0-5]\d$"


class OnFailure(StrEnum):
    """What a failed step means for the run."""

    STOP = "stop"  # a stopped run is the question: resume, rollback, settle
    ROLLBACK = "rollback"
    CONTINUE = "continue"


class Input(Model):
    """A typed value that a run is given."""

    type: Literal["text", "integer", "number", "boolean", "time span"] = "text"
    default: JsonValue = None
    required: bool = False
    min: float | None = None
    max: float | None = None
    pattern: str = ""
    one_of: tuple[JsonValue, ...] = ()
    help: str = ""
    secret: bool = False


class BlockersPolicy(Model):
    """Whose sessions may be ended where they stand in the way: by application_name, exactly as it is."""

    end: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @field_validator("end")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if ours := [name for name in names if name.startswith("runbook")]:
            raise ValueError(f"cannot end sessions of {ours[0]!r}: those are runs; runbook tune RUN stop ends one")
        return names


class LockPolicy(Model):
    """How long a statement queues for a lock, how long a transaction keeps it, and for how long it is tried again.

    hold: 0 for as long as the statement takes.
    """

    wait: Seconds = 0.5
    hold: Seconds = 0.0
    retry_for: Seconds = 1800.0
    blockers: BlockersPolicy = BlockersPolicy()


class RetryPolicy(Model):
    """Faults after which a step is taken up again. Lost connections count once the outcome is known."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    first_wait: Seconds = 0.1
    longest_wait: Seconds = 60.0
    on: tuple[str, ...] = (
        "40001",
        "40P01",
        "08",
        "25P03",
        "57P01",
        "57P02",
        "57P03",
        "57P05",
    )  # SQLSTATEs or their classes


class Timeouts(Model):
    """Longest times of one statement. A step's own long statements (CONCURRENTLY, VALIDATE, VACUUM) have `long`."""

    look: Seconds = 300.0
    statement: Seconds = 60.0
    long: Seconds = 6 * 3600.0


class Requirement(Model):
    """An earlier playbook that must have succeeded on this target."""

    playbook: Annotated[str, Field(pattern=NAME)]
    short: Annotated[str, Field(pattern=ID, alias="as")] = ""
    within: Seconds | None = None

    @model_validator(mode="before")
    @classmethod
    def _name(cls, data: object) -> object:
        return {"playbook": data} if isinstance(data, str) else data


class TargetNeeds(Model):
    """Where a playbook can run."""

    postgresql: str = ""
    sqlite: str = ""


class OnFailureSpec(Model):
    """`stop`, `rollback`, or {continue: reason}."""

    policy: OnFailure = OnFailure.STOP
    reason: str = ""


def _on_failure(data: object) -> object:
    if isinstance(data, str) and data in {"stop", "rollback"}:
        return {"policy": data}
    if (
        isinstance(data, dict)
        and set(data) == {"continue"}
        and isinstance(data["continue"], str)
        and data["continue"].strip()
    ):
        return {"policy": "continue", "reason": data["continue"]}
    if isinstance(data, OnFailureSpec):
        return data
    raise ValueError("on_failure is stop, rollback, or {continue: the reason}")


class Check(Model):
    """One observation and what must hold of it; the same object wherever a check may stand."""

    id: str
    probe: InstanceOf[Probe] | None  # None: about the step's own result
    that: InstanceOf[Expression] | None = None
    warn: InstanceOf[Expression] | None = None
    why: str = ""
    due: str = ""
    record_only: str = ""
    judge: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = ()  # roles that may answer where it is unknown
    within: Seconds | None = None  # how long it may take to hold, where it doesn't at once
    every: Annotated[Seconds, Field(gt=0)] = 10.0
    still: bool = False  # at a gate: asked again before each step behind it
    mark: InstanceOf[Mark]


class GuardAction(StrEnum):
    """What a guard does when it does not hold."""

    WARN = "warn"
    HOLD = "hold"
    SMALLER_BATCHES = "smaller_batches"
    ABORT = "abort"
    ROLLBACK = "rollback"


class OfLast(Model):
    """`2 of 3`: how many of the last samples must have broken."""

    broken: int
    samples: int


def _of_last(data: object) -> object:
    found = re.fullmatch(r"([1-9]\d?) of ([1-9]\d?)", data) if isinstance(data, str) else None
    if found is None or int(found[1]) > int(found[2]):
        if isinstance(data, OfLast):
            return data
        raise ValueError(f"cannot read {data!r}: write how many of the last samples must have broken, e.g. '2 of 3'")
    return OfLast(broken=int(found[1]), samples=int(found[2]))


Span = Annotated[Seconds, Field(gt=0)]


class Guard(Model):
    """A check that is sampled while a step runs."""

    check: InstanceOf[Check]
    hold_for: Seconds = 0.0  # `for:` how long it must be broken before the action is taken
    action: GuardAction = GuardAction.HOLD
    resume: InstanceOf[Expression] | None = None  # what ends a hold and brings batches back; None: `that`
    critical: InstanceOf[Expression] | None = None
    hibernate: Span = 300.0
    last: Annotated[OfLast, BeforeValidator(_of_last)] = OfLast(broken=1, samples=1)
    every: Span = 5.0
    longest_hold: Span = 3600.0

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All that are written."""
        return tuple(one for one in (self.check.that, self.resume, self.critical) if one is not None)

    @property
    def stops(self) -> bool:
        """Whether it ends the run instead of holding it."""
        return self.action in {GuardAction.ABORT, GuardAction.ROLLBACK}


class Entry(Model):
    """A step in its place: the step itself and what the engine does around it."""

    id: str
    step: InstanceOf[Step]
    why: str = ""
    preconditions: tuple[InstanceOf[Check], ...] = ()
    success_criteria: tuple[InstanceOf[Check], ...] = ()
    guards: tuple[InstanceOf[Guard], ...] = ()
    on_failure: Annotated[OnFailureSpec, BeforeValidator(_on_failure)] = OnFailureSpec()
    if_stopped_here: str = ""
    timeout: Timeouts = Timeouts()
    lock: LockPolicy = LockPolicy()
    retry: RetryPolicy = RetryPolicy()
    mark: InstanceOf[Mark]
    digest: str


Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAYS: tuple[Day, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _days(value: object) -> object:
    """'Tue-Thu, Sat' → the days of the week, in order."""
    if not isinstance(value, str):
        return value
    found: list[str] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        known = [str(day) for day in DAYS]
        if first not in known or (dash and last not in known):
            raise ValueError(f"cannot read the days {part.strip()!r}: write e.g. Tue-Thu, Sat")
        begin, end = known.index(first), known.index(last or first)
        found += [DAYS[n % 7] for n in range(begin, (end if end >= begin else end + 7) + 1)]
    return tuple(dict.fromkeys(found))


class Calendar(Model):
    """When a run may change things: on these days of the week, between these times on the wall of this zone."""

    days: Annotated[tuple[Day, ...], BeforeValidator(_days)] = DAYS
    since: Annotated[str, Field(alias="from", pattern=CLOCK)]
    to: Annotated[str, Field(pattern=CLOCK)]
    zone: str

    @property
    def weekdays(self) -> frozenset[int]:
        """As date.weekday() counts them: Monday is 0."""
        return frozenset(DAYS.index(day) for day in self.days)

    @model_validator(mode="after")
    def _known_zone(self) -> Calendar:
        refuse_unknown_zone(self.zone)
        return self


class Playbook(Model):
    """A phase of a runbook."""

    name: str
    title: str
    description: str = ""
    owner: str = ""
    contacts: Mapping[str, str] = {}
    links: Mapping[str, str] = {}
    revision: str = ""
    reviewed: str = ""
    review_after: str = ""
    takes: str = ""
    window: Seconds | None = None  # how long changes may go on, from the first one
    open: Calendar | None = None
    scope: str = "target"
    db_schema: str = "public"
    search_path: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # (): as the database's own sessions have it
    target: TargetNeeds = TargetNeeds()
    inputs: Mapping[str, Input] = {}
    values: Mapping[str, JsonValue] = {}  # the inputs of this run
    limits: Mapping[str, JsonValue] = {}
    queries: Mapping[str, InstanceOf[Query]] = {}
    requires: tuple[InstanceOf[Requirement], ...] = ()
    preconditions: tuple[InstanceOf[Check], ...] = ()
    entries: tuple[InstanceOf[Entry], ...]
    success_criteria: tuple[InstanceOf[Check], ...] = ()
    unproven: str = ""  # why it has no success criterion
    rollback: Literal["reverse", "none"] = "reverse"
    rollback_reason: str = ""
    rollback_steps: tuple[str, ...] = ()  # another order than the reverse, by id
    file: str
    source: Mapping[str, str]
    digest: str
    programs: Mapping[str, str] = {}  # files of its own that it runs → SHA-256, in the digest
    idle_inputs: frozenset[str] = frozenset()  # included ones that it nowhere uses
    kept_gates: Mapping[
        str, InstanceOf[Entry]
    ] = {}  # as they stood when the run began, where an edit took something away

    def entry(self, name: str) -> Entry:
        """The step of this id (StopIteration where there is none: the ids were checked by load)."""
        return self._by_id[name]

    @functools.cached_property
    def _by_id(self) -> Mapping[str, Entry]:
        return {entry.id: entry for entry in self.entries}

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    @property
    def proves(self) -> bool:
        """Whether anything is asked about what it has done that isn't only recorded."""
        every = [*self.success_criteria, *(check for entry in self.entries for check in entry.success_criteria)]
        return any(not check.record_only and not check.due for check in every)

    @property
    def meant(self) -> Mapping[str, JsonValue]:
        """The inputs that mean something to it."""
        return {name: value for name, value in self.values.items() if name not in self.idle_inputs}

    @property
    def secrets(self) -> frozenset[str]:
        """The inputs whose values nobody may see."""
        return frozenset(name for name, spec in self.inputs.items() if spec.secret)

    @property
    def changes(self) -> bool:
        """Whether any step changes anything: if not, no lease is taken and no ledger needed."""
        return any(entry.step.changes for entry in self.entries)


def parse_duration(text: str) -> float:
    """A time span in seconds, for inputs of that type."""
    value = seconds(text)
    return float(value) if isinstance(value, float) else 0.0
