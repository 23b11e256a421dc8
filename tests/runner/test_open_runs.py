"""A run that is open stands in the way of a second one, also where its folder is lost; close and recover end that."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest
from command import KILLED
from databases import Database
from inside import InProcessCli, until, written

pytestmark = pytest.mark.newest

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
UP = "- {id: up, type: sql, text: UPDATE t SET n = n + 100 WHERE id = 1, revert: UPDATE t SET n = n - 100 WHERE id = 1}"
GATE = "\n- {id: gate, type: checkpoint, approval: {need: 1}}"
LAST = "\n- {id: last, type: sql, text: UPDATE t SET n = 5 WHERE id = 2, revert: UPDATE t SET n = 0 WHERE id = 2}"
FAILS = "\n- {id: fails, type: sql, text: UPDATE nowhere SET n = 1 WHERE id = 1, revert: SELECT 1}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def numbers(database: Database) -> list[int]:
    return [row[0] for row in database.rows("SELECT n FROM t ORDER BY id")]


def lost(desk: InProcessCli) -> str:
    """The run's name; its folder is gone."""
    run = desk.newest.parent.name
    shutil.rmtree(desk.directory / "runs")
    return run


@on_both
@pytest.mark.parametrize("state", ["waiting", "failed", "killed"])
def test_open_run_is_in_the_way(desk: InProcessCli, empty_database: Database, state: str) -> None:
    """Whatever it waits for, and whether its folder is at hand or lost: the second run would add 100 again."""
    written(desk, UP + (FAILS if state == "failed" else GATE))
    if state == "killed":
        assert desk.kill("exec", "change.yaml", fault="commit.after:4").code == KILLED
    else:
        assert desk.runbook("exec", "change.yaml").code == (1 if state == "failed" else 5)
    begun = numbers(empty_database)
    assert begun[0] == 100
    refused = desk.runbook("exec", "change.yaml")
    run = desk.newest.parent.name
    assert refused.code == 6 and run in refused.text and "recover" not in refused.text, refused.text
    assert all(way in refused.text for way in (f"resume {run}", f"rollback {run}", f"close {run}"))
    lost(desk)
    refused = desk.runbook("exec", "change.yaml")
    assert refused.code == 6 and f"runbook recover {run} -t" in refused.text, refused.text
    assert not list((desk.directory / "runs").glob("*")) and numbers(empty_database) == begun


@on_both
def test_run_that_the_ledger_has_lost_is_in_the_way(desk: InProcessCli, empty_database: Database) -> None:
    """Its trail tells of what stands; plan says the same, and what is printed next is not refused."""
    written(desk, UP + GATE)
    assert desk.runbook("exec", "change.yaml").code == 5
    run = desk.newest.parent.name
    names = (
        "run step_commit step" if empty_database.dialect != "sqlite" else "runbook_run runbook_step_commit runbook_step"
    )
    for name in names.split():
        table = name if empty_database.dialect == "sqlite" else f"runbook.{name}"
        empty_database.script(f"DELETE FROM {table}")
    for words in (("exec", "change.yaml"), ("plan", "change.yaml")):
        refused = desk.runbook(*words)
        assert refused.code == 6 and run in refused.text, refused.text
    assert numbers(empty_database) == [100, 0]
    assert desk.runbook("close", run, "--reason", "looked at by hand").code == 0
    assert desk.runbook("exec", "change.yaml").code == 5


@on_both
def test_run_that_changed_nothing_is_in_nobodys_way(desk: InProcessCli) -> None:
    written(desk, FAILS.strip() + GATE)
    assert [desk.runbook("exec", "change.yaml").code for _ in range(2)] == [1, 1]
    written(desk, GATE.strip() + "\n" + UP, name="gated")
    assert [desk.runbook("exec", "gated.yaml").code for _ in range(2)] == [5, 5]


@on_both
@pytest.mark.parametrize("folder", [True, False])
def test_closed_run_is_over(desk: InProcessCli, empty_database: Database, folder: bool) -> None:
    written(desk, UP + GATE)
    assert desk.runbook("exec", "change.yaml").code == 5
    run = desk.newest.parent.name if folder else lost(desk)
    closed = desk.runbook("close", run, "--as", "ines", "--reason", "nobody goes on with it")
    assert closed.code == 0 and "nothing was taken back" in closed.out and "stands     up" in closed.out, closed.text
    assert numbers(empty_database)[0] == 100
    ledger = "runbook_run" if empty_database.dialect == "sqlite" else "runbook.run"
    assert empty_database.value(f"SELECT state FROM {ledger} WHERE run = '{run}'") == "closed"
    assert desk.runbook("close", run, "--reason", "again").code == 6
    assert desk.runbook("exec", "change.yaml").code == 5, "a new run may begin"
    if folder:
        assert desk.runbook("resume", run).code == 6
        assert "Closed" in desk.runbook("report", run).out
        assert desk.runbook("trail", "verify", run, "--against-target").code == 0
        back = desk.runbook("rollback", run)
        assert back.code == 0, "what it left can still be taken back" + back.text


