"""Windows: what they keep out, what they never keep out, and whose clock decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from command import proven
from databases import Database
from inside import InProcessCli, written

from runner.common.secrets import Masks
from runner.plan import advice, next_commands, window
from runner.playbook.load import load
from runner.trail.events import Noted, RunState, StepOutcome
from runner.trail.status import RunStatus, StepStatus
from runner.trail.trail import Trail

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)

SLOW = "- {id: slow, type: sql, text: 'SELECT pg_sleep(1.2)', expect_rows: any, revert: SELECT 1}"
ONE = "- {id: one, type: sql, text: UPDATE t SET n = 1 WHERE id = 1, revert: UPDATE t SET n = 0 WHERE id = 1}"
TWO = "- {id: two, type: sql, text: UPDATE t SET n = 2 WHERE id = 2, revert: UPDATE t SET n = 0 WHERE id = 2}"
PROOF = (
    "success_criteria: [{id: there, check: query, query: n, that: n == 2}]\nqueries: {n: SELECT count(*) AS n FROM t}\n"
)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def rows(database: Database) -> list[tuple]:
    return database.rows("SELECT n FROM t ORDER BY id")


def closed_now() -> str:
    """A calendar that opens on another day than today and tomorrow, in any zone."""
    day = (datetime.now(UTC) + timedelta(days=3)).strftime("%a")
    return f"open: {{days: {day}, from: '09:00', to: '10:00', zone: Europe/Berlin}}\n{PROOF}"


# ─── a length ───────────────────────────────────────────────────────────────────────────────────────────────────────
@on_18
def test_nothing_begins_after_the_window(desk: InProcessCli, empty_database: Database) -> None:
    """The run stops between two steps; going on needs a reason, taking back never does."""
    found = desk.runbook("exec", written(desk, f"{SLOW}\n{ONE}", f"window: 1 s\n{PROOF}"))
    assert found.code == 7 and "window" in found.err, found.text
    assert rows(empty_database) == [(0,), (0,)]
    found = desk.runbook("resume", "latest")
    assert found.code == 6 and "--outside-window" in found.err, found.text
    assert desk.runbook("resume", "latest", "--outside-window").code == 2
    found = desk.runbook("resume", "latest", "--outside-window", "--reason", "agreed with the owner")
    assert found.code == 0 and "after its window had ended" in found.out, found.text
    assert rows(empty_database) == [(1,), (0,)]
    assert [one.outside_window for one in desk.events("run_resumed")] == [True]
    assert "outside of its window" in desk.runbook("report", "latest").out
    assert desk.runbook("rollback", "latest").code == 0
    assert rows(empty_database) == [(0,), (0,)]


@on_18
def test_gate_before_the_first_change_costs_no_time(desk: InProcessCli) -> None:
    """Waiting for people before anything was changed doesn't use the window up."""
    gate = "- {id: go, type: checkpoint, approval: {need: 1}}"
    name = written(desk, f"{gate}\n{ONE}", f"window: 1 s\n{PROOF}")
    assert desk.runbook("exec", name).code == 5
    desk.runbook("approve", "latest", "--step", "go", "--as", "ines", "--reason", "seen")
    status = desk.status()
    playbook = load("change.yaml", lambda _name: (desk.directory / name).read_text())
    assert window.why_shut(playbook, status, now=datetime.now(UTC) + timedelta(hours=5)) == ""
    assert desk.runbook("resume", "latest").code == 0


