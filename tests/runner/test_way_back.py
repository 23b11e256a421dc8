"""The way back: figures and refusals are said, every end has a next act, and nothing is said to be gone that stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command import KILLED, Done
from databases import Database
from inside import InProcessCli, written

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)

UP = "- {id: up, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
FILL = """
- id: fill
  type: backfill
  table: t
  source: SELECT k, v FROM s
  match: source.k = target.id
  fill: [v]
  success_criteria: [{id: nothing_left, that: left == 0 and dead == 0}]
"""
TWO = """
- {{id: two, type: sql, transaction: {mode}, {more}
   statements: [UPDATE t SET n = n + 1 WHERE id = 1, UPDATE t SET n = n + 1 WHERE id = 2],
   revert: [UPDATE t SET n = n - 1 WHERE id = 2, UPDATE t SET n = n - 1 WHERE id = 1]}}
"""
EACH = """
- id: two
  type: sql
  transaction: {mode}
  {more}
  statements:
    - {{run: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}}
    - {{run: UPDATE t SET n = n + 1 WHERE id = 2, revert: UPDATE t SET n = n - 1 WHERE id = 2}}
"""
QUERY = "queries: {raised: SELECT count(*) = 2 AS there FROM t WHERE id <= 2 AND n > 0}\n"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("""CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0, v text);
        INSERT INTO t (id) VALUES (1), (2), (3), (4), (5), (6), (7), (8);
        CREATE TABLE s (k integer PRIMARY KEY, v text);
        INSERT INTO s VALUES (1, 'a'), (2, 'a'), (3, 'a'), (4, 'a'), (5, 'a'), (6, 'a'), (7, 'a'), (8, 'a')""")
    return InProcessCli(tmp_path, empty_database.url)


def numbers(database: Database) -> list[int]:
    return [row[0] for row in database.rows("SELECT n FROM t ORDER BY id")][:2]


def name(database: Database, table: str) -> str:
    return f"runbook_{table}" if database.dialect == "sqlite" else f"runbook.{table}"


def forget(database: Database, what: str) -> None:
    """What somebody deletes of the ledger."""
    if what == "schema" and database.dialect == "sqlite":
        tables = [row[0] for row in database.rows("SELECT name FROM sqlite_master WHERE name LIKE 'runbook_%'")]
        database.script(";".join(f"DROP TABLE {one}" for one in tables))
    elif what == "schema":
        database.script("DROP SCHEMA runbook CASCADE")
    else:
        database.script(f"DELETE FROM {name(database, what)} WHERE true")


def following(done: Done) -> list[str]:
    """The first command of what was printed as next, with what a person fills in."""
    (text,) = re.findall(r"^next:? +(.*)$", done.text, flags=re.MULTILINE)[-1:]
    command = re.search(r"runbook ([^;,]*?)(?= takes | \(|;|,|$)", text)
    assert command, text
    words = command[1].replace("done|not-done", "not-done").replace("'…'", "looked").replace("STEP", "up")
    return shlex.split(words)


def to_the_end(desk: InProcessCli, done: Done, *, most: int = 8) -> Done:
    """What is printed as next, carried out until the run has ended."""
    for _ in range(most):
        words = following(done)
        if words[0] in {"report", "status"}:
            return done
        done = desk.runbook(*words)
    raise AssertionError(f"it goes in a circle: {words}, {done.text}")


# ─── figures ────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_refused_rows_are_counted_everywhere(desk: InProcessCli, empty_database: Database) -> None:
    written(desk, FILL)
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script("UPDATE t SET v = 'mine' WHERE id <= 3")
    back = desk.runbook("rollback", "latest", "--reason", "wrong")
    assert back.code == 9 and "5 rows restored, 3 refused" in back.text and "--rows refused" in back.text, back.text
    status = desk.status()
    assert status.state == "rolled_back_in_part"
    assert status.steps["fill"].back == {"restored": 5, "refused": 3}
    assert "restored 5, refused 3" in desk.runbook("report", "latest").out
    shown = desk.runbook("status", "latest").out
    assert "restored 5, refused 3" in shown and "--rows refused" in shown and "next       runbook rollback" not in shown
    ledger = "SELECT results FROM {} WHERE action = 'revert'".format(name(empty_database, "step"))
    assert '"refused": 3' in empty_database.value(ledger)
    assert desk.runbook(*following(back)).out.count("changed since") == 3
    again = desk.runbook("rollback", "latest")
    assert again.code == 6 and "3 refused" in again.text
    assert desk.runbook("resume", "latest").code == 6


@on_both
def test_rollback_after_a_failure_counts_as_well(desk: InProcessCli, empty_database: Database) -> None:
    change = "- {id: mine, type: sql, text: UPDATE t SET v = 'mine' WHERE id <= 3, revert: []}"
    fail = "- {id: fails, type: sql, text: INSERT INTO t (id) VALUES (1), revert: SELECT 1, on_failure: rollback}"
    written(desk, f"{FILL}{change}\n{fail}")
    done = desk.runbook("exec", "change.yaml")
    assert done.code == 9 and "5 rows restored, 3 refused" in done.text, done.text
    assert desk.status().state == "rolled_back_in_part"
    assert empty_database.value("SELECT count(v) FROM t") == 3


@on_both
def test_undo_that_refused_rows_has_not_succeeded(desk: InProcessCli, empty_database: Database) -> None:
    """Neither at once nor when it is resumed."""
    written(desk, FILL)
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script("UPDATE t SET v = 'mine' WHERE id <= 3")
    written(desk, "- {id: back, type: undo, of: change}", name="undo")
    done = desk.runbook("exec", "undo.yaml")
    assert done.code == 3 and "5 rows restored, 3 refused" in done.text, done.text
    assert desk.runbook("resume", "latest").code == 3
    assert desk.status().state == "criteria_not_met"
    state = "SELECT state FROM {} WHERE playbook = 'change'".format(name(empty_database, "run"))
    assert empty_database.value(state) == "rolled_back_in_part"
    told = desk.runbook("status", "latest").out
    run = desk.newest.parent.name
    assert f"runbook close {run}" in told and f"runbook resume {run}" not in told, told
    assert desk.runbook("close", "latest", "--reason", "those rows are theirs").code == 0
    assert desk.status().state == "closed"


@on_both
def test_undo_goes_on_with_the_run_that_it_chose(desk: InProcessCli, empty_database: Database) -> None:
    """Killed on the way: an older run of the same playbook that stands as well is not taken back instead."""
    written(desk, UP)
    written(desk, "- {id: back, type: undo, of: change}", name="undo")
    for _ in range(2):
        assert desk.runbook("exec", "change.yaml").code == 0
    assert desk.kill("exec", "undo.yaml", fault="commit.after:6").code == KILLED
    assert numbers(empty_database)[0] in (1, 2)
    done = desk.runbook("resume", "undo")
    assert done.code == 0, done.text
    assert numbers(empty_database)[0] == 1


# ─── what stands ────────────────────────────────────────────────────────────────────────────────────────────────────
LIST = UP + "\n" + UP.replace("id: up", "id: other")


@on_both
def test_list_that_leaves_a_step_out(desk: InProcessCli, empty_database: Database) -> None:
    written(desk, LIST, "rollback: [other]\n")
    for said in (desk.runbook("validate", "change.yaml"), desk.runbook("plan", "change.yaml")):
        assert said.code == 0 and "rollback leaves up standing" in " ".join(said.out.split()), said.out
    assert desk.runbook("exec", "change.yaml").code == 0
    back = desk.runbook("rollback", "latest")
    assert back.code == 9 and "up still stands: the playbook's rollback list leaves it out" in back.text, back.text
    assert "next       runbook rollback" not in desk.runbook("status", "latest").out
    assert desk.runbook("rollback", "latest").code == 6
    assert numbers(empty_database)[0] == 1


@on_both
def test_failing_revert_is_left_settled_or_mended(desk: InProcessCli, empty_database: Database) -> None:
    """Each of the three recorded ways on ends the run as what it is."""
    broken = UP.replace("id: up", "id: bad").replace("UPDATE t SET n = n - 1", "UPDATE nowhere SET n = 1")
    mended = UP.replace("id: up", "id: bad")
    written(desk, f"{UP}\n{broken}")
    for way in ("leave", "settle", "mend"):
        empty_database.script("UPDATE t SET n = 0 WHERE true")
        written(desk, f"{UP}\n{broken}")
        assert desk.runbook("exec", "change.yaml").code == 0
        failed = desk.runbook("rollback", "latest")
        assert failed.code == 9 and desk.status().state == "rollback_failed" and "--leave bad" in failed.text
        if way == "leave":
            assert desk.runbook("rollback", "latest", "--leave", "bad").code == 2, "a reason is needed"
            done = desk.runbook("rollback", "latest", "--leave", "bad", "--reason", "it may stay")
            assert done.code == 9 and "bad still stands: it may stay" in done.text, done.text
            assert (desk.status().state, numbers(empty_database)[0]) == ("rolled_back_in_part", 1)
            out = desk.runbook("status", "latest").out
            assert "left standing" in out and ": it may stay" in out, out
        elif way == "settle":
            empty_database.script("UPDATE t SET n = n - 1 WHERE id = 1")
            settled = desk.runbook("settle", "latest", "bad", "not-done", "--reason", "by hand")
            assert settled.code == 0 and "runbook rollback" in settled.out
            assert desk.runbook("rollback", "latest").code == 0
            assert (desk.status().state, numbers(empty_database)[0]) == ("rolled_back", 0)
        else:
            written(desk, f"{UP.replace('n + 1', 'n + 2')}\n{mended}")
            refused = desk.runbook("rollback", "latest", "--accept-changes", "--reason", "a typo")
            assert refused.code == 6 and "more than its way back differs" in refused.text
            written(desk, f"{UP}\n{mended}")
            done = desk.runbook("rollback", "latest", "--accept-changes", "--reason", "a typo")
            assert done.code == 0, done.text
            assert desk.events("rollback_started")[-1].changed_steps == ("bad",)
            assert (desk.status().state, numbers(empty_database)[0]) == ("rolled_back", 0)


# ─── sql ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
@pytest.mark.parametrize("asked", ["", "applied_if: raised,"])
@pytest.mark.parametrize("mode", ["each", "one"])
@pytest.mark.parametrize("steps", [TWO, EACH])
def test_sql_is_taken_back_in_every_mode(
    desk: InProcessCli, empty_database: Database, steps: str, mode: str, asked: str
) -> None:
    more = asked if steps is TWO else asked.rstrip(",")
    written(desk, steps.format(mode=mode, more=more) + LIST, QUERY)
    assert desk.runbook("plan", "change.yaml", "--target", desk.target).code == 0
    assert desk.runbook("exec", "change.yaml").code == 0
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
    assert numbers(empty_database) == [0, 0]


@on_both
@pytest.mark.parametrize("asked", ["", "applied_if: raised,"])
@pytest.mark.parametrize("mode", ["each", "one"])
@pytest.mark.parametrize("steps", [TWO, EACH])
def test_sql_that_ended_half_done(
    desk: InProcessCli, empty_database: Database, steps: str, mode: str, asked: str
) -> None:
    """Only what the run did is taken back; where that can't be told it is refused, and nothing else is touched."""
    empty_database.script("CREATE TABLE u (id integer PRIMARY KEY)")
    second = "INSERT INTO u VALUES (1), (1)"
    more = asked if steps is TWO else asked.rstrip(",")
    text = steps.format(mode=mode, more=more).replace("UPDATE t SET n = n + 1 WHERE id = 2", f"'{second}'")
    written(desk, text, QUERY)
    assert desk.runbook("exec", "change.yaml").code == 1
    begun = numbers(empty_database)
    back = desk.runbook("rollback", "latest")
    if steps is TWO and mode == "each":
        assert back.code == 10 and "1 of 2 statements committed" in back.text, back.text
        assert numbers(empty_database) == begun == [1, 0]
        assert "can't be taken back by itself where it ends half done" in desk.runbook("validate", "change.yaml").out
        left = desk.runbook("rollback", "latest", "--leave", "two", "--reason", "it may stay")
        assert left.code == 9 and "two still stands" in left.text
    else:
        assert back.code == 0, back.text
        assert numbers(empty_database) == [0, 0]


