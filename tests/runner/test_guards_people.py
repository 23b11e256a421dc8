"""Guards and people: what a person lets pass, and the limits that a person changes for a run that is under way."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from databases import Database
from guarding import LEVEL, MANY, SLEEPING, acts, answers, at_desk, guarded, holds, level
from inside import InProcessCli, until

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    return at_desk(empty_database, tmp_path)


@on_18
def test_people_overrule_guards(desk: InProcessCli, empty_database: Database) -> None:
    """`go` lets a held run go on though the guard is still broken; when it has been good and breaks again, it holds again."""
    with desk.start("exec", guarded(desk, MANY, f"id: lag, {LEVEL}, that: n <= 5")) as run:
        until(lambda: empty_database.rows(SLEEPING))
        level(empty_database, 9)
        desk.reached("held")
        assert desk.runbook("tune", "latest", "hold", "--reason", "I look", "--as", "ines").code == 0
        desk.reached("held", count=2)
        assert {one["by"] for one in holds(desk)} == {"guard lag", "ines"}
        assert desk.runbook("tune", "latest", "go", "--reason", "known", "--as", "ines").code == 0
        desk.reached("released", count=2)
        assert [(one.held_by, one.by, one.reason) for one in desk.events("released")] == [
            ("guard lag", "ines", "known"), ("ines", "ines", "known"),
        ]  # fmt: skip
        done = acts(empty_database)
        until(lambda: acts(empty_database) > done + 10)
        assert len(desk.events("held")) == 2, "it is known, and runs on"
        level(empty_database, 0)
        until(lambda: answers(desk, "lag") == ["pass", "fail", "pass"])
        level(empty_database, 9)
        desk.reached("held", count=3)
        level(empty_database, 0)
        desk.reached("released", count=3)
        empty_database.script("UPDATE pause SET s = 0")
        assert run.wait(300) == 0, run.stdout.read()
    assert holds(desk) == []


@on_18
def test_limit_is_changed_for_guards_alone(desk: InProcessCli, empty_database: Database) -> None:
    """Before it aborts the run; also for what resumes it, and with its reason in the trail. Criteria are asked as approved."""
    head = "limits: {most: 5, name: x}\n"
    after = ", success_criteria: [{id: low, check: query, query: level, that: n <= limits.most}]"
    name = guarded(desk, MANY, f"id: lag, {LEVEL}, that: n <= limits.most, else: abort", head=head, more=after)
    with desk.start("exec", name) as run:
        until(lambda: empty_database.rows(SLEEPING))
        for unknown in ("limits.other=7", "limits.name=7"):
            refused = desk.runbook("tune", "latest", unknown, "--reason", "no such")
            assert refused.code == 6 and "it has limits.most" in refused.err, refused.text
        assert desk.runbook("tune", "latest", "limits.most=20.5", "--reason", "it can bear that").code == 0
        desk.reached("tuned")
        level(empty_database, 9)
        done = acts(empty_database)
        until(lambda: acts(empty_database) > done + 10)
        run.send_signal(signal.SIGTERM)
        assert run.wait(300) == 7, run.stdout.read()
    assert desk.events("stop_requested")[0].by != "guard lag"
    empty_database.script("UPDATE pause SET s = 0")
    again = desk.runbook("resume", "latest")
    assert again.code == 3 and "low" in again.err, again.text
    (tuned,) = desk.events("tuned")
    assert (tuned.settings, tuned.reason) == ({"limits.most": 20.5}, "it can bear that")
    assert "fail" not in answers(desk, "lag")
