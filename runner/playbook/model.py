"""The data model of a loaded playbook: immutable; all that plan and engine know of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, InstanceOf, JsonValue, field_validator, model_validator

from runner.playbook.schedule import ScheduleField
from runner.playbook.yaml_reader import Mark
from steps.catalog.shape import DeclaredShape
from steps.contract import Model, Probe, Query, Seconds, Step, refuse_unknown_zone, seconds
from steps.contract.direction import (
    FEWER,
    HIGHER,
    HIGHER_IF_GIVEN,
    HIGHER_OR_0,
    LOOSENED,
    LOWER,
    LOWER_IF_GIVEN,
    MORE,
    MORE_OR_NONE,
    NO_EFFECT,
    OFF,
    SET,
    TIGHTENED,
    UNSET,
    ladder,
)
from steps.contract.fields import one_or_more
from steps.expressions.evaluate import Expression

FORMAT = 1
NAME = r"^[a-z][a-z0-9-]*$"
ID = r"^[a-z][a-z0-9_]*$"
CLOCK = r"^([01]\d|2[0-3]):[0-5]\d$"


class OnFailure(StrEnum):
    """What the run does when a step fails."""

    STOP = "stop"  # a person decides: resume, rollback or settle
    ROLLBACK = "rollback"
    CONTINUE = "continue"


class Input(Model):
    """A typed input of a run."""

    type: Literal["text", "integer", "number", "boolean", "time span"] = "text"
    default: JsonValue = None
    required: Annotated[bool, OFF] = False
    required_in: Annotated[
        tuple[str, ...], BeforeValidator(one_or_more), FEWER
    ] = ()  # environments in which a default won't do
    min: Annotated[float | None, LOWER] = None
    max: Annotated[float | None, HIGHER] = None
    pattern: Annotated[str, UNSET] = ""
    one_of: Annotated[tuple[JsonValue, ...], MORE_OR_NONE] = ()
    help: Annotated[str, NO_EFFECT] = ""
    secret: Annotated[bool, OFF] = False


class BlockersPolicy(Model):
    """Sessions that may be terminated if they block a step, by their exact application_name."""

    end: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], MORE] = ()

    @field_validator("end")
    @classmethod
    def _not_ours(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if ours := [name for name in names if name.startswith("runbook")]:
            raise ValueError(f"cannot end sessions of {ours[0]!r}: those are runs; runbook tune RUN stop ends one")
        return names


class LockPolicy(Model):
    """How long a statement waits for a lock, how long a transaction may hold it, and for how long it is retried.

    hold: 0 means as long as the statement takes.
    """

    wait: Annotated[Seconds, HIGHER] = 0.5
    hold: Annotated[Seconds, HIGHER_OR_0] = 0.0
    retry_for: Annotated[Seconds, HIGHER] = 1800.0
    blockers: BlockersPolicy = BlockersPolicy()


class RetryPolicy(Model):
    """Errors after which a step is retried. A lost connection is retried once the outcome of its work is known."""

    attempts: Annotated[int, Field(ge=1, le=20), HIGHER] = 3
    first_wait: Annotated[Seconds, NO_EFFECT] = 0.1
    longest_wait: Annotated[Seconds, HIGHER] = 60.0
    on: Annotated[tuple[str, ...], MORE] = (
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
    """Timeouts of a statement. `long` is for long statements of step types (CONCURRENTLY, VALIDATE, VACUUM)."""

    look: Annotated[Seconds, HIGHER] = 300.0
    statement: Annotated[Seconds, HIGHER] = 60.0
    long: Annotated[Seconds, HIGHER] = 6 * 3600.0


class Requirement(Model):
    """An earlier playbook that must have succeeded on this target."""

    playbook: Annotated[str, Field(pattern=NAME)]
    short: Annotated[str, Field(pattern=ID, alias="as")] = ""
    within: Annotated[Seconds | None, HIGHER] = None
    settled: Annotated[Seconds | None, LOWER] = None  # how long it must have stood, with its monitors holding

    @model_validator(mode="before")
    @classmethod
    def _name(cls, data: object) -> object:
        return {"playbook": data} if isinstance(data, str) else data


class TargetNeeds(Model):
    """The kinds and versions of databases on which a playbook can run; neither: on all."""

    postgresql: str = ""
    sqlite: str = ""

    def covers(self, other: TargetNeeds, /) -> bool:
        """Whether it names all that the other one names; another condition on a version is not compared."""
        ours, theirs = ({one: bound for one, bound in needs if bound} for needs in (self, other))
        return not ours or (bool(theirs) and theirs.items() <= ours.items())


class OnFailureSpec(Model):
    """`stop`, `rollback`, or {continue: reason}."""

    policy: Annotated[OnFailure, ladder("rollback", "stop", "continue")] = OnFailure.STOP
    reason: Annotated[str, NO_EFFECT] = ""


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
    """A check: what to observe, and what must hold; used for preconditions, criteria and guards alike."""

    id: str
    probe: InstanceOf[Probe] | None  # None: the check is about the step's own result
    that: Annotated[InstanceOf[Expression] | None, LOOSENED] = None
    warn: Annotated[InstanceOf[Expression] | None, LOOSENED] = None
    why: Annotated[str, NO_EFFECT] = ""
    due: Annotated[str, SET] = ""
    record_only: Annotated[str, SET] = ""
    otherwise: Annotated[str, UNSET] = ""  # the playbook to run next where it is not met
    judge: Annotated[
        tuple[str, ...], BeforeValidator(one_or_more), MORE
    ] = ()  # roles that may answer if the check can't
    within: Annotated[Seconds | None, HIGHER_IF_GIVEN] = None  # how long it may take until it holds
    every: Annotated[Seconds, Field(gt=0), NO_EFFECT] = 10.0
    still: Annotated[bool, OFF] = False  # at a gate: asked again before each later step
    mark: Annotated[InstanceOf[Mark], NO_EFFECT]


class GuardAction(StrEnum):
    """What a guard does when it does not hold."""

    WARN = "warn"
    HOLD = "hold"
    SMALLER_BATCHES = "smaller_batches"
    ABORT = "abort"
    ROLLBACK = "rollback"


class OfLast(Model):
    """How many of the last samples must be broken: `2 of 3`."""

    broken: int
    samples: int

    def covers(self, other: OfLast, /) -> bool:
        """Whether the other one is met at the latest when this one is.

        The hardest case for it: this one's broken samples, spread so thinly that none of the other's windows is met.
        """
        windows, rest = divmod(self.samples, other.samples)
        return self.broken > (other.broken - 1) * windows + min(other.broken - 1, rest)


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
    hold_for: Annotated[Seconds, HIGHER] = 0.0  # `for:`, how long it must be broken before the action is taken
    action: Annotated[GuardAction, ladder("rollback", "abort", "hold", "smaller_batches", "warn")] = GuardAction.HOLD
    # what ends a hold and brings batches back, besides `that`
    resume: Annotated[InstanceOf[Expression] | None, LOOSENED] = None
    critical: Annotated[InstanceOf[Expression] | None, TIGHTENED] = None
    hibernate: Annotated[Span, LOWER] = 300.0
    last: Annotated[OfLast, BeforeValidator(_of_last)] = OfLast(broken=1, samples=1)
    every: Annotated[Span, HIGHER] = 5.0
    longest_hold: Annotated[Span, HIGHER] = 3600.0

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All expressions that the guard has."""
        return tuple(one for one in (self.check.that, self.resume, self.critical) if one is not None)

    @property
    def stops(self) -> bool:
        """Whether it ends the run instead of holding it."""
        return self.action in {GuardAction.ABORT, GuardAction.ROLLBACK}


