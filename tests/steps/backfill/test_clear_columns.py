"""clear_columns: emptied in batches, and put back exactly where nobody wrote meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from databases import Database, Databases, kind_or_skip
from plain_context import PlainContext, Trial

from steps.contract import State, StepError, TakenBack
from steps.ledger import step_commits
from steps.types.backfill.batched import PassResult
from steps.types.backfill.clear import ClearColumns

ROWS = 1000
BATCH = {"time": "250 ms", "rows": [100, 100]}


@pytest.fixture(params=["sqlite", "pg15", "pg18"])
def database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    with kind_or_skip(databases, request.param).database() as found:
        yield found


def _table(database: Database) -> None:
    """Each third row has no a, each fifth no b; texts that quoting or casting could spoil."""
    number = "numeric(12,4)" if database.server else "numeric"
    database.script(f"""CREATE TABLE t (k integer PRIMARY KEY, a text, b {number}, c text);
        INSERT INTO t WITH RECURSIVE n (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < {ROWS})
        SELECT k, CASE WHEN k % 3 > 0 THEN 'it''s "' || k || '" \\, NULL' END, CASE WHEN k % 5 > 0 THEN k / 8.0 END, 'c' FROM n""")


def _all(database: Database) -> list[tuple]:
    return database.rows("SELECT k, a, b, c FROM t ORDER BY k")


def _step(**fields: object) -> ClearColumns:
    base = {"table": "t", "columns": ["a", "b"], "batch": BATCH, "throttle": "none"}
    return ClearColumns.model_validate({**base, **fields})


def _result(trial: Trial) -> PassResult:
    assert trial.preflight() == []
    result = trial.apply()
    assert type(result) is PassResult
    return result


def _back(trial: Trial) -> TakenBack:
    with trial.look() as look:
        kept = step_commits.remembered(look, run=trial.run, step="step")
    assert kept is not None
    taken = trial.step.revert(PlainContext(trial.database("revert")), trial.step.recall(kept))  # type: ignore[attr-defined]
    assert isinstance(taken, TakenBack)
    return taken


@pytest.mark.parametrize("order", ["auto", "key"])
def test_emptied_and_put_back(database: Database, order: str) -> None:
    _table(database)
    before = _all(database)
    trial = Trial(database, _step(order=order))
    assert trial.state() is State.NOT_DONE
    result = _result(trial)
    empty = sum(1 for _, a, b, _ in before if a is None and b is None)
    assert (result.written, result.already, result.visited, result.left) == (ROWS - empty, empty, ROWS, 0)
    assert trial.state() is State.DONE
    assert [row[1:] for row in _all(database)] == [(None, None, "c")] * ROWS
    again = _result(trial.again())
    assert (again.written, again.already) == (0, ROWS)
    assert _back(trial) == TakenBack(restored=ROWS - empty)
    assert _all(database) == before


def test_only_where(database: Database) -> None:
    _table(database)
    before = _all(database)
    trial = Trial(database, _step(columns="a", where="target.k <= 300"))
    assert _result(trial).written == 200
    assert [row for row in _all(database) if row[0] > 300] == before[300:]
    assert [row[2] for row in _all(database)] == [row[2] for row in before]
    assert _back(trial) == TakenBack(restored=200)
    assert _all(database) == before


def test_written_meanwhile_stays(database: Database) -> None:
    _table(database)
    before = _all(database)
    trial = Trial(database, _step(columns="a"))
    written = _result(trial).written
    database.script(
        "UPDATE t SET a = 'new' WHERE k IN (1, 3); DELETE FROM t WHERE k = 2; UPDATE t SET c = 'other' WHERE k = 4"
    )
    assert _back(trial) == TakenBack(restored=written - 2, refused=2)
    rows = {row[0]: row for row in _all(database)}
    assert (rows[1][1], rows[3][1], rows[4][1:]) == ("new", "new", (before[3][1], before[3][2], "other"))


def test_killed_at_each_batch(database: Database) -> None:
    _table(database)
    before = _all(database)
    trial = Trial(database, _step())
    for label in ("begin", "batch 1", "batch 2", "batch 3"):
        with contextlib.suppress(KeyboardInterrupt):  # on PostgreSQL a page may hold more rows than a batch
            trial.dying_before(label).apply()
    result = _result(trial)
    assert (result.visited, result.left) == (ROWS, 0)
    for label in ("undo 3", "undo 1", "undo end"):
        with contextlib.suppress(KeyboardInterrupt):
            _back(trial.dying_before(label))
    assert _back(trial).refused == 0
    assert _all(database) == before


def test_filled_again_before_the_sweep(database: Database) -> None:
    """It is emptied once more; the way back brings what stood there last"""
    _table(database)
    trial = Trial(database, _step(batch={"time": "250 ms", "rows": [2000, 2000]}))
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("sweep 2").apply()
    database.script("UPDATE t SET a = 'meanwhile' WHERE k = 1")
    result = _result(trial)
    assert (result.left, result.dead) == (0, 0)
    assert database.value("SELECT count(a) FROM t") == 0
    assert _back(trial).refused == 0
    assert database.value("SELECT a FROM t WHERE k = 1") == "meanwhile"


def test_unreadable_where(database: Database) -> None:
    _table(database)
    database.script("ALTER TABLE t ADD COLUMN doc json")
    bad = '{"a": 1' if database.dialect == "sqlite" else '{"a": "\\u0000"}'
    database.script(f"""UPDATE t SET doc = '{{"a": "x"}}'; UPDATE t SET doc = '{bad}' WHERE k IN (1, 500)""")
    trial = Trial(database, _step(columns="a", where="target.doc ->> 'a' = 'x'", dead_letters={"max": 5, "pct": 100}))
    result = _result(trial)
    assert (result.unreadable, result.left) == (2, 0)
    assert database.value("SELECT count(a) FROM t") == 2


def test_trigger_that_writes_again_is_dead(databases: Databases) -> None:
    with kind_or_skip(databases, "pg18").database() as database:
        _table(database)
        before = _all(database)
        for when in ("BEFORE", "AFTER"):
            body = "IF NEW.k = 1 THEN NEW.a = 'kept'; END IF;"
            after = "IF NEW.k = 1 AND NEW.a IS NULL THEN UPDATE t SET a = 'kept' WHERE k = 1; END IF;"
            database.script(f"""CREATE OR REPLACE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN {body if when == "BEFORE" else after} RETURN NEW; END $$;
                DROP TRIGGER IF EXISTS again ON t;
                CREATE TRIGGER again {when} UPDATE OF a ON t FOR EACH ROW EXECUTE FUNCTION again()""")
            trial = Trial(database, _step(triggers="acknowledged"))
            result = _result(trial)
            assert (result.dead, result.left) == (1, 0)
            message = f"SELECT message FROM runbook.skipped_row WHERE run = '{trial.run}'"
            assert database.value(message) == "a trigger of the table wrote a value into it again"
            database.script("DROP TRIGGER again ON t")
            _back(trial)
            assert _all(database)[1:] == before[1:]


@pytest.mark.parametrize("value", ["x'00ff'", "1.5", "0.1", "9007199254740993", "'real:1'", "''", "char(97, 0, 98)"])
def test_sqlite_values_of_any_kind(databases: Databases, value: str) -> None:
    with databases.files.database() as database:
        database.script(f"CREATE TABLE t (k integer PRIMARY KEY, a); INSERT INTO t VALUES (1, {value})")
        exact = "SELECT typeof(a), quote(a), hex(a) FROM t"
        before = database.rows(exact)
        trial = Trial(database, _step(columns="a"))
        assert _result(trial).written == 1
        assert _back(trial) == TakenBack(restored=1)
        assert database.rows(exact) == before


@pytest.mark.parametrize(
    "kind", ["json", "jsonb", "text[]", "timestamptz", "bytea", "int4range", "double precision", "char(5)", "inet"]
)
def test_postgresql_values_of_any_type(databases: Databases, kind: str) -> None:
    values = {
        "json": '{"a" :  "\\u0000"}',
        "jsonb": '{"b": [1, null]}',
        "text[]": '{"a,b",NULL,"",}'.replace(",}", "}"),
        "timestamptz": "2026-03-29 01:30:00.123456+00",
        "bytea": "\\x00ff",
        "int4range": "[1,5)",
        "double precision": "0.30000000000000004",
        "char(5)": "ab",
        "inet": "10.0.0.1/8",
    }
    with kind_or_skip(databases, "pg18").database() as database:
        database.script(f"CREATE TABLE t (k integer PRIMARY KEY, a {kind})")
        database.rows(f"INSERT INTO t VALUES (1, CAST(%s AS {kind}))", (values[kind],))
        before = database.rows("SELECT CAST(a AS text) FROM t")
        trial = Trial(database, _step(columns="a"))
        assert _result(trial).written == 1
        assert _back(trial) == TakenBack(restored=1)
        assert database.rows("SELECT CAST(a AS text) FROM t") == before


def test_refusals(database: Database) -> None:
    _table(database)
    database.script("CREATE TABLE s (k integer PRIMARY KEY, a text NOT NULL)")
    [fault] = Trial(database, _step(table="s", columns="a")).preflight()
    assert "cannot empty s.a: it is NOT NULL" in fault
    [fault] = Trial(database, _step(columns="absent")).preflight()
    assert "absent" in fault
    with pytest.raises(StepError, match="nothing to do"):
        Trial(database, _step(where="target.k < 0")).apply()
