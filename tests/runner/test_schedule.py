"""When a monitor is due: spans from the run's end, cron in a zone, both changes of the clocks, and times that were missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from runner.playbook.schedule import MOST, Due, Schedule, ScheduleField, latest_due, next_due, shortest_s

ENDED = datetime(2026, 10, 12, 8, 30, tzinfo=UTC)
BERLIN = "Europe/Berlin"


def schedule(data: object) -> Schedule:
    return TypeAdapter(ScheduleField).validate_python(data)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_span_counts_from_the_end_of_the_run():
    daily = schedule("1 day")
    assert latest_due(daily, anchor=ENDED, since=ENDED, now=ENDED + timedelta(hours=23)) is None
    assert latest_due(daily, anchor=ENDED, since=ENDED, now=ENDED + timedelta(hours=25)) == Due(
        ENDED + timedelta(days=1), 0
    )
    assert next_due(daily, anchor=ENDED, now=ENDED + timedelta(hours=25)) == ENDED + timedelta(days=2)
    assert shortest_s(daily) == 86400


def test_span_that_was_missed_is_due_once_with_the_number_of_those_before():
    daily, since = schedule("1 day"), ENDED + timedelta(days=2)
    assert latest_due(daily, anchor=ENDED, since=since, now=ENDED + timedelta(days=5, hours=3)) == Due(
        ENDED + timedelta(days=5), 2
    )


@pytest.mark.parametrize(
    ("cron", "since", "times"),
    [
        ("0 6 * * *", "2026-10-24T00:00", ["2026-10-24T04:00", "2026-10-25T05:00", "2026-10-26T05:00"]),  # the clock goes back
        ("30 2 * * *", "2026-10-24T00:00", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),  # 2:30 comes twice
        ("0 6 * * *", "2027-03-27T00:00", ["2027-03-27T05:00", "2027-03-28T04:00", "2027-03-29T04:00"]),  # it goes forward
        ("30 2 * * *", "2027-03-27T00:00", ["2027-03-27T01:30", "2027-03-28T01:00", "2027-03-29T00:30"]),  # 2:30 doesn't come
        ("0 5 1 * *", "2026-10-24T00:00", ["2026-11-01T04:00", "2026-12-01T04:00", "2027-01-01T04:00"]),
    ],
)  # fmt: skip
def test_cron_comes_once_a_day_over_changes_of_the_clocks(cron: str, since: str, times: list[str]):
    made, seen, last = schedule({"cron": cron, "zone": BERLIN}), [], at(since)
    now = last
    while len(seen) < len(times):  # asked every ten minutes, as a timer does
        now += timedelta(minutes=10)
        due = latest_due(made, anchor=ENDED, since=last, now=now)
        if due is not None:
            assert due.missed == 0
            seen.append(due.at)
            last = due.at
    assert seen == [at(one) for one in times]


def test_cron_that_was_missed_is_due_once():
    daily = schedule({"cron": "0 6 * * *", "zone": BERLIN})
    assert latest_due(daily, anchor=ENDED, since=at("2026-10-23T04:00"), now=at("2026-10-27T12:00")) == Due(
        at("2026-10-27T05:00"), 3
    )
    assert next_due(daily, anchor=ENDED, now=at("2026-10-27T12:00")) == at("2026-10-28T05:00")


def test_cron_that_was_missed_for_years_is_counted_to_a_limit():
    each_minute = schedule({"cron": "* * * * *", "zone": "UTC"})
    assert latest_due(each_minute, anchor=ENDED, since=ENDED, now=ENDED + timedelta(days=900)) == Due(
        ENDED + timedelta(days=900, minutes=-1), MOST
    )


def test_shortest_interval_of_a_daily_time_is_the_day_of_23_hours():
    assert shortest_s(schedule({"cron": "0 6 * * *", "zone": BERLIN})) == 23 * 3600
    assert shortest_s(schedule({"cron": "0 6 * * *", "zone": "UTC"})) == 24 * 3600


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cron": "0 6 * *", "zone": "UTC"}, "five fields"),
        ({"cron": "61 6 * * *", "zone": "UTC"}, "bad minute"),
        ({"cron": "0 6 30 2 *", "zone": "UTC"}, "day-of-month"),
        ({"cron": "0 6 * * *", "zone": "Berlin"}, "cannot find the time zone"),
        ({"cron": "0 6 * * *"}, "zone"),
        ("daily", "time span"),
        ("100 ms", "greater than or equal to 1"),
    ],
)
def test_what_is_no_schedule_says_why(data: object, words: str):
    with pytest.raises(ValidationError) as refused:
        schedule(data)
    assert words.lower() in str(refused.value).lower()
