"""Runs of the version before (tests/support/version2): after `target init` this one goes on with them, and takes them back."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import Inside
from support.transplant import transplant

VERSION_2 = Path(__file__).parent / "support" / "version2"
WRITTEN = "SELECT count(*) FROM t WHERE v IS NOT NULL"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> Inside:
    return Inside(tmp_path, empty_database.url)


def put(desk: Inside, database: Database, name: str) -> str:
    """One of the kept runs, in this test's database and folder, and its ledger in today's form."""
    run = transplant(VERSION_2 / database.dialect / name, database, desk)
    assert "brought the ledger" in done(desk, "target", "init")
    return run


def done(desk: Inside, *words: str, code: int = 0) -> str:
    found = desk.runbook(*words)
    assert found.code == code, found.text
    return found.out


def test_waiting_run_goes_on(desk: Inside, empty_database: Database):
    run = put(desk, empty_database, "at_gate")
    done(desk, "approve", run, "--as", "ines", "--role", "dba", "--reason", "read it")
    done(desk, "resume", run)
    assert empty_database.value(WRITTEN) == 19
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_killed_run_goes_on_where_it_was(desk: Inside, empty_database: Database):
    run = put(desk, empty_database, "killed")
    before = empty_database.value(WRITTEN)
    assert 0 < before < 19
    done(desk, "resume", run)
    assert empty_database.value(WRITTEN) == 19
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_killed_run_is_taken_back(desk: Inside, empty_database: Database):
    run = put(desk, empty_database, "killed")
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_run_that_succeeded_is_told_of_and_taken_back(desk: Inside, empty_database: Database):
    run = put(desk, empty_database, "succeeded")
    done(desk, "trail", "verify", run, "--against-target")
    done(desk, "status", run)
    done(desk, "report", run)
    assert "13" in done(desk, "report", run, "--rows", "dead")
    done(desk, "resume", run, "--dead", "--reason", "once more")
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_way_back_goes_on(desk: Inside, empty_database: Database):
    run = put(desk, empty_database, "half_taken_back")
    assert 0 < empty_database.value(WRITTEN) < 19
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0
