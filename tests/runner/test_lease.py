"""One changing run per target, and a connection that ends where it hurts most."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from command import RUNBOOK
from databases import Database, Databases
from inside import InProcessCli, meanwhile, session, until, written
from proxy import Proxy

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
SLOW = (
    "- {id: slow, type: sql, revert: SELECT 1, statements: "
    "[UPDATE t SET n = n + 1 WHERE id = 1, SELECT pg_sleep(s) FROM pause, UPDATE t SET n = n + 1 WHERE id = 2]}"
)
SLEEPING = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'runbook:%' AND wait_event = 'PgSleep'"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    return prepared(empty_database, tmp_path)


def prepared(database: Database, directory: Path) -> InProcessCli:
    database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    database.script("INSERT INTO t (id) VALUES (1), (2)")
    database.script("CREATE TABLE pause (s integer)")
    database.script("INSERT INTO pause VALUES (60)")
    return InProcessCli(directory, database.url)


@pytest.fixture
def other(desk: InProcessCli) -> InProcessCli:
    """Somebody else, with a playbook and runs of their own, on the same target."""
    (desk.directory / "other").mkdir()
    found = InProcessCli(desk.directory / "other", desk.target)
    written(found, BUMP, name="other")
    return found


def rows(database: Database) -> list[tuple]:
    return database.rows("SELECT id, n FROM t ORDER BY id")


def asleep(database: Database) -> int:
    """The backend in which the slow statement runs; from here on it no longer would."""
    ((pid,),) = until(lambda: database.rows(SLEEPING))
    database.script("UPDATE pause SET s = 0")
    return pid


# ─── two runners ────────────────────────────────────────────────────────────────────────────────────────────────────
@on_18
def test_second_runner_is_refused_until_the_first_is_dead(
    desk: InProcessCli, other: InProcessCli, empty_database: Database
) -> None:
    """Refused with the holder's name, and without a run that `latest` could mean; after kill -9 it takes over at once, and
    what was in flight on the server is waited for. F: C08, F: C09
    """
    written(desk, SLOW)
    with desk.start("exec", "change.yaml", "--operator", "dana") as first:
        asleep(empty_database)
        refused = other.runbook("exec", "other.yaml")
        assert refused.code == 6 and "dana on " in refused.err and f"pid {first.pid}" in refused.err, refused.text
        assert not (other.directory / "runs").exists()
        living = desk.runbook("resume", "latest")
        assert living.code == 6 and "its process still runs" in living.err
        first.kill()
    taken = other.runbook("exec", "other.yaml")
    assert taken.code == 0, taken.text
    assert other.events("lease_taken")[0].previous_run == desk.newest.parent.name
    assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database) == [(1, 2), (2, 1)]


@on_18
def test_silent_runner_is_fenced(desk: InProcessCli, other: InProcessCli, empty_database: Database) -> None:
    """Stopped by the system, it stays silent; who took over is safe from it when it wakes: exit 13, nothing doubled. F: C08 F: D10"""
    waiting = "- {id: wait, type: command, argv: [sh, -c, 'until [ -e go ]; do sleep 0.05; done'], revert: ['true']}"
    written(desk, f"{BUMP}\n{waiting}\n{BUMP.replace('id: bump', 'id: again')}")
    with desk.start("exec", "change.yaml") as first:
        started = "SELECT count(*) FROM runbook.step_commit WHERE step = 'wait'"
        until(
            lambda: empty_database.value("SELECT to_regclass('runbook.step_commit')") and empty_database.value(started)
        )
        first.send_signal(signal.SIGSTOP)
        assert other.runbook("exec", "other.yaml").code == 6
        age(empty_database)
        assert other.runbook("exec", "other.yaml").code == 0
        (desk.directory / "go").touch()
        first.send_signal(signal.SIGCONT)
        assert first.wait(300) == 13, first.stdout.read()
    assert rows(empty_database) == [(1, 2), (2, 0)]
    assert [one.step for one in desk.events("step_ended")] == ["bump"]


def elsewhere(desk: InProcessCli, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a pid namespace of its own, as in a container of the same name."""
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("a pid namespace needs root")
    return subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", RUNBOOK, *words], cwd=desk.directory, check=False, text=True, timeout=120,
        env={**os.environ, "RUNBOOK_TARGET": desk.target}, capture_output=True,
    )  # fmt: skip


HELD = "- {id: wait, type: command, argv: [sh, -c, 'until [ -e go ]; do sleep 0.02; done'], revert: ['true']}"