@on_both
@pytest.mark.parametrize("way", ["resume", "rollback", "close"])
def test_recovered_run_goes_on(desk: InProcessCli, empty_database: Database, way: str) -> None:
    written(desk, UP + GATE + LAST)
    assert desk.runbook("exec", "change.yaml").code == 5
    run = lost(desk)
    (desk.directory / "change.yaml").unlink()  # the ledger has the playbook as well
    again = desk.runbook("recover", run)
    assert again.code == 0 and "waiting" in again.out, again.text
    (event,) = desk.events("recovered")
    assert event.lost_length > 0
    assert desk.runbook("recover", run).code == 6
    assert desk.runbook("trail", "verify", run, "--against-target").code == 0
    assert "recovered" in desk.runbook("report", run).out
    if way == "resume":
        assert desk.runbook("resume", run).code == 5, "approvals are not in the ledger"
        assert desk.runbook("approve", run, "--as", "ines", "--reason", "yes").code == 0
        done = desk.runbook("resume", run)
        assert done.code == 0 and numbers(empty_database) == [100, 5], done.text
    elif way == "rollback":
        done = desk.runbook("rollback", run)
        assert done.code == 0 and numbers(empty_database) == [0, 0], done.text
    else:
        assert desk.runbook("close", run, "--reason", "over").code == 0
        assert desk.status().state == "closed"


@on_both
@pytest.mark.parametrize("point", ["commit.after:3", "commit.after:4", "commit.before:5", "trail.after:4"])
def test_recovered_after_a_kill(desk: InProcessCli, empty_database: Database, point: str) -> None:
    """What had committed is known to the ledger; it is neither done twice nor lost."""
    written(desk, UP + LAST)
    assert desk.kill("exec", "change.yaml", fault=point).code == KILLED
    run = lost(desk)
    recovered = desk.runbook("recover", run)
    if recovered.code == 6:  # killed before its row was in the ledger: nothing had begun
        assert "knows no run" in recovered.text and desk.runbook("exec", "change.yaml").code == 0
    else:
        done = desk.runbook("resume", run)
        assert done.code == 0, done.text
    assert numbers(empty_database) == [100, 5]


@on_both
def test_undone_run_is_not_resumed_on_top(desk: InProcessCli, empty_database: Database) -> None:
    written(desk, UP + GATE + LAST)
    written(desk, "- {id: back, type: undo, of: change}", name="undo")
    assert desk.runbook("exec", "change.yaml").code == 5
    run = desk.newest.parent.name
    assert desk.runbook("exec", "undo.yaml").code == 0
    assert desk.runbook("approve", run, "--as", "ines", "--reason", "yes").code == 0
    refused = desk.runbook("resume", run)
    assert refused.code == 6 and numbers(empty_database) == [0, 0], refused.text
    assert desk.runbook("exec", "change.yaml").code == 5, "it is in nobody's way"


@on_both
def test_command_that_still_runs_is_waited_for(desk: InProcessCli, empty_database: Database) -> None:
    """Its run was killed, and it goes on: what it will write is not taken back before it is written."""
    step = "- {id: slow, type: command, argv: [sleep, '60'], revert: ['true']}"
    written(desk, step)
    process = desk.start("exec", "change.yaml")
    desk.reached("step_started")
    started = "runbook_step_commit" if empty_database.dialect == "sqlite" else "runbook.step_commit"
    labels = until(lambda: empty_database.rows(f"SELECT label FROM {started}"))
    (label,) = labels[0]
    pid = int(label.partition("pid=")[2].split()[0])
    until(lambda: psutil.Process(pid).name() == "sleep")  # it begins once its start is in the ledger
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    refused = desk.runbook("rollback", "latest")
    os.killpg(pid, signal.SIGKILL)
    assert refused.code == 6 and "still" in refused.text and str(pid) in refused.text, refused.text


SECOND = "- {id: also, type: sql, text: UPDATE t SET n = 7 WHERE id = 2, revert: UPDATE t SET n = 0 WHERE id = 2}"


@on_both
@pytest.mark.parametrize("how", ["rollback", "undo"])
def test_what_is_half_taken_back_has_not_succeeded(desk: InProcessCli, empty_database: Database, how: str) -> None:
    """Killed at each commit of the way back: no requirement is met, no second run begins, and the way back is gone to its end."""
    written(desk, "- {id: back, type: undo, of: change}", name="undo")
    written(desk, "- {id: one, type: sql, text: UPDATE t SET n = n WHERE id = 1}", "requires: [change]\n", name="later")
    written(desk, f"{UP}\n{SECOND}")
    halves = 0
    for commit in range(1, 20):
        assert desk.runbook("exec", "change.yaml").code == 0
        run = max((desk.directory / "runs").glob("change-*"), key=lambda path: path.stat().st_ctime_ns).name
        back = ("rollback", run) if how == "rollback" else ("exec", "undo.yaml")
        ended = desk.kill(*back, fault=f"commit.after:{commit}").code
        found = numbers(empty_database)
        if found in ([100, 0], [0, 7]):
            halves += 1
            for name in ("later.yaml", "change.yaml"):
                assert desk.runbook("exec", name).code == 6, (commit, name)
            assert numbers(empty_database) == found
            assert "half taken back" in desk.runbook("status", run).out or how == "undo"
        if ended != KILLED:
            break
        last = desk.runbook("rollback", run)
        assert numbers(empty_database) == [0, 0], last.text
        for undone in (desk.directory / "runs").glob("undo-*"):  # of no use any more
            desk.runbook("close", undone.name, "--reason", "its work is done")
    assert ended == 0 and halves
