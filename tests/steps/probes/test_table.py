"""The probe table: size, dead rows, HOT updates, partitions, and autovacuum at work."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import until
from looking import await_seen, look_at, probe, role
from plain_look import PlainDatabase

from runner.sandbox.server import Server
from steps.contract import RunPosition, StepError

ONE = probe("table", table="t")


def use_transactions(database: Database, count: int) -> None:
    loop = f"FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP"
    database.script(f"DO $$ BEGIN {loop}; END $$")


def visits(database: Database) -> int:
    return database.value("SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 't'")


@pytest.fixture
def filled(empty_pg: Database) -> Database:
    empty_pg.script("CREATE TABLE t (id int PRIMARY KEY, x text) WITH (fillfactor = 50)")
    empty_pg.script("INSERT INTO t SELECT n, 'old' FROM generate_series(1, 1000) n")
    return empty_pg


def test_table_filled_and_never_analyzed(filled: Database):
    """What was inserted while the counters counted is known without ANALYZE; no grant is needed."""
    with role(filled) as user:
        seen = await_seen(filled, ONE, lambda one: one.live_rows == 1000)
        assert look_at(filled, ONE, user=user) == seen
    assert (seen.dead_rows, seen.dead_pct, seen.updates, seen.hot_pct) == (0, 0.0, 0, None)
    assert (seen.last_vacuum_s, seen.last_autovacuum_s, seen.last_analyze_s) == (None, None, None)
    assert (seen.autovacuum_running, seen.autovacuum_wraparound) == (False, False)
    assert seen.bytes > seen.heap_bytes > 0
    assert seen.toast_bytes > 0  # its index has a page from the beginning
    assert seen.bytes == filled.value("SELECT pg_total_relation_size('t')")
    assert 0 < seen.xid_age < 100
    assert ONE.only == "postgresql"


def test_updates_leave_dead_rows_until_vacuum(filled: Database):
    """F: H03. An indexed column's updates are not HOT, and the table grows."""
    filled.script("UPDATE t SET x = 'new' WHERE id <= 200")
    seen = await_seen(filled, ONE, lambda one: one.updates == 200)
    assert (seen.hot_updates, seen.hot_pct, seen.dead_rows) == (200, 100.0, 200)
    assert seen.dead_pct == round(100 * 200 / 1200, 2)
    filled.script("CREATE INDEX ON t (x); UPDATE t SET x = 'newest' WHERE id <= 600")
    seen = await_seen(filled, ONE, lambda one: one.updates == 800)
    assert (seen.hot_updates, seen.hot_pct) == (200, 25.0)
    filled.script("VACUUM t")
    filled.script("ANALYZE t")
    seen = await_seen(filled, ONE, lambda one: one.last_vacuum_s is not None and one.last_analyze_s is not None)
    assert (seen.dead_rows, seen.dead_pct, seen.live_rows) == (0, 0.0, 1000)
    assert 0 <= seen.last_vacuum_s < 60 and 0 <= seen.last_analyze_s < 60
    assert seen.last_autovacuum_s is None


def test_lost_counters_are_not_zero_dead_rows(filled: Database):
    """After a crash or an upgrade the counters begin anew: what they say of the rows before is nothing."""
    filled.script("UPDATE t SET x = 'new'")
    await_seen(filled, ONE, lambda one: one.dead_rows == 1000)
    filled.script("SELECT pg_stat_reset()")
    seen = await_seen(filled, ONE, lambda one: one.updates == 0)
    assert (seen.live_rows, seen.dead_rows, seen.dead_pct) == (None, None, None)
    filled.script("INSERT INTO t VALUES (1001, 'more')")  # one row doesn't make the others known
    filled.close()  # its counters are told before ANALYZE counts anew
    assert look_at(filled, ONE).live_rows is None
    filled.script("ANALYZE t")
    seen = await_seen(filled, ONE, lambda one: one.last_analyze_s is not None)
    assert (seen.live_rows, seen.dead_rows) == (1001, 1000)


