"""Going on: only with the same meaning, on the same target, and never past a doubt that a person has not settled."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import KILLED
from databases import Database
from inside import InProcessCli, written

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
GATE = "- {id: gate, type: checkpoint, approval: {need: 1}}"
LAST = "- {id: last, type: sql, text: UPDATE t SET n = 5 WHERE id = 2, revert: UPDATE t SET n = 0 WHERE id = 2}"
GATED = f"{BUMP}\n{GATE}\n{LAST}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def rows(database: Database) -> list[tuple]:
    return database.rows("SELECT id, n FROM t ORDER BY id")


def begun(desk: InProcessCli, step: str) -> int:
    return sum(one.step == step for one in desk.events("step_started"))


# ─── in doubt ───────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
@pytest.mark.parametrize("answer", ["done", "not-done"])
def test_doubt_is_settled_by_a_person(desk: InProcessCli, empty_database: Database, answer: str) -> None:
    """Killed between a statement that can't be in a transaction and its record: nobody knows, so a person must say. F: E07"""
    written(desk, "- {id: clean, type: sql, text: VACUUM, revert: SELECT 1}\n" + BUMP)
    assert desk.kill("exec", "change.yaml", fault="commit.before:5").code == KILLED
    for _ in range(2):
        found = desk.runbook("resume", "latest")
        assert found.code == 10 and "began and did not end" in found.err and "settle" in found.err, found.text
    assert desk.status().state == "in_doubt"
    assert "settle" in desk.runbook("status", "latest").out
    refused = desk.runbook("settle", "latest", "bump", "done", "--reason", "?")
    assert refused.code == 6 and "in doubt: clean" in refused.err
    assert desk.runbook("settle", "latest", "clean", answer, "--as", "ines", "--reason", "looked at it").code == 0
    found = desk.runbook("resume", "latest")
    assert found.code == 0, found.text
    assert begun(desk, "clean") == (1 if answer == "done" else 2)
    (settled,) = desk.events("settled")
    assert (settled.step, settled.done, settled.by, settled.reason) == (
        "clean",
        answer == "done",
        "ines",
        "looked at it",
    )
    assert rows(empty_database)[0] == (1, 1)


@on_18
def test_failed_statement_outside_of_a_transaction(desk: InProcessCli, empty_database: Database) -> None:
    """It failed, but what it had done by then is not known: resume asks, and the answer is taken. F: A07"""
    empty_database.script("UPDATE t SET n = 3 WHERE true")
    index = "CREATE UNIQUE INDEX CONCURRENTLY t_n ON t (n)"
    written(desk, f"- {{id: index, type: sql, text: {index}, revert: DROP INDEX t_n}}")
    assert desk.runbook("exec", "change.yaml").code == 1
    assert desk.runbook("resume", "latest").code == 10
    empty_database.script("DROP INDEX t_n; UPDATE t SET n = id WHERE true")
    assert desk.runbook("settle", "latest", "index", "not-done", "--reason", "dropped what was left").code == 0
    assert desk.runbook("resume", "latest").code == 0
    assert empty_database.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_n'::regclass")


@on_both
@pytest.mark.parametrize("point", ["trail.before:6", "commit.after:4", "commit.before:4"])
def test_statement_in_a_transaction_is_never_in_doubt(desk: InProcessCli, empty_database: Database, point: str) -> None:
    """Killed around its commit and before its end is on disk: the ledger knows. F: E04 F: E07"""
    written(desk, BUMP)
    assert desk.kill("exec", "change.yaml", fault=point).code == KILLED
    found = desk.runbook("resume", "latest")
    assert found.code == 0, found.text
    assert rows(empty_database)[0] == (1, 1)


# ─── the same playbook ──────────────────────────────────────────────────────────────────────────────────────────────
@on_sqlite
def test_other_bytes_with_the_same_meaning(desk: InProcessCli) -> None:
    """A comment, an indent and the order of keys change nothing."""
    written(desk, GATED)
    assert desk.runbook("exec", "change.yaml").code == 5
    written(
        desk, GATED.replace("{id: bump, type: sql,", "{type: sql, id: bump,   ") + "   # the last one\n", "# a change\n"
    )
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "yes").code == 0
    assert desk.runbook("resume", "latest").code == 0
    assert desk.events("run_resumed")[0].digest == ""


@on_sqlite
def test_change_in_a_step_that_ran(desk: InProcessCli, empty_database: Database) -> None:
    """In its own lines or in a query that it names: refused with its name, whatever is accepted."""
    query = "queries: {{there: SELECT count(*) = 1 AS there FROM t WHERE id = 1 AND n >= {}}}\n"
    steps = GATED.replace(
        "type: sql, text: UPDATE t SET n = n + 1", "type: sql, applied_if: there, text: UPDATE t SET n = n + 1"
    )
    written(desk, steps, query.format(1))
    assert desk.runbook("exec", "change.yaml").code == 5
    accept = ("--accept-changes", "--reason", "a typo")
    for changed, head in ((steps.replace("n + 1", "n + 2"), query.format(1)), (steps, query.format(2))):
        written(desk, changed, head)
        for words in ((), accept):
            refused = desk.runbook("resume", "latest", *words)
            assert refused.code == 6 and "in a step that ran: bump" in refused.err, refused.text
    assert rows(empty_database) == [(1, 1), (2, 0)]
    assert desk.status().state == "waiting"


