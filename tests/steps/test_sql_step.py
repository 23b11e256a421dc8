"""The step `sql`: statements sent alone, recorded alone, resumed at the first that isn't done."""

from __future__ import annotations

import pytest
from databases import Database
from plain_context import Trial
from pydantic import ValidationError

from steps.contract import Query, Refused, State, StepError
from steps.contract.dialect import Dialect
from steps.sql.statements import is_dml, lock_of, whole_table_verb
from steps.types.sql.step import Sql

QUERIES = {
    "two_there": Query(name="two_there", texts={"": "SELECT CASE WHEN count(*) = 2 THEN 1 ELSE 0 END AS ok FROM t"})
}
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)


def sql(**words) -> Sql:
    return Sql.model_validate(words, context={"queries": QUERIES})


@pytest.fixture
def table(empty_database: Database) -> Database:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    return empty_database


def ids(database: Database) -> list[int]:
    return [row[0] for row in database.rows("SELECT id FROM t ORDER BY id")]


INSERTS = "INSERT INTO t VALUES (1, 'a;b'); -- two\nINSERT INTO t VALUES (2, 'b')"


def test_statements_are_sent_and_recorded_alone(table: Database) -> None:
    trial = Trial(table, sql(text=INSERTS))
    assert trial.state() is State.NOT_DONE
    assert trial.preflight() == []
    assert trial.step.describe() == "run INSERT INTO t VALUES (1, 'a;b'); -- two INSERT INTO t VALUES (2, 'b')"
    result = trial.apply()
    assert (result.statements, result.rows, ids(table)) == (2, 2, [1, 2])
    assert trial.state() is State.DONE
    assert [sql.split()[0] for sql in trial.statements()] == ["INSERT", "INSERT"]


def test_resume_begins_at_the_first_that_is_not_done(table: Database) -> None:
    """F: A17 F: E08 T: 27"""
    trial = Trial(table, sql(statements=["INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')"]))
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("statement 2").apply()
    assert (trial.state(), ids(table)) == (State.PARTLY, [1])
    assert trial.apply().rows == 1
    assert ids(table) == [1, 2]


def test_one_transaction_is_all_or_nothing(table: Database) -> None:
    trial = Trial(table, sql(text=INSERTS + "; INSERT INTO t VALUES (1, 'again')", transaction="one"))
    with pytest.raises(StepError):
        trial.apply()
    assert (ids(table), trial.state()) == ([], State.NOT_DONE)


def test_no_row_is_a_decision(table: Database) -> None:
    """F: B16"""
    update = "UPDATE t SET v = 'c' WHERE id = 9"
    with pytest.raises(StepError, match="touched 0 rows and expect_rows is some; it was rolled back"):
        Trial(table, sql(text=update)).apply()
    assert Trial(table, sql(text=update, expect_rows="any")).apply().rows == 0
    with pytest.raises(StepError, match="touched 1 rows and expect_rows is 2"):
        Trial(table, sql(text="INSERT INTO t VALUES (5, 'x')", expect_rows=2)).apply()
    assert ids(table) == []


@pytest.mark.parametrize(
    "text", ["UPDATE t SET v = 'x'", "DELETE FROM t", "WITH x AS (SELECT 1 WHERE true) DELETE FROM t"]
)
def test_whole_table_must_be_said(table: Database, text: str) -> None:
    """F: B18"""
    trial = Trial(table, sql(text=text, expect_rows="any"))
    assert "without WHERE changes the whole table" in trial.preflight()[0]
    with pytest.raises(Refused):
        trial.apply()
    assert Trial(table, sql(text=text, whole_table=True)).preflight() == []


def test_applied_if_decides(table: Database) -> None:
    trial = Trial(table, sql(text=INSERTS, applied_if="two_there"))
    assert trial.verify().evidence == "two_there is false"
    table.script("INSERT INTO t VALUES (7, 'x'), (8, 'y')")
    assert trial.state() is State.DONE


def test_way_back_is_the_playbooks(table: Database) -> None:
    trial = Trial(table, sql(text=INSERTS, revert="DELETE FROM t WHERE id IN (1, 2)"))
    trial.apply()
    trial.revert()
    assert (ids(table), trial.state()) == ([], State.NOT_DONE)
    assert trial.step.one_way() == ""
    assert "no SQL for the way back" in sql(text=INSERTS).one_way()


def test_values_are_bound(table: Database) -> None:
    evil = "'); DROP TABLE t; --"
    Trial(table, sql(text="INSERT INTO t VALUES (:id, :v)", params={"id": 3, "v": evil})).apply()
    assert table.value("SELECT v FROM t") == evil
    assert "needs v" in Trial(table, sql(text="INSERT INTO t VALUES (1, :v)")).preflight()[0]


@on_postgresql
def test_what_needs_autocommit_is_sent_outside(table: Database) -> None:
    step = sql(statements=["CREATE INDEX CONCURRENTLY by_v ON t (v)", "INSERT INTO t VALUES (1, 'a')"])
    trial = Trial(table, step)
    assert [one.transactional for one in _shown(trial)] == [False, True]
    trial.apply()
    assert trial.state() is State.DONE
    assert "in a transaction" in Trial(table, sql(text="VACUUM t", transaction="one")).preflight()[0]


@on_postgresql
def test_kill_while_outside_is_doubt(table: Database) -> None:
    trial = Trial(table, sql(text="CREATE INDEX CONCURRENTLY by_v ON t (v)"))
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("statement 1").apply()
    assert trial.state() is State.UNKNOWN
    assert "then settle" in trial.verify().evidence


def _shown(trial: Trial):
    with trial.look() as look:
        return trial.step.statements(look)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({}, "either text or statements"),
        ({"text": "  -- nothing"}, "empty"),
        ({"text": "BEGIN; DELETE FROM t WHERE id = 1; COMMIT"}, "the engine sees to transactions"),
        ({"text": "\\copy t from 'x'"}, "cannot read SQL"),
        ({"text": "SELECT 'open"}, "never ends"),
        ({"text": {"sqlite": "ROLLBACK"}}, "the engine sees to transactions"),
    ],
)
def test_text_is_refused_at_load(words: dict, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        sql(**words)


@pytest.mark.parametrize(
    ("text", "dml", "whole", "lock"),
    [
        ("UPDATE t SET a = (SELECT 1 WHERE true)", True, "UPDATE", "ROW EXCLUSIVE"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1", True, "", "ROW EXCLUSIVE"),
        ("WITH gone AS (DELETE FROM t WHERE a RETURNING *) SELECT * FROM gone", False, "", ""),
        ("TRUNCATE t", False, "TRUNCATE", "ACCESS EXCLUSIVE"),
        ("CREATE INDEX i ON t (a) WHERE b", False, "", "SHARE"),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", False, "", "SHARE UPDATE EXCLUSIVE"),
        ("ALTER TABLE t ADD a int", False, "", "ACCESS EXCLUSIVE"),
        ("VACUUM FULL t", False, "", "ACCESS EXCLUSIVE"),
    ],
)
def test_words_of_a_statement(text: str, dml: bool, whole: str, lock: str) -> None:
    assert (is_dml(text, Dialect.POSTGRESQL), whole_table_verb(text, Dialect.POSTGRESQL), lock_of(text)) == (
        dml,
        whole,
        lock,
    )
