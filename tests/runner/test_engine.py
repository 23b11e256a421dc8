"""The loop: locks that are waited for and never held against others, statements that are resumed, failures and their policies."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psycopg
import pytest
from databases import Database
from inside import InProcessCli, meanwhile, session, until, written

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def rows(database: Database) -> list[tuple]:
    return database.rows("SELECT id, n FROM t ORDER BY id")


# ─── locks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
RENAME = "- {id: rename, type: rename_column, column: t.n, to: m}"


@on_18
def test_waiting_for_a_lock_blocks_nobody_and_ends(desk: InProcessCli, empty_database: Database) -> None:
    """A reader that stays: others are answered while we wait, the trail names the reader, and nothing runs unprotected.

    F: A01, F: A03
    """
    done = threading.Event()
    answered = []

    def third() -> None:
        with contextlib.closing(psycopg.connect(empty_database.url, autocommit=True)) as other:
            other.execute("SET lock_timeout = '2s'")  # ten times our wait: it would fail behind a statement that stays
            while not done.is_set():
                other.execute("SELECT n FROM t").fetchall()
                answered.append(1)

    name = written(desk, RENAME, "lock: {wait: 200 ms, retry_for: 2 s}\n")
    with session(empty_database, "SELECT * FROM t", application_name="nightly_report") as reader, meanwhile(third):
        pid = reader.info.backend_pid
        found = desk.runbook("exec", name)
        done.set()
    assert found.code == 1, found.text
    waits = desk.events("lock_waited")
    assert len(waits) >= 2 and answered
    assert any(f"pid {pid}, " in one and "nightly_report" in one for wait in waits for one in wait.blockers)
    assert [one.sqlstate for one in desk.events("step_ended")] == ["55P03"]
    assert empty_database.rows("SELECT n FROM t") != []


@on_18
def test_third_try_has_the_playbooks_lock_timeout(desk: InProcessCli, empty_database: Database) -> None:
    """F: A02, F: A04"""
    empty_database.script("CREATE TABLE seen (wait text)")
    name = written(
        desk,
        "- id: lock\n  type: sql\n  transaction: one\n  revert: DELETE FROM seen WHERE true\n  statements:\n"
        "    - LOCK TABLE t IN ACCESS EXCLUSIVE MODE\n    - INSERT INTO seen SELECT current_setting('lock_timeout')",
        "lock: {wait: 150 ms, retry_for: 60 s}\n",
    )

    with session(empty_database, "SELECT * FROM t") as reader:

        def release() -> None:
            desk.reached("lock_waited", count=2)
            reader.rollback()

        with meanwhile(release):
            assert desk.runbook("exec", name).code == 0
    assert empty_database.rows("SELECT wait FROM seen") == [("150ms",)]
    assert [one.attempt for one in desk.events("lock_waited")][:2] == [1, 2]


@on_18
def test_deadlock_with_the_application_is_tried_again(desk: InProcessCli, empty_database: Database) -> None:
    """The application, which locks in the opposite order, is the one that wins. F: C03"""
    empty_database.script(f"ALTER DATABASE {empty_database.name} SET deadlock_timeout = '100ms'")
    name = written(
        desk,
        "- {id: both, type: sql, transaction: one, revert: SELECT 1, statements: "
        "[UPDATE t SET n = n + 1 WHERE id = 1, UPDATE t SET n = n + 1 WHERE id = 2]}",
        "lock: {wait: 20 s, retry_for: 60 s}\n",
    )

    def application() -> None:
        with session(empty_database, "SET deadlock_timeout = '60s'") as other:
            other.execute("UPDATE t SET n = n + 10 WHERE id = 2")
            held.set()
            until(lambda: empty_database.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            other.execute("UPDATE t SET n = n + 10 WHERE id = 1")
            other.commit()

    held = threading.Event()
    with meanwhile(application):
        held.wait()
        assert desk.runbook("exec", name).code == 0
    assert rows(empty_database) == [(1, 11), (2, 11)]
    assert desk.events("lock_waited")[0].sqlstate == "40P01"


@on_18
def test_concurrent_index_does_not_wait_for_us(desk: InProcessCli, empty_database: Database) -> None:
    """While it waits for others' snapshots, nothing of ours is idle in a transaction, and the heart goes on beating. F: A10"""
    name = written(desk, "- {id: index, type: create_index, table: t, columns: [n], name: t_n}")
    idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'runbook%' AND state LIKE 'idle in%'"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
    found = []
    with session(empty_database, "INSERT INTO t (id) VALUES (3)") as writer:

        def look() -> None:
            until(lambda: empty_database.value(waits))
            found.append(empty_database.value(idle))
            writer.commit()

        with meanwhile(look):
            assert desk.runbook("exec", name).code == 0
    assert found == [0]
    assert empty_database.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_n'::regclass")


