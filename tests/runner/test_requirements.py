"""What a playbook requires of earlier ones is told once, in words, and asked at every gate all the same."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

from runner.common.durations import age, ago

MARK = (
    "- {{id: {id}, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}}"
)
LOOK = "- {{id: {id}, type: checkpoint, success_criteria: [{{id: {id}_holds, check: rows, table: t, exactly: 1}}]}}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)")
    made = InProcessCli(tmp_path, empty_database.url)
    written(made, MARK.format(id="one"), name="first")
    assert made.runbook("exec", "first.yaml").code == 0
    return made


def test_requirement_is_told_once_and_asked_at_every_gate(desk: InProcessCli):
    steps = "\n".join((LOOK.format(id="go"), MARK.format(id="two"), LOOK.format(id="on"), MARK.format(id="three")))
    written(desk, steps, "requires: [first]\n", name="second")
    done = desk.runbook("exec", "second.yaml")
    assert done.code == 0, done.text
    told = re.findall(r"✓ first: run \S+ succeeded (just now|\d+ s ago)", done.text)
    assert len(told) == 1, done.text
    answers = [one for one in desk.events("check_answered") if one.role == "requirement"]
    assert len(answers) == 3, "before it began, and at each of both gates"


def test_requirement_that_is_too_old_says_so_in_words(desk: InProcessCli):
    written(desk, MARK.format(id="two"), "requires: [{playbook: first, within: 1 s}]\n", name="second")
    time.sleep(1.1)
    for words, code in (("plan", 6), ("exec", 6)):
        done = desk.runbook(words, "second.yaml")
        assert done.code == code, done.text
        assert re.search(r"its run \S+ is \d+ s old, and 1 s are allowed", " ".join(done.text.split())), done.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "just now"), (0.4, "just now"), (5, "5 s ago"), (185, "3 min ago"), (3 * 3600, "3 h 00 min ago"), (2 * 86400, "2 days ago"),
        (3.5 * 86400, "3.5 days ago"),
    ],
)  # fmt: skip
def test_age_is_said_in_words(seconds: float, words: str):
    assert ago(seconds) == words
    if seconds >= 1:
        assert f"{age(seconds)} ago" == words


# ─── the way back, while what was built on it stands ────────────────────────────────────────────────────────────────
def _chain(desk: InProcessCli) -> list[str]:
    """first ← checked (which changes nothing) ← third; the names of their runs."""
    written(desk, LOOK.format(id="look"), "requires: [first]\n", name="checked")
    written(desk, MARK.format(id="add"), "requires: [{playbook: checked, as: c}]\n", name="third")
    runs = [desk.newest.parent.name]
    for name in ("checked.yaml", "third.yaml"):
        done = desk.runbook("exec", name)
        assert done.code == 0, done.text
        runs.append(desk.newest.parent.name)
    return runs


def _n(database: Database) -> int:
    return int(database.value("SELECT n FROM t"))


def test_rollback_refuses_while_later_runs_stand(desk: InProcessCli, empty_database: Database):
    """Also where only a playbook between them requires it; what it prints as next works, in that order."""
    first, _, third = _chain(desk)
    refused = desk.runbook("rollback", first)
    assert refused.code == 6, refused.text
    assert f"later runs built on it still stands: {third}, of which add stands" in refused.text
    commands = re.findall(r"^(?:next)? +runbook (rollback \S+)$", refused.err, re.MULTILINE)
    assert commands == [f"rollback {third}", f"rollback {first}"], refused.text
    assert _n(empty_database) == 2
    for command in commands:
        done = desk.runbook(*command.split())
        assert done.code == 0, done.text
    assert _n(empty_database) == 0


def test_rollback_despite_later_runs_needs_a_reason_and_names_them(desk: InProcessCli, empty_database: Database):
    first, _, third = _chain(desk)
    assert desk.runbook("rollback", first, "--despite-later-runs").code == 2
    done = desk.runbook("rollback", first, "--despite-later-runs", "--reason", "the night is short")
    assert done.code == 0, done.text
    assert _n(empty_database) == 1
    [begun] = desk.events("rollback_started", desk.directory / "runs" / first / "trail.jsonl")
    assert begun.reason == f"the night is short (despite {third})"


def test_undo_refuses_while_later_runs_stand(desk: InProcessCli, empty_database: Database):
    """Before it begins, and in the plan; not where an earlier step of the same playbook undoes them."""
    first, _, third = _chain(desk)
    written(desk, "- {id: back, type: undo, of: first}", name="back")
    for words in ("plan", "exec"):
        refused = desk.runbook(words, "back.yaml")
        assert refused.code == 6 and third in refused.text, refused.text
    assert "runbook exec back.yaml" in refused.text
    assert _n(empty_database) == 2 and desk.newest.parent.name == third
    written(desk, "- {id: last, type: undo, of: third}\n- {id: back, type: undo, of: first}", name="both")
    done = desk.runbook("exec", "both.yaml")
    assert done.code == 0, done.text
    assert _n(empty_database) == 0
    assert desk.runbook("rollback", first).code == 6, "it has gone"


def test_undo_refuses_what_was_built_while_it_waited(desk: InProcessCli, empty_database: Database):
    """A run that came while the undo stood at its gate; what is printed as next ends it."""
    gate = "- {id: go, type: checkpoint, approval: {roles: [dba]}}"
    written(desk, f"{gate}\n- {{id: back, type: undo, of: first}}", name="back")
    assert desk.runbook("exec", "back.yaml").code == 5
    back = desk.newest.parent.name
    _, _, third = _chain(desk)
    assert desk.runbook("approve", back, "--as", "ines", "--role", "dba", "--reason", "read").code == 0
    refused = desk.runbook("resume", back)
    assert refused.code == 6 and third in refused.text, refused.text
    assert _n(empty_database) == 2
    assert desk.runbook("rollback", third).code == 0
    done = desk.runbook("resume", back)
    assert done.code == 0, done.text
    assert _n(empty_database) == 0


def test_later_run_of_the_same_playbook_carries_what_comes_after(desk: InProcessCli):
    """`requires` asks the newest run, so an older one can be taken back."""
    first = desk.newest.parent.name
    assert desk.runbook("exec", "first.yaml").code == 0
    _chain(desk)
    done = desk.runbook("rollback", first)
    assert done.code == 0, done.text
