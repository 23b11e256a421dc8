"""The probe transactions: long ones of others, prepared ones, and those that this role can't see."""

from __future__ import annotations

import contextlib
import time

import psycopg
import pytest
from databases import Database
from looking import look_at, probe, role
from plain_look import PlainDatabase

from steps.contract import RunPosition, Unknown

ONE = probe("transactions", older_than="200 ms")


@contextlib.contextmanager
def open_transaction(database: Database, *, name: str = "pg_dump"):
    with psycopg.connect(database.url, application_name=name) as connection:
        connection.execute("SELECT 1")
        time.sleep(0.3)
        yield
        connection.rollback()


def test_none_is_open(empty_database: Database):
    seen = look_at(empty_database, ONE)
    assert (seen.count, seen.blockers) == (0, ())
    assert not ONE.decides()


def test_long_transaction_is_named(empty_pg: Database):
    with open_transaction(empty_pg):
        seen = look_at(empty_pg, ONE)
        young = look_at(empty_pg, probe("transactions", older_than="1 h"))
    assert seen.count == 1
    assert seen.oldest_s > 0.2
    assert "pg_dump, idle in transaction" in seen.blockers[0]
    assert (young.count, young.blockers) == (0, ())
    assert young.oldest_s > 0.2


def test_our_own_run_does_not_count(empty_pg: Database):
    """F: K03 - our connections say whose they are."""
    place = RunPosition(run="r1", step="fill", action="apply")
    with open_transaction(empty_pg, name="runbook:r1:fill"), PlainDatabase(empty_pg, place=place).look() as look:
        assert ONE.observe(look).count == 0
    with open_transaction(empty_pg, name="runbook:r2:fill"), PlainDatabase(empty_pg, place=place).look() as look:
        assert ONE.observe(look).count == 1


def test_hidden_sessions_are_unknown(empty_pg: Database):
    """Without pg_read_all_stats the age of another role's transaction is NULL: that must not pass as none."""
    with role(empty_pg) as user, open_transaction(empty_pg):
        with pytest.raises(Unknown, match=r"GRANT pg_read_all_stats"):
            look_at(empty_pg, ONE, user=user)
        empty_pg.script(f"GRANT pg_monitor TO {user}")
        assert look_at(empty_pg, ONE, user=user).count == 1
        empty_pg.script(f"REVOKE pg_monitor FROM {user}")


def test_nothing_hidden_needs_no_grant(empty_pg: Database):
    with role(empty_pg) as user:
        assert look_at(empty_pg, ONE, user=user).count == 0


HORIZON = probe("horizon")


def holders(database: Database, *, user: str | None = None) -> list[str]:
    return list(look_at(database, HORIZON, user=user).holders)


def use_transactions(database: Database, count: int) -> None:
    with contextlib.closing(database.connect()) as connection:
        for _ in range(count):
            connection.execute("SELECT pg_current_xact_id()")


def test_horizon_when_nobody_holds_it(empty_pg: Database):
    seen = look_at(empty_pg, HORIZON)
    assert (seen.xmin_age, seen.catalog_xmin_age, seen.holders) == (0, 0, ())
    assert 0 < seen.frozen_age < 200_000_000
    assert 0 <= seen.multixact_age < 400_000_000
    assert seen.wraparound_pct == round(100 * seen.frozen_age / 200_000_000, 2)
    assert HORIZON.only == "postgresql"


def test_horizon_names_who_holds_it(empty_pg: Database):
    with psycopg.connect(empty_pg.url, application_name="pg_dump") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM pg_class")
        use_transactions(empty_pg, 5)
        seen = look_at(empty_pg, HORIZON)
        assert seen.xmin_age >= 5
        assert "owner, pg_dump, idle in transaction: " in seen.holders[0]
        assert seen.holders[0].endswith(f": {seen.xmin_age} transactions")


def test_slot_without_feedback_holds_no_rows(empty_pg: Database):
    slot = f"standby_{empty_pg.name}"
    empty_pg.script(f"SELECT pg_create_physical_replication_slot('{slot}', true)")
    try:
        assert holders(empty_pg) == []  # it keeps WAL alone
    finally:
        empty_pg.script(f"SELECT pg_drop_replication_slot('{slot}')")


def test_hidden_horizon_is_unknown(empty_pg: Database):
    with role(empty_pg) as user:
        assert holders(empty_pg, user=user) == []
        with open_transaction(empty_pg), pytest.raises(Unknown, match=r"GRANT pg_read_all_stats"):
            holders(empty_pg, user=user)
        empty_pg.script(f"GRANT pg_read_all_stats TO {user}")
        with open_transaction(empty_pg):
            assert look_at(empty_pg, HORIZON, user=user).xmin_age >= 0
        empty_pg.script(f"REVOKE pg_read_all_stats FROM {user}")
