"""Monitors over simulated weeks, on a server whose clock the test moves: each alert comes at its time, once, and ends when mended."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from command import KILLED
from databases import SETTINGS
from fake_clock import FakeClock, server_at
from inside import InProcessCli

from playbooks.demo import honeypot

ROOT = Path(__file__).parents[2]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def raised(desk: InProcessCli, run: str) -> list[tuple[str, str, str]]:
    """What the run's trail has of alerts: (raised or ended, monitor, day by the server's clock where it was raised)."""
    from runner.trail import trail

    events = [one.event for one in trail.read(desk.directory / "runs" / run / "trail.jsonl")]
    return [
        (one.event, one.monitor, getattr(one, "since", "")[:16]) for one in events if one.event.startswith("alert_")
    ]


def observed(desk: InProcessCli, run: str, monitor: str) -> list[dict]:
    done = desk.runbook("monitor", "history", run, monitor, "--most", "500", "--json")
    assert done.code == 0, done.text
    return json.loads(done.out)[monitor]["observations"]


# ─── ten days, and a small table ────────────────────────────────────────────────────────────────────────────────────
LOOKS = {  # day → hours in UTC: before and after each time at which something has to come, or must not
    "10-27": (0, 6),
    "10-28": (6,),
    "10-29": (0, 6, 12),
    "10-30": (0, 6, 12, 18),
    "10-31": (0,),
    "11-02": (18,),
    "11-03": (0, 6),
    "11-04": (6,),
}


SMALL = """\
runbook: 1
name: fill
title: Fill t
steps: [{id: fill, type: sql, text: UPDATE t SET c = 'x' WHERE c IS NULL, revert: UPDATE t SET c = NULL WHERE id > 0}]
success_criteria: [{id: full, check: rows, table: t, where: c IS NULL, exactly: 0}]
monitors:
  - {id: full_still, check: rows, table: t, where: c IS NULL, exactly: 0, every: {cron: 30 2 * * *, zone: Europe/Berlin}}