@on_sqlite
def test_half_done_is_no_start_for_a_rollback_on_failure(desk: InProcessCli) -> None:
    text = TWO.format(mode="each", more="on_failure: rollback,")
    written(desk, text)
    refused = desk.runbook("validate", "change.yaml")
    assert refused.code == 4 and "on_failure: rollback" in refused.text and "change.yaml:6:5" in refused.text
    written(desk, text.replace("each", "one"))
    assert desk.runbook("validate", "change.yaml").code == 0


@on_18
@pytest.mark.parametrize("answer", ["done", "not-done"])
def test_doubt_on_the_way_back_is_settled(desk: InProcessCli, empty_database: Database, answer: str) -> None:
    """A statement outside of a transaction, killed before its end was recorded."""
    index = "- {id: by_v, type: sql, text: CREATE INDEX CONCURRENTLY by_v ON t (v), revert: DROP INDEX CONCURRENTLY IF EXISTS by_v}"
    written(desk, f"{UP}\n{index}")
    assert desk.runbook("exec", "change.yaml").code == 0
    killed = desk.kill("rollback", "latest", fault="commit.before:4")
    assert killed.code == KILLED
    back = desk.runbook("rollback", "latest")
    assert back.code == 10 and "its end is not known" in back.text, back.text
    assert desk.status().state == "in_doubt"
    assert desk.runbook("settle", "latest", "by_v", answer, "--reason", "looked").code == 0
    assert "runbook rollback" in desk.runbook("status", "latest").out
    done = desk.runbook("rollback", "latest")
    assert done.code == 0, done.text
    assert numbers(empty_database)[0] == 0


