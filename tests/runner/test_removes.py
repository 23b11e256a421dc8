"""`removes:`: runs of other playbooks lose their effect, from the first change that takes it away, and for as long as that stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import KILLED
from databases import Database
from inside import InProcessCli, written

pytestmark = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

MAKE = "- {id: make, type: add_column, column: t.d, of_type: integer}"
BREAKS = "- {id: twice, type: sql, text: 'INSERT INTO t (id, a) VALUES (1, 1)', revert: DELETE FROM t WHERE a = 1}"
CLEAN = """
- {id: ready, type: checkpoint, success_criteria: [{id: there, check: rows, table: t, at_least: 1}]}
- {id: note, type: sql, text: UPDATE t SET a = 5 WHERE id = 1, revert: UPDATE t SET a = 0 WHERE id = 1}
- {id: away, type: sql, text: ALTER TABLE t RENAME COLUMN d TO gone, revert: ALTER TABLE t RENAME COLUMN gone TO d}
"""
USE = "- {id: use, type: sql, text: UPDATE t SET a = 7 WHERE id = 1, revert: UPDATE t SET a = 0 WHERE id = 1}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, a integer)")
    empty_database.script("INSERT INTO t VALUES (1, 0)")
    desk = InProcessCli(tmp_path, empty_database.url)
    written(desk, MAKE, name="phase")
    written(desk, CLEAN, "removes: [phase, another]\n", name="clean")
    written(desk, USE, "requires: [phase]\n", name="use")
    written(desk, "- {id: back, type: undo, of: phase}", name="back")
    return desk


def did(desk: InProcessCli, *words: str, code: int = 0) -> str:
    done = desk.runbook(*words)
    assert done.code == code, done.text
    return done.text


def newest(desk: InProcessCli) -> str:
    return desk.newest.parent.name


def test_removed_run_counts_no_more(desk: InProcessCli) -> None:
    did(desk, "exec", "phase.yaml")
    phase = newest(desk)
    did(desk, "exec", "use.yaml")
    did(desk, "exec", "clean.yaml")
    clean = newest(desk)
    assert f"what its run {phase} made is taken away by run {clean}" in did(desk, "exec", "use.yaml", code=6)
    assert f"run {clean} takes away what it made" in did(desk, "rollback", phase, code=6)
    assert f"lost its effect to run {clean}" in " ".join(did(desk, "plan", "back.yaml").split())
    did(desk, "exec", "back.yaml")
    assert f"effect removed by {clean}" in did(desk, "runs")
    assert f"removed by run {clean}" in did(desk, "status", phase)
    assert json.loads(did(desk, "status", phase, "--json"))["removed_by"] == clean
    assert "takes away what earlier runs of phase, another made" in " ".join(did(desk, "plan", "clean.yaml").split())
    did(desk, "exec", "phase.yaml")
    did(desk, "exec", "use.yaml")
    assert "effect" not in did(desk, "status", newest(desk))


def test_removal_that_changed_nothing_is_none(desk: InProcessCli, empty_database: Database) -> None:
    """Stopped at its first gate, it has taken nothing away."""
    did(desk, "exec", "phase.yaml")
    empty_database.script("DELETE FROM t")
    did(desk, "exec", "clean.yaml", code=3)
    empty_database.script("INSERT INTO t (id, a) VALUES (1, 0)")
    did(desk, "exec", "use.yaml")


def test_removal_that_was_taken_back_is_none(desk: InProcessCli) -> None:
    did(desk, "exec", "phase.yaml")
    phase = newest(desk)
    did(desk, "exec", "clean.yaml")
    did(desk, "rollback", newest(desk))
    did(desk, "exec", "use.yaml")
    assert "effect" not in did(desk, "status", phase)


def test_removal_that_was_killed_counts(desk: InProcessCli) -> None:
    """What is half gone can't be required; who resumes or rolls back the clean-up decides."""
    did(desk, "exec", "phase.yaml")
    for number in range(3, 12):
        assert desk.kill("exec", "clean.yaml", fault=f"commit.after:{number}").code == KILLED
        if "note" in {one.step for one in desk.events("step_started")}:
            break
    assert desk.status().step("away").outcome is None
    assert "is taken away by run clean-" in did(desk, "exec", "use.yaml", code=6)
    did(desk, "resume", "latest")
    did(desk, "exec", "use.yaml", code=6)


def test_open_run_that_was_removed_bars_nothing(desk: InProcessCli) -> None:
    """A half-done run of the phase, cleaned up after: it is not resumed, and the phase begins anew."""
    written(desk, f"{MAKE}\n{BREAKS}", name="phase")
    did(desk, "exec", "phase.yaml", code=1)
    phase = newest(desk)
    assert "is still open" in did(desk, "exec", "phase.yaml", code=6)
    did(desk, "exec", "clean.yaml")
    assert "takes away what it made" in did(desk, "resume", phase, code=6)
    written(desk, MAKE, name="phase")
    did(desk, "exec", "phase.yaml")
    did(desk, "exec", "use.yaml")


def test_name_within_a_name_is_not_meant(desk: InProcessCli) -> None:
    written(desk, CLEAN, "removes: [phase-two, a-phase]\n", name="clean")
    did(desk, "exec", "phase.yaml")
    did(desk, "exec", "clean.yaml")
    did(desk, "exec", "use.yaml")


def test_removes_written_wrong_is_refused(desk: InProcessCli) -> None:
    written(desk, CLEAN, "removes: [Phase One]\n", name="clean")
    assert "clean.yaml:4:11: cannot use" in did(desk, "validate", "clean.yaml", code=4)