@on_both
def test_no_batch_begins_after_the_window(desk: InProcessCli, empty_database: Database) -> None:
    """A pass ends at a safe point, and its rollback isn't asked for any window."""
    series = "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 30000) SELECT i FROM c"
    empty_database.script(f"CREATE TABLE big (id integer PRIMARY KEY, n integer); INSERT INTO big (id) {series}")
    fill = (
        "- {id: fill, type: backfill, table: big, key: id, source: 'SELECT id AS k, 1 AS n FROM big', match: source.k = target.id,"
        " fill: [n], order: key, batch: {time: 20 ms, rows: [1, 5]}}"
    )
    found = desk.runbook("exec", written(desk, fill, f"window: 700 ms\n{PROOF}"))
    assert found.code == 7 and "window" in found.err, found.text
    done = empty_database.rows("SELECT count(n) FROM big")[0][0]
    assert 0 < done < 30000
    assert desk.runbook("rollback", "latest").code == 0
    assert empty_database.rows("SELECT count(n) FROM big") == [(0,)]


@on_both
def test_canary_is_compared_with_the_window(desk: InProcessCli, empty_database: Database) -> None:
    series = "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000) SELECT i FROM c"
    empty_database.script(f"CREATE TABLE big (id integer PRIMARY KEY, n integer); INSERT INTO big (id) {series}")
    fill = (
        "- {{id: fill, type: backfill, table: big, key: id, source: 'SELECT id AS k, 1 AS n FROM big', match: source.k = target.id,"
        " fill: [n], pause_after: {{batches: 1}}, batch: {{time: 1 s, rows: [1, {most}]}}}}"
    )
    found = desk.runbook("exec", written(desk, fill.format(most=1000), f"window: 5 h\n{PROOF}"))
    assert found.code == 5 and "in which that fits" in found.err, found.text


# ─── a calendar ─────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_changes_wait_for_the_calendar(desk: InProcessCli, empty_database: Database) -> None:
    """Gates and preconditions are asked at any time; the first change waits, and resume says when it may."""
    found = desk.runbook("exec", written(desk, f"{ONE}\n{TWO}", closed_now()))
    assert found.code == 5 and "the window opens at" in found.err and "CE" in found.err, found.text
    assert rows(empty_database) == [(0,), (0,)]
    found = desk.runbook("resume", "latest")
    assert found.code == 6 and "the window opens at" in found.err, found.text
    assert desk.runbook("note", "latest", "still waiting").code == 0
    assert desk.runbook("resume", "latest", "--outside-window", "--reason", "the owner called").code == 0
    assert rows(empty_database) == [(1,), (2,)]


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-03-28 23:30", ""),  # Saturday night, the clocks go forward at 02:00
        ("2026-03-29 03:30", ""),  # only 4 h 30 min after it opened, on the wall 5 h 30 min
        ("2026-03-29 04:00", "2026-03-29 22:00"),
        ("2026-10-25 03:59", ""),  # the clocks went back: an hour more
        ("2026-10-25 04:30", "2026-10-25 22:00"),
        ("2026-10-26 05:00", "2026-10-31 22:00"),  # Monday to Friday: shut
        ("2026-10-27 23:00", "2026-10-31 22:00"),
    ],
)
def test_calendar_over_midnight_and_over_a_change_of_clocks(now: str, opens: str) -> None:
    text = "runbook: 1\nname: one\ntitle: One\nsuccess_criteria: {none: no}\n"
    text += "open: {days: Sat-Sun, from: '22:00', to: '04:00', zone: Europe/Berlin}\n"
    playbook = load("one.yaml", lambda _name: proven(text + "steps: [{id: work, type: analyze, table: t}]\n"))
    zone = ZoneInfo("Europe/Berlin")
    moment = datetime.strptime(now, "%Y-%m-%d %H:%M").replace(tzinfo=zone).astimezone(UTC)
    found = window.opens(playbook, moment)
    assert ("" if found is None else f"{found.astimezone(zone):%Y-%m-%d %H:%M}") == opens