@on_both
def test_secret_is_given_again_for_the_way_back(desk: InProcessCli, empty_database: Database) -> None:
    """Its mask is never sent in its place."""
    head = "inputs: {word: {secret: true, required: true}}\n"
    step = """
- id: mark
  type: sql
  params: {word: '{{ word }}'}
  text: UPDATE t SET v = :word WHERE id = 1
  revert: UPDATE t SET v = NULL WHERE v = :word
"""
    written(desk, step, head)
    secret = {"RUNBOOK_INPUT_WORD": "correct-horse"}
    assert desk.runbook("exec", "change.yaml", **secret).code == 0
    refused = desk.runbook("rollback", "latest")
    assert refused.code == 6 and "RUNBOOK_INPUT_WORD" in refused.text, refused.text
    assert desk.runbook("rollback", "latest", **secret).code == 0
    assert empty_database.value("SELECT count(v) FROM t") == 0


# ─── killed ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _killed_everywhere(desk: InProcessCli, database: Database, points: list[str]) -> None:
    """At each point: the next command that is printed, and the next, until the run has ended as rolled back."""
    steps = f"{UP}{FILL}{EACH.format(mode='each', more='')}"
    for point in points:
        database.script("UPDATE t SET n = 0, v = NULL WHERE true")
        written(desk, steps)
        assert desk.runbook("exec", "change.yaml").code == 0
        database.script("UPDATE t SET v = 'mine' WHERE id = 8")
        done = desk.kill("rollback", "latest", fault=point)
        if done.code == KILLED:
            done = to_the_end(desk, desk.runbook("status", "latest"))
            done = desk.runbook("rollback", "latest") if desk.status().state == "running" else done
            to_the_end(desk, done)
        assert (desk.status().state, numbers(database)) == ("rolled_back_in_part", [0, 0]), point
        assert database.value("SELECT count(v) FROM t") == 1, point
        assert desk.status().steps["fill"].back == {"restored": 7, "refused": 1}, point
        assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0, point