@on_sqlite
def test_change_in_a_later_step_is_accepted_by_a_person(desk: InProcessCli, empty_database: Database) -> None:
    """Not silently; and who approved other bytes has approved nothing."""
    written(desk, GATED)
    assert desk.runbook("exec", "change.yaml").code == 5
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "rehearsed").code == 0
    written(desk, GATED.replace("n = 5", "n = 6"))
    refused = desk.runbook("resume", "latest")
    assert refused.code == 6 and "since it began: last" in refused.err and "--accept-changes" in refused.err
    assert desk.runbook("resume", "latest", "--accept-changes").code == 2
    waiting = desk.runbook("resume", "latest", "--accept-changes", "--reason", "six, not five")
    assert waiting.code == 5 and "1 approval" in waiting.err, waiting.text
    resumed = desk.events("run_resumed")[-1]
    assert (resumed.changed_steps, resumed.reason) == (("last",), "six, not five")
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "again").code == 0
    assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database)[1] == (2, 6)


@on_sqlite
def test_gate_may_be_mended_while_the_run_waits_at_it(desk: InProcessCli) -> None:
    """By whom the gate as it stood named: the operator alone can't make it weaker."""
    written(desk, GATED.replace("need: 1", "need: 1, roles: [nobody_has_this]"))
    assert desk.runbook("exec", "change.yaml").code == 5
    written(desk, GATED)
    assert desk.runbook("resume", "latest", "--accept-changes", "--reason", "no such role here").code == 5
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "yes").code == 0
    assert "nobody_has_this" in desk.runbook("resume", "latest").err
    assert desk.runbook("approve", "latest", "--as", "ines", "--role", "nobody_has_this", "--reason", "yes").code == 0
    assert desk.runbook("resume", "latest").code == 0


# ─── the same inputs, target and record ─────────────────────────────────────────────────────────────────────────────
@on_sqlite
def test_other_inputs_and_another_target(desk: InProcessCli, tmp_path: Path) -> None:
    written(desk, GATED, "inputs: {n: {type: integer, default: 1}}\n")
    assert desk.runbook("exec", "change.yaml", "--input", "n=2").code == 5
    refused = desk.runbook("resume", "latest", "--input", "n=3")
    assert refused.code == 6 and "n was 2, is 3" in refused.err, refused.text
    there = tmp_path / "copy.sqlite"
    there.write_bytes(Path(desk.target.removeprefix("sqlite:///")).read_bytes())
    refused = desk.runbook("resume", "latest", "--target", f"sqlite:///{there}")
    assert refused.code == 6 and "not the target on which it began" in refused.err
    assert desk.status().state == "waiting"


@on_sqlite
def test_run_that_has_ended(desk: InProcessCli, empty_database: Database) -> None:
    """A run is named by its id, a beginning of it, or latest. F: E12"""
    written(desk, BUMP)
    assert desk.runbook("exec", "change.yaml").code == 0
    name = desk.newest.parent.name
    for words in ("latest", name, name[:-2]):
        refused = desk.runbook("resume", words)
        assert refused.code == 6 and "has ended (succeeded)" in refused.err, refused.text
    assert desk.runbook("resume", "nosuch").code == 6
    assert rows(empty_database)[0] == (1, 1)


@on_sqlite
def test_record_that_somebody_changed(desk: InProcessCli, empty_database: Database) -> None:
    """Nothing goes on from it; a last line that a kill tore is cut off and said. F: E04"""
    written(desk, GATED)
    assert desk.runbook("exec", "change.yaml").code == 5
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "yes").code == 0
    good = desk.newest.read_bytes()
    desk.newest.write_bytes(good.replace(b'"name":"ines"', b'"name":"kim"'))
    refused = desk.runbook("resume", "latest")
    assert refused.code == 11 and "was changed" in refused.err, refused.text
    desk.newest.write_bytes(good + b'{"n":99,"at":"2026')
    assert desk.runbook("resume", "latest").code == 0
    assert len(desk.events("torn_tail")) == 1
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0
    assert rows(empty_database) == [(1, 1), (2, 5)]


@on_both
def test_killed_way_back_has_no_way_forward(desk: InProcessCli, empty_database: Database) -> None:
    """Once taking back has begun, resume refuses: what is taken back would be skipped as done. F: F01"""
    steps = f"{BUMP}\n{LAST}"
    written(desk, steps)
    assert desk.runbook("exec", "change.yaml").code == 0
    assert desk.kill("rollback", "latest", fault="commit.after:3").code == KILLED
    refused = desk.runbook("resume", "latest")
    assert refused.code == 6 and "taking it back has begun" in refused.err, refused.text
    assert desk.runbook("rollback", "latest").code == 0
    assert rows(empty_database) == [(1, 0), (2, 0)]
    assert desk.runbook("rollback", "latest").code == 6
