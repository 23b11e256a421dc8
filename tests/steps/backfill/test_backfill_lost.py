"""A backfill whose connection, server or lease is gone in the middle: it goes on or is resumed, and no row is counted twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from command import Cli
from databases import Database
from filling import (
    changed,
    checksum,
    counting,
    fill_stock_one_by_one,
    proves_all,
    proves_each_row_once,
    stock,
    undo_keys,
    updated,
)
from inside import InProcessCli, until
from proxy import Proxy

pytestmark = pytest.mark.newest

ROWS = 2000  # about 80 batches
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'runbook:%'"
IN_FLIGHT = "SELECT state FROM pg_stat_activity WHERE application_name LIKE 'runbook:%' AND state <> 'idle'"
Output = subprocess.Popen[str]


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    stock(empty_database, rows=ROWS)
    found = InProcessCli(tmp_path, empty_database.url)
    found.playbook("fill", fill_stock_one_by_one())
    return found


@contextlib.contextmanager
def running(desk: Cli, database: Database) -> Iterator[tuple[Output, Callable[[int], None]]]:
    """The backfill in a process of its own, and a function that waits for so many more batches."""
    with counting(database) as count, desk.start("exec", "fill.yaml") as process:

        def more(batches: int) -> None:
            wanted = count() + batches
            until(lambda: count() >= wanted or process.poll() is not None)
            assert process.poll() is None, process.stdout.read()

        try:
            yield process, more
        finally:
            process.kill()


# ─── connections ────────────────────────────────────────────────────────────────────────────────────────────────────
@on_postgresql
def test_backends_terminated_again_and_again(desk: InProcessCli, empty_database: Database) -> None:
    """More often than a step is tried: it goes on by itself, because it comes further each time. F: C01"""
    chance = random.Random(3)
    with running(desk, empty_database) as (process, more):
        for _ in range(6):
            more(chance.randint(1, 5))
            empty_database.rows(ENDED)
        assert process.wait(300) == 0, process.stdout.read()
    proves_all(desk, empty_database, rows=ROWS)


def value(text: str) -> bytes:
    """As the driver writes it into a statement."""
    return f"'{text}'".encode()


MARKS = {"begin": value("begin"), "batch": value("batch 40"), "end": b'"finished":true'}


@contextlib.contextmanager
def cutting(desk: Cli, database: Database, directory: Path, *, mark: bytes, acted: bool) -> Iterator[Cli]:
    """Within: the desk behind a connection that is cut once, at the COMMIT of what sends this."""
    proxy = Proxy(directory, database.server.socket, mark=mark, acted=acted)
    here, there = (quote(str(one), safe="/") for one in (database.server.socket, directory))
    yield InProcessCli(desk.directory, database.url.replace(here, there))
    proxy.close()
    assert proxy.cuts == 1


@on_18
@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS.keys())
def test_connection_cut_at_commit(
    desk: InProcessCli, empty_database: Database, fast_path: Path, mark: bytes, acted: bool
) -> None:
    """Before the server acts or after it, at the first, a middle and the last commit: counters are exact. F: C01"""
    with cutting(desk, empty_database, fast_path, mark=mark, acted=acted) as far:
        found = far.runbook("exec", "fill.yaml")
        assert found.code == 0, found.text
        proves_all(far, empty_database, rows=ROWS)


@on_18
@pytest.mark.parametrize("acted", [False, True], ids=["before", "after"])
def test_connection_cut_at_the_undo(desk: InProcessCli, empty_database: Database, fast_path: Path, acted: bool) -> None:
    """The same on the way back, where a person may have to ask again. F: C01 F: H05"""
    with cutting(desk, empty_database, fast_path, mark=value("undo 40"), acted=acted) as far:
        assert far.runbook("exec", "fill.yaml").code == 0
        back = far.runbook("rollback", "latest")
        if back.code != 0:
            back = far.runbook("rollback", "latest")
        assert back.code == 0, back.text
    assert checksum(empty_database, "t") == checksum(empty_database, "was")
    kept = empty_database.value("SELECT sum(rows) FROM runbook.undo")
    assert empty_database.value("SELECT sum(written) FROM runbook.batch WHERE action = 'revert'") == kept


@on_18
def test_idle_connections_are_ended_by_the_server(desk: InProcessCli, empty_database: Database) -> None:
    """In a long hold every connection dies, also the heartbeat's: it connects again and looks where it stands. F: D09"""
    empty_database.script(f"ALTER DATABASE {empty_database.name} SET idle_session_timeout = '300ms'")
    with running(desk, empty_database) as (process, more):
        more(5)
        held = desk.runbook("tune", "latest", "hold", "--as", "dana", "--reason", "the night's load")
        assert held.code == 0, held.text
        until(
            lambda: (
                not empty_database.rows("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'runbook:%fill'")
            )
        )
        freed = desk.runbook("tune", "latest", "go", "--as", "dana", "--reason", "it is over")
        assert freed.code == 0, freed.text
        assert process.wait(300) == 0, process.stdout.read()
    proves_all(desk, empty_database, rows=ROWS)