"""


def test_daily_monitor_over_a_change_of_the_clocks_and_an_outage(fast_path: Path, tmp_path: Path):
    """2:30 comes once on the day on which it is there twice, and after three days away once."""
    with server_at(fast_path, moment("2034-10-26T12:00"), SETTINGS) as clock:
        url = clock.server.url()
        desk = InProcessCli(tmp_path, url)
        _sql(url, "CREATE TABLE t (id int PRIMARY KEY, c text); INSERT INTO t (id) SELECT generate_series(1, 9)")
        desk.playbook("fill", SMALL)
        done = desk.runbook("exec", "fill.yaml")
        assert done.code == 0, done.text
        run = re.search(r"succeeded: (\S+)", done.text)[1]
        codes = {}
        for now in [moment(f"2034-{day}T{hour:02}:00") for day, hours in LOOKS.items() for hour in hours]:
            clock.set(now)
            if now == moment("2034-10-31T00:00"):
                clock.server.stop()
            if now == moment("2034-11-03T00:00"):
                clock.start()
            if now == moment("2034-10-29T00:00"):
                _sql(url, "UPDATE t SET c = NULL WHERE id = 1")
            if now == moment("2034-10-30T12:00"):
                _sql(url, "UPDATE t SET c = 'x'")
            codes[now] = desk.runbook("monitor", "once", "--quiet").code
        seen = [(one["due_at"][:16], one["answer"], one["missed"]) for one in observed(desk, run, "full_still")]
        assert seen == [
            ("2034-10-27T00:30", "pass", 0),
            ("2034-10-28T00:30", "pass", 0),
            ("2034-10-29T00:30", "fail", 0),  # 2:30 in summer time; the second 2:30 of this night is none
            ("2034-10-30T01:30", "fail", 0),  # 2:30 in winter time
            ("2034-11-02T01:30", "pass", 2),  # caught up on 3 November, before that day's own time
            ("2034-11-03T01:30", "pass", 0),
            ("2034-11-04T01:30", "pass", 0),
        ]
        assert raised(desk, run) == [
            ("alert_raised", "full_still", "2034-10-29T06:00"),
            ("alert_ended", "full_still", ""),
        ]
        away = {
            now: code for now, code in codes.items() if moment("2034-10-31T00:00") <= now < moment("2034-11-03T00:00")
        }
        assert set(away.values()) == {12}
        alerting = [now for now, code in codes.items() if code == 14]
        assert (alerting[0], alerting[-1]) == (moment("2034-10-29T06:00"), moment("2034-10-30T18:00"))


def _sql(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)


# ─── six weeks, and ADR-007 ─────────────────────────────────────────────────────────────────────────────────────────
BEGAN, ENDS = moment("2034-09-28T08:00"), moment("2034-11-09T12:00")
SESSIONS = 60_000
TICKS = (
    4,
    5,
)  # hours of each day, in UTC, at which the timer calls; also at 3 on Mondays, and at 6 where something is due by then


@pytest.fixture
def weeks(fast_path: Path) -> Iterator[FakeClock]:
    with server_at(fast_path, datetime.now(UTC), SETTINGS) as clock:
        honeypot.populate(clock.server.url(), sessions=SESSIONS, seed=7)
        yield clock


@pytest.mark.soak
def test_monitors_of_adr007_over_six_weeks(weeks: FakeClock, tmp_path: Path):
    """Decay, a dropped index, a source that goes wrong and sessions without snapshots, over the changes of the clocks on
    29 October (Europe) and 5 November (America); killed in between, with two machines at work and a reader that may not write.
    """
    shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks")
    phase = tmp_path / "playbooks" / "adr007-phase4.yaml"
    text = phase.read_text().replace("slower_pct: 20 ", "slower_pct: 900 ")  # other work on this machine is no alert
    phase.write_text(
        text.replace("{cron: 15 6 * * *, zone: Europe/Berlin}", "{cron: 15 0 * * *, zone: America/New_York}")
    )
    url = weeks.server.url()
    desk, other = InProcessCli(tmp_path, url), InProcessCli(tmp_path / "other", url)
    other.directory.mkdir()
    run = _phases(
        desk
    )  # at the real time: a trail is written by the clock of its own machine, and windows are counted from it
    _sql(
        url,
        f"UPDATE runbook.run SET started_at = started_at + ({str(BEGAN)!r} - ended_at), ended_at = {str(BEGAN)!r} WHERE run = '{run}'",
    )
    _sql(url, "CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader")
    reader = InProcessCli(other.directory, url.replace("owner@", "reader@"))
    happens = _happens(url)
    for now in _ticks():
        weeks.set(now)
        for day in [day for day in happens if day <= now]:
            happens.pop(day)()
        if now == moment("2034-10-20T06:00"):
            weeks.server.stop()
        if now == moment("2034-10-23T06:00"):
            weeks.start()
        if now == moment(
            "2034-10-08T04:00"
        ):  # at its time a reader looks first, and then a process that dies within its commit
            assert "recorded nothing" in reader.runbook("monitor", "once").err
            assert desk.kill("monitor", "once", fault="commit.before:2").code == KILLED
        processes = (
            [desk.start("monitor", "once"), other.start("monitor", "once")] if now == moment("2034-10-12T04:00") else []
        )
        for process in processes:
            assert process.wait(120) in {0, 14}
        desk.runbook("monitor", "once", "--quiet")
    assert not happens
    _as_it_should(desk, run)


def _phases(desk: InProcessCli) -> str:
    def ok(*words: str, code: int = 0) -> str:
        done = desk.runbook(*words)
        assert done.code == code, done.text
        return done.text

    few = ("--input", "sessions=200", "--input", "at_least=190", "--input", "at_most=210")
    ok("exec", "adr007-phase1.yaml", "adr007-phase2.yaml")
    ok("exec", "adr007-phase2-10k.yaml", *few)
    ok("exec", "adr007-phase3.yaml", "--operator", "olga", code=5)
    for name, role in (("ines", "dba"), ("sam", "stakeholder")):
        ok("approve", "latest", "--as", name, "--role", role, "--reason", "rehearsed")
    ok("resume", "latest")
    ok("exec", "adr007-phase4.yaml", "--input", "speed_waiver=60,000 sessions are too few to measure", code=5)
    ok("approve", "latest", "--evidence", "application_log", "--reason", "no errors since", "--as", "sam")
    return re.search(r"succeeded: (\S+)", ok("resume", "latest"))[1]


def _ticks() -> Iterator[datetime]:
    day = BEGAN.replace(hour=0)
    while day <= ENDS:
        early = (3,) if day.weekday() == 0 else ()
        late = (6,) if day.date().isoformat() in {"2034-10-20", "2034-10-23"} or day >= moment("2034-11-06") else ()
        hours = (*early, *TICKS, *late)
        yield from (now for hour in hours if BEGAN < (now := day + timedelta(hours=hour)) <= ENDS)
        day += timedelta(days=1)


def _happens(url: str) -> dict[datetime, Callable[[], None]]:
    """What happens to the store, and when; what is mended is mended by the same means."""
    bare = "UPDATE session_summaries SET snapshot_country = NULL WHERE abs(hashtext(session_id) % 100) < {}"
    keep = "CREATE TABLE kept AS SELECT session_id, snapshot_country FROM session_summaries"
    back = "UPDATE session_summaries AS s SET snapshot_country = k.snapshot_country FROM kept AS k WHERE k.session_id = s.session_id"
    arrive = """INSERT INTO session_summaries (session_id, snapshot_country)
        SELECT md5('new' || clock_timestamp() || i), {} FROM generate_series(1, 40) AS i"""
    index = "SELECT string_agg(indexdef, ';') FROM pg_indexes WHERE tablename = 'session_summaries' AND indexdef ~ 'snapshot_country'"
    made: list[str] = []

    def drop() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            made.append(connection.execute(index).fetchone()[0])
            for name in re.findall(r"INDEX (\S+) ON", made[0]):
                connection.execute(f"DROP INDEX {name}")

    def at(text: str, sql: str) -> None:
        found[moment(text)] = lambda: _sql(url, sql)

    found: dict[datetime, Callable[[], None]] = {}
    at("2034-09-29T11:00", "CREATE TABLE was AS SELECT ip_address, current_asn FROM ip_inventory")
    at(
        "2034-09-29T12:00",
        "UPDATE ip_inventory SET current_asn = (SELECT min(asn_number) FROM asn_inventory) WHERE hashtext(ip_address) % 3 = 0",
    )
    at("2034-10-05T12:00", keep)
    at("2034-10-06T12:00", bare.format(4))  # from 96 to about 92 per cent: no alert
    at("2034-10-08T12:00", bare.format(9))
    at("2034-10-10T12:00", back)
    found[moment("2034-10-13T12:00")] = drop
    found[moment("2034-10-19T12:00")] = lambda: _sql(url, made[0])
    at(
        "2034-10-24T12:00",
        "UPDATE ip_inventory AS i SET current_asn = w.current_asn FROM was AS w WHERE w.ip_address = i.ip_address",
    )
    for day in (27, 28, 29):
        at(f"2034-10-{day}T03:00", arrive.format("NULL"))
    at("2034-10-30T03:00", arrive.format("'CN'"))
    return found


def _as_it_should(desk: InProcessCli, run: str) -> None:
    assert raised(desk, run) == [
        ("alert_raised", "accuracy_monthly", "2034-10-01T04:00"),
        ("alert_raised", "coverage_daily", "2034-10-09T04:00"),
        ("alert_ended", "coverage_daily", ""),
        ("alert_raised", "speed_weekly", "2034-10-16T03:00"),
        ("alert_ended", "speed_weekly", ""),
        ("alert_raised", "new_sessions_daily", "2034-10-28T05:00"),  # the second of three days
        ("alert_ended", "new_sessions_daily", ""),
        ("alert_ended", "accuracy_monthly", ""),
    ]
    days = [BEGAN.date() + timedelta(days=n) for n in range(1, 43)]
    seen = {
        name: observed(desk, run, name)
        for name in ("coverage_daily", "new_sessions_daily", "speed_weekly", "accuracy_monthly")
    }
    for name, summer, winter, change in (
        ("coverage_daily", "04:00", "05:00", "2034-10-29"),  # from the day on which the clocks of its zone are back
        ("new_sessions_daily", "04:15", "05:15", "2034-11-06"),
    ):
        looked = [str(day) for day in days if str(day) not in {"2034-10-21", "2034-10-22"}]
        assert [one["due_at"][:16] for one in seen[name]] == [
            f"{day}T{summer if day < change else winter}" for day in looked
        ]
        caught_up = [(one["due_at"][:10], one["missed"]) for one in seen[name] if one["missed"]]
        assert caught_up == [("2034-10-23", 2)], "three days away, and one look for all of them"
    assert [one["due_at"][:10] for one in seen["speed_weekly"]] == [
        f"2034-{day}" for day in ("10-02", "10-09", "10-16", "10-23", "10-30", "11-06")
    ]
    assert [(one["due_at"][:16], one["answer"]) for one in seen["accuracy_monthly"]] == [
        ("2034-10-01T03:30", "fail"),
        ("2034-11-01T04:30", "pass"),
    ]
    assert desk.runbook("trail", "verify", run, "--against-target").code == 0
    assert "alert" not in desk.runbook("runs").out
