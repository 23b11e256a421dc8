"""A statement does what it says, or is refused: what acts on a session or transaction, wherever SQL is given."""

from __future__ import annotations

import pytest
from databases import Database
from plain_context import Trial
from pydantic import TypeAdapter, ValidationError

from steps.contract import State
from steps.contract.dialect import Dialect
from steps.probes.trial import Trial as TrialProbe
from steps.sql.queries import ReadQuery
from steps.sql.session_statements import POLICY, void
from steps.types.sql.step import Sql

LITE = Dialect.SQLITE
ALWAYS = [  # void, or worse, in a transaction of its own and in one with others
    "SET search_path = app",
    "set role app_owner",
    "SET SESSION ROLE x",
    "SET TIME ZONE 'UTC'",
    "SET lock_timeout = 0",
    "SET LOCAL lock_timeout = '1h'",
    "SET LOCAL statement_timeout TO 0",
    "SET SESSION AUTHORIZATION bob",
    "SET LOCAL SESSION AUTHORIZATION bob",
    "SET NAMES 'LATIN1'",
    "SET app.tenant = '7'",
    "SET LOCAL synchronous_commit = off",
    'SET "search_path" TO app',
    "/* x */ SET /* y */ work_mem TO '1GB'",
    "SET SCHEMA 'app'",
    "RESET ALL",
    "RESET search_path",
    "RESET ROLE",
    "DISCARD ALL",
    "DISCARD TEMP",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DEALLOCATE ALL",
    "LISTEN x",
    "UNLISTEN *",
    "DECLARE c CURSOR FOR SELECT 1",
    "FETCH ALL FROM c",
    "MOVE 1 FROM c",
    "CLOSE c",
    "LOAD 'auto_explain'",
    "COPY t FROM STDIN",
    "COPY t TO STDOUT",
    "COPY (SELECT 1) TO STDOUT WITH (FORMAT csv)",
    "BEGIN",
    "COMMIT",
    "SET TRANSACTION READ WRITE",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_catalog.pg_advisory_lock (1)",
    'SELECT "pg_advisory_lock"(1)',
    "SELECT pg_try_advisory_lock_shared(1)",
    "SELECT pg_advisory_unlock_all()",
    "INSERT INTO t SELECT 1, pg_advisory_lock(2)::text",
    "SELECT set_config('search_path', 'app', false)",
    "SELECT set_config('lock_timeout', '0', true)",
    "SELECT set_config('a.b', 'c', NOT true)",
    "SELECT set_config(E'lock_timeout', '0', true)",
    "SELECT set_config($$lock_timeout$$, '0', true)",
    "SELECT set_config('lock' || '_timeout', '0', true)",
    "SELECT set_config( :name , '0', true)",
    "UPDATE pg_settings SET setting = '0' WHERE name = 'lock_timeout'",
    'UPDATE ONLY pg_catalog."pg_settings" SET setting = 1',
    "WITH x AS (UPDATE pg_settings SET setting = '0' RETURNING 1) SELECT 1",
    "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT 1",
    "DO $$ BEGIN PERFORM set_config('search_path', 'app', false); END $$",
    "DO LANGUAGE plpgsql $x$ BEGIN SET search_path = app; END $x$",
    "DO 'BEGIN PERFORM pg_advisory_lock(1); END'",
    "DO $$ BEGIN SET LOCAL statement_timeout = 0; END $$",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA foreign_keys(0)",
    "PRAGMA main.foreign_keys = 0",
    'PRAGMA "foreign_keys" = OFF',
    "PRAGMA journal_mode = WAL",
    "PRAGMA legacy_alter_table = ON",
    "PRAGMA writable_schema = 1",
    "PRAGMA foreign_key_check",
    "PRAGMA synchronous = OFF",
    "ATTACH DATABASE 'x.db' AS x",
    "DETACH x",
]
ALONE = [  # void in a transaction of its own, honoured in one with others
    "SET LOCAL work_mem = '64MB'",
    "SET LOCAL search_path TO app",
    "SET CONSTRAINTS ALL DEFERRED",
    "LOCK TABLE t",
    "LOCK t IN SHARE MODE",
    "CREATE TEMP TABLE x (n int)",
    "CREATE LOCAL TEMPORARY TABLE x AS SELECT 1",
    "CREATE OR REPLACE TEMP VIEW x AS SELECT 1",
    "CREATE TABLE pg_temp.x (n int)",
    "CREATE TABLE temp.x (n int)",
    "SELECT 1 AS n INTO TEMP x",
    "SELECT 1 AS n INTO pg_temp.x",
    "SELECT 1 AS n INTO TABLE pg_temp.x",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT set_config('app.tenant', '7', true)",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR NO KEY UPDATE",
    "PRAGMA defer_foreign_keys = ON",
]
HONOURED = [
    "UPDATE t SET v = 'set role'",
    "INSERT INTO t VALUES (1, 'SET search_path = app')",
    "ALTER ROLE bob SET search_path = app",
    "ALTER TABLE t SET (fillfactor = 70)",
    "ALTER DATABASE d SET work_mem = '1MB'",
    "NOTIFY x, 'y'",
    "CREATE TABLE settings (reset int)",
    "CREATE TABLE a.temp (n int)",
    "COPY t FROM '/x.csv'",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = app AS $$ SELECT pg_advisory_lock(1) $$",
    "DO $$ BEGIN SET LOCAL search_path = app; PERFORM set_config('app.tenant', '7', true); UPDATE t SET v = 'x' WHERE id = 1; END $$",
    "DO $$ BEGIN PERFORM pg_advisory_xact_lock(1); END $$",
    "INSERT INTO t SELECT 1, pg_advisory_xact_lock(2)::text",
    "WITH x AS (SELECT id FROM t FOR UPDATE SKIP LOCKED) UPDATE t SET v = 'y' FROM x WHERE x.id = t.id",
    "SELECT 1",
    "TRUNCATE t",
    "PRAGMA user_version = 7",
    "PRAGMA optimize",
    "CREATE INDEX i ON t (v)",
    "MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET v = s.v",
]


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("sql", ALWAYS)
def test_what_would_be_void_is_refused_everywhere(sql: str, dialect: Dialect) -> None:
    for together in (False, True):
        found = void(sql, dialect, together=together)
        assert found is not None
        assert found.instead
    for words in (
        {"text": sql},
        {"statements": ["SELECT 1", sql]},
        {"text": sql, "transaction": "one"},
        {"text": "SELECT 1", "revert": sql},
        {"text": {dialect: sql}},
        {"text": f"SELECT 1; {sql}"},
    ):
        with pytest.raises(ValidationError, match="cannot run"):
            Sql.model_validate(words)
    with pytest.raises(ValidationError, match="cannot run"):
        TrialProbe.model_validate({"statements": [sql]})


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("sql", ALONE)
def test_what_holds_for_a_transaction_needs_one_with_others(sql: str, dialect: Dialect) -> None:
    found = void(sql, dialect)
    assert found is not None
    assert "transaction: one" in found.instead or "set:" in found.instead
    assert void(sql, dialect, together=True) is None
    with pytest.raises(ValidationError, match="cannot run"):
        Sql.model_validate({"text": sql})
    Sql.model_validate({"text": sql, "transaction": "one"})


