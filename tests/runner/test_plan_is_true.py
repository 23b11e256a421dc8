"""A plan ends as exec would end before its first step: what exec refuses is refused by the plan too, and nothing else."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from databases import Database
from inside import InProcessCli, written

MARK = "- {id: mark, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
GATE = "- {id: go, type: checkpoint, success_criteria: [{id: there, check: rows, table: t, exactly: 1}]}"
ASK = "- {id: asked, type: checkpoint, approval: {by: dba}}"
REFUSED = {4, 6, 12}


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)")
    return InProcessCli(tmp_path, empty_database.url)


def both(desk: InProcessCli, *words: str, plan: bool = True, **env: str) -> tuple[int, int, str]:
    """The exit codes of the plan and of exec, and what they said."""
    looked = [desk.runbook("exec", "--dry-run", *words, **env)]
    if plan and not any(word in {"--from", "--to"} for word in words):
        looked.append(desk.runbook("plan", *words, **env))
    done = desk.runbook("exec", *words, **env)
    assert len({one.code for one in looked}) == 1, [one.text for one in looked]
    return looked[0].code, done.code, looked[0].text + "\n── exec\n" + done.text


def test_checkpoint_that_is_none(desk: InProcessCli):
    written(desk, f"{GATE}\n{MARK}")
    for option in ("--from", "--to"):
        planned, done, told = both(desk, "change.yaml", option, "nowhere")
        assert (planned, done) == (6, 6), told


def test_gate_before_the_start_that_was_never_passed(desk: InProcessCli):
    written(
        desk,
        f"{GATE}\n{MARK}\n- {{id: on, type: checkpoint, success_criteria: [{{id: still, check: rows, table: t, exactly: 1}}]}}",
    )
    planned, done, told = both(desk, "change.yaml", "--from", "on")
    assert (planned, done) == (6, 6), told


def test_fault_behind_the_end_is_none(desk: InProcessCli):
    first, broken = (
        f"- {{id: {name}, type: rename_column, column: {column}, to: m}}"
        for name, column in (("a", "t.n"), ("b", "nowhere.n"))
    )
    written(desk, f"{first}\n{GATE}\n{broken}")
    planned, done, told = both(desk, "change.yaml")
    assert (planned, done) == (6, 6), told
    planned, done, told = both(desk, "change.yaml", "--to", "go")
    assert (planned, done) == (0, 5), told


def test_later_playbook_that_requires_an_earlier_one(desk: InProcessCli):
    """exec runs them in order; what the first will have done can't be asked of the target beforehand."""
    written(desk, MARK, name="first")
    written(desk, MARK, "requires: [first]\n", name="second")
    planned, done, told = both(desk, "first.yaml", "second.yaml", plan=False)
    assert (planned, done) == (0, 0), told


def test_judgement_is_waited_for(desk: InProcessCli):
    check = "{id: known, check: query, query: SELECT n FROM t WHERE id = 9, that: n == 1, judge: [dba]}"
    written(
        desk,
        MARK,
        f"preconditions: [{check}]\n".replace("SELECT n FROM t WHERE id = 9", "SELECT CAST(NULL AS int) AS n"),
    )
    planned, done, told = both(desk, "change.yaml")
    assert (planned, done) == (5, 5), told


def test_failed_precondition(desk: InProcessCli):
    written(desk, MARK, "preconditions: [{id: high, check: query, query: SELECT n FROM t, that: n == 7}]\n")
    planned, done, told = both(desk, "change.yaml")
    assert (planned, done) == (3, 3), told


def test_precondition_that_has_time(desk: InProcessCli):
    """A plan doesn't wait for it, and says that exec would."""
    more = "within: 2 s, every: 1 s"
    written(desk, MARK, f"preconditions: [{{id: high, check: query, query: SELECT n FROM t, that: n == 7, {more}}}]\n")
    planned, done, told = both(desk, "change.yaml")
    assert (planned, done) == (3, 3), told
    assert "2 s" in told.partition("── exec")[0]


