"""What is printed as next is done, in every state in which a run can stand: it is never refused, and comes to an end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

from runner.plan import advice
from runner.trail.status import RunStatus

REFUSED, USAGE = 6, 2
HEAD = "success_criteria:\n  - {id: there, check: rows, table: t, at_least: 1}\nrollback: reverse\n"
ONE = "- {id: one, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
GATE = "- {id: 'go', type: checkpoint, approval: {roles: [dba, boss], need: 2, not: operator}, evidence: {backup: required}}"
MISSING = "- {id: two, type: sql, text: INSERT INTO log VALUES (1), revert: DELETE FROM log WHERE k = 1}"
UNKNOWN = "- {id: clean, type: sql, text: VACUUM, revert: SELECT 1}"
on_two = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def onward(desk: InProcessCli, *options: str) -> str:
    """The first command of what status gives as next."""
    said = desk.runbook("status", "latest", "--json", *options)
    assert said.code == 0, said.text
    return json.loads(said.out)["stop"]["then"].splitlines()[0]


def follow(desk: InProcessCli, *options: str, mend: Callable[[], object] = lambda: None) -> list[str]:
    """Do what is next until there is nothing to do; the verbs, in order."""
    people, done = cycle(["ines", "otto"]), []
    for _ in range(12):
        command = onward(desk, *options)
        words = [{"NAME": next(people), "…": "because"}.get(word, word) for word in shlex.split(command)]
        came = desk.runbook(*words[1:])
        assert came.code not in {REFUSED, USAGE}, (command, done, came.text)
        done.append(words[1])
        if words[1] == "report":
            return done
        if came.code in {1, 3, 9}:
            mend()
    raise AssertionError(f"it goes in a circle: {done}")


@on_two
def test_next_leads_through_a_gate(desk: InProcessCli) -> None:
    assert desk.runbook("exec", written(desk, f"{ONE}\n{GATE}", HEAD), "--operator", "dana").code == 5
    assert follow(desk) == ["approve", "approve", "approve", "resume", "report"]
    assert desk.status().state == "succeeded"


@on_sqlite
def test_next_says_what_the_gate_still_lacks(desk: InProcessCli) -> None:
    desk.runbook("exec", written(desk, f"{ONE}\n{GATE}", HEAD), "--operator", "dana")
    said = desk.runbook("status").out
    assert "--step go --as NAME --role dba --reason '…'" in said
    assert "--step go --as NAME --role boss --reason '…'" in said
    assert "--step go --evidence backup --as NAME --reason '…'" in said
    told = desk.runbook("approve", "latest", "--step", "go", "--as", "ines", "--role", "dba", "--reason", "read").out
    for text in (told, desk.runbook("status").out, desk.runbook("report").out):
        assert "--role boss" in text
        assert "--role dba" not in text


@on_two
def test_next_after_a_failure(desk: InProcessCli, empty_database: Database) -> None:
    mend = lambda: empty_database.script("CREATE TABLE log (k integer)")  # noqa: E731
    failed = desk.runbook("exec", written(desk, f"{ONE}\n{MISSING}", HEAD))
    assert failed.code == 1
    assert f"next       {onward(desk)}\n           (once the cause is mended)\n" in failed.err
    mend()
    assert follow(desk) == ["resume", "report"]


@on_sqlite
def test_next_where_criteria_are_not_met(desk: InProcessCli, empty_database: Database) -> None:
    head = HEAD.replace("at_least: 1", "at_least: 3")
    assert desk.runbook("exec", written(desk, ONE, head)).code == 3
    assert follow(desk, mend=lambda: empty_database.script("INSERT INTO t (id) VALUES (3)")) == [
        "resume",
        "resume",
        "report",
    ]


@on_two
@pytest.mark.parametrize("fault", ["trail.after:3", "commit.before:4", "commit.after:4", "trail.before:6"])
def test_next_after_a_kill(desk: InProcessCli, fault: str) -> None:
    name = written(desk, f"{ONE}\n{ONE.replace('one', 'other')}", HEAD)
    desk.kill("exec", name, fault=fault)
    if desk.status().state == "running":
        said = desk.runbook("status").out
        assert "interrupted: its process is gone" in said
        assert "interrupted: its process is gone" in desk.runbook("runs").out
    assert follow(desk) in (["resume", "report"], ["report"])
    assert desk.status().state == "succeeded"


@on_two
def test_next_after_a_kill_on_the_way_back(desk: InProcessCli) -> None:
    assert desk.runbook("exec", written(desk, f"{ONE}\n{ONE.replace('one', 'other')}", HEAD)).code == 0
    desk.kill("rollback", "latest", "--reason", "a test", fault="commit.after:3")
    assert follow(desk)[0] in {"rollback", "report"}
    assert desk.status().state == "rolled_back"


@on_sqlite
def test_next_of_what_nobody_can_tell(desk: InProcessCli) -> None:
    desk.kill("exec", written(desk, f"{UNKNOWN}\n{ONE}", HEAD), fault="commit.before:5")
    assert follow(desk) == ["resume", "settle", "resume", "report"]


@on_two
def test_next_where_the_way_back_fails(desk: InProcessCli, empty_database: Database) -> None:
    bad = ONE.replace("revert: UPDATE t SET", "revert: UPDATE gone SET")
    assert desk.runbook("exec", written(desk, bad, HEAD)).code == 0
    assert desk.runbook("rollback", "latest").code == 9
    assert "--leave one" in desk.runbook("status").out
    done = follow(desk, mend=lambda: empty_database.script("CREATE TABLE gone AS SELECT id, n FROM t"))
    assert done[-2:] == ["rollback", "report"]


@on_sqlite
def test_next_where_a_step_is_left_standing(desk: InProcessCli) -> None:
    head = HEAD.replace("rollback: reverse", "rollback: [one]")
    assert desk.runbook("exec", written(desk, f"{ONE}\n{ONE.replace('one', 'other')}", head)).code in {0, 4}
    desk.runbook("rollback", "latest", "--reason", "a test")
    assert follow(desk) == ["report"]


@on_sqlite
def test_next_of_a_closed_run(desk: InProcessCli) -> None:
    assert desk.runbook("exec", written(desk, f"{ONE}\n{MISSING}", HEAD)).code == 1
    if desk.runbook("close", "latest", "--reason", "given up").code == USAGE:
        pytest.skip("there is no close yet")
    assert follow(desk) == ["report"]


@on_sqlite
def test_next_carries_what_finds_the_run(desk: InProcessCli, empty_database: Database) -> None:
    """A runs folder and a target that only options name, the folder with a space in its name."""
    elsewhere = desk.directory / "night shift" / "it's"
    other = InProcessCli(desk.directory, "")
    name = written(desk, f"{ONE}\n{GATE}", HEAD)
    begun = other.runbook(
        "exec", name, "-t", empty_database.url, "--runs", str(elsewhere), "--operator", "dana", RUNBOOK_TARGET="nowhere"
    )
    assert begun.code == 5, begun.text
    inside = InProcessCli(desk.directory, "nowhere")
    assert follow(inside, "--runs", str(elsewhere)) == ["approve", "approve", "approve", "resume", "report"]
    assert shlex.quote(str(elsewhere)) in begun.err


@on_sqlite
def test_next_where_the_playbook_was_changed(desk: InProcessCli, empty_database: Database) -> None:
    """A resume would be refused, so that status doesn't send into it."""
    name = written(desk, f"{ONE}\n{MISSING}", HEAD)
    assert desk.runbook("exec", name).code == 1
    empty_database.script("CREATE TABLE log (k integer)")
    file = desk.directory / name
    before = file.read_text()
    file.write_text(before.replace("VALUES (1)", "VALUES (2)"))  # the step that failed: it ran
    for words in (["status"], ["report"]):
        assert f"git diff {name}; put it back, or runbook rollback" in desk.runbook(*words).out
    file.write_text(before.replace("at_least: 1", "at_least: 2"))
    assert "--accept-changes --reason '…'" in desk.runbook("status").out
    file.write_text("runbook: 1\nname: change\nsteps: nothing\n")
    assert desk.runbook("status").code == 0
    file.write_text(before)
    assert follow(desk) == ["resume", "report"]