class Missed(Model):
    """What becomes of a due time at which nobody looked: looked at once, however late, or skipped when it is too late."""

    skip_after: Annotated[Seconds | None, LOWER_IF_GIVEN] = None  # None: caught up


def _missed(data: object) -> object:
    return {} if data == "catch_up" else data


class Monitor(Model):
    """A check that goes on being asked after the run, at its times, for as long as the run's change stands."""

    check: InstanceOf[Check]
    every: ScheduleField
    alert: Annotated[InstanceOf[Expression] | None, TIGHTENED] = None  # None: it alerts where the check does not pass
    alert_for: Annotated[Seconds, HIGHER] = 0.0  # `for:`, how long it must be broken before it alerts
    last: Annotated[OfLast, BeforeValidator(_of_last)] = OfLast(broken=1, samples=1)
    against: str = ""  # the step or check of the run with whose figures its own are compared
    missed: Annotated[Missed, BeforeValidator(_missed)] = Missed()
    takes_at_most: Annotated[Span, NO_EFFECT] = 300.0

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """All expressions that the monitor has."""
        return tuple(one for one in (self.check.that, self.alert) if one is not None)


class Entry(Model):
    """A step of a playbook: the step itself, and what the engine does around it."""

    id: str
    step: InstanceOf[Step]
    why: Annotated[str, NO_EFFECT] = ""
    when: InstanceOf[Check] | None = None  # the step is skipped where it answers fail
    preconditions: tuple[InstanceOf[Check], ...] = ()
    success_criteria: tuple[InstanceOf[Check], ...] = ()
    guards: tuple[InstanceOf[Guard], ...] = ()
    on_failure: Annotated[OnFailureSpec, BeforeValidator(_on_failure)] = OnFailureSpec()
    if_stopped_here: Annotated[str, NO_EFFECT] = ""
    timeout: Timeouts = Timeouts()
    lock: LockPolicy = LockPolicy()
    retry: RetryPolicy = RetryPolicy()
    mark: Annotated[InstanceOf[Mark], NO_EFFECT]
    digest: Annotated[str, NO_EFFECT]


Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_DAY = 24 * 60  # minutes
DAYS: tuple[Day, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _days(value: object) -> object:
    """Parse 'Tue-Thu, Sat' into a tuple of days."""
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
    """When a run may change things: days of the week, and local times in a zone."""

    days: Annotated[tuple[Day, ...], BeforeValidator(_days)] = DAYS
    since: Annotated[str, Field(alias="from", pattern=CLOCK)]
    to: Annotated[str, Field(pattern=CLOCK)]
    zone: str

    @property
    def weekdays(self) -> frozenset[int]:
        """The days as numbers of date.weekday(): Monday is 0."""
        return frozenset(DAYS.index(day) for day in self.days)

    def covers(self, other: Calendar, /) -> bool:
        """Whether it is open whenever the other one is; in another zone that isn't known."""
        return self.zone == other.zone and self._minutes >= other._minutes

    @functools.cached_property
    def _minutes(self) -> frozenset[int]:
        """The minutes of a week in which it is open."""
        since, to = (int(one[:2]) * 60 + int(one[3:]) for one in (self.since, self.to))
        length = (to - since) % _DAY or _DAY
        return frozenset(
            (day * _DAY + minute) % (7 * _DAY) for day in self.weekdays for minute in range(since, since + length)
        )

    @model_validator(mode="after")
    def _known_zone(self) -> Calendar:
        refuse_unknown_zone(self.zone)
        return self


class Playbook(Model):
    """A loaded playbook: one phase of a runbook."""

    name: str
    title: Annotated[str, NO_EFFECT]
    description: Annotated[str, NO_EFFECT] = ""
    owner: Annotated[str, NO_EFFECT] = ""
    contacts: Annotated[Mapping[str, str], NO_EFFECT] = {}
    links: Annotated[Mapping[str, str], NO_EFFECT] = {}
    revision: Annotated[str, NO_EFFECT] = ""
    reviewed: Annotated[str, NO_EFFECT] = ""
    review_after: Annotated[str, NO_EFFECT] = ""
    takes: Annotated[str, NO_EFFECT] = ""
    window: Annotated[Seconds | None, HIGHER] = None  # how long changes may take, counted from the first one
    open: Annotated[Calendar | None, UNSET] = None
    scope: str = "target"
    db_schema: str = "public"
    search_path: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # (): that of an ordinary session
    target: TargetNeeds = TargetNeeds()
    inputs: Mapping[str, Input] = {}
    values: Annotated[Mapping[str, JsonValue], NO_EFFECT] = {}  # the inputs of this run
    limits: Mapping[str, JsonValue] = {}
    queries: Mapping[str, InstanceOf[Query]] = {}
    shapes: Mapping[str, InstanceOf[DeclaredShape]] = {}
    requires: Annotated[tuple[InstanceOf[Requirement], ...], FEWER] = ()
    removes: tuple[Annotated[str, Field(pattern=NAME)], ...] = ()  # playbooks whose runs lose their effect by this one
    preconditions: tuple[InstanceOf[Check], ...] = ()
    entries: tuple[InstanceOf[Entry], ...]
    success_criteria: tuple[InstanceOf[Check], ...] = ()
    unproven: Annotated[str, SET] = ""  # why it has no success criterion
    monitors: Annotated[tuple[InstanceOf[Monitor], ...], FEWER] = ()
    rollback: Literal["reverse", "none"] = "reverse"
    rollback_reason: Annotated[str, NO_EFFECT] = ""
    rollback_steps: tuple[str, ...] = ()  # ids in the order of undoing; (): all in reverse order
    file: Annotated[str, NO_EFFECT]
    source: Annotated[Mapping[str, str], NO_EFFECT]
    digest: Annotated[str, NO_EFFECT]
    programs: Mapping[str, str] = {}  # its own files that it executes → SHA-256; part of the digest
    idle: Annotated[
        Mapping[str, frozenset[str]], NO_EFFECT
    ] = {}  # limits, queries, inputs → included names that it doesn't use
    # Gates as they were when the run started, where an edit has weakened them.
    kept_gates: Annotated[Mapping[str, InstanceOf[Entry]], NO_EFFECT] = {}

    def entry(self, name: str) -> Entry:
        """The step with this id; raises KeyError (ids were checked when the playbook was loaded)."""
        return self._by_id[name]

    @functools.cached_property
    def _by_id(self) -> Mapping[str, Entry]:
        return {entry.id: entry for entry in self.entries}

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.id for entry in self.entries)

    @property
    def proves(self) -> bool:
        """Whether any success criterion decides (and is not only recorded, or due elsewhere)."""
        return self.proves_without(())

    def proves_without(self, skipped: Collection[str]) -> bool:
        """Like `proves`, without the criteria of these steps."""
        left = [entry for entry in self.entries if entry.id not in skipped]
        every = [*self.success_criteria, *(check for entry in left for check in entry.success_criteria)]
        return any(not check.record_only and not check.due for check in every)

    @property
    def meant(self) -> Mapping[str, JsonValue]:
        """The inputs that it uses."""
        return {name: value for name, value in self.values.items() if name not in self.idle.get("inputs", ())}

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secret inputs."""
        return frozenset(name for name, spec in self.inputs.items() if spec.secret)

    @property
    def changes(self) -> bool:
        """Whether any step changes anything; if not, the run needs neither lease nor ledger."""
        return any(entry.step.changes for entry in self.entries)


def parse_duration(text: str) -> float:
    """Parse a duration ("5 min") to seconds, for inputs of type `time span`."""
    value = seconds(text)
    return float(value) if isinstance(value, float) else 0.0
