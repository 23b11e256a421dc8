"""A run of another scope is taken back under that scope's lease, which whoever changes things there must hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

from runner.trail import run_process

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg15"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
UP = "- {id: up, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
BACK = "- {id: back, type: undo, of: change}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer DEFAULT 0); INSERT INTO t (id) VALUES (1)")
    desk = InProcessCli(tmp_path, empty_database.url)
    written(desk, UP, "scope: orders\n")
    written(desk, BACK, "scope: people\n", name="back")
    return desk


def leases(database: Database) -> dict[str, tuple[int, str]]:
    table = "runbook_lease" if database.dialect == "sqlite" else "runbook.lease"
    return {scope: (epoch, run) for scope, epoch, run in database.rows(f"SELECT scope, epoch, run FROM {table}")}


@on_both
def test_both_leases_are_taken_and_given_back(desk: InProcessCli, empty_database: Database) -> None:
    assert desk.runbook("exec", "change.yaml").code == 0
    (before, _) = leases(empty_database)["orders"]
    assert desk.runbook("exec", "back.yaml").code == 0
    after = leases(empty_database)
    assert after["orders"] == (before + 2, "") and after["people"][1] == ""
    assert [one.scope for one in desk.events("lease_taken")] == ["people", "orders"]
    assert empty_database.rows("SELECT n FROM t") == [(0,)]


@on_both
def test_scope_is_held_while_it_is_taken_back(desk: InProcessCli, empty_database: Database) -> None:
    """Killed in the middle, the undo's own run has it; it goes on, and afterwards nobody has it."""
    assert desk.runbook("exec", "change.yaml").code == 0
    desk.kill("exec", "back.yaml", fault="trail.after:6")
    held = leases(empty_database)
    assert held["orders"][1] == held["people"][1] != "", held
    assert desk.runbook("resume", "latest").code == 0
    assert {run for _, run in leases(empty_database).values()} == {""}
    assert empty_database.rows("SELECT n FROM t") == [(0,)]


@on_sqlite
def test_scope_that_another_run_holds_is_left_alone(desk: InProcessCli, empty_database: Database) -> None:
    """Another process of whatever run lives in that scope: nothing of it is taken back meanwhile."""
    assert desk.runbook("exec", "change.yaml").code == 0
    holder = run_process.this_process("dana").model_dump_json().replace("'", "''")
    empty_database.script(f"UPDATE runbook_lease SET run = 'other', holder = '{holder}' WHERE scope = 'orders'")
    refused = desk.runbook("exec", "back.yaml")
    assert refused.code == 6 and "run other" in refused.err, refused.text
    assert empty_database.rows("SELECT n FROM t") == [(1,)]
