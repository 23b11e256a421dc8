"""When a monitor is due: every so many seconds, or at the times of a cron expression in a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Annotated, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from runner.common.durations import age
from steps.contract import Model, Seconds, refuse_unknown_zone
from steps.contract.direction import HIGHER
from steps.contract.written import Schema, SpanText

MOST = 1000  # missed times that are counted; more are "at least so many"
_SAMPLE = 400  # times of a cron expression of which the shortest interval is taken: more than a year of daily ones
_SAMPLE_FROM = datetime(2026, 1, 1, tzinfo=UTC)

Span = Annotated[Seconds, Field(ge=1)]


class Due(NamedTuple):
    """The latest time at which a monitor was due, and how many due times before it passed without an observation."""

    at: datetime
    missed: int


class Cron(Model):
    """A cron expression of five fields, and the zone whose clocks it means.

    As with Debian's cron, a time that a change of the clocks skips comes right after it, and one that it repeats comes once.
    """

    cron: str
    zone: str

    @model_validator(mode="after")
    def _readable(self) -> Self:
        from cronsim import CronSimError

        refuse_unknown_zone(self.zone)
        if len(self.cron.split()) != 5:
            raise ValueError(
                f"cannot read the cron expression {self.cron!r}: it must have five fields, e.g. '0 6 * * *'"
            )
        try:
            first = next(self.times(_SAMPLE_FROM), None)
        except CronSimError as error:
            raise ValueError(f"cannot read the cron expression {self.cron!r}: {str(error).lower()}") from None
        if first is None:
            raise ValueError(f"cannot use the cron expression {self.cron!r}: no such day ever comes")
        return self

    def times(self, since: datetime, *, back: bool = False) -> Iterator[datetime]:
        """Its times after `since`, in UTC; back: those before it, the latest first."""
        from zoneinfo import ZoneInfo

        from cronsim import CronSim

        for at in CronSim(self.cron, since.astimezone(ZoneInfo(self.zone)), reverse=back):
            yield at.astimezone(UTC)

    def words(self) -> str:
        return f"cron {self.cron} ({self.zone})"


class Every(Model):
    """A fixed interval, counted from the end of the run that is watched."""

    span: Annotated[Span, HIGHER]

    def words(self) -> str:
        return f"every {age(self.span)}"


Schedule = Every | Cron


def _schedule(data: object) -> object:
    return Cron.model_validate(data) if isinstance(data, dict) else data if isinstance(data, Model) else {"span": data}


_CRON: Schema = {
    "type": "object",
    "properties": {
        "cron": {"type": "string", "description": "A cron expression of five fields, such as: 0 6 * * *"},
        "zone": {"type": "string", "description": "Whose clocks, such as Europe/Berlin."},
    },
    "required": ["cron", "zone"],
    "additionalProperties": False,
}


def latest_due(schedule: Schedule, *, anchor: datetime, since: datetime, now: datetime) -> Due | None:
    """The latest due time after `since` and up to `now`; None where there is none.

    anchor: the end of the run that is watched, from which intervals are counted. since: the last due time that was looked
    at, or else the anchor.
    """
    if isinstance(schedule, Every):
        done, passed = _whole(schedule, since - anchor), _whole(schedule, now - anchor)
        return Due(anchor + timedelta(seconds=schedule.span) * passed, passed - done - 1) if passed > done else None
    times = list(islice(takewhile(lambda at: at <= now, schedule.times(since)), MOST + 1))
    if len(times) > MOST:
        return Due(next(schedule.times(now, back=True), times[-1]), MOST)
    return Due(times[-1], len(times) - 1) if times else None


def next_due(schedule: Schedule, *, anchor: datetime, now: datetime) -> datetime | None:
    """The first due time after `now`."""
    if isinstance(schedule, Every):
        return anchor + timedelta(seconds=schedule.span) * (_whole(schedule, now - anchor) + 1)
    return next(schedule.times(now), None)


def shortest_s(schedule: Schedule) -> float:
    """The shortest time between two due times, in seconds."""
    if isinstance(schedule, Every):
        return schedule.span
    times = list(islice(schedule.times(_SAMPLE_FROM), _SAMPLE))
    return min((later - one).total_seconds() for one, later in pairwise(times))


def _whole(every: Every, passed: timedelta) -> int:
    """How many whole intervals have passed; a due time itself counts, however the ledger rounds it."""
    return max(0, int((passed.total_seconds() + 0.001) // every.span))


ScheduleField = Annotated[Schedule, BeforeValidator(_schedule, json_schema_input_type=SpanText)]
SCHEDULE: Schema = {"anyOf": [{"$ref": "#/$defs/time_span"}, _CRON]}
