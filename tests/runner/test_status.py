"""A run's status is a pure reading of its trail: asking changes nothing, and what was asked is a recorded fact."""

from __future__ import annotations

import copy
import inspect
from datetime import datetime
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

from runner.plan import advice, approvals, next_commands, window
from runner.trail.events import Settled, SqlByHand, Tuned
from runner.trail.status import RunStatus, add, fold
from runner.trail.trail import Record, read
from steps.contract import ApprovalNeed, GateNeeds

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

ADD = "- {id: add, type: add_column, column: t.note, of_type: text}"
READY = "preconditions: [{id: ready, check: rows, table: t, at_least: 1}]\n"
ACCEPT = ("--accept-changes", "--reason", "mended")


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    return InProcessCli(tmp_path, empty_database.url)


def columns(database: Database) -> int:
    database.script("INSERT INTO t (id) VALUES (99)")
    try:
        return len(database.rows("SELECT * FROM t")[0])
    finally:
        database.script("DELETE FROM t WHERE id = 99")


@on_both
@pytest.mark.parametrize("change", ["of_type: varchar", "title: Another", "more"])
def test_precondition_that_failed_is_asked_again(desk: InProcessCli, empty_database: Database, change: str) -> None:
    """Whatever is edited meanwhile: that it did not hold is recorded, not inferred from what else is there."""
    written(desk, ADD, READY)
    assert desk.runbook("exec", "change.yaml").code == 3
    steps, head = ADD, READY
    if change == "of_type: varchar":
        steps = ADD.replace("of_type: text", change)
    elif change == "more":
        head = READY.replace("]", ", {id: also, check: rows, table: t, at_most: 5}]")
    written(desk, steps, head)
    for words in (ACCEPT, ()):
        found = desk.runbook("resume", "latest", *words)
        assert found.code == 3 and "ready (fail)" in found.err, found.text
    assert columns(empty_database) == 2
    empty_database.script("INSERT INTO t (id) VALUES (1)")
    assert desk.runbook("resume", "latest").code == 0


@on_both
def test_precondition_that_was_changed_is_asked_anew(desk: InProcessCli, empty_database: Database) -> None:
    """Also when steps have run meanwhile; one that held, and is as it was, is not asked in the middle of the run."""
    empty_database.script("INSERT INTO t (id) VALUES (1)")
    other = "{id: empty, check: columns, table: t, lacks: [note]}"
    fails = "- {id: fails, type: sql, text: UPDATE nowhere SET n = 1 WHERE id = 1, revert: SELECT 1}"
    head = READY.replace("]", f", {other}]")
    written(desk, f"{ADD}\n{fails}", head)
    assert desk.runbook("exec", "change.yaml").code == 1
    assert desk.runbook("resume", "latest").code == 1, "the column is there now, and that is no failed precondition"
    written(desk, f"{ADD}\n{fails}", head.replace("at_least: 1", "at_least: 5"))
    found = desk.runbook("resume", "latest", *ACCEPT)
    assert found.code == 3 and "ready (fail)" in found.err and "empty" not in found.err, found.text
    assert desk.runbook("resume", "latest").code == 3


@on_both
def test_questions_change_nothing(desk: InProcessCli, empty_database: Database) -> None:
    """Every property and method of a status, and every reader of one, after each record of a run."""
    empty_database.script("INSERT INTO t (id) VALUES (1)")
    gate = "- {id: go, type: checkpoint, approval: {roles: [dba]}}"
    written(desk, f"{gate}\n{ADD}", READY)
    assert desk.runbook("exec", "change.yaml").code == 5
    assert desk.runbook("approve", "latest", "--as", "ines", "--role", "dba", "--reason", "yes").code == 0
    assert desk.runbook("resume", "latest").code == 0
    records = list(read(desk.newest))
    from runner.run.execute import stored

    status = RunStatus()
    for record in records:
        add(status, record)
        before = copy.deepcopy(vars(status))
        playbook = stored(status.source)
        _ask_everything(status)
        advice.stop(playbook, status, next_commands.Here(datetime.fromisoformat(record.at)))
        needs = GateNeeds(approval=ApprovalNeed(roles=("dba",)))
        for question in (approvals.open_needs, approvals.lapsed):
            question(needs, status, step="nowhere", now=datetime.fromisoformat(record.at))
        window.ends(playbook, status, step="add", now=datetime.fromisoformat(record.at))
        assert vars(status) == before


def _ask_everything(status: RunStatus) -> None:
    for name, member in inspect.getmembers(RunStatus):
        if isinstance(member, property):
            getattr(status, name)
        elif inspect.isfunction(member) and not name.startswith("_"):
            getattr(status, name)("nowhere")
    for step in [*status.steps.values(), status.step("nowhere")]:
        for name, member in inspect.getmembers(type(step)):
            if isinstance(member, property):
                getattr(step, name)


def _after(desk: InProcessCli, *events: Settled | SqlByHand | Tuned) -> set[str]:
    """Who has operated, once these stand in the trail too."""
    records = list(read(desk.newest))
    status = fold(records)
    for event in events:
        add(status, Record(n=99, at=records[-1].at, prev="", event=event))
    return set(status.operators) - {"dana"}


ORDERS: list[tuple[dict, bool]] = [
    ({"hold": True}, False), ({"stop": True}, False), ({"batch_seconds": 0.1}, False), ({"rest": 20.0}, False),
    ({"workers": 1}, False), ({"max_rows": 10}, False), ({"go": True}, True), ({"limits.x": 5}, True),
    ({"batch_seconds": 1.0}, True), ({"workers": 4}, True), ({"rest": 0.5}, True),
]  # fmt: skip


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_who_operates(desk: InProcessCli) -> None:
    """exec, resume, settle, sql, and tune where it loosens; a guard is nobody."""
    written(desk, "- {id: go, type: checkpoint, approval: {roles: [dba]}}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert _after(desk) == set()
    assert _after(desk, Settled(step="go", done=True, by="ines", reason="")) == {"ines"}
    assert _after(desk, SqlByHand(by="ines", reason="", sql="SELECT 1", rows=1)) == {"ines"}
    for order, operates in ORDERS:
        tuned = Tuned(by="ines", reason="", settings=order)
        assert _after(desk, tuned) == ({"ines"} if operates else set()), order
        assert _after(desk, tuned.model_copy(update={"by": "guard lag"})) == set()
    slower, faster = (Tuned(by=by, reason="", settings={"max_rows": rows}) for by, rows in (("kim", 10), ("ines", 500)))
    assert _after(desk, slower, faster) == {"ines"}