def test_lease_of_another_run(desk: InProcessCli, empty_database: Database, tmp_path: Path):
    slow = MARK.replace("UPDATE t SET n = n + 1 WHERE id = 1, ", "UPDATE t SET n = n + 1 WHERE id = 1, ", 1)
    written(desk, "- {id: sleep, type: command, argv: [sleep, '8']}\n" + slow, name="other")
    written(desk, MARK)
    with desk.start("exec", "other.yaml") as running:
        desk.reached("step_started")
        planned, done, told = both(desk, "change.yaml")
        running.terminate()
    assert (planned, done) == (6, 6), told


def test_secret_that_is_too_short(desk: InProcessCli):
    written(desk, MARK, "inputs: {token: {secret: true, required: true}}\n")
    planned, done, told = both(desk, "change.yaml", RUNBOOK_INPUT_TOKEN="abc")
    assert planned == done != 0, told
    offline = desk.runbook("plan", "change.yaml", RUNBOOK_INPUT_TOKEN="abc", RUNBOOK_TARGET="")
    assert offline.code == done, offline.text


def test_input_that_is_missing_or_wrong(desk: InProcessCli):
    written(desk, MARK, "inputs: {size: {required: true, type: int}}\n")
    for words in ((), ("-i", "size=x"), ("-i", "other=1")):
        planned, done, told = both(desk, "change.yaml", *words)
        assert planned == done != 0, told


def test_runs_folder_that_is_none(desk: InProcessCli):
    written(desk, MARK)
    (desk.directory / "runs").write_text("no folder")
    planned, done, told = both(desk, "change.yaml")
    assert planned == done != 0, told


def test_open_run_is_in_the_way(desk: InProcessCli):
    written(desk, f"{MARK}\n{ASK}\n- {{id: more, type: sql, text: UPDATE t SET n = n WHERE id = 1, revert: SELECT 1}}")
    assert desk.runbook("exec", "change.yaml").code == 5
    planned, done, told = both(desk, "change.yaml")
    assert (planned, done) == (6, 6), told


def test_playbook_that_changes_nothing_beside_a_bad_ledger(desk: InProcessCli, empty_database: Database):
    if empty_database.dialect == "sqlite":
        empty_database.script("CREATE TABLE runbook_run (x int)")
    else:
        empty_database.script("CREATE SCHEMA runbook; CREATE TABLE runbook.run (x int)")
    written(desk, GATE, name="looks")
    written(desk, MARK)
    for name in ("looks.yaml", "change.yaml"):
        planned, done, told = both(desk, name)
        assert planned == done, told


def test_program_that_is_not_there(desk: InProcessCli):
    written(desk, "- {id: run, type: command, argv: [no-such-program-anywhere]}")
    planned, done, told = both(desk, "change.yaml")
    assert (planned in REFUSED) == (done in REFUSED), told


def test_window_that_is_shut_is_shown(desk: InProcessCli):
    """As a gate does, it lets a run begin and wait."""
    written(desk, MARK, "open: {days: Mon-Sun, from: '00:00', to: '00:01', zone: UTC}\n")
    planned, done, told = both(desk, "change.yaml")
    assert done in (0, 5), told
    assert planned == 0, told
    if done == 5:
        assert "opens at" in told.partition("── exec")[0], told


def test_role_that_may_not_explain(empty_database: Database, tmp_path: Path):
    """What only the plan asks (rows, statements, conditions) is no reason for which exec would refuse."""
    if empty_database.dialect == "sqlite":
        pytest.skip("SQLite has no roles")
    empty_database.script(
        "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0); CREATE ROLE writer LOGIN"
    )
    try:
        empty_database.script("GRANT UPDATE (n), INSERT ON t TO writer; GRANT SELECT (id) ON t TO writer")
        with psycopg.connect(empty_database.url, autocommit=True) as owner:
            owner.execute(f'GRANT CREATE ON DATABASE "{owner.info.dbname}" TO writer')
        desk = InProcessCli(tmp_path, empty_database.url.replace("//owner@", "//writer@"))
        written(desk, "- {id: mark, type: sql, whole_table: true, text: UPDATE t SET n = 1}")
        planned, done, told = both(desk, "change.yaml")
        assert (planned in REFUSED) == (done in REFUSED), told
    finally:
        empty_database.script("DROP OWNED BY writer; DROP ROLE writer")