@on_18
def test_living_run_in_another_container_is_left_alone(
    desk: InProcessCli, other: InProcessCli, empty_database: Database
) -> None:
    """The same host name, another pid namespace: the pid there says nothing, so only 15 s of silence would do."""
    written(desk, f"{HELD}\n{BUMP}")
    with desk.start("exec", "change.yaml") as first:
        desk.reached("step_started")
        refused = elsewhere(other, "exec", "other.yaml")
        assert refused.returncode == 6 and f"pid {first.pid}" in refused.stderr, refused.stderr
        assert elsewhere(desk, "resume", "latest").returncode == 6
        (desk.directory / "go").touch()
        assert first.wait(300) == 0, first.stdout.read()
    assert rows(empty_database) == [(1, 1), (2, 0)]


@on_18
def test_end_of_a_run_that_was_taken_over_is_not_its_own(desk: InProcessCli, empty_database: Database) -> None:
    """The process that lost its run wakes when another has ended it well: neither trail nor ledger hears of its failure."""
    small = "- {{id: s{}, type: sql, text: SELECT pg_sleep(0.2), expect_rows: any, revert: SELECT 1}}"
    written(desk, "\n".join([*(small.format(n) for n in range(15)), BUMP]))
    with desk.start("exec", "change.yaml") as first:
        desk.reached("step_started")
        assert desk.runbook("tune", "latest", "hold", "--reason", "to look").code == 0
        desk.reached("held")
        first.send_signal(signal.SIGSTOP)
        age(empty_database)
        try:
            taken = elsewhere(desk, "resume", "latest")
            length = len(desk.newest.read_bytes())
        finally:
            first.send_signal(signal.SIGCONT)
        assert taken.returncode == 0, taken.stderr
        assert first.wait(300) == 13, first.stdout.read()
    assert len(desk.newest.read_bytes()) == length
    assert desk.status().state == "succeeded"
    assert empty_database.value("SELECT state FROM runbook.run") == "succeeded"
    assert rows(empty_database) == [(1, 1), (2, 0)]
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0


@on_18
def test_step_of_the_servers_clock_makes_no_living_run_dead(
    desk: InProcessCli, other: InProcessCli, empty_database: Database
) -> None:
    """The last beat seems to be hours old, or to come: a holder that beats on is left alone."""
    written(desk, f"{HELD}\n{BUMP}")
    with desk.start("exec", "change.yaml") as first:
        desk.reached("step_started")
        for jump in ("- interval '5 h'", "+ interval '5 h'"):
            empty_database.script(f"UPDATE runbook.heartbeat SET beat_at = clock_timestamp() {jump}")
            assert other.runbook("exec", "other.yaml").code == 6
        (desk.directory / "go").touch()
        assert first.wait(300) == 0, first.stdout.read()


def age(database: Database) -> None:
    """As if 16 s had passed since the last heartbeat."""
    if database.dialect == "sqlite":
        database.script("UPDATE runbook_heartbeat SET beat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-16 seconds')")
    else:
        database.script("UPDATE runbook.heartbeat SET beat_at = clock_timestamp() - interval '16 s'")


@on_both
def test_lease_that_came_with_a_backup(desk: InProcessCli, empty_database: Database) -> None:
    """Its holder is on another host, so only its silence can tell. F: C09"""
    written(desk, BUMP)
    assert desk.runbook("exec", "change.yaml").code == 0
    holder = {"operator": "kim", "user": "kim", "host": "elsewhere", "pid": 1, "started": 1.0, "versions": {}}
    name = "runbook_lease" if empty_database.dialect == "sqlite" else "runbook.lease"
    empty_database.script(f"UPDATE {name} SET run = 'old-run', holder = '{json.dumps(holder)}'")
    age(empty_database)
    beat = name.replace("lease", "heartbeat")
    now = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')" if empty_database.dialect == "sqlite" else "clock_timestamp()"
    empty_database.script(f"UPDATE {beat} SET beat_at = {now}")
    refused = desk.runbook("exec", "change.yaml")
    assert refused.code == 6 and "old-run (kim on elsewhere, pid 1)" in refused.err
    age(empty_database)
    assert desk.runbook("exec", "change.yaml").code == 0
    assert desk.events("lease_taken")[0].previous_run == "old-run"