@on_both
def test_killed_on_the_way_back(desk: InProcessCli, empty_database: Database) -> None:
    _killed_everywhere(desk, empty_database, ["trail.after:2", "commit.after:3", "commit.before:5", "trail.before:8"])


@pytest.mark.soak
@on_both
def test_killed_on_the_way_back_at_every_point(desk: InProcessCli, empty_database: Database) -> None:
    kinds = ("trail.before", "trail.after", "commit.before", "commit.after")
    _killed_everywhere(desk, empty_database, [f"{kind}:{n}" for kind in kinds for n in range(1, 16)])


# ─── a ledger that lost something ───────────────────────────────────────────────────────────────────────────────────
@on_both
@pytest.mark.parametrize("what", ["schema", "run", "step_commit"])
def test_what_the_ledger_has_lost_is_not_called_gone(desk: InProcessCli, empty_database: Database, what: str) -> None:
    """Neither rollback nor resume nor undo goes by its silence, and none of them makes a new one. A person can close the run."""
    gate = "\n- {id: gate, type: checkpoint, approval: {need: 1}}"
    written(desk, UP + gate)
    written(desk, "- {id: back, type: undo, of: change}", name="undo")
    assert desk.runbook("exec", "change.yaml").code == 5
    run = desk.status().run
    forget(empty_database, what)
    for words in (("rollback", run), ("resume", run), ("exec", "undo.yaml")):
        refused = desk.runbook(*words)
        assert refused.code in (1, 3, 6), (words, refused.text)
        assert "rolled back" not in refused.out and "succeeded" not in refused.out, (words, refused.text)
    assert numbers(empty_database)[0] == 1
    if what == "schema":
        (left,) = empty_database.rows(
            "SELECT count(*) FROM sqlite_master WHERE name LIKE 'runbook_%'"
            if empty_database.dialect == "sqlite"
            else "SELECT count(*) FROM pg_namespace WHERE nspname = 'runbook'"
        )
        assert left == (0,), "made anew"
    closed = desk.runbook("close", run, "--reason", "the ledger was dropped")
    assert closed.code == 0 and "up" in closed.out, closed.text
    assert "closed" in desk.runbook("status", run).out
    assert desk.runbook("resume", run).code == 6


