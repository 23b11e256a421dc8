"""Signals, orders from another terminal, and whoever reads along going away."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from command import RUNBOOK
from databases import Database
from inside import InProcessCli, until, written

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)

SLEEPING = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'runbook:%' AND wait_event = 'PgSleep'"
THREE = (
    "- {id: three, type: sql, revert: SELECT 1, if_stopped_here: safe until morning, statements: "
    "[UPDATE t SET n = n + 1 WHERE id = 1, SELECT pg_sleep(s) FROM pause, UPDATE t SET n = n + 1 WHERE id = 2]}"
)
BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    empty_database.script("CREATE TABLE pause (s double precision)")
    return InProcessCli(tmp_path, empty_database.url)


def rows(database: Database) -> list[tuple]:
    return database.rows("SELECT id, n FROM t ORDER BY id")


def asleep(database: Database) -> None:
    until(lambda: database.rows(SLEEPING))
    database.script("UPDATE pause SET s = 0")


@on_18
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_stops_at_a_safe_point(desk: InProcessCli, empty_database: Database, name: str) -> None:
    """The statement at hand commits, the next is not sent; the run is aborted, not done, and goes on where it stood. F: E06"""
    empty_database.script("INSERT INTO pause VALUES (1.5)")
    with desk.start("exec", written(desk, THREE)) as run:
        asleep(empty_database)
        if name == "SIGHUP":
            run.stdout.close()  # the terminal is gone, and with it whoever could read
        run.send_signal(signal.Signals[name])
        assert run.wait(300) == 7
    assert rows(empty_database) == [(1, 1), (2, 0)]
    status = desk.status()
    assert (status.state, status.exit_code) == ("aborted", 7)
    assert desk.events("stop_requested")[0].by == name
    assert empty_database.value("SELECT state FROM runbook.run") == "aborted"
    told = desk.runbook("status", "latest").out
    assert "safe until morning" in told and "runbook resume" in told
    assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database) == [(1, 1), (2, 1)]


@on_18
def test_second_signal_cancels(desk: InProcessCli, empty_database: Database) -> None:
    """What is in flight is cancelled and rolled back: exit 130, and resume goes on. F: E06"""
    empty_database.script("INSERT INTO pause VALUES (60)")
    with desk.start("exec", written(desk, THREE)) as run:
        asleep(empty_database)
        run.send_signal(signal.SIGINT)
        desk_says(run, "again to cancel")
        run.send_signal(signal.SIGINT)
        assert run.wait(300) == 130, run.stdout.read()
    assert desk.status().state == "aborted" and desk.status().exit_code == 130
    assert desk.status().steps["three"].outcome == "stopped"
    assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database) == [(1, 1), (2, 1)]


def desk_says(run: subprocess.Popen[str], text: str) -> None:
    """Read what the command prints until it says this."""
    assert run.stdout is not None
    for line in run.stdout:
        if text in line:
            return
    raise AssertionError(f"it never said {text!r}")


@on_sqlite
def test_second_signal_cancels_sqlite(desk: InProcessCli, empty_database: Database) -> None:
    """There a statement runs in our own process, and must let the signal in. F: E06"""
    endless = "UPDATE t SET n = (WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT max(i) FROM c)"
    name = written(desk, f"{BUMP}\n- {{id: endless, type: sql, whole_table: true, text: '{endless}'}}")
    with desk.start("exec", name) as run:
        desk_says(run, "→ endless")
        run.send_signal(signal.SIGINT)
        desk_says(run, "again to cancel")
        run.send_signal(signal.SIGINT)
        assert run.wait(300) == 130
    assert rows(empty_database) == [(1, 1), (2, 0)]
    assert desk.runbook("rollback", "latest").code == 0
    assert rows(empty_database) == [(1, 0), (2, 0)]


@on_sqlite
def test_reader_that_goes_away_stops_nothing(desk: InProcessCli, empty_database: Database) -> None:
    """`runbook exec … | head -1`: the run goes on to its end, and its exit code is its own. F: I10"""
    good = written(desk, "\n".join(BUMP.replace("id: bump", f"id: bump{n}") for n in range(3)))
    bad = written(desk, BUMP + "\n- {id: bad, type: sql, text: DELETE FROM missing WHERE id = 1}", name="bad")
    for name, code, state in ((good, 0, "succeeded"), (bad, 1, "failed")):
        reading, writing = os.pipe()
        with subprocess.Popen(
            [RUNBOOK, "exec", name], cwd=desk.directory, stdout=writing, stderr=writing,
            env={**os.environ, "RUNBOOK_TARGET": desk.target},
        ) as run:  # fmt: skip
            os.close(writing)
            os.read(reading, 1)
            os.close(reading)
            assert run.wait(300) == code
        assert desk.status().state == state
    assert rows(empty_database)[0] == (1, 4)


@on_sqlite
def test_orphan_of_a_killed_run_is_found(desk: InProcessCli) -> None:
    """kill -9 leaves the command running: resume finds it, starts no second, and asks a person."""
    script = "echo $$ >> pids; until [ -e go ]; do sleep 0.05; done"
    with desk.start(
        "exec", written(desk, f"- {{id: call, type: command, argv: [sh, -c, '{script}'], revert: ['true']}}")
    ) as run:
        pids = desk.directory / "pids"
        until(lambda: pids.exists() and pids.read_text().strip())
        run.kill()
    pid = int(pids.read_text())
    try:
        found = desk.runbook("resume", "latest")
        assert found.code == 10 and f"process {pid}" in found.err and "still runs" in found.err, found.text
        assert "settle" in found.err
        assert desk.runbook("settle", "latest", "call", "not-done", "--reason", "it hangs").code == 0
        assert "still runs" in desk.runbook("resume", "latest").err, "even so it is not started beside the orphan"
        assert psutil.pid_exists(pid)
    finally:
        os.killpg(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid))
    (desk.directory / "go").touch()
    assert desk.runbook("resume", "latest").code == 10
    assert desk.runbook("settle", "latest", "call", "not-done", "--reason", "ended by hand").code == 0
    assert desk.runbook("resume", "latest").code == 0
    assert len(pids.read_text().split()) == 2


# ─── orders ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_18
def test_run_is_held_and_stopped_from_elsewhere(desk: InProcessCli, empty_database: Database) -> None:
    """hold, go and stop, read at safe points; the trail has each with its reason, and how long it was held.

    An old stop does not stop the run again when it is resumed, and whoever does not run is told nothing.
    """
    empty_database.script("INSERT INTO pause VALUES (0.1)")
    statements = ", ".join(["SELECT pg_sleep(s) FROM pause"] * 300)
    name = written(desk, f"- {{id: long, type: sql, revert: SELECT 1, statements: [{statements}]}}")
    with desk.start("exec", name) as run:
        until(lambda: empty_database.rows(SLEEPING))
        told = desk.runbook(
            "tune", "latest", "hold", "rows=2000", "rest=0.5", "--reason", "the replica is behind", "--as", "ines"
        )
        assert told.code == 0, told.text
        desk.reached("held")
        acts = "SELECT count(*) FROM runbook.step_commit"
        count = empty_database.value(acts)
        assert "held: the replica is behind" in desk.runbook("status", "latest").out
        assert desk.runbook("tune", "latest", "go", "--reason", "it caught up").code == 0
        desk.reached("released")
        until(lambda: empty_database.value(acts) > count)
        assert desk.runbook("tune", "latest", "stop", "--reason", "enough for tonight", "--as", "ines").code == 0
        assert run.wait(300) == 7, run.stdout.read()
    (held,), (released,) = desk.events("held"), desk.events("released")
    assert (held.by, held.reason, released.seconds > 0) == ("ines", "the replica is behind", True)
    assert [one.settings for one in desk.events("tuned")] == [
        {"hold": True, "max_rows": 2000, "rest": 0.5},
        {"go": True},
        {"stop": True},
    ]
    assert (desk.events("stop_requested")[0].by, desk.events("stop_requested")[0].reason) == (
        "ines",
        "enough for tonight",
    )
    wrong = desk.runbook("tune", "latest", "rest=101", "--reason", "a little too much")
    assert wrong.code == 2 and "rest=9" in wrong.err
    idle = desk.runbook("tune", "latest", "go", "--reason", "nobody hears")
    assert idle.code == 6 and "it does not run now" in idle.err
    empty_database.script("UPDATE pause SET s = 0")
    again = desk.runbook("resume", "latest")
    assert again.code == 0, again.text
    assert len(desk.events("tuned")) == 3


@on_18
def test_guard_takes_the_run_back(desk: InProcessCli, empty_database: Database) -> None:
    """A guard that wants a rollback stops the way forward only, not the way back."""
    guard = "guards: [{id: small, check: query, query: n, that: n == 0, else: rollback}]"
    guarded = f"- {{id: more, type: sql, revert: SELECT 1, {guard}, text: UPDATE t SET n = 5 WHERE id = 2}}"
    slow = "- {id: slow, type: sql, revert: 'SELECT pg_sleep(0.1); SELECT 1', text: UPDATE t SET n = 1 WHERE id = 1}"
    name = written(desk, f"{slow}\n{guarded}", "queries: {n: SELECT n FROM t WHERE id = 1}\n")
    found = desk.runbook("exec", name)
    assert found.code == 8, found.text
    assert desk.events("stop_requested")[0].by == "guard small"
    assert [one.step for one in desk.events("step_ended") if one.outcome == "reverted"] == ["slow"]
