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