@on_sqlite
def test_next_of_a_changed_record_is_to_verify_it(desk: InProcessCli) -> None:
    assert desk.runbook("exec", written(desk, f"{ONE}\n{MISSING}", HEAD)).code == 1
    path = desk.newest
    path.write_text(path.read_text().replace("UPDATE t SET n = n - 1", "UPDATE t SET n = n - 2"))
    assert onward(desk).startswith("runbook trail verify change-")
    assert "its record does not verify" in desk.runbook("status").out


@on_sqlite
def test_next_asks_for_the_secret(desk: InProcessCli) -> None:
    head = "inputs: {token: {type: text, secret: true, required: true}}\n" + HEAD
    assert (
        desk.runbook(
            "exec", written(desk, f"{ONE}\n{GATE}", head), "--operator", "dana", RUNBOOK_INPUT_TOKEN="a long secret"
        ).code
        == 5
    )
    for who, role in (("ines", "dba"), ("otto", "boss")):
        assert (
            desk.runbook("approve", "latest", "--step", "go", "--as", who, "--role", role, "--reason", "read").code == 0
        )
    desk.runbook("approve", "latest", "--step", "go", "--evidence", "backup", "--as", "ines", "--reason", "read")
    assert "set RUNBOOK_INPUT_TOKEN, then runbook resume" in desk.runbook("status").out
    assert (
        desk.runbook("status", RUNBOOK_INPUT_TOKEN="a long secret")
        .out.split("next ")[1]
        .strip()
        .startswith("runbook resume")
    )


def test_a_living_run_is_not_sent_into_a_refusal() -> None:
    from runner.plan.next_commands import Here, onward
    from runner.target.workplace import now

    status = RunStatus()
    playbook = None
    for alive in (True, None):
        told = onward(playbook, status, Here(now(), alive=alive)).commands  # type: ignore[arg-type]
        assert not any(word in one for one in told for word in ("resume", "rollback", "settle"))
    assert advice.state_word(status, living=True) == "running"