# ─── the server ─────────────────────────────────────────────────────────────────────────────────────────────────────
def fast(database: Database) -> None:
    database.server.restart()


def immediate(database: Database) -> None:
    """Without a word to anybody; the next start recovers from the WAL."""
    pid = database.server.pid
    os.kill(pid, signal.SIGQUIT)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    database.server.start()


def killed(database: Database) -> None:
    """As if the machine had failed."""
    database.server.kill()
    database.server.start()


@pytest.mark.parametrize(
    ("empty_database", "restarted"),
    [("pg18", fast), ("pg18", immediate), ("pg18", killed), ("pg15", immediate)],
    indirect=["empty_database"],
)
def test_server_restarted_in_the_middle(
    desk: InProcessCli, empty_database: Database, restarted: Callable[[Database], None]
) -> None:
    """It goes on by itself, or ends with exit 12 and is resumed: nothing is assumed. F: C14 F: C01"""
    with running(desk, empty_database) as (process, more):
        more(7)
        restarted(empty_database)
        code = process.wait(300)
        assert code in {0, 12}, process.stdout.read()
    if code == 12:
        resumed = desk.runbook("resume", "latest")
        assert resumed.code == 0, resumed.text
    proves_all(desk, empty_database, rows=ROWS)


# ─── two runners ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def other(desk: InProcessCli) -> InProcessCli:
    """Somebody else with a playbook of another name for the same work, and runs of their own, on the same target.

    The same playbook is refused beside an open run, whoever begins it.
    """
    (desk.directory / "other").mkdir()
    found = InProcessCli(desk.directory / "other", desk.target)
    found.playbook("fill", fill_stock_one_by_one())
    found.playbook("again", fill_stock_one_by_one().replace("name: fill", "name: again", 1))
    return found


def freeze(process: Output, database: Database) -> None:
    """SIGSTOP between two transactions: what is open on a server, the server would end after 15 s of silence."""
    if database.dialect == "sqlite":
        with contextlib.closing(database.connect()) as alone:
            alone.execute("PRAGMA busy_timeout = 0")
            while not alone_in(alone):
                assert process.poll() is None, process.stdout.read()
            process.send_signal(signal.SIGSTOP)
            until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            alone.execute("ROLLBACK")
        return
    while True:
        process.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        until(lambda: ("active",) not in database.rows(IN_FLIGHT))
        if not database.rows(IN_FLIGHT):
            return
        process.send_signal(signal.SIGCONT)


def alone_in(connection: sqlite3.Connection) -> bool:
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("BEGIN EXCLUSIVE")  # also without readers
    return connection.in_transaction


def age(database: Database) -> None:
    """As if 16 s had passed since the last heartbeat."""
    if database.dialect == "sqlite":
        database.script("UPDATE runbook_heartbeat SET beat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-16 seconds')")
    else:
        database.script("UPDATE runbook.heartbeat SET beat_at = clock_timestamp() - interval '16 s'")


def proves_nothing_doubled(database: Database) -> None:
    """Whichever run wrote a row, one did, once."""
    assert checksum(database, "t") == updated(database)
    proves_each_row_once(database)
    assert len(undo_keys(database)) == changed(database)


@on_both
def test_frozen_runner_writes_nothing_more(desk: InProcessCli, other: InProcessCli, empty_database: Database) -> None:
    """A second one is refused while the first lives, and takes over when it is silent for too long. When the first one
    wakes, its next batch fails on the epoch: exit 13, no row twice; resumed, it finds nothing left. F: C08 F: D10
    """
    with running(desk, empty_database) as (process, more):
        more(9)
        freeze(process, empty_database)
        assert other.runbook("exec", "fill.yaml").code == 6
        written = len(undo_keys(empty_database))
        age(empty_database)
        assert other.runbook("exec", "fill.yaml").code == 6
        taken = other.runbook("exec", "again.yaml")
        assert taken.code == 0, taken.text
        process.send_signal(signal.SIGCONT)
        assert process.wait(300) == 13, process.stdout.read()
    proves_nothing_doubled(empty_database)
    assert other.status().step("fill").results["written"] == changed(empty_database) - written
    assert desk.runbook("resume", "latest").code == 0
    proves_nothing_doubled(empty_database)
    for one in (other, desk):
        assert one.runbook("rollback", "latest").code == 0
    assert checksum(empty_database, "t") == checksum(empty_database, "was")


@on_18
def test_second_runner_after_kill(desk: InProcessCli, other: InProcessCli, empty_database: Database) -> None:
    """It begins a pass of its own over what the dead one left, at once; both can be taken back. F: C08 F: C09"""
    with running(desk, empty_database) as (process, more):
        more(9)
        assert other.runbook("exec", "fill.yaml").code == 6
        process.kill()
        process.wait()
    assert other.runbook("exec", "fill.yaml").code == 6
    taken = other.runbook("exec", "again.yaml")
    assert taken.code == 0, taken.text
    proves_nothing_doubled(empty_database)
    for one in (desk, other):
        assert one.runbook("rollback", "latest").code == 0
    assert checksum(empty_database, "t") == checksum(empty_database, "was")
