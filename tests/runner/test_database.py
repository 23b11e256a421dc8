"""The run's connections: what a look leaves behind, and what becomes of a connection that died while it waited."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Database
from inside import until

from runner.target import resolve
from runner.target.database import WAITING_READERS, RunDatabase
from steps.contract import DatabaseFault, Look

PID = "SELECT pg_backend_pid() AS pid"
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)


@pytest.fixture
def target(empty_database: Database) -> Iterator[RunDatabase]:
    found = resolve.resolve(empty_database.url, environ={}, cwd=Path())
    database = RunDatabase(resolve.connect_arguments(found, {}))
    yield database
    database.close()


def pid(look: Look) -> int:
    return look.row(PID).integer("pid")


def looked(target: RunDatabase) -> int:
    with target.look() as look:
        return pid(look)


@on_postgresql
def test_look_uses_a_connection_again(target: RunDatabase) -> None:
    first = looked(target)
    assert looked(target) == first
    with target.look() as outer, target.look() as inner:
        assert pid(outer) == first != pid(inner)


@on_postgresql
def test_each_look_has_a_snapshot_and_settings_of_its_own(empty_database: Database, target: RunDatabase) -> None:
    empty_database.script("CREATE TABLE t (n integer)")
    count = "SELECT count(*) AS n FROM t"
    with target.look() as look:
        look.rows("SELECT set_config('enable_seqscan', 'off', true)")
        assert look.row(count).integer("n") == 0
        empty_database.script("INSERT INTO t VALUES (1)")
        assert look.row(count).integer("n") == 0
    with target.look() as look:
        assert look.row(count).integer("n") == 1
        assert look.row("SELECT current_setting('enable_seqscan') AS word").text("word") == "on"
        with pytest.raises(DatabaseFault) as refused:
            look.rows("INSERT INTO t VALUES (2)")
        assert refused.value.sqlstate == "25006"


@on_postgresql
def test_waiting_connection_that_died_is_replaced(empty_database: Database, target: RunDatabase) -> None:
    """It was in no transaction, so nothing is lost with it. F: D09"""
    first = looked(target)
    empty_database.rows(f"SELECT pg_terminate_backend({first}, 5000)")
    assert looked(target) != first


@on_postgresql
def test_connection_of_a_failed_look_is_not_used_again(target: RunDatabase) -> None:
    with pytest.raises(DatabaseFault), target.look() as look:
        first = pid(look)
        look.rows("SELECT 1 / 0")
    assert looked(target) != first


@on_postgresql
def test_few_connections_wait(empty_database: Database, target: RunDatabase) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(WAITING_READERS + 3):
            stack.enter_context(target.look())
    # A backend is in the list until it has gone, a moment after its client closed the connection.
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    until(lambda: empty_database.value(others) <= WAITING_READERS)
    target.close()
    until(lambda: empty_database.value(others) == 0)
