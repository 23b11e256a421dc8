"""What a target must be: grants, the ledger, names in schemas, a busy file; and what machines read of every command."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Cli
from databases import Database, Databases
from inside import InProcessCli

from runner.common.errors import EXIT_CODES, RunbookError, StepFailed
from runner.sandbox.server import Server
from runner.trail.trail import read

MARK = """runbook: 1
name: mark
title: Mark the rows
{head}steps:
  - {{id: mark, type: sql, text: UPDATE marks SET n = 1 WHERE n IS NULL, revert: UPDATE marks SET n = NULL WHERE n = 1}}
success_criteria:
  - {{id: marked, check: query, query: SELECT count(*) AS n FROM marks WHERE n = 1, that: n == 2}}
"""
TABLE = "CREATE TABLE marks (id integer PRIMARY KEY, n integer); INSERT INTO marks (id) VALUES (1), (2)"


def mark(desk: Cli, head: str = "") -> str:
    return desk.playbook("mark", MARK.format(head=head))


@pytest.fixture
def database(databases: Databases, pg18: Server) -> Iterator[Database]:
    with databases.kind("pg18").database() as made:
        made.script(TABLE)
        yield made


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """An ordinary role that may change the table and make nothing."""
    database.script("DROP ROLE IF EXISTS worker; CREATE ROLE worker LOGIN; GRANT SELECT, UPDATE ON marks TO worker")
    yield "worker"
    database.script("DROP OWNED BY worker; DROP ROLE worker")


def as_role(database: Database, role: str, directory: Path) -> InProcessCli:
    return InProcessCli(directory, database.url.replace("owner@", f"{role}@"))


def schemas(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1")]


# ─── target check and init ──────────────────────────────────────────────────────────────────────────────────────────
def test_check_as_owner_and_as_ordinary_role(database: Database, role: str, tmp_path: Path):
    """Each missing grant is said as the statement that gives it; looking makes nothing."""
    owner = InProcessCli(tmp_path, database.url).runbook("target", "check", "--json")
    assert (owner.code, [one for one in json.loads(owner.out) if not one["good"]]) == (0, []), owner.text
    desk = as_role(database, role, tmp_path)
    found = desk.runbook("target", "check")
    assert found.code == 3, found.text
    for words in (
        'GRANT pg_read_all_stats TO "worker"', 'GRANT pg_read_all_settings TO "worker"', "this role may not make it", "PostgreSQL 18",
    ):  # fmt: skip
        assert words in found.out
    assert schemas(database) == ["information_schema", "public"]
    database.script('GRANT pg_read_all_stats, pg_read_all_settings TO "worker"')
    database.script(desk.runbook("target", "init", "--print", "--role", role).out)
    done = desk.runbook("target", "check")
    assert (done.code, "✗" in done.out) == (0, False), done.text


def test_ordinary_role_works_with_what_the_dba_gave(database: Database, role: str, tmp_path: Path):
    """T: 21 - refused before anything is recorded or changed; then a whole life with the printed grants and no more."""
    desk = as_role(database, role, tmp_path)
    mark(desk)
    for words in (("exec", "mark.yaml"), ("target", "init")):
        refused = desk.runbook(*words)
        assert (refused.code, "target init --print --role" in refused.err) == (6, True), refused.text
        assert schemas(database) == ["information_schema", "public"]
        assert not list(tmp_path.glob("runs/*")), "nothing began, so there is no run"
    for statement in desk.runbook("target", "init", "--print", "--role", role).out.splitlines():
        database.script(statement)  # each is a statement of its own
    assert "there already" in desk.runbook("target", "init").out
    for words in (
        ("exec", "mark.yaml"), ("trail", "verify", "latest", "--against-target"), ("rollback", "latest"),
        ("exec", "mark.yaml", "--dry-run"),
    ):  # fmt: skip
        done = desk.runbook(*words)
        assert done.code == 0, (words, done.text)
    database.script("REVOKE ALL ON SCHEMA runbook FROM worker")
    refused = desk.runbook("exec", "mark.yaml")
    assert (refused.code, "may not use the ledger" in refused.err) == (6, True), refused.text
    report = desk.runbook("report", "latest", "--rows", "dead")
    assert (report.code, "internal error" in report.text) == (12, False), report.text


def test_init_makes_the_ledger_once(database: Database, tmp_path: Path):
    desk = InProcessCli(tmp_path, database.url)
    assert "made the ledger" in desk.runbook("target", "init").out
    assert "there already" in desk.runbook("target", "init").out
    assert "ledger: there" in desk.runbook("target", "check").out


def test_printed_statements_for_sqlite(tmp_path: Path):
    printed = InProcessCli(tmp_path, "").runbook("target", "init", "--print", "--dialect", "sqlite").out
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(printed)
        connection.executescript(printed)
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"runbook_run", "runbook_step_commit", "runbook_lease"} <= names


def test_role_with_a_strange_name_is_quoted(tmp_path: Path):
    printed = InProcessCli(tmp_path, "").runbook("target", "init", "--print", "--role", 'x"; DROP TABLE marks; --').out
    assert 'TO "x""; DROP TABLE marks; --";' in printed


# ─── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_playbooks_schema_goes_before_the_roles_search_path(database: Database, role: str, tmp_path: Path):
    """F: G01, T: 21 - the same table in three schemas, and a search_path of the role's that begins with the wrong one."""
    database.script(
        "CREATE SCHEMA app; CREATE SCHEMA other; CREATE TABLE app.marks (LIKE marks); CREATE TABLE other.marks (LIKE marks);"
        "INSERT INTO app.marks SELECT * FROM marks; INSERT INTO other.marks SELECT * FROM marks;"
        "ALTER ROLE worker SET search_path = other, public;"
        "GRANT USAGE ON SCHEMA app, other TO worker; GRANT CREATE ON DATABASE " + database.name + " TO worker;"
        "GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA app, other TO worker"
    )
    desk = as_role(database, role, tmp_path)
    columns = "preconditions:\n  - {id: there, check: columns, table: marks, has: {n: integer}, lacks: [m]}\n"
    database.script("ALTER TABLE other.marks ADD COLUMN m int; ALTER TABLE public.marks ADD COLUMN m int")
    mark(desk, f"schema: app\n{columns}")
    done = desk.runbook("exec", "mark.yaml")
    assert done.code == 0, done.text
    written = [database.value(f"SELECT count(n) FROM {schema}.marks") for schema in ("app", "other", "public")]
    assert written == [2, 0, 0]
    assert desk.runbook("rollback", "latest").code == 0
    assert database.value("SELECT count(n) FROM app.marks") == 0
    mark(desk, "schema: nowhere\n")
    gone = desk.runbook("exec", "mark.yaml")
    assert (gone.code, "internal error" in gone.text) in {(1, False), (6, False)}, gone.text