@on_both
def test_nothing_is_left_of_what_does_not_stand(desk: InProcessCli, empty_database: Database) -> None:
    """A step that is taken back, or never was done, can't be left standing: it would be taken back once more."""
    fails = "- {id: fails, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 2, revert: UPDATE nowhere SET n = 1 WHERE id = 1}"
    gate = "- {id: look, type: checkpoint, approval: {by: [ines]}}"
    written(desk, "\n".join([UP.replace("up", "first"), fails, UP, gate, UP.replace("up", "never")]))
    assert desk.runbook("exec", "change.yaml").code == 5
    assert desk.runbook("rollback", "latest").code == 9 and numbers(empty_database) == [1, 1]
    records = len(desk.events("left_standing"))
    for step in ("up", "never"):
        refused = desk.runbook("rollback", "latest", "--leave", "fails", "--leave", step, "--reason", "it may stay")
        assert refused.code == 6 and f"cannot leave {step} standing" in refused.err, refused.text
    assert len(desk.events("left_standing")) == records
    assert desk.runbook("rollback", "latest", "--leave", "fails", "--reason", "it may stay").code == 9
    again = desk.runbook("rollback", "latest", "--leave", "fails", "--reason", "another word")
    assert again.code == 6 and "another word" not in again.text
    assert numbers(empty_database) == [0, 1]