# ─── statements ─────────────────────────────────────────────────────────────────────────────────────────────────────
TWO = (
    "- {id: two, type: sql, revert: SELECT 1, statements: "
    "[UPDATE t SET n = n + 1 WHERE id = 1, 'INSERT INTO t (id, n) VALUES (3, 1)']}"
)


@on_both
def test_resume_goes_on_at_the_second_statement(desk: InProcessCli, empty_database: Database) -> None:
    """The first committed, the second failed: the step is failed, and only the second is sent again. F: A17, F: E08"""
    name = written(desk, TWO)
    empty_database.script("INSERT INTO t VALUES (3, 0)")
    failed = desk.runbook("exec", name)
    assert failed.code == 1, failed.text
    assert [(one.outcome, one.sqlstate) for one in desk.events("step_ended")] == [("failed", "23505")]
    assert desk.runbook("resume", "latest").code == 1
    empty_database.script("DELETE FROM t WHERE id = 3")
    assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database) == [(1, 1), (2, 0), (3, 1)]


@on_18
def test_first_error_is_kept(desk: InProcessCli, empty_database: Database) -> None:
    """What fails first is told, never the 25P02 of what came after it; other checks get a snapshot of their own. F: E11"""
    name = written(
        desk,
        "- {id: one, type: sql, transaction: one, revert: SELECT 1, statements: "
        "[UPDATE t SET n = 7 WHERE id = 1, UPDATE t SET n = 1 / (n - 7) WHERE id = 1, UPDATE t SET n = 8 WHERE id = 1]}",
    )
    failed = desk.runbook("exec", name)
    (ended,) = desk.events("step_ended")
    assert (failed.code, ended.sqlstate) == (1, "22012") and "division by zero" in ended.error
    assert rows(empty_database)[0] == (1, 0)
    broken = written(
        desk,
        RENAME,
        "preconditions:\n  - {id: broken, check: query, query: broken, that: n == 1}\n"
        "  - {id: fine, check: query, query: fine, that: n == 2}\n"
        "queries: {broken: SELECT 1 / (count(*) - 2) AS n FROM t, fine: SELECT count(*) AS n FROM t}\n",
    )
    assert desk.runbook("exec", broken).code == 3
    assert [(one.id, one.answer) for one in desk.events("check_answered")] == [("broken", "error"), ("fine", "pass")]
    assert "25P02" not in desk.newest.read_text() and "division by zero" in desk.newest.read_text()


@on_18
def test_criteria_of_a_group_see_one_snapshot(desk: InProcessCli, empty_database: Database) -> None:
    """A writer commits between two checks; their figures fit each other all the same. F: I09"""
    done = threading.Event()

    def writer() -> None:
        with contextlib.closing(psycopg.connect(empty_database.url, autocommit=True)) as other:
            n = 100
            while not done.is_set():
                other.execute("INSERT INTO t (id) VALUES (%s)", [n := n + 1])

    name = written(
        desk,
        "- {id: later, type: checkpoint, not_before: '2990-01-01T00:00:00+00:00', success_criteria: ["
        "{id: first, check: query, query: slow, that: n > 0}, {id: second, check: query, query: fast, that: n == first.n}]}",
        "queries: {slow: 'SELECT count(*) AS n, (SELECT 1 FROM pg_sleep(0.3)) AS slept FROM t', fast: SELECT count(*) AS n FROM t}\n",
    )
    with meanwhile(writer):
        found = desk.runbook("exec", name)
        done.set()
    assert found.code == 5, found.text
    first, second = desk.events("check_answered")
    assert (first.answer, second.answer) == ("pass", "pass")
    assert empty_database.value("SELECT count(*) FROM t") > first.result["n"]


