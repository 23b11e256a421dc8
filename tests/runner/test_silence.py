"""A network that goes silent, without any error: every wait has an end, and what became of the work is settled."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from databases import Database, Databases, kind_or_skip
from inside import InProcessCli, until
from opened import opened
from silence import Silence

from runner.target import network_waits
from runner.target.drivers import translated
from steps.contract.dialect import Dialect

pytestmark = pytest.mark.newest

BUMP = """runbook: 1
name: bump
title: One more
steps:
  - {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}
  - {id: again, type: sql, text: UPDATE t SET n = n + 10 WHERE id = 2, revert: UPDATE t SET n = n - 10 WHERE id = 2}
success_criteria:
  - {id: bumped, check: query, query: SELECT sum(n) AS n FROM t, that: n == 11}
"""
MARK = b"WHERE id = 1\0"


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    with kind_or_skip(databases, "pg18").database() as made:
        made.script("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t VALUES (1), (2)")
        yield made


@contextlib.contextmanager
def between(database: Database, *, acted: bool, alone: bool) -> Iterator[tuple[Silence, str]]:
    """A proxy, and the URL of the database behind it."""
    with tempfile.TemporaryDirectory(prefix="rb") as short:
        proxy = Silence(Path(short), database.server.socket, mark=MARK, acted=acted, alone=alone)
        try:
            yield proxy, f"postgresql://owner@/{database.name}?host={quote(short, safe='/')}"
        finally:
            proxy.close()


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"FIRST_S": 0.5, "CONFIRM_S": 0.3, "PROBE_S": 2.0, "TICK_S": 0.1}.items():
        monkeypatch.setattr(network_waits, name, seconds)


def desk(directory: Path, url: str) -> InProcessCli:
    found = InProcessCli(directory, url)
    found.playbook("bump", BUMP)
    return found


def dead(database: Database) -> None:
    """As if the process had ended, in which this test runs: its lease was never given back, and a session hangs on."""
    database.script("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'runbook%'")
    database.script("UPDATE runbook.lease SET run = '', epoch = epoch + 1")


@pytest.mark.parametrize("acted", [False, True])
def test_one_connection_goes_silent(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acted: bool
) -> None:
    """The server answers others: what became of the COMMIT is asked, and the run goes on by itself."""
    impatient(monkeypatch)
    with between(database, acted=acted, alone=True) as (proxy, url):
        done = desk(tmp_path, url).runbook("exec", "bump.yaml")
        assert (proxy.times, done.code) == (1, 0), done.text
    assert database.rows("SELECT n FROM t ORDER BY id") == [(1,), (10,)]


@pytest.mark.parametrize("acted", [False, True])
def test_whole_network_goes_silent(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acted: bool
) -> None:
    """The run ends as one that can't reach its target, and is resumed right, whether or not the COMMIT had acted."""
    impatient(monkeypatch)
    with between(database, acted=acted, alone=False) as (proxy, url):
        place = desk(tmp_path, url)
        ended = place.runbook("exec", "bump.yaml")
        assert (proxy.times, ended.code) == (1, 12), ended.text
        assert database.value("SELECT n FROM t WHERE id = 1") == int(acted)
        proxy.heal()
        dead(database)
        until(lambda: place.runbook("resume", "latest").code == 0)
    assert database.rows("SELECT n FROM t ORDER BY id") == [(1,), (10,)]


def test_second_signal_ends_a_run_in_silence(database: Database, tmp_path: Path) -> None:
    """Nobody hears the cancelling: the connection is closed, and the run ends as interrupted."""
    with between(database, acted=False, alone=False) as (proxy, url):
        place = desk(tmp_path, url)
        with place.start("exec", "bump.yaml") as run:
            until(lambda: proxy.times)
            time.sleep(0.3)
            for _ in range(2):
                run.send_signal(signal.SIGINT)
                time.sleep(0.5)
            assert run.wait(25) == 130, run.stdout.read()
        proxy.heal()
        until(lambda: place.runbook("resume", "latest").code == 0)
    assert database.rows("SELECT n FROM t ORDER BY id") == [(1,), (10,)]


@pytest.mark.soak
@pytest.mark.parametrize("acted", [False, True])
def test_silence_ends_a_run_within_half_a_minute(database: Database, tmp_path: Path, acted: bool) -> None:
    """With the times as they are."""
    with (
        between(database, acted=acted, alone=False) as (proxy, url),
        desk(tmp_path, url).start("exec", "bump.yaml") as run,
    ):
        until(lambda: proxy.times)
        assert run.wait(300) == 12, run.stdout.read()


def test_long_statement_is_no_silence(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked into again and again, and found at work."""
    impatient(monkeypatch)
    monkeypatch.setattr(network_waits, "AGAIN_S", 0.2)
    with opened(database.url) as there, there.own(fenced=False) as work:
        assert work.rows("SELECT pg_sleep(2.5)")


def test_wait_beyond_all_timeouts_is_ended(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from steps.contract import DatabaseFault

    monkeypatch.setattr(network_waits, "MARGIN_S", 0.2)
    monkeypatch.setattr(network_waits, "TICK_S", 0.1)
    with opened(database.url) as there:
        with pytest.raises(DatabaseFault) as lost, there.own(fenced=False) as work:
            raw = work._connection.connection.driver_connection
            raw.longest = 0.5
            with translated(Dialect.POSTGRESQL):
                work.rows("SELECT pg_sleep(20)")
        assert lost.value.lost
