"""The probes waiters and connections."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
import pytest
from databases import Database
from inside import until
from looking import look_at, probe, role
from plain_look import PlainDatabase
from pydantic import BaseModel

from steps.contract import RunPosition, Unknown

WAITERS = probe("waiters")
RUN = RunPosition(run="r1", step="fill", action="apply")


@contextlib.contextmanager
def session(database: Database, name: str, *statements: str, user: str | None = None) -> Iterator[psycopg.Connection]:
    """A transaction that stays open, with what its statements have locked."""
    options = {"user": user} if user else {}
    with psycopg.connect(database.url, application_name=name, **options) as connection:
        for sql in statements:
            connection.execute(sql)
        yield connection
        with contextlib.suppress(psycopg.OperationalError):  # the server may have ended it
            connection.rollback()


@contextlib.contextmanager
def waiting(database: Database, name: str, sql: str, *before: str) -> Iterator[None]:
    """A session that waits in `sql` until the server ends it; within, the server lists it as waiting."""
    with session(database, name, *before) as connection:

        def wait() -> None:
            with contextlib.suppress(psycopg.Error):
                connection.execute(sql)

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            there = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {connection.info.backend_pid}"
            until(lambda: database.value(there))
            yield
        finally:
            database.value(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
            thread.join(300)
            connection.close()


def in_run(database: Database, place: RunPosition | None = RUN) -> BaseModel:
    with PlainDatabase(database, place=place).look() as look:
        return WAITERS.observe(look)


@pytest.fixture
def rows(empty_pg: Database) -> Database:
    empty_pg.script(
        "CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t SELECT n, 0 FROM generate_series(1, 9) n"
    )
    return empty_pg


def update(number: int) -> str:
    return f"UPDATE t SET x = x + 1 WHERE id = {number}"


def test_nobody_waits(empty_pg: Database):
    assert in_run(empty_pg) == WAITERS.Result(count=0, longest_s=0.0, who=())
    assert in_run(empty_pg, place=None).count == 0
    assert WAITERS.only == "postgresql"


def test_waiters_behind_this_run(rows: Database):
    with session(rows, "runbook:r1:fill", update(1)), waiting(rows, "web", update(1)):
        seen = in_run(rows)
        assert seen.count == 1
        assert all(
            words in seen.who[0]
            for words in (", web, active for ", ", UPDATE, ", "holds t (RowExclusiveLock", "; waits ")
        )
        assert "SET x" not in seen.who[0], "its statement is not ours to keep"
        assert until(lambda: in_run(rows).longest_s) >= 0.1
        assert in_run(rows, RunPosition(run="r", step="fill", action="apply")).count == 0  # another run of a like name
        assert in_run(rows, place=None).count == 1


def test_waiters_behind_waiters_count(rows: Database):
    """B has locked row 2 and waits for ours; C waits for B, and so for us."""
    with (
        session(rows, "runbook:r1:fill", update(1)),
        waiting(rows, "b", update(1), update(2)),
        waiting(rows, "c", update(2)),
        session(rows, "stranger", update(3)),
        waiting(rows, "d", update(3)),
    ):
        seen = in_run(rows)
        assert sorted(one.split(", ")[2] for one in seen.who) == ["b", "c"]
        assert in_run(rows, place=None).count == 3


def test_this_run_s_own_waits_do_not_count(rows: Database):
    with session(rows, "web", update(1)), waiting(rows, "runbook:r1:fill", update(1), update(2)):
        assert in_run(rows).count == 0
        with waiting(rows, "web2", update(2)):
            assert [one.split(", ")[2] for one in in_run(rows).who] == ["web2"]


def test_waiters_need_no_grant(rows: Database):
    with (
        role(rows) as user,
        session(rows, "runbook:r1:fill", update(1)),
        waiting(rows, "web", update(1)),
        PlainDatabase(rows, place=RUN, user=user).look() as look,
    ):
        seen = WAITERS.observe(look)
        assert seen.count == 1
        assert "state hidden" in seen.who[0]


def test_connections_are_counted(empty_pg: Database):
    with session(empty_pg, "web", "SELECT 1"):
        seen = look_at(empty_pg, probe("connections"))
    assert seen.max_connections == 60
    assert seen.reserved == 3
    assert seen.bound_by == "server"
    assert seen.free == 60 - 3 - seen.used
    assert seen.free_pct == round(100 * seen.free / 57, 2)
    assert seen.used >= 2 and seen.active >= 1 and seen.idle_in_transaction == 1


def test_connections_of_a_role_and_a_database_with_limits(empty_pg: Database):
    grant = "GRANT pg_read_all_stats TO {}"
    with role(empty_pg, grant, "ALTER ROLE {} CONNECTION LIMIT 4") as user:
        seen = look_at(empty_pg, probe("connections"), user=user)
        assert (seen.bound_by, seen.free, seen.free_pct) == ("role", 3, 75.0)
        empty_pg.script(f"ALTER DATABASE {empty_pg.name} CONNECTION LIMIT 2")
        seen = look_at(empty_pg, probe("connections"), user=user)
        assert (seen.bound_by, seen.free, seen.free_pct) == ("database", 1, 50.0)
        assert look_at(empty_pg, probe("connections")).bound_by == "server"  # a superuser has no such limit
        empty_pg.script(f"REVOKE pg_read_all_stats FROM {user}")


def test_hidden_connections_are_unknown(empty_pg: Database):
    with role(empty_pg) as user:
        assert look_at(empty_pg, probe("connections"), user=user).used == 1
        with session(empty_pg, "web", "SELECT 1"), pytest.raises(Unknown, match="GRANT pg_read_all_stats"):
            look_at(empty_pg, probe("connections"), user=user)
