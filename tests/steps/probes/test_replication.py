"""The probe replication: standbys that stream, stall, stop answering and stop; slots that keep WAL."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from databases import Database
from inside import until
from looking import answer, await_seen, look_at, probe, role

from runner.sandbox.binaries import find_binaries
from runner.sandbox.server import VERSION, Server
from steps.contract import Answer, Unknown

ONE = probe("replication")
SEGMENT = 16 << 20


def why_unknown(database: Database, **keys: object) -> str:
    """Why the probe can't tell, "" while it can."""
    try:
        look_at(database, probe("replication", **keys))
    except Unknown as reason:
        return str(reason)
    return ""


def written(database: Database) -> bool:
    """Something that a standby has to replay."""
    database.script("INSERT INTO t VALUES (1)")
    return True


@pytest.fixture(params=[15, 18])
def primary(request: pytest.FixtureRequest, fast_path: Path) -> Iterator[Database]:
    """A server of its own: slots and standbys belong to the whole of one."""
    if not find_binaries(request.param):
        pytest.skip(f"PostgreSQL {request.param} is not on this machine")
    settings = {"fsync": "off", "autovacuum": "off", "min_wal_size": "32MB", "max_slot_wal_keep_size": "32MB"}
    server = Server(fast_path / "primary", major=request.param, settings=settings)
    server.start()
    try:
        yield Database("postgres", "postgresql", server.url(), request.param, server)
    finally:
        server.discard()


@contextlib.contextmanager
def standby_of(primary: Database, directory: Path) -> Iterator[Database]:
    server = Server(directory, major=primary.major, settings={"fsync": "off", "hot_standby_feedback": "on"})
    directory.mkdir()
    server.account.own(directory)
    (directory / "data").mkdir(mode=0o700)
    server.account.own(directory / "data")
    (directory / VERSION).write_text(f"{primary.major}\n")
    source = f"{primary.server.conninfo()} application_name=standby_1"
    options = ["-R", "--checkpoint=fast", "--no-sync", "-S", "standby_1", "-C"]
    done = server.account.run(
        primary.server.binaries.tool("pg_basebackup"), "-D", directory / "data", "-d", source, *options
    )
    assert done.returncode == 0, done.stderr
    server.start()
    try:
        yield Database("postgres", "postgresql", server.url(), primary.major, server)
    finally:
        server.discard()