@on_18
def test_open_transaction_of_a_silent_runner(desk: InProcessCli, empty_database: Database) -> None:
    """A commit in flight holds the lease's row: the take-over waits for it. F: C08"""
    written(desk, BUMP)
    assert desk.runbook("exec", "change.yaml").code == 0
    with session(empty_database, "SELECT epoch FROM runbook.lease FOR SHARE") as in_flight:

        def end() -> None:
            until(lambda: empty_database.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            in_flight.commit()

        with meanwhile(end):
            assert desk.runbook("exec", "change.yaml").code == 0


# ─── connections ────────────────────────────────────────────────────────────────────────────────────────────────────
@on_18
def test_terminated_backend_in_the_middle(desk: InProcessCli, empty_database: Database) -> None:
    """The statement that was cut is sent again, the one before it is not. F: C01"""
    written(desk, SLOW)
    with meanwhile(lambda: empty_database.rows("SELECT pg_terminate_backend(%s)", [asleep(empty_database)])):
        found = desk.runbook("exec", "change.yaml")
    assert found.code == 0, found.text
    assert rows(empty_database) == [(1, 1), (2, 1)]
    assert [one.sqlstate for one in desk.events("retried")] == ["57P01"]


@on_18
def test_server_restarted_in_the_middle(desk: InProcessCli, empty_database: Database) -> None:
    """Lost for longer than a retry: exit 12 and nothing is assumed; resume goes on. F: C14"""
    written(desk, SLOW)
    with desk.start("exec", "change.yaml") as run:  # a process of its own, because its death frees the lease
        asleep(empty_database)
        empty_database.server.restart()
        code = run.wait(300)
    assert code in {0, 12}, run.stdout.read()
    if code == 12:
        assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database) == [(1, 1), (2, 1)]


@pytest.fixture
def copy(empty_database: Database) -> Iterator[str]:
    """The same database under another name, made when the test asks for it by filling it."""
    admin = empty_database.server.url()
    name = f"{empty_database.name}_copy"
    yield name
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@on_18
def test_copy_is_another_target(desk: InProcessCli, empty_database: Database, copy: str) -> None:
    """Same server, ledger and lease, another name: said loudly, never resumed. F: C14"""
    written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, approval: {{need: 1}}}}")
    assert desk.runbook("exec", "change.yaml").code == 5
    empty_database.close()  # a database that somebody uses is not copied
    with psycopg.connect(empty_database.server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {copy} TEMPLATE {empty_database.name}")
    there = empty_database.server.url(copy)
    for words in (["resume", "latest"], ["rollback", "latest"]):
        refused = desk.runbook(*words, "--target", there)
        assert refused.code == 6 and "a copy or a failover" in refused.err, refused.text
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "looked").code == 0
    assert desk.runbook("resume", "latest").code == 0


@on_18
@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
def test_lost_answer_to_commit(desk: InProcessCli, empty_database: Database, fast_path: Path, acted: bool) -> None:
    """The connection is cut at COMMIT, before or after the server acts: the change is there once in both cases. F: C01"""
    written(desk, BUMP)
    proxy = Proxy(fast_path, empty_database.server.socket, mark=b"WHERE id = 1\0", acted=acted)
    target = empty_database.url.replace(
        quote(str(empty_database.server.socket), safe="/"), quote(str(fast_path), safe="/")
    )
    found = InProcessCli(desk.directory, target).runbook("exec", "change.yaml")
    proxy.close()
    assert found.code == 0, found.text
    assert proxy.cuts == 1
    assert rows(empty_database) == [(1, 1), (2, 0)]
    assert len(desk.events("retried")) == (0 if acted else 1)
    assert empty_database.value("SELECT count(*) FROM runbook.step_commit WHERE step = 'bump'") == 1


def test_servers_language_does_not_matter(databases: Databases, tmp_path: Path) -> None:
    """What may be tried again is told by SQLSTATE, never by text. F: C16"""
    try:
        kind = databases.kind("pg15")
    except LookupError as missing:
        pytest.skip(str(missing))
    with kind.database() as database:
        desk = prepared(database, tmp_path)
        try:
            database.script(f"ALTER DATABASE {database.name} SET lc_messages = 'de_DE.UTF-8'")
        except psycopg.errors.InvalidParameterValue:
            pytest.skip("this machine has no German locale")
        written(
            desk, "- {id: rename, type: rename_column, column: t.n, to: m}", "lock: {wait: 100 ms, retry_for: 60 s}\n"
        )
        with session(database, "SELECT * FROM t") as reader:

            def release() -> None:
                desk.reached("lock_waited")
                reader.rollback()

            with meanwhile(release):
                assert desk.runbook("exec", "change.yaml").code == 0