@pytest.mark.parametrize(
    ("sql", "dialect"),
    [
        (sql, of) for sql in HONOURED for of in Dialect if of is not LITE or "$$" not in sql
    ],  # which quotes nothing there
)
def test_what_does_what_it_says_is_left_alone(sql: str, dialect: Dialect) -> None:
    assert void(sql, dialect) is None
    Sql.model_validate({"text": {dialect: sql}})


@pytest.mark.parametrize(
    "sql",
    ["SELECT pg_advisory_lock(1) AS n", "SELECT set_config('a.b', 'c', false) AS n", "SELECT pg_advisory_xact_lock(1)"],
)
def test_a_query_takes_no_lock_and_sets_nothing(sql: str) -> None:
    with pytest.raises(ValidationError, match="cannot use"):
        TypeAdapter(ReadQuery).validate_python(sql)


@pytest.mark.parametrize("statements", [["COMMIT", "DELETE FROM t"], ["SELECT 1; COMMIT; DELETE FROM t"]])
def test_a_trial_never_ends_its_transaction(statements: list[str]) -> None:
    with pytest.raises(ValidationError, match="cannot"):
        TrialProbe.model_validate({"statements": statements})


@pytest.mark.parametrize("name", [*POLICY, "Lock_Timeout", "a b", "x; DROP TABLE t", "'", ""])
def test_a_step_never_sets_what_the_run_relies_on(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot set"):
        Sql.model_validate({"text": "SELECT 1", "set": {name: "0"}})


# ─── set: ───────────────────────────────────────────────────────────────────────────────────────────────────────────
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
SEEN = "INSERT INTO seen SELECT current_setting('search_path'), current_user, coalesce(current_setting('app.tenant', true), '')"
SET = {"search_path": "app", "app.tenant": 7, "work_mem": "9MB"}


@pytest.fixture
def two_schemas(empty_database: Database) -> Database:
    empty_database.script(
        """CREATE SCHEMA app; CREATE TABLE app.settings (v text); INSERT INTO app.settings VALUES ('old');
           CREATE TABLE settings (v text); INSERT INTO settings VALUES ('old'); CREATE TABLE app.seen (path text, role text, tenant text)"""
    )
    return empty_database


@on_postgresql
@pytest.mark.parametrize("transaction", ["each", "one"])
def test_settings_hold_for_each_transaction_and_its_way_back(two_schemas: Database, transaction: str) -> None:
    step = Sql.model_validate(
        {
            "statements": ["UPDATE settings SET v = 'new' WHERE v = 'old'", SEEN, SEEN],
            "revert": [SEEN, "UPDATE settings SET v = 'old' WHERE v = 'new'"],
            "transaction": transaction,
            "set": SET,
        }
    )
    trial = Trial(two_schemas, step)
    assert trial.preflight() == []
    assert "search_path = app, pg_temp, app.tenant = 7, work_mem = 9MB" in step.describe()
    trial.apply()
    assert trial.state() is State.DONE
    assert two_schemas.rows("SELECT s.v, a.v FROM settings AS s, app.settings AS a") == [("old", "new")]
    trial.revert()
    assert two_schemas.rows("SELECT s.v, a.v FROM settings AS s, app.settings AS a") == [("old", "old")]
    assert two_schemas.rows("SELECT DISTINCT path, tenant, count(*) FROM app.seen GROUP BY 1, 2") == [
        ("app, pg_temp", "7", 3)
    ]


@on_postgresql
def test_settings_hold_outside_of_a_transaction_too(two_schemas: Database) -> None:
    step = Sql.model_validate({"statements": ["CREATE INDEX CONCURRENTLY by_v ON settings (v)"], "set": SET})
    Trial(two_schemas, step).apply()
    assert two_schemas.rows("SELECT schemaname FROM pg_indexes WHERE indexname = 'by_v'") == [("app",)]


@on_postgresql
def test_the_ledger_is_written_by_the_run_and_not_by_the_role(two_schemas: Database) -> None:
    two_schemas.script(
        """DROP ROLE IF EXISTS values_owner; CREATE ROLE values_owner; GRANT ALL ON SCHEMA app TO values_owner;
           GRANT ALL ON app.seen TO values_owner"""
    )
    step = Sql.model_validate(
        {"statements": [SEEN, "CREATE TABLE made (n int)"], "set": {**SET, "role": "values_owner"}}
    )
    trial = Trial(two_schemas, step)
    assert trial.preflight() == []
    trial.apply()
    assert trial.state() is State.DONE
    assert two_schemas.rows("SELECT role FROM app.seen") == [("values_owner",)]
    assert two_schemas.rows("SELECT tableowner FROM pg_tables WHERE tablename = 'made'") == [("values_owner",)]
    two_schemas.script("DROP OWNED BY values_owner; DROP ROLE values_owner")


@on_postgresql
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("search_path", "app, nowhere", "there is no schema nowhere"),
        ("role", "nobody_of_that_name", "there is no such role"),
        ("work_memory", "1", "no such setting"),
        ("port", 1, "can't be changed in a session"),
    ],
)
def test_what_can_not_be_set_is_found_beforehand(two_schemas: Database, name: str, value: object, reason: str) -> None:
    step = Sql.model_validate({"statements": ["SELECT 1"], "set": {name: value}})
    assert reason in Trial(two_schemas, step).preflight()[0]


@on_sqlite
def test_a_drop_that_takes_other_tables_rows_along_is_refused(empty_database: Database) -> None:
    empty_database.script(
        """CREATE TABLE authors (id INTEGER PRIMARY KEY); INSERT INTO authors VALUES (1);
           CREATE TABLE books (id INTEGER PRIMARY KEY, author INTEGER REFERENCES authors ON DELETE CASCADE);
           INSERT INTO books VALUES (1, 1);
           CREATE TABLE loans (id INTEGER PRIMARY KEY, book INTEGER REFERENCES books ON DELETE SET NULL);"""
    )
    for sql in ("DROP TABLE authors", 'drop table if exists main."authors"', "DROP TABLE [Authors]"):
        [fault] = Trial(empty_database, Sql.model_validate({"text": sql})).preflight()
        assert "SQLite would delete 1 rows of books" in fault
    assert Trial(empty_database, Sql.model_validate({"text": "DROP TABLE books"})).preflight() == []