def test_name_in_capitals_is_another_name(database: Database, tmp_path: Path):
    """F: G11 - `"Sessions"` and `sessions`, a table and a view: each playbook changes the one that it names."""
    database.script(
        'CREATE TABLE "Sessions" (id int, "Old Name" int); CREATE TABLE sessions (id int, old_name int);'
        'CREATE VIEW "SESSIONS" AS SELECT id FROM sessions'
    )
    desk = InProcessCli(tmp_path, database.url)
    head = "runbook: 1\nname: rename\ntitle: Rename\nsteps:\n"
    desk.playbook("rename", head + '  - {id: r, type: rename_column, column: "Sessions.Old Name", to: newName}\n')
    done = desk.runbook("exec", "rename.yaml")
    assert done.code == 0, done.text
    sql = """SELECT table_name || '.' || column_name FROM information_schema.columns
             WHERE table_schema = 'public' AND lower(table_name) = 'sessions'"""
    columns = {row[0] for row in database.rows(sql)}
    assert columns == {"Sessions.id", "Sessions.newName", "sessions.id", "sessions.old_name", "SESSIONS.id"}
    desk.playbook("rename", head + "  - {id: r, type: rename_column, column: SESSIONS.id, to: key}\n")
    done = desk.runbook("exec", "rename.yaml")
    assert done.code == 0, done.text
    assert {row[0] for row in database.rows(sql)} == columns - {"SESSIONS.id"} | {"SESSIONS.key"}


# ─── a busy SQLite file ─────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("held_s", "code"), [(1.0, 0), (30.0, 12)])
def test_file_that_another_process_writes_to(tmp_path: Path, held_s: float, code: int, monkeypatch: pytest.MonkeyPatch):
    """F: J01 - a short writer is waited for; a long one is named by its SQLSTATE, and nothing is half done."""
    if code:
        monkeypatch.setattr("runner.target.drivers.BUSY_MS", 300)
    path = tmp_path / "db.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.executescript(TABLE)
        desk = InProcessCli(tmp_path, f"sqlite:///{path}")
        mark(desk, "lock: {wait: 100 ms, retry_for: 300 ms}\n")
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(held_s, other.rollback)
        timer.start()
        try:
            done = desk.runbook("exec", "mark.yaml")
        finally:
            timer.cancel()
            other.rollback()
    assert done.code == code, done.text
    if code:
        assert "55P03" in done.text
        assert "locked" in done.text
        assert desk.runbook("resume", "latest").code == 0
    assert desk.runbook("status", "latest", "--json").code == 0


