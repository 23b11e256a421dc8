"""When a run may change things: a duration from its first change, a calendar, and the latest times of its gates.

Windows limit only the way forward; they never prevent a hold, a stop or a rollback.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from runner.common.durations import format_duration
from runner.playbook.model import Calendar, Playbook
from runner.trail.status import RunStatus
from steps.contract import Gate, GateNeeds

_DAYS_AHEAD = 8  # a calendar of one day a week opens again within a week


def first_change(playbook: Playbook, status: RunStatus) -> datetime | None:
    """When the run's first changing step started (the window's duration counts from then); None before."""
    begun = (status.steps.get(entry.id) for entry in playbook.entries if entry.step.changes)
    times = [one.started_at for one in begun if one is not None and one.started_at]
    return datetime.fromisoformat(min(times)) if times else None


def ends(playbook: Playbook, status: RunStatus, *, step: str, now: datetime) -> datetime | None:
    """The deadline of the way forward: the earliest of all limits (may be in the past); None if there is none.

    step: the current step; the latest times of the gates before it count.
    """
    began = first_change(playbook, status)
    limits = [began + timedelta(seconds=playbook.window)] if playbook.window is not None and began else []
    if playbook.open is not None:
        limits.append(_closes(playbook.open, now) or now)
    limits += _of_gates(playbook, status, step)
    return min(limits, default=None)


def opens(playbook: Playbook, now: datetime) -> datetime | None:
    """When the calendar opens next; None if it is open now, or there is none."""
    if playbook.open is None or _closes(playbook.open, now) is not None:
        return None
    return next(begin for begin, _ in _spans(playbook.open, now) if begin > now)


def why_shut(playbook: Playbook, status: RunStatus, *, now: datetime) -> str:
    """Why the run may not change anything now, in words; "" if it may."""
    if (opening := opens(playbook, now)) is not None:
        return f"the window opens at {shown(opening, playbook.open)}"
    began = first_change(playbook, status)
    if playbook.window is None or began is None:
        return ""
    end = began + timedelta(seconds=playbook.window)
    return (
        "" if now < end else f"its window of {format_duration(playbook.window)} was over at {shown(end, playbook.open)}"
    )


def shown(moment: datetime, calendar: Calendar | None) -> str:
    """Format a time in the calendar's zone, else in UTC."""
    zone = ZoneInfo(calendar.zone) if calendar is not None else UTC
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def local(day: date, at: str, zone: str) -> datetime:
    """A wall-clock time of a day in a zone ("": this machine's) as UTC, so that times compare across DST changes."""
    naive = datetime.combine(day, time.fromisoformat(at))
    return (naive.replace(tzinfo=ZoneInfo(zone)) if zone else naive.astimezone()).astimezone(UTC)


def today(now: datetime, zone: str) -> date:
    """The local date at this time in a zone ("": this machine's)."""
    return (now.astimezone(ZoneInfo(zone)) if zone else now.astimezone()).date()


# ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _closes(calendar: Calendar, now: datetime) -> datetime | None:
    return next((end for begin, end in _spans(calendar, now) if begin <= now < end), None)


def _spans(calendar: Calendar, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The calendar's intervals around now, in order; one across midnight belongs to the day on which it starts."""
    first = today(now, calendar.zone) - timedelta(days=1)
    for day in (first + timedelta(days=n) for n in range(_DAYS_AHEAD + 2)):
        if day.weekday() in calendar.weekdays:
            last = day + timedelta(days=1) if calendar.to <= calendar.since else day
            yield local(day, calendar.since, calendar.zone), local(last, calendar.to, calendar.zone)


def _of_gates(playbook: Playbook, status: RunStatus, step: str) -> Iterator[datetime]:
    """The latest times (`not_after`) of the gates before a step, on the day on which the steps after the gate started."""
    for n, entry in enumerate(playbook.entries[: playbook.ids.index(step)]):
        needs = entry.step.needs() if isinstance(entry.step, Gate) else GateNeeds()
        after = (status.steps.get(one.id) for one in playbook.entries[n + 1 :])
        begun = [one.started_at for one in after if one is not None and one.started_at]
        if needs.not_after and begun:
            passed = datetime.fromisoformat(min(begun))
            end = moment(needs.not_after, passed, needs.zone)
            over_midnight = is_daily(needs.not_after) and end < passed
            yield moment(needs.not_after, passed + timedelta(days=1), needs.zone) if over_midnight else end


def is_daily(text: str) -> bool:
    """Whether a gate's time is a daily one ("22:00")."""
    return 0 < len(text) <= len("22:00")


def moment(text: str, now: datetime, zone: str = "") -> datetime:
    """A gate's time as a datetime: "22:00" today in the zone ("": this machine's), or an ISO date and time."""
    if is_daily(text):
        return local(today(now, zone), text, zone)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.astimezone()
