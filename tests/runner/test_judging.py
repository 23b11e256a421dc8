"""What only a person can decide, and what has time to come true."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

UNSURE = "{id: unsure, check: query, query: nothing, that: n > 0, judge: [dba, owner]}"
QUERIES = "queries: {nothing: SELECT NULL AS n, rows: SELECT count(*) AS n FROM t}\n"
STEP = "- {{id: one, type: sql, text: UPDATE t SET n = 1 WHERE id = 1, revert: UPDATE t SET n = 0 WHERE id = 1{}}}"
GATE = f"- {{id: go, type: checkpoint, success_criteria: [{UNSURE}]}}"
PLACES = {
    "precondition": (STEP.format(""), f"preconditions: [{UNSURE}]\nsuccess_criteria: {{none: a test}}\n"),
    "criterion": (STEP.format(""), f"success_criteria: [{UNSURE}]\n"),
    "of a step": (STEP.format(f", success_criteria: [{UNSURE}]"), ""),
    "before a step": (STEP.format(f", preconditions: [{UNSURE}]"), "success_criteria: {none: a test}\n"),
    "gate": (f"{GATE}\n{STEP.format('')}", "success_criteria: {none: a test}\n"),
}


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer)")
    empty_database.script("INSERT INTO t VALUES (1, 0), (2, 0)")
    return InProcessCli(tmp_path, empty_database.url)


def judge(desk: InProcessCli, answer: str, *, role: str = "dba") -> object:
    return desk.runbook(
        "judge", "latest", "unsure", answer, "--as", "ines", "--role", role, "--reason", "counted by hand"
    )


@on_both
@pytest.mark.parametrize("place", PLACES)
def test_unknown_waits_for_a_person_wherever_it_stands(
    desk: InProcessCli, empty_database: Database, place: str
) -> None:
    """It is no failure and no pass: the run waits, and the person's word stands in trail and report."""
    steps, head = PLACES[place]
    head = head.replace("success_criteria: {none: a test}\n", "") if "none" in head else head
    found = desk.runbook("exec", written(desk, steps, QUERIES + head))
    assert found.code == 5 and "runbook judge" in found.err and "--role dba" in found.err, found.text
    assert desk.runbook("resume", "latest").code == 5
    assert judge(desk, "pass", role="clerk").code == 6
    assert judge(desk, "pass").code == 0
    found = desk.runbook("resume", "latest")
    assert found.code == 0, found.text
    assert empty_database.rows("SELECT n FROM t WHERE id = 1") == [(1,)]
    assert desk.events("judged")[0].reason == "counted by hand"
    report = desk.runbook("report", "latest").out
    assert "judged" in report and "ines as dba" in report and "counted by hand" in report
    assert judge(desk, "fail").code == 6  # it waits for nobody any more


@on_both
def test_person_says_no(desk: InProcessCli) -> None:
    desk.runbook("exec", written(desk, STEP.format(f", success_criteria: [{UNSURE}]"), QUERIES))
    assert judge(desk, "fail").code == 0
    found = desk.runbook("resume", "latest")
    assert found.code == 3 and "judged by ines" in found.err, found.text


@on_both
def test_only_unknown_is_judged(desk: InProcessCli) -> None:
    """A check that fails is not a person's to turn; nor one for which the playbook names nobody."""
    fails = "{id: unsure, check: query, query: rows, that: n > 5, judge: dba}"
    found = desk.runbook("exec", written(desk, STEP.format(f", success_criteria: [{fails}]"), QUERIES))
    assert found.code == 3
    assert judge(desk, "pass").code == 6
    nobody = "{id: unsure, check: query, query: nothing, that: n > 0}"
    found = desk.runbook("exec", written(desk, STEP.format(f", success_criteria: [{nobody}]"), QUERIES, name="other"))
    assert found.code in {3, 6} and "judge" not in found.err, found.text


@on_both
def test_criterion_has_time_to_come_true(desk: InProcessCli, empty_database: Database) -> None:
    wait = "{id: soon, check: query, query: rows, that: n == 3, within: 30 s, every: 100 ms}"
    name = written(desk, STEP.format(f", success_criteria: [{wait}]"), QUERIES)
    timer = threading.Timer(1.0, lambda: empty_database.script("INSERT INTO t VALUES (3, 0)"))
    timer.start()
    found = desk.runbook("exec", name)
    timer.join()
    assert found.code == 0, found.text
    assert [one.answer for one in desk.events("check_answered") if one.id == "soon"] == ["pass"]


@on_both
def test_criterion_that_never_comes_true_fails(desk: InProcessCli) -> None:
    wait = "{id: soon, check: query, query: rows, that: n == 9, within: 400 ms, every: 100 ms}"
    assert desk.runbook("exec", written(desk, STEP.format(f", success_criteria: [{wait}]"), QUERIES)).code == 3


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("guards: [{id: g, check: query, query: rows, that: n < 9, judge: dba}]", "judge"),
        ("guards: [{id: g, check: query, query: rows, that: n < 9, within: 1 min}]", "within"),
        ("success_criteria: [{id: c, check: query, query: rows, that: n < 9, every: 1 s}]", "without `within`"),
    ],
)
def test_where_it_means_nothing_it_is_a_fault(tmp_path: Path, check: str, why: str) -> None:
    desk = InProcessCli(tmp_path, "")
    found = desk.runbook("validate", written(desk, STEP.format(f", {check}"), QUERIES))
    assert found.code == 4 and why in found.err, found.text
