"""Several transactions in one message: each is whole, the first fault ends the rest, and a lost connection leaves nobody at work."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Database

from runner.common.errors import LeaseLost
from runner.target import resolve
from runner.target.database import Fence, RunDatabase
from steps.contract import Change, DatabaseFault
from steps.ledger import leases, tables

on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
INSERT = "INSERT INTO t (n) VALUES (:n) RETURNING n"
SLEEPY = "WITH slept AS MATERIALIZED (SELECT pg_sleep(0.15)) INSERT INTO t (n) SELECT CAST(:n AS integer) FROM slept RETURNING n"


@pytest.fixture
def target(empty_database: Database) -> Iterator[RunDatabase]:
    """A run that has the lease, and a table."""
    empty_database.script("CREATE TABLE t (n integer PRIMARY KEY CHECK (n < 100))")
    found = resolve.resolve(empty_database.url, environ={}, cwd=Path())
    database = RunDatabase(resolve.connect_arguments(found, {}))
    database.session.run, database.session.step = "run", "step"
    with database.own(fenced=False) as work:
        tables.create(work)
        epoch = leases.take_lease(work, scope="all", run="run", holder="{}", epoch=0)
    database.session.fence = Fence("all", epoch)
    yield database
    database.close()


def changes(*numbers: int, sql: str = INSERT) -> list[Change]:
    return [Change(f"batch {n}", sql, {"n": n}) for n in numbers]


def rows(database: Database) -> list[int]:
    return [n for (n,) in database.rows("SELECT n FROM t ORDER BY n")]


def labels(database: Database) -> list[str]:
    act = "runbook_step_commit" if database.dialect == "sqlite" else "runbook.step_commit"
    return [label for (label,) in database.rows(f"SELECT label FROM {act} ORDER BY seq")]


def test_each_is_committed_with_its_label(empty_database: Database, target: RunDatabase) -> None:
    found = target.commit_all(changes(3, 1, 2))
    assert [row.integer("n") for row in found] == [3, 1, 2]
    assert rows(empty_database) == [1, 2, 3]
    assert labels(empty_database) == ["batch 3", "batch 1", "batch 2"]


@on_postgresql
def test_each_is_a_transaction_of_its_own(empty_database: Database, target: RunDatabase) -> None:
    """And all came in one message: that is when the server says that they began."""
    empty_database.script("ALTER TABLE t ADD COLUMN message timestamptz DEFAULT now()")
    target.commit_all(changes(1, 2, 3, 4))
    counted = "SELECT count(DISTINCT xmin::text), count(DISTINCT message) FROM t"
    assert empty_database.rows(counted) == [(4, 1)]


@on_postgresql
def test_settings_hold_for_each_of_them(target: RunDatabase) -> None:
    asked = """SELECT current_setting('synchronous_commit') AS waits, current_setting('enable_hashjoin') AS hash,
               current_setting('application_name') AS name, current_setting('lock_timeout') AS patience"""
    three = [Change(f"look {n}", asked, {}) for n in range(3)]
    found = target.commit_all(three, durable=True, off=["hashjoin"])
    assert [row.text("waits") for row in found] == ["off", "off", "on"]
    assert {(row.text("hash"), row.text("name"), row.text("patience")) for row in found} == {
        ("off", "runbook:run:step", "500ms")
    }


@on_postgresql
def test_same_statement_is_planned_once(target: RunDatabase) -> None:
    """And neither what an earlier message prepared nor another statement in between is taken for it."""
    plans = "SELECT CAST(:n AS integer) AS n, generic_plans AS same, custom_plans AS own FROM pg_prepared_statements"
    other = Change("other", "SELECT CAST(:n AS text) || '%' AS n, 0 AS same, 0 AS own", {"n": "7"})
    for first in (1, 11):
        several = [Change(f"plan {n}", plans, {"n": n}) for n in range(first, first + 4)]
        found = target.commit_all([*several[:3], other._replace(label=f"other {first}"), several[3]])
        assert [row["n"] for row in found] == [first, first + 1, first + 2, "7%", first + 3]
        assert [row["same"] for row in found] == [1, 2, 3, 0, 1]
        assert {row["own"] for row in found} == {0}


def test_first_fault_ends_the_rest(empty_database: Database, target: RunDatabase) -> None:
    with pytest.raises(DatabaseFault) as found:
        target.commit_all(changes(1, 2, 500, 3))
    assert found.value.sqlstate.startswith("23")
    assert rows(empty_database) == [1, 2]
    assert labels(empty_database) == ["batch 1", "batch 2"]
    target.commit_all(changes(4))
    assert rows(empty_database) == [1, 2, 4]


@on_postgresql
def test_label_that_is_known_is_not_done_again(empty_database: Database, target: RunDatabase) -> None:
    """F: C01"""
    target.commit_all(changes(1))
    with pytest.raises(DatabaseFault):
        target.commit_all([Change("batch 1", INSERT, {"n": 7}), *changes(8)])
    assert rows(empty_database) == [1]


@on_postgresql
def test_lease_that_fell_keeps_out_all_of_them(empty_database: Database, target: RunDatabase) -> None:
    """F: C08"""
    empty_database.script("UPDATE runbook.lease SET epoch = epoch + 1")
    with pytest.raises(DatabaseFault):
        target.commit_all(changes(1, 2))
    assert rows(empty_database) == []
    with pytest.raises(LeaseLost), target.commit("alone"):
        pass


@on_18
def test_take_over_in_the_middle_keeps_out_the_rest(empty_database: Database, target: RunDatabase) -> None:
    """It waits for the transaction in flight, and the next one of the same message finds the fence fallen. F: C08"""
    with empty_database.connect() as other:
        threading.Timer(0.2, other.execute, ["UPDATE runbook.lease SET epoch = epoch + 1"]).start()
        with pytest.raises(DatabaseFault):
            target.commit_all(changes(*range(1, 9), sql=SLEEPY))
    done = rows(empty_database)
    assert 1 <= len(done) < 8
    assert labels(empty_database) == [f"batch {n}" for n in done]


@on_postgresql
def test_lost_connection_leaves_nobody_at_work(empty_database: Database, target: RunDatabase) -> None:
    """What it was sent the server could go on with: it is ended before anybody decides anything. F: C01"""
    with target.commit("first"):
        pass
    raw = target._thread_writer().connection.driver_connection
    with contextlib.closing(socket.socket(fileno=os.dup(raw.pgconn.socket))) as network:
        # no packet says so to the server
        threading.Timer(0.4, network.shutdown, [socket.SHUT_RD]).start()
        with pytest.raises(DatabaseFault) as found:
            target.commit_all(changes(*range(1, 21), sql=SLEEPY))
    assert found.value.lost
    done = rows(empty_database)
    assert 1 <= len(done) < 20
    assert labels(empty_database) == ["first", *(f"batch {n}" for n in done)]
    time.sleep(0.5)
    assert rows(empty_database) == done
    target.commit_all(changes(50))
    assert rows(empty_database) == [*done, 50]