def test_partitions_are_one_table(empty_pg: Database):
    empty_pg.script("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    with pytest.raises(StepError, match="without partitions"):
        look_at(empty_pg, ONE)
    empty_pg.script("CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (500)")
    empty_pg.script("CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (500) TO (2000) PARTITION BY RANGE (id)")
    empty_pg.script("CREATE TABLE t2a PARTITION OF t2 FOR VALUES FROM (500) TO (2000)")
    empty_pg.script("INSERT INTO t SELECT generate_series(1, 1000)")
    seen = await_seen(empty_pg, ONE, lambda one: one.live_rows == 1000)
    assert seen.bytes == empty_pg.value("SELECT pg_total_relation_size('t1') + pg_total_relation_size('t2a')")
    empty_pg.script("ANALYZE t1")
    seen = await_seen(empty_pg, ONE, lambda one: one.live_rows == 1000)
    assert seen.last_analyze_s is None  # the other was never analyzed
    empty_pg.script("ANALYZE t2a")
    assert await_seen(empty_pg, ONE, lambda one: one.last_analyze_s is not None).live_rows == 1000


def test_empty_table_is_known(empty_pg: Database):
    empty_pg.script("CREATE TABLE t (x int)")
    seen = look_at(empty_pg, ONE)
    assert (seen.live_rows, seen.dead_rows, seen.dead_pct, seen.heap_bytes, seen.toast_bytes) == (0, 0, 0.0, 0, 0)


def test_what_is_no_table_is_refused(empty_pg: Database):
    with pytest.raises(StepError, match="there is no 't' in schema 'public'"):
        look_at(empty_pg, ONE)
    empty_pg.script("CREATE VIEW t AS SELECT 1 AS x")
    with pytest.raises(StepError, match="it has no rows of its own"):
        look_at(empty_pg, ONE)
    empty_pg.script("CREATE SCHEMA other; CREATE TABLE other.t (x int)")
    assert look_at(empty_pg, probe("table", table="other.t")).live_rows == 0


def test_probes_read_no_user_table(filled: Database):
    """F: D07. What is asked every few seconds must not be the load: no row of the table is visited for it."""
    await_seen(filled, ONE, lambda one: one.live_rows == 1000)
    built = visits(filled)
    place = RunPosition(run="r1", step="fill", action="apply")
    for kind in ("archiver", "checkpoints", "connections", "horizon", "replication", "table", "waiters"):
        keys = {"table": "t"} if kind == "table" else {}
        with PlainDatabase(filled, place=place).look() as look:
            probe(kind, **keys).observe(look)
    filled.script("SELECT count(*) FROM t")
    until(lambda: visits(filled) > built)
    assert visits(filled) == built + 1  # our own count


def test_autovacuum_that_does_not_yield(fast_path: Path):
    """F: A11. A vacuum against wraparound is told apart from one that would yield to our lock."""
    settings = {"fsync": "off", "autovacuum_naptime": "1s", "autovacuum_vacuum_cost_limit": "1"}
    server = Server(fast_path, major=18, settings=settings)
    server.start()
    try:
        database = Database("postgres", "postgresql", server.url(), 18, server)
        slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
        database.script(
            f"CREATE TABLE t (x int) WITH (autovacuum_enabled = off, autovacuum_freeze_max_age = 100000, {slow})"
        )
        database.script("INSERT INTO t SELECT generate_series(1, 100000)")
        assert not look_at(database, ONE).autovacuum_running
        use_transactions(database, 100_100)
        seen = await_seen(database, ONE, lambda one: one.autovacuum_running)
        assert seen.xid_age > 100_000
        assert seen.autovacuum_wraparound is True
        with role(database) as user:
            hidden = look_at(database, ONE, user=user)
            assert hidden.autovacuum_running
            assert hidden.autovacuum_wraparound is None
    finally:
        server.discard()