def test_length_of_a_night_in_which_the_clocks_change() -> None:
    """From 22:00 to 04:00 it is five hours in March and seven in October."""
    text = "runbook: 1\nname: one\ntitle: One\nsuccess_criteria: {none: no}\nopen: {from: '22:00', to: '04:00', zone: Europe/Berlin}\n"
    playbook = load("one.yaml", lambda _name: proven(text + "steps: [{id: work, type: analyze, table: t}]\n"))
    for day, hours in ((datetime(2026, 3, 28, 21, tzinfo=UTC), 5), (datetime(2026, 10, 24, 20, tzinfo=UTC), 7)):
        end = window.ends(playbook, RunStatus(), step="work", now=day)
        assert end is not None and end - day == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("calendar", "why"),
    [
        ("{days: Tue-Xyz, from: '09:00', to: '16:00', zone: UTC}", "cannot read the days"),
        ("{from: '9', to: '16:00', zone: UTC}", "from"),
        ("{from: '09:00', to: '16:00', zone: Europe/Nowhere}", "cannot find the time zone"),
        ("{from: '09:00', to: '16:00'}", "zone"),
    ],
)
def test_calendar_that_cannot_be_read(desk_without: InProcessCli, calendar: str, why: str) -> None:
    found = desk_without.runbook("validate", written(desk_without, ONE, f"open: {calendar}\n"))
    assert found.code == 4 and why in found.err, found.text


@pytest.fixture
def desk_without(tmp_path: Path) -> InProcessCli:
    return InProcessCli(tmp_path, "")


def test_earliest_limit_counts() -> None:
    text = "runbook: 1\nname: one\ntitle: One\nsuccess_criteria: {none: no}\nwindow: 2 h\nopen: {from: '09:00', to: '10:00', zone: UTC}\n"
    playbook = load("one.yaml", lambda _name: proven(text + "steps: [{id: work, type: analyze, table: t}]\n"))
    at = datetime(2026, 5, 5, 9, 30, tzinfo=UTC)
    status = RunStatus(steps={"work": StepStatus("work", started_at=(at - timedelta(hours=1, minutes=50)).isoformat())})
    assert window.ends(playbook, status, step="work", now=at) == at + timedelta(minutes=10)


# ─── how long the way back takes ────────────────────────────────────────────────────────────────────────────────────
def test_estimate_of_taking_back_counts_rests_and_what_is_back() -> None:
    """A pass that rests beside others does so on the way back too: the latest time to turn back reckons with it."""
    text = """runbook: 1
name: one
title: One
success_criteria: {none: a test}
window: 2 h
steps:
  - id: fill
    type: backfill
    table: t
    source: SELECT 1 AS k, 1 AS n
    match: source.k = target.id
    fill: [n]
    throttle: {rest: 9}
"""
    playbook = load("one.yaml", lambda _name: proven(text))
    began = datetime(2026, 5, 5, 9, 0, tzinfo=UTC)
    fill = StepStatus("fill", started_at=began.isoformat(), outcome=StepOutcome.DONE, seconds=300.0)
    status = RunStatus(state=RunState.SUCCEEDED, steps={"fill": fill})

    def back() -> str:
        return advice.stop(playbook, status, next_commands.Here(began + timedelta(minutes=10), alive=False)).back

    assert "about 5 min (as long as it took), up to 50 min while others work" in back()
    assert "turn back before 2026-05-05 10:10" in back()
    fill.back = {"done": 900, "total": 1000}
    assert "about 30 s (as long as it took), up to 5 min while others work" in back()


@on_both
def test_clock_that_was_set_back_is_told(desk: InProcessCli) -> None:
    """The chain is whole and the order is that of the records; what their times say of each other isn't hidden."""
    assert desk.runbook("exec", written(desk, ONE, PROOF)).code == 0
    path = desk.newest
    earlier = Trail(path, masks=Masks(), now=lambda: datetime.now(UTC) - timedelta(hours=2))
    earlier.append(Noted(by="ines", text="from a machine whose clock is wrong"))
    earlier.close()
    assert "times go backwards at record" in desk.runbook("trail", "verify", "latest").out
    assert (
        "Times go backwards"
        in desk.runbook("report", "latest", "-o", "report.md").out + (desk.directory / "report.md").read_text()
    )