def test_required_playbook_that_was_changed_since(tmp_path: Path):
    """A run of other bytes proves nothing: refused, with the step that differs; words for people don't count."""
    path = tmp_path / "db.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLE)
    desk = InProcessCli(tmp_path, f"sqlite:///{path}")
    mark(desk)
    text = (tmp_path / "mark.yaml").read_text()
    desk.playbook(
        "after", text.replace("name: mark\n", "name: after\nrequires: [mark]\n").replace("id: mark,", "id: later,")
    )
    assert desk.runbook("exec", "mark.yaml").code == 0
    desk.playbook("mark", text.replace("type: sql,", "type: sql, why: to be told apart,") + "# a comment\n")
    assert desk.runbook("exec", "after.yaml", "--dry-run").code == 0
    for changed, words in (("SET n = 1", "since its run mark-"), ("that: n == 2", "checks, queries or limits")):
        desk.playbook("mark", text.replace(changed, changed + "0"))
        done = desk.runbook("exec", "after.yaml")
        assert (done.code, words in done.err) == (6, True), done.text
        assert (changed != "SET n = 1") or ": mark" in done.err.partition("since its run")[2]
    assert len(list(tmp_path.glob("runs/*"))) == 1


# ─── exit codes, machines, dry runs ─────────────────────────────────────────────────────────────────────────────────
def _classes(kind: type[RunbookError]) -> Iterator[type[RunbookError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _classes(child)


def test_exit_codes_are_distinct_and_documented(tmp_path: Path):
    """A script can tell every end of a run from every other; "in part" shares the code of the failure that it is kin to."""
    named = [
        kind
        for kind in _classes(RunbookError)
        if kind.__module__ == "runner.common.errors" and kind is not RunbookError
    ]
    codes = [kind.exit_code for kind in named if "exit_code" in vars(kind) or kind is StepFailed]
    assert len(set(codes)) == len(codes)
    assert set(codes) | {0, 2} == set(EXIT_CODES)
    assert len({words.partition(":")[0] for words in EXIT_CODES.values()}) == len(EXIT_CODES)
    for kind in named:
        assert kind.title in EXIT_CODES[kind.exit_code], kind
    assert InProcessCli(tmp_path, "").runbook("exec").code == 2
    assert InProcessCli(tmp_path, "").runbook("stauts").code == 2


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize("kind", ["sqlite", "pg18"])
def test_dry_run_leaves_nothing(databases: Databases, pg18: Server, kind: str, tmp_path: Path):
    """F: I02 - no trail, no ledger, no status file, no row; whatever the answer is."""
    with databases.kind(kind).database() as one:
        one.script(TABLE)
        _looked_only(one, tmp_path)


def _looked_only(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    failing = "preconditions:\n  - {id: never, check: query, query: SELECT 1 AS n, that: n == 2}\n"
    tables = {
        "sqlite": "SELECT name FROM sqlite_master",
        "postgresql": "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    }[database.dialect]  # fmt: skip
    before = sorted(database.rows(tables))
    for head, code in (("", 0), (failing, 3)):
        mark(desk, head)
        files = _files(tmp_path)
        for words in (
            ("exec", "mark.yaml", "--dry-run", "--status-dir", "monitor"),
            ("plan", "mark.yaml", "-t", desk.target),
        ):
            done = desk.runbook(*words)
            assert done.code == code, done.text
            assert "UPDATE marks" in done.out
        assert {one for one in _files(tmp_path) - files if "-journal" not in one} == set()
        assert sorted(database.rows(tables)) == before
        assert database.value("SELECT count(n) FROM marks") == 0
    if database.dialect == "postgresql":
        assert "runbook" not in schemas(database)


def test_json_of_every_command_is_json(tmp_path: Path):
    """One document a command; exec and resume print one a line."""
    path = tmp_path / "db.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(TABLE)
    desk = InProcessCli(tmp_path, f"sqlite:///{path}")
    mark(desk)
    ran = desk.runbook("exec", "mark.yaml", "--json")
    assert ran.code == 0, ran.text
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert len(lines) == len(read(desk.trail))
    for words in (
        ("status", "latest"), ("runs",), ("plan", "mark.yaml"), ("plan", "mark.yaml", "-t", desk.target), ("validate", "mark.yaml"),
        ("report", "latest"), ("report", "latest", "--rows", "dead"), ("trail", "verify", "latest"), ("target", "check"), ("steps",),
        ("trail", "verify", "latest", "--against-target"), ("exec", "mark.yaml", "--dry-run"), ("steps", "sql"),
    ):  # fmt: skip
        done = desk.runbook(*words, "--json")
        assert done.code == 0, (words, done.text)
        assert json.loads(done.out) is not None
    for line in desk.runbook("trail", "show", "latest", "--json").out.splitlines():
        json.loads(line)
    json.loads(desk.runbook("schema").out)
    desk.playbook("bad", "runbook: 1\n")
    bad = desk.runbook("validate", "bad.yaml", "--json")
    assert (bad.code, len(json.loads(bad.out)["faults"])) == (4, 1)
    for line in desk.runbook("rollback", "latest", "--json").out.splitlines():
        json.loads(line)
