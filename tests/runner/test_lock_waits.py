"""How long others queue behind a run: bounded inside and outside of transactions; and how many connections it needs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from databases import Database, Databases, kind_or_skip
from inside import InProcessCli, until

from steps.sql.statements import lock_of, waits_in_the_way

FULL = """runbook: 1
name: smaller
title: Make t small again
lock: {{wait: 100 ms, retry_for: {retry_for}}}
steps:
  - {{id: full, type: sql, statements: ["{sql}"], revert: SELECT 1}}
success_criteria:
  - {{id: there, check: rows, table: t, at_least: 1}}
"""
BLOCKED = ["VACUUM FULL t", "VACUUM (FULL, ANALYZE) t", "REINDEX DATABASE {name}"]


@pytest.fixture(params=["pg15", "pg18"])
def database(databases: Databases, request: pytest.FixtureRequest) -> Iterator[Database]:
    with kind_or_skip(databases, request.param).database() as made:
        made.script("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT generate_series(1, 100)")
        yield made


@contextlib.contextmanager
def reader(database: Database) -> Iterator[psycopg.Connection]:
    """Somebody who reads t in a transaction that stays open."""
    with psycopg.connect(database.url) as connection:
        connection.execute("SELECT count(*) FROM t")
        yield connection
        connection.rollback()


@pytest.mark.parametrize("sql", BLOCKED)
def test_statement_outside_of_a_transaction_waits_no_longer_than_the_policy(
    database: Database, tmp_path: Path, sql: str
) -> None:
    """Tried again as long as the policy allows; then it failed and did nothing, and a resume sends it again."""
    desk = InProcessCli(tmp_path, database.url)
    desk.playbook("smaller", FULL.format(retry_for="300 ms", sql=sql.format(name=database.name)))
    with reader(database):
        failed = desk.runbook("exec", "smaller.yaml")
    assert failed.code == 1, failed.text
    waited = desk.events("lock_waited")
    assert waited and {one.sqlstate for one in waited} == {"55P03"}
    done = desk.runbook("resume", "latest")
    assert done.code == 0, done.text


def test_it_is_done_once_the_reader_has_gone(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    desk.playbook("smaller", FULL.format(retry_for="20 s", sql="VACUUM FULL t"))
    with reader(database) as reading:
        run = threading.Thread(target=desk.runbook, args=("exec", "smaller.yaml"))
        run.start()
        desk.reached("lock_waited")
        reading.rollback()
        run.join(300)
    assert desk.status().state == "succeeded"
    assert any("pid" in who for one in desk.events("lock_waited") for who in one.blockers)


def test_sql_by_hand_waits_no_longer_either(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    desk.playbook("smaller", FULL.format(retry_for="1 s", sql="VACUUM t"))
    assert desk.runbook("exec", "smaller.yaml").code == 0
    with reader(database):
        refused = desk.runbook("sql", "latest", "-c", "VACUUM FULL t", "--reason", "smaller", "--as", "ada")
    assert refused.code == 1, refused.text
    assert "lock timeout" in refused.text


@pytest.mark.parametrize(
    ("sql", "bounded"),
    [
        ("VACUUM t", False), ("VACUUM FULL t", True), ("VACUUM (VERBOSE, FULL) t", True), ("VACUUM (FULL false) t", False),
        ("REINDEX INDEX CONCURRENTLY i", False), ("REINDEX (CONCURRENTLY) INDEX i", False), ("REINDEX INDEX i", True),
        ("CREATE INDEX CONCURRENTLY ON t (v)", False), ("DROP INDEX CONCURRENTLY i", False), ("CLUSTER", True),
        ("ALTER TABLE p DETACH PARTITION q CONCURRENTLY", False), ("CREATE DATABASE x", True),
    ],
)  # fmt: skip
def test_what_waits_in_the_way_of_others(sql: str, bounded: bool) -> None:
    assert waits_in_the_way(lock_of(sql)) is bounded


# ─── connections ────────────────────────────────────────────────────────────────────────────────────────────────────
FILL = """runbook: 1
name: fill
title: Fill v by workers
steps:
  - id: fill
    type: backfill
    table: t
    source: SELECT id, v FROM src
    match: source.id = target.id
    fill: [v]
    workers: 3
    guards:
      - {id: size, check: size, that: bytes < 100000000000, every: 1 s}
    success_criteria:
      - {id: nothing_left, that: visited == in_range and left == 0 and dead == 0}
"""


@pytest.mark.parametrize("limit", ["role", "database"])
def test_too_few_connections_are_refused_with_their_number(database: Database, tmp_path: Path, limit: str) -> None:
    """And as many as are said to be needed are enough."""
    database.script("CREATE TABLE src AS SELECT id, id * 2 AS v FROM t; ALTER TABLE src ADD PRIMARY KEY (id)")
    database.script(
        f"DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN; GRANT ALL ON t, src TO few; GRANT CREATE ON DATABASE {database.name} TO few"
    )
    of = "ROLE few" if limit == "role" else f"DATABASE {database.name}"
    try:
        database.script(f"ALTER {of} CONNECTION LIMIT 3")
        desk = InProcessCli(tmp_path, database.url.replace("owner@", "few@"))
        desk.playbook("fill", FILL)
        refused = desk.runbook("exec", "fill.yaml")
        assert refused.code == 6, refused.text
        assert "it needs 7 connections at once" in refused.text
        assert "7 connections" in desk.runbook("plan", "fill.yaml", "-t", desk.target).text
        assert database.value("SELECT count(v) FROM t") == 0
        database.script(f"ALTER {of} CONNECTION LIMIT 7")
        done = desk.runbook("exec", "fill.yaml")
        assert done.code == 0, done.text
    finally:
        until(lambda: not database.rows("SELECT 1 FROM pg_stat_activity WHERE usename = 'few'"))
        database.script("DROP OWNED BY few CASCADE; DROP ROLE few")
