"""What one step found is bound into a later one's parameters: never as text, there and back, after a kill too."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

HEAD = """queries:
  last: SELECT max(id) AS id, 'x; DROP TABLE t' AS word FROM t
preconditions: [{id: before, check: query, query: last, that: id > 0}]
"""
RAISE = (
    "- {id: raised, type: sql, text: UPDATE t SET n = n + 1 WHERE id > 1, revert: UPDATE t SET n = n - 1 WHERE id > 1}"
)
NOTE = (
    "- {id: noted, type: sql, text: 'INSERT INTO told (rows, last, word) VALUES (:rows, :last, :word)',"
    " revert: 'DELETE FROM told WHERE rows = :rows AND last = :last',"
    " params: {rows: '{{ raised.rows }}', last: '{{ before.id }}', word: '{{ before.word }}'}}"
)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2), (3)")
    empty_database.script("CREATE TABLE told (rows integer, last integer, word text)")
    return InProcessCli(tmp_path, empty_database.url)


@on_both
def test_figure_is_bound_there_and_back(desk: InProcessCli, empty_database: Database) -> None:
    name = written(desk, f"{RAISE}\n{NOTE}", HEAD)
    assert desk.runbook("plan", name).code == 0
    assert desk.runbook("exec", name).code == 0
    assert empty_database.rows("SELECT * FROM told") == [(2, 3, "x; DROP TABLE t")]
    empty_database.script("INSERT INTO told VALUES (7, 7, 'of the application')")
    assert desk.runbook("rollback", "latest").code == 0
    assert empty_database.rows("SELECT rows FROM told") == [(7,)]


@on_both
def test_figure_of_before_a_kill_is_bound_after_it(desk: InProcessCli, empty_database: Database) -> None:
    gate = "- {id: go, type: checkpoint, approval: {need: 1}}"
    assert desk.runbook("exec", written(desk, f"{RAISE}\n{gate}\n{NOTE}", HEAD)).code == 5
    desk.runbook("approve", "latest", "--step", "go", "--as", "ines", "--reason", "seen")
    empty_database.script("INSERT INTO t (id) VALUES (4), (5)")
    assert desk.runbook("resume", "latest").code == 0
    assert empty_database.rows("SELECT rows, last FROM told") == [(2, 3)]


@pytest.mark.parametrize(
    "params", ["{{ nothing.rows }}", "{{ raised.nothing }}", "{{ noted.rows }}", "rows: {{ raised.rows }}"]
)
def test_figure_that_nothing_finds_is_a_fault(tmp_path: Path, params: str) -> None:
    desk = InProcessCli(tmp_path, "")
    steps = f"{RAISE}\n{NOTE.replace('{{ raised.rows }}', params)}"
    found = desk.runbook("validate", written(desk, steps, HEAD))
    assert found.code == 4, found.text


def test_figure_never_becomes_sql(tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, "")
    steps = f"{RAISE}\n- {{id: bad, type: sql, text: 'DELETE FROM t WHERE id = {{{{ raised.rows }}}}'}}"
    assert desk.runbook("validate", written(desk, steps, HEAD)).code == 4
