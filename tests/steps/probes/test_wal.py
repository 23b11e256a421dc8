"""The probes archiver and checkpoints, and wal on SQLite."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from databases import Database
from looking import await_seen, look_at, probe, role

from runner.sandbox.binaries import find_binaries
from runner.sandbox.server import Server

SEGMENT = 16 << 20


def test_archiver_off_does_not_fail(empty_pg: Database):
    with role(empty_pg) as user:
        seen = look_at(empty_pg, probe("archiver"), user=user)
    assert (seen.archives, seen.failing, seen.failed_count) == (False, False, 0)
    assert (seen.age_s, seen.behind_bytes, seen.last_failed_wal) == (None, None, "")


@pytest.mark.parametrize("major", [15, 18])
def test_archiver_that_fails_and_recovers(fast_path: Path, major: int):
    if not find_binaries(major):
        pytest.skip(f"PostgreSQL {major} is not on this machine")
    settings = {"fsync": "off", "archive_mode": "on", "archive_command": "test -e archive_works"}
    server = Server(fast_path, major=major, settings=settings)
    server.start()
    try:
        database = Database("postgres", "postgresql", server.url(), major, server)
        assert not look_at(database, probe("archiver")).failing
        database.script("CREATE TABLE t (x int); SELECT pg_switch_wal()")
        seen = await_seen(database, probe("archiver"), lambda one: one.failing)
        assert seen.failing and seen.archives
        assert seen.failed_count >= 1
        assert len(seen.last_failed_wal) == 24
        assert (seen.age_s, seen.behind_bytes) == (None, None)
        (server.data / "archive_works").touch()
        seen = await_seen(database, probe("archiver"), lambda one: not one.failing)
        assert not seen.failing
        assert seen.age_s < 30
        assert seen.behind_bytes < SEGMENT
    finally:
        server.discard()


def test_archiver_tells_how_far_behind_it_is(fast_path: Path):
    """The command hangs: it has not failed, and WAL heaps up."""
    server = Server(
        fast_path, major=18, settings={"fsync": "off", "archive_mode": "on", "archive_command": "/bin/true"}
    )
    server.start()
    try:
        database = Database("postgres", "postgresql", server.url(), 18, server)
        database.script("CREATE TABLE t (x int); SELECT pg_switch_wal()")
        assert await_seen(database, probe("archiver"), lambda one: one.age_s is not None).behind_bytes < SEGMENT
        server.stop()
        server.settings["archive_command"] = "sleep 1000"
        server.start()
        database.script("INSERT INTO t VALUES (1); SELECT pg_switch_wal()")
        database.script("INSERT INTO t VALUES (1); SELECT pg_switch_wal()")
        database.script("INSERT INTO t VALUES (1)")
        seen = look_at(database, probe("archiver"))
        assert not seen.failing
        assert 2 * SEGMENT <= seen.behind_bytes < 4 * SEGMENT
    finally:
        server.kill()
        server.discard()


def test_checkpoints_count(empty_pg: Database):
    with role(empty_pg) as user:
        before = look_at(empty_pg, probe("checkpoints"), user=user)
        empty_pg.script("CREATE TABLE t AS SELECT generate_series(1, 1000) AS x")
        empty_pg.script("CHECKPOINT")
        after = await_seen(empty_pg, probe("checkpoints"), lambda one: one.requested > before.requested)
    assert after.requested > before.requested
    assert after.written_bytes > before.written_bytes
    assert after.since_s < 60
    assert 0 <= after.wal_bytes < after.max_wal_bytes == 1 << 30
    assert after.timed >= 0 and after.write_s >= 0 and after.sync_s >= 0 and after.session_bytes >= 0
    empty_pg.script("CREATE TABLE u AS SELECT generate_series(1, 100000) AS x")
    assert look_at(empty_pg, probe("checkpoints")).wal_bytes > 1_000_000


def test_sqlite_wal_grows_behind_an_open_reader(databases):
    """F: J02. The reader's snapshot keeps every checkpoint from starting the log anew."""
    with databases.kind("sqlite").database() as database:
        one = probe("wal")
        assert one.only == "sqlite"
        assert look_at(database, one).bytes == 0
        database.script("PRAGMA journal_mode=WAL; CREATE TABLE t (x text); INSERT INTO t VALUES ('')")
        write = "UPDATE t SET x = hex(randomblob(100000))"
        with contextlib.closing(database.connect()) as reader, contextlib.closing(database.connect()) as writer:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM t").fetchall()
            sizes = []
            for _ in range(4):
                for _ in range(25):
                    writer.execute(write)
                sizes.append(look_at(database, one).bytes)
            reader.execute("COMMIT")
            assert sizes == sorted(set(sizes))
            assert sizes[-1] > 15_000_000
            assert look_at(database, one).database_bytes == Path(database.name).stat().st_size
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            assert look_at(database, one).bytes == 0
            assert writer.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_wal_is_not_there_on_a_rollback_journal(databases):
    with databases.kind("sqlite").database("enriched") as database:
        assert look_at(database, probe("wal")).bytes == 0


@pytest.mark.parametrize("kind", ["archiver", "checkpoints"])
def test_what_a_server_alone_has(kind: str):
    assert probe(kind).only == "postgresql"
    assert not probe(kind).decides()


def test_writes_grow_with_what_is_written(empty_pg: Database):
    before = look_at(empty_pg, probe("writes"))
    empty_pg.script("CREATE TABLE t AS SELECT generate_series(1, 20000) AS x")
    seen = await_seen(empty_pg, probe("writes"), lambda one: one.wal_bytes - before.wal_bytes > 100_000)
    assert seen.data_bytes >= before.data_bytes and seen.temp_bytes >= 0
    with role(empty_pg) as user:
        assert look_at(empty_pg, probe("writes"), user=user).wal_bytes >= seen.wal_bytes