# ─── failures and what they mean ────────────────────────────────────────────────────────────────────────────────────
BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"


def failing(policy: str, back: str = "SELECT 1") -> str:
    return (
        f"{BUMP}\n- {{id: bad, type: sql, text: INSERT INTO t (id) VALUES (2), revert: '{back}', on_failure: {policy}}}\n"
        "- {id: last, type: sql, text: UPDATE t SET n = 5 WHERE id = 2, revert: UPDATE t SET n = 0 WHERE id = 2}"
    )


@on_both
def test_failure_is_taken_back(desk: InProcessCli, empty_database: Database) -> None:
    """on_failure: rollback gives exit 8; the run is over."""
    found = desk.runbook("exec", written(desk, failing("rollback")))
    assert found.code == 8, found.text
    assert rows(empty_database) == [(1, 0), (2, 0)]
    assert desk.status().state == "rolled_back"
    assert desk.runbook("resume", "latest").code == 6
    assert desk.runbook("rollback", "latest").code == 6


@on_18
def test_failing_way_back_tells_both_errors(desk: InProcessCli, empty_database: Database) -> None:
    """exit 9; there is no way forward from there, and the way back goes on when its cause is mended."""
    text = failing("rollback").replace(
        "revert: UPDATE t SET n = n - 1 WHERE id = 1", "revert: UPDATE u SET n = 0 WHERE id = 1"
    )
    found = desk.runbook("exec", written(desk, text))
    assert found.code == 9, found.text
    assert "duplicate key" in found.err and 'relation "u" does not exist' in found.err
    assert rows(empty_database) == [(1, 1), (2, 0)]
    again = desk.runbook("resume", "latest")
    assert again.code == 6 and "taking it back has begun" in again.err
    empty_database.script("CREATE VIEW u AS SELECT * FROM t")
    assert desk.runbook("rollback", "latest").code == 0
    assert rows(empty_database) == [(1, 0), (2, 0)]


@on_both
def test_failure_with_a_reason_to_go_on(desk: InProcessCli, empty_database: Database) -> None:
    found = desk.runbook("exec", written(desk, failing("{continue: the row may be there}")))
    assert found.code == 0, found.text
    assert [(one.step, one.outcome) for one in desk.events("step_ended")] == [
        ("bump", "done"), ("bad", "failed"), ("bad", "continued"), ("last", "done"),
    ]  # fmt: skip
    assert "the row may be there" in desk.events("step_ended")[2].error


@on_both
def test_precondition_that_fails_changes_nothing(desk: InProcessCli, empty_database: Database) -> None:
    """Of the playbook or of a step; NULL is unknown, and only pass opens a gate."""
    query = "queries: {none: SELECT max(n) AS n FROM t WHERE id > 9}\n"
    check = "[{id: there, check: query, query: none, that: n >= 0}]"
    found = desk.runbook("exec", written(desk, BUMP, f"{query}preconditions: {check}\n"))
    assert (found.code, desk.events("check_answered")[0].answer) == (3, "unknown"), found.text
    stepwise = BUMP.replace("type: sql", f"type: sql, preconditions: {check}")
    assert desk.runbook("exec", written(desk, stepwise, query)).code == 3
    assert not desk.events("step_started")
    assert rows(empty_database) == [(1, 0), (2, 0)]


@on_both
def test_change_that_does_not_verify_is_no_success(desk: InProcessCli, empty_database: Database) -> None:
    """The statement committed, and the database says it is not so: failed, the run's own, and it can be taken back. F: F10"""
    step = BUMP.replace("type: sql", "type: sql, applied_if: is_two")
    query = "queries: {is_two: SELECT count(*) = 1 AS there FROM t WHERE id = 1 AND n = 2}\n"
    found = desk.runbook("exec", written(desk, step, query))
    assert found.code == 1 and "the database says partly" in found.err, found.text
    assert rows(empty_database)[0] == (1, 1)
    assert desk.runbook("rollback", "latest").code == 0
    assert rows(empty_database)[0] == (1, 0)


