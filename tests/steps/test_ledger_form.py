"""The ledger is trusted only as the engine's own: its owner, what hangs on it, its version and form; target init mends the form."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
from databases import Database
from inside import InProcessCli, written

from steps.contract.dialect import Dialect
from steps.ledger import tables

BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
on_pg = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1)")
    found = InProcessCli(tmp_path, empty_database.url)
    written(found, BUMP, head="success_criteria: {none: it is a test}\n")
    written(found, BUMP)
    return found


def run_state(database: Database) -> int:
    return database.value("SELECT n FROM t WHERE id = 1")


def name(table: str, database: Database) -> str:
    return tables.table(table, Dialect(database.dialect))


PLANTED = {
    "trigger": """CREATE FUNCTION runbook.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER f AFTER INSERT ON runbook.run FOR EACH ROW EXECUTE FUNCTION runbook.f()""",
    "rule": "CREATE RULE r AS ON INSERT TO runbook.step_commit DO ALSO SELECT 1",
    "policy": "ALTER TABLE runbook.lease ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON runbook.lease USING (true)",
    "default": """CREATE FUNCTION runbook.d() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
        ALTER TABLE runbook.run ALTER COLUMN state SET DEFAULT runbook.d()""",
    "check": """CREATE FUNCTION runbook.c(text) RETURNS bool LANGUAGE sql AS 'SELECT true';
        ALTER TABLE runbook.run ADD CHECK (runbook.c(state))""",
    "index": """CREATE FUNCTION runbook.i(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
        CREATE INDEX planted ON runbook.run (runbook.i(state))""",
    "child": "CREATE TABLE runbook.child () INHERITS (runbook.undo)",
    "view": "ALTER TABLE runbook.skipped_row RENAME TO was; CREATE VIEW runbook.skipped_row AS SELECT * FROM runbook.was",
    "column": "ALTER TABLE runbook.step_commit ADD COLUMN g text GENERATED ALWAYS AS (upper(label)) STORED",
}


@on_18
@pytest.mark.parametrize("plant", PLANTED)
def test_what_hangs_on_the_ledger_is_refused(desk: InProcessCli, empty_database: Database, plant: str):
    """Whatever would run as whoever writes there: nothing is changed, no run is begun, and every act on a run is refused."""
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script(PLANTED[plant])
    before = len(list((desk.directory / "runs").iterdir()))
    for words in (
        ["exec", "change.yaml"],
        ["rollback", "latest"],
        ["sql", "latest", "-c", "SELECT 1", "--reason", "r"],
    ):
        refused = desk.runbook(*words)
        assert (refused.code, "cannot trust the ledger" in refused.err) == (6, True), refused.text
    assert len(list((desk.directory / "runs").iterdir())) == before
    assert run_state(empty_database) == 1
    assert desk.runbook("target", "init").code == 6
    assert "cannot trust the ledger" in desk.runbook("target", "check").out


@on_pg
def test_ledger_of_an_ordinary_role_is_refused(desk: InProcessCli, empty_database: Database):
    """Whoever owns it can plant anything at any time; the database's owner and superusers may."""
    role = f"developer_{empty_database.name}"
    empty_database.script(f"CREATE ROLE {role}")
    try:
        empty_database.script(f"CREATE SCHEMA runbook AUTHORIZATION {role}")
        refused = desk.runbook("exec", "change.yaml")
        assert (refused.code, f"belongs to {role}" in refused.err) == (6, True), refused.text
        assert run_state(empty_database) == 0
        with psycopg.connect(empty_database.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {empty_database.name} OWNER TO {role}")
        assert desk.runbook("exec", "change.yaml").code == 0
    finally:
        empty_database.script(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")


def test_planted_trigger_on_sqlite_is_refused(desk: InProcessCli, empty_database: Database):
    if empty_database.dialect != "sqlite":
        pytest.skip("the others are above")
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script("CREATE TRIGGER p AFTER INSERT ON runbook_run BEGIN UPDATE t SET n = 9; END")
    refused = desk.runbook("exec", "change.yaml")
    assert (refused.code, "the trigger p on runbook_run" in refused.err) == (6, True), refused.text
    assert run_state(empty_database) == 1


def test_first_form_is_brought_to_today_s_with_its_rows(desk: InProcessCli, empty_database: Database):
    """Without version and anchors: refused before anything is changed, migrated by target init, and its run is taken back."""
    assert desk.runbook("exec", "change.yaml").code == 0
    for table in ("anchor", "meta"):
        empty_database.script(f"DROP TABLE {name(table, empty_database)}")
    refused = desk.runbook("exec", "change.yaml")
    assert (refused.code, "runbook target init" in refused.err) == (6, True), refused.text
    assert desk.runbook("rollback", "latest").code == 6
    assert run_state(empty_database) == 1
    found = desk.runbook("target", "init")
    assert (found.code, "brought the ledger" in found.out) == (0, True), found.text
    assert "there already" in desk.runbook("target", "init").out
    assert desk.runbook("rollback", "latest").code == 0
    assert run_state(empty_database) == 0


JSON = "run text NOT NULL, step text NOT NULL, n bigint NOT NULL, rows bigint NOT NULL, payload json NOT NULL, PRIMARY KEY (run, step, n)"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("ALTER TABLE {step} DROP COLUMN results", "results is missing"),
        (f"DROP TABLE {{undo}}; CREATE TABLE {{undo}} ({JSON})", "payload is json"),
        ("DROP TABLE {skipped_row}", "skipped_row is missing"),
        ("DROP TABLE {heartbeat}; CREATE TABLE {heartbeat} (scope text, epoch bigint, beat_at {at})", "has no PRIMARY KEY (scope)"),
    ],
    ids=["column missing", "other type", "table missing", "key missing"],
)  # fmt: skip
def test_other_forms_are_mended(desk: InProcessCli, empty_database: Database, harm: str, words: str):
    """What `CREATE TABLE IF NOT EXISTS` would pass over is found beforehand, and mended where that loses nothing."""
    assert desk.runbook("target", "init").code == 0
    at = "text" if empty_database.dialect == "sqlite" else "timestamptz"
    names = {each: name(each, empty_database) for each in tables.columns(Dialect(empty_database.dialect))}
    for statement in harm.format(**names, at=at).split("; "):
        empty_database.script(statement)
    refused = desk.runbook("exec", "change.yaml")
    assert (refused.code, words in refused.err) == (6, True), refused.text
    mended = desk.runbook("target", "init")
    assert mended.code == 0, mended.text
    assert desk.runbook("exec", "change.yaml").code == 0
    assert desk.runbook("rollback", "latest").code == 0
    assert run_state(empty_database) == 0


def test_rows_of_another_form_are_never_thrown_away(desk: InProcessCli, empty_database: Database):
    assert desk.runbook("target", "init").code == 0
    undo = name("undo", empty_database)
    empty_database.script(f"DROP TABLE {undo}")
    empty_database.script(f"CREATE TABLE {undo} (run text, step text, n bigint, rows bigint, payload json)")
    empty_database.script(f"INSERT INTO {undo} VALUES ('r', 's', 1, 1, '[]')")
    refused = desk.runbook("target", "init")
    assert (refused.code, "rows stand there" in refused.err) == (6, True), refused.text
    assert empty_database.value(f"SELECT count(*) FROM {undo}") == 1


def test_newer_ledger_is_left_alone(desk: InProcessCli, empty_database: Database):
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script(f"UPDATE {name('meta', empty_database)} SET value = '99' WHERE name = 'version'")
    for words in (["exec", "change.yaml"], ["rollback", "latest"], ["target", "init"]):
        refused = desk.runbook(*words)
        assert (refused.code, "version 99" in refused.err) == (6, True), refused.text
    assert run_state(empty_database) == 1


def test_printed_statements_make_a_good_ledger(desk: InProcessCli, empty_database: Database):
    """What the DBA runs by hand is what the engine accepts."""
    printed = desk.runbook("target", "init", "--print", "--dialect", empty_database.dialect).out
    if empty_database.dialect == "sqlite":
        with sqlite3.connect(empty_database.name) as connection:
            connection.executescript(printed)
    else:
        empty_database.script(printed)
    assert "there already" in desk.runbook("target", "init").out
    assert desk.runbook("exec", "change.yaml").code == 0
