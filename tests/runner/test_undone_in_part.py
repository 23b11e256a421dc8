"""A run of which another has taken back a part is open, and each way on that is printed for it can be gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg15"], indirect=True)
STEPS = """
- {id: one, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}
- {id: two, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 2, revert: UPDATE t SET n = n - 1 WHERE id = 2}
"""


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer DEFAULT 0); INSERT INTO t (id) VALUES (1), (2)"
    )
    return InProcessCli(tmp_path, empty_database.url)


@on_both
@pytest.mark.parametrize("way", ["close", "rollback"])
def test_ways_on_from_a_run_undone_in_part(desk: InProcessCli, empty_database: Database, way: str) -> None:
    written(desk, STEPS)
    written(desk, "- {id: back, type: undo, of: change, steps: [one]}", name="back")
    assert (desk.runbook("exec", "change.yaml").code, desk.runbook("exec", "back.yaml").code) == (0, 0)
    refused = desk.runbook("exec", "change.yaml")
    assert refused.code == 6 and "of which two stands" in refused.err, refused.text
    assert "runbook close" in refused.err and "runbook rollback" in refused.err and "runbook resume" not in refused.err
    words = {"close": ("close", "change", "--reason", "it may stay"), "rollback": ("rollback", "change")}[way]
    gone = desk.runbook(*words)
    assert gone.code == 0, gone.text
    assert empty_database.rows("SELECT n FROM t ORDER BY id") == [(0,), (1 if way == "close" else 0,)]
    assert desk.runbook("close", "change", "--reason", "once more").code == 6
    assert desk.runbook("exec", "change.yaml").code == 0


@on_both
def test_next_of_an_undo_in_doubt_names_what_is_in_doubt(desk: InProcessCli, empty_database: Database) -> None:
    """Not the undo's own step, which only waits for it. Each printed command is accepted, and the run comes to its end."""
    written(desk, STEPS)
    written(desk, "- {id: back, type: undo, of: change}", name="back")
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script(
        "DROP TABLE t; CREATE TABLE t (id integer PRIMARY KEY, n integer DEFAULT 0); INSERT INTO t (id) VALUES (1), (2)"
    )
    doubt = desk.runbook("exec", "back.yaml")
    assert doubt.code == 10 and "back:two not-done" in doubt.err, doubt.text
    assert "back:two done" in desk.runbook("status", "back").out
    assert desk.runbook("settle", "back", "back:two", "not-done", "--reason", "looked").code == 0
    again = desk.runbook("resume", "back")
    assert again.code == 10 and "back:one done" in again.err, again.text
    assert desk.runbook("settle", "back", "back:one", "not-done", "--reason", "looked").code == 0
    ended = desk.runbook("resume", "back")
    assert ended.code == 0, ended.text
    assert empty_database.rows("SELECT n FROM t ORDER BY id") == [(0,), (0,)]