@contextlib.contextmanager
def stopped_receiver(standby: Database) -> Iterator[None]:
    """The walreceiver gets no more processor time, as on a host that hangs: the connection stays, and nobody answers."""
    processes = psutil.Process(standby.server.pid).children(recursive=True)
    [receiver] = [each.pid for each in processes if "walreceiver" in " ".join(each.cmdline())]
    os.kill(receiver, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(receiver, signal.SIGCONT)


def test_replication_without_standby(empty_pg: Database):
    seen = look_at(empty_pg, ONE)
    assert (seen.standbys, seen.lag_bytes, seen.lag_s, seen.retained_bytes) == (0, None, None, 0)
    assert (seen.synchronous, seen.synchronous_missing, seen.logical_lag_bytes) == (0, False, None)
    assert ONE.only == "postgresql"
    assert not ONE.decides()
    assert answer(empty_pg, ONE) is None


def test_standbys_that_are_wanted_and_not_there_fail(empty_pg: Database):
    wants = probe("replication", standbys=1)
    assert wants.decides()
    assert answer(empty_pg, wants) is Answer.FAIL
    none = probe("replication", standbys=0)
    assert answer(empty_pg, none) is Answer.PASS
    assert (look_at(empty_pg, none).lag_bytes, look_at(empty_pg, none).lag_s) == (0, 0.0)


def test_standby_streams_stalls_and_stops(primary: Database, fast_path: Path):
    """F: D03. A standby that is silent is unknown, one that is gone fails where it is wanted, and none of it passes."""
    wants = probe("replication", standbys=1)
    primary.script("CREATE TABLE t (x int)")
    with standby_of(primary, fast_path / "standby") as standby:
        seen = await_seen(primary, ONE, lambda one: one.streaming == 1 and one.lag_bytes == 0)
        assert (seen.standbys, seen.not_streaming, seen.lag_s) == (1, 0, 0.0)
        assert (seen.slots, seen.inactive_slots, seen.synchronous) == (1, 0, 0)
        assert answer(primary, wants) is Answer.PASS
        with pytest.raises(Unknown, match="look at the primary"):
            look_at(standby, ONE)
        with role(primary) as user, pytest.raises(Unknown, match="GRANT pg_read_all_stats"):
            look_at(primary, ONE, user=user)

        standby.value("SELECT pg_wal_replay_pause()")
        await_seen(primary, ONE, lambda one: written(primary) and one.lag_bytes > 0 and (one.lag_s or 0) > 0.3)
        standby.value("SELECT pg_wal_replay_resume()")
        await_seen(primary, ONE, lambda one: one.lag_bytes == 0 and one.lag_s == 0)

        with stopped_receiver(standby):
            primary.script("INSERT INTO t VALUES (2)")
            reason = until(lambda: why_unknown(primary, answer_within="300 ms"))
            assert reason.startswith("the standby 'standby_1' has not answered for ")
            assert look_at(primary, ONE).lag_bytes > 0  # half a minute is allowed by default
        await_seen(primary, ONE, lambda one: one.lag_bytes == 0)

        standby.server.stop()
    seen = await_seen(primary, ONE, lambda one: one.standbys == 0)
    assert (seen.lag_bytes, seen.lag_s) == (None, None)
    assert (seen.inactive_slots, seen.inactive) == (1, ("standby_1",))
    assert answer(primary, wants) is Answer.FAIL


def test_slot_of_a_standby_holds_the_horizon(primary: Database, fast_path: Path):
    """Its feedback stays in the slot when the standby is gone."""
    horizon = probe("horizon")
    with standby_of(primary, fast_path / "standby") as standby, contextlib.closing(standby.connect()) as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM pg_class")
        until(lambda: primary.value("SELECT count(xmin) FROM pg_replication_slots"))
    for _ in range(3):
        primary.script("SELECT pg_current_xact_id()")
    seen = look_at(primary, horizon)
    assert seen.xmin_age >= 3
    assert seen.holders == (f"inactive physical slot standby_1: {seen.xmin_age} transactions",)


def test_synchronous_standby_that_is_missing(primary: Database, fast_path: Path):
    primary.server.stop()
    primary.server.settings["synchronous_standby_names"] = "standby_1"
    primary.server.start()
    seen = look_at(primary, ONE)
    assert (seen.synchronous, seen.synchronous_missing) == (0, True)
    with standby_of(primary, fast_path / "standby"):
        seen = await_seen(primary, ONE, lambda one: one.streaming == 1)
        assert (seen.synchronous, seen.synchronous_missing) == (1, False)


def test_inactive_slot_keeps_wal_until_it_is_lost(primary: Database):
    """F: D01."""
    primary.script("SELECT pg_create_physical_replication_slot('forgotten', true)")
    primary.script("CREATE TABLE t (x text)")
    before = look_at(primary, ONE)
    assert before.inactive == ("forgotten",)
    write = "SELECT pg_switch_wal(); INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)"
    primary.script(write)
    grown = look_at(primary, ONE)
    assert grown.retained_bytes > max(before.retained_bytes, SEGMENT // 2)
    assert grown.safe_wal_bytes < before.safe_wal_bytes
    assert (grown.unreserved_slots, grown.lost_slots) == (0, 0)
    for _ in range(4):
        primary.script(write)
    assert look_at(primary, ONE).unreserved == ("forgotten",)
    primary.script("CHECKPOINT")
    lost = look_at(primary, ONE)
    assert (lost.lost_slots, lost.lost, lost.unreserved_slots) == (1, ("forgotten",), 0)
    assert (lost.retained_bytes, lost.safe_wal_bytes) == (0, None)