@on_18
def test_criterion_that_fails_after_the_change(desk: InProcessCli, empty_database: Database) -> None:
    """Exit 3; when it holds, resume asks it again and sends nothing twice."""
    step = BUMP.replace("type: sql", "type: sql, success_criteria: [{id: two, check: query, query: n, that: n == 2}]")
    name = written(desk, step, "queries: {n: SELECT n FROM t WHERE id = 1}\n")
    assert desk.runbook("exec", name).code == 3
    assert desk.runbook("resume", "latest").code == 3
    empty_database.script("UPDATE t SET n = 2 WHERE id = 1")
    assert desk.runbook("resume", "latest").code == 0
    assert rows(empty_database)[0] == (1, 2)


@on_18
def test_question_that_cannot_be_asked(desk: InProcessCli) -> None:
    """An applied_if that the database refuses: before the run where that can be known, else a failed step, in words."""
    step = BUMP.replace("type: sql", "type: sql, applied_if: nothing")
    queries = "queries: {nothing: SELECT true AS there FROM missing}\n"
    found = desk.runbook("exec", written(desk, step, queries))
    assert found.code == 6 and "missing" in found.err, found.text
    found = desk.runbook(
        "exec", written(desk, f"- {{id: first, type: sql, text: UPDATE t SET n = n WHERE id = 1}}\n{step}", queries)
    )
    assert found.code == 1 and "cannot see how step bump" in found.err, found.text
    assert desk.status().state == "failed"


# ─── back ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_one_way_step_stops_the_way_back_before_it_begins(desk: InProcessCli, empty_database: Database) -> None:
    """Nothing is touched; --to takes back what came after it; it needs a run and goes no further than asked. F: F08"""
    steps = (
        BUMP
        + "\n- {id: forever, type: sql, text: 'INSERT INTO t VALUES (3, 3)'}\n"
        + BUMP.replace("id: bump", "id: again")
    )
    assert desk.runbook("exec", written(desk, steps)).code == 0
    refused = desk.runbook("rollback", "latest")
    assert refused.code == 6 and "forever" in refused.err and "one way" in refused.err
    assert rows(empty_database)[0] == (1, 2)
    assert desk.runbook("rollback").code == 2
    assert desk.runbook("rollback", "latest", "--to", "nowhere").code == 6
    part = desk.runbook("rollback", "latest", "--to", "forever")
    assert part.code == 9 and "forever still stands: kept, as --to asked" in part.text
    assert rows(empty_database) == [(1, 1), (2, 0), (3, 3)]
    assert desk.status().state == "rolled_back_in_part"
    assert desk.runbook("resume", "latest").code == 6
    assert "forever" in desk.runbook("rollback", "latest").err


@on_both
def test_playbook_without_a_way_back(desk: InProcessCli, empty_database: Database) -> None:
    name = written(desk, BUMP, "rollback: {none: the application has read it}\n")
    assert desk.runbook("exec", name).code == 0
    refused = desk.runbook("rollback", "latest")
    assert refused.code == 6 and "the application has read it" in refused.err
    assert rows(empty_database)[0] == (1, 1)


@on_both
def test_what_was_so_already_is_not_taken_back(desk: InProcessCli, empty_database: Database) -> None:
    """F: F09"""
    empty_database.script("ALTER TABLE t ADD COLUMN extra integer")
    name = written(desk, "- {id: add, type: add_column, column: t.extra, of_type: integer}\n" + BUMP)
    found = desk.runbook("exec", name)
    assert found.code == 0, found.text
    assert desk.events("step_ended")[0].outcome == "already_applied"
    assert desk.runbook("rollback", "latest").code == 0
    assert [one.step for one in desk.events("step_started") if one.action == "revert"] == ["bump"]
    assert empty_database.rows("SELECT extra FROM t WHERE id = 1") == [(None,)]
