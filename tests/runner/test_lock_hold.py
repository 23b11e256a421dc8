"""A transaction keeps its locks no longer than the playbook says; and who may be ended where he stands in the way."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from command import RUNBOOK
from databases import Database, Databases, kind_or_skip
from inside import InProcessCli, until

HOLD = """runbook: 1
name: kept
title: A change that holds its lock for a while
lock: {lock}
retry: {{attempts: 1}}
steps:
  - {{id: kept, type: sql, transaction: one, whole_table: true, revert: SELECT 1,
     statements: ["LOCK TABLE t", "{between}", "UPDATE t SET n = n + 1"]}}
success_criteria:
  - {{id: bumped, check: query, query: SELECT sum(n) AS n FROM t, that: n == 1}}
"""
SLOW_ONCE = "SELECT CASE WHEN nextval('tries') < 3 THEN pg_sleep(5) END"


@pytest.fixture(params=["pg15", "pg18"])
def database(databases: Databases, request: pytest.FixtureRequest) -> Iterator[Database]:
    with kind_or_skip(databases, request.param).database() as made:
        made.script(
            "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t VALUES (1); CREATE SEQUENCE tries"
        )
        yield made


def test_lock_that_is_kept_too_long_is_let_go_and_tried_again(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    desk.playbook("kept", HOLD.format(lock="{wait: 100 ms, hold: 300 ms, retry_for: 30 s}", between=SLOW_ONCE))
    done = desk.runbook("exec", "kept.yaml")
    assert done.code == 0, done.text
    assert [one.sqlstate for one in desk.events("lock_waited")] == ["25P04", "25P04"]
    assert database.value("SELECT n FROM t") == 1


def test_lock_that_is_always_kept_too_long_fails_the_step(database: Database, tmp_path: Path) -> None:
    """As a step that failed, and not as a database that is gone."""
    desk = InProcessCli(tmp_path, database.url)
    desk.playbook(
        "kept", HOLD.format(lock="{wait: 100 ms, hold: 200 ms, retry_for: 300 ms}", between="SELECT pg_sleep(5)")
    )
    failed = desk.runbook("exec", "kept.yaml")
    assert failed.code == 1, failed.text
    assert "lock: hold" in failed.text
    assert database.value("SELECT n FROM t") == 0


FILL = """runbook: 1
name: fill
title: A fill of rows each of which takes 4 ms
lock: {wait: 100 ms, hold: 400 ms, retry_for: 5 s}
queries: {source: "SELECT id AS of_id, 7 AS n FROM rows_of"}
steps:
  - {id: fill, type: backfill, table: rows_of, source: source, match: source.of_id = target.id, fill: [n],
     triggers: acknowledged}
rollback: reverse
success_criteria:
  - {id: all, check: query, query: SELECT count(*) AS n FROM rows_of WHERE n = 7, that: n == 600}
"""
SLOW = """CREATE TABLE rows_of (id int PRIMARY KEY, n int); INSERT INTO rows_of SELECT i FROM generate_series(1, 600) AS i;
CREATE TABLE longest (s float);
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON rows_of FOR EACH ROW EXECUTE FUNCTION slow();
CREATE FUNCTION timed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
INSERT INTO longest VALUES (extract(epoch FROM clock_timestamp() - transaction_timestamp())); RETURN NULL; END $$;
CREATE TRIGGER timed AFTER UPDATE ON rows_of FOR EACH STATEMENT EXECUTE FUNCTION timed()"""


def test_batches_keep_their_locks_no_longer(database: Database, tmp_path: Path) -> None:
    """One that would is rolled back and made smaller, on the way forward and on the way back."""
    desk = InProcessCli(tmp_path, database.url)
    database.script(SLOW)
    desk.playbook("fill", FILL)
    done = desk.runbook("exec", "fill.yaml")
    assert done.code == 0, done.text
    assert float(database.value("SELECT max(s) FROM longest")) < 0.6, "hold and wait, and the way of a cancel"
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
    assert database.value("SELECT count(n) FROM rows_of") == 0
    assert float(database.value("SELECT max(s) FROM longest")) < 0.6


def blocked(database: Database, application: str) -> psycopg.Connection:
    connection = psycopg.connect(database.url, application_name=application)
    connection.execute("UPDATE t SET id = id")
    return connection


LOCKS = "{{wait: 200 ms, retry_for: 60 s{more}}}"


def test_named_blocker_is_ended_and_recorded(database: Database, tmp_path: Path) -> None:
    """Only the one that is named; another in the way stays, and is waited for."""
    desk = InProcessCli(tmp_path, database.url)
    lock = LOCKS.format(more=", blockers: {end: [report-cron]}")
    desk.playbook("kept", HOLD.format(lock=lock, between="SELECT 1"))
    with blocked(database, "report-cron") as cron:
        assert desk.runbook("exec", "kept.yaml").code == 0
        (told,) = desk.events("blocker_ended")
        assert (told.pid, told.user, told.application, told.refused) == (
            cron.info.backend_pid,
            "owner",
            "report-cron",
            "",
        )
        assert "UPDATE" not in told.model_dump_json()
        with pytest.raises(psycopg.OperationalError):
            cron.execute("SELECT 1")


def test_blocker_without_consent_stays(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    lock = "{wait: 100 ms, retry_for: 300 ms, blockers: {end: [report-cron]}}"
    desk.playbook("kept", HOLD.format(lock=lock, between="SELECT 1"))
    with blocked(database, "shop") as shop:
        assert desk.runbook("exec", "kept.yaml").code == 1
        assert shop.execute("SELECT 1").fetchone() == (1,)
        shop.rollback()
    assert desk.events("blocker_ended") == []


def test_runs_can_not_be_named(tmp_path: Path, database: Database) -> None:
    desk = InProcessCli(tmp_path, database.url)
    lock = "{blockers: {end: ['runbook:x:y']}}"
    desk.playbook("kept", HOLD.format(lock=lock, between="SELECT 1"))
    assert desk.runbook("validate", "kept.yaml").code == 4


@pytest.mark.parametrize(("answer", "ended"), [("y\n", True), ("n\n", False)])
def test_operator_is_asked_at_the_terminal(databases: Databases, tmp_path: Path, answer: str, ended: bool) -> None:
    with kind_or_skip(databases, "pg18").database() as database:
        database.script("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO t VALUES (1)")
        desk = InProcessCli(tmp_path, database.url)
        lock = LOCKS.format(more="").replace("60 s", "60 s" if ended else "3 s")
        desk.playbook("kept", HOLD.format(lock=lock, between="SELECT 1"))
        ours, theirs = pty.openpty()
        with contextlib.suppress(psycopg.OperationalError), blocked(database, "shop") as shop:
            run = subprocess.Popen(
                [RUNBOOK, "exec", "kept.yaml", "--operator", "olga"], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
                env={**os.environ, "RUNBOOK_TARGET": database.url, "TERM": "dumb"},
            )  # fmt: skip
            seen = ""
            end = time.monotonic() + 120
            while run.poll() is None and time.monotonic() < end:
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 65536).decode(errors="replace")
                if "y/N" in seen:
                    os.write(ours, answer.encode())
                    seen = seen.replace("y/N", "asked")
            assert run.wait(300) == (0 if ended else 1), seen
            told = [(one.by, one.application) for one in desk.events("blocker_ended")]
            assert told == ([("olga", "shop")] if ended else [])
            if not ended:
                shop.rollback()
        os.close(ours)
        os.close(theirs)
        until(lambda: database.value("SELECT n FROM t") == int(ended))
