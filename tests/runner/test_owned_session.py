"""Whatever role, database or environment put into a session: nothing that a run means or survives depends on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from databases import Database, Databases, kind_or_skip
from inside import InProcessCli
from opened import opened

from runner.format import examples
from runner.playbook.load import load_file
from runner.run.dry_run import dry_run
from runner.run.execute import RunOptions, execute
from runner.target import session_settings
from runner.target.database import RunDatabase
from runner.target.workplace import Workplace
from steps.ledger import encoding
from steps.registry import probe_types

EXAMPLES = Path(__file__).parents[2] / "playbooks/examples"
HOSTILE = {
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "TimeZone": "Pacific/Chatham",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-10",
    "bytea_output": "escape",
    "xmloption": "document",
    "xmlbinary": "hex",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "backslash_quote": "off",
    "timezone_abbreviations": "Australia",
    "restrict_nonsystem_relation_kind": "view",
    "check_function_bodies": "off",
    "plpgsql.check_asserts": "off",
    "event_triggers": "off",
    "zero_damaged_pages": "on",
    "ignore_checksum_failure": "on",
    "gin_fuzzy_search_limit": "1",
    "quote_all_identifiers": "on",
    "row_security": "on",
    "session_replication_role": "replica",
    "synchronous_commit": "off",
    "exit_on_error": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "400ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "300ms",
    "idle_session_timeout": "300ms",
    "transaction_timeout": "400ms",
}


def hostile(major: int, names: tuple[str, ...] = ()) -> dict[str, str]:
    found = {name: HOSTILE[name] for name in names or HOSTILE}
    late = {"transaction_timeout", "event_triggers"}
    return {name: value for name, value in found.items() if name not in late or major >= 17}


def make_hostile(database: Database, whose: str, settings: dict[str, str]) -> str:
    """The URL of a session that is given these settings by its role or its database."""
    database.script("DO $$BEGIN CREATE ROLE spoiled SUPERUSER LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    of = "ROLE spoiled" if whose == "role" else f"DATABASE {database.name}"
    database.script("".join(f"ALTER {of} SET {name} = {_quoted(value)};" for name, value in settings.items()))
    return database.url.replace("owner@", "spoiled@")


def _quoted(value: str) -> str:
    return value if "," in value else f"'{value}'"


@pytest.fixture
def clean(databases: Databases) -> Iterator[None]:
    """Asked for before the database, so that the role goes after what it owns."""
    yield
    for major in ("pg15", "pg18"):
        if major in databases._clusters:
            with psycopg.connect(databases._clusters[major].server.url(), autocommit=True) as connection:
                connection.execute("DROP ROLE IF EXISTS spoiled")


@dataclass(frozen=True)
class Case:
    kind: str
    whose: str


CASES = [Case("pg15", "role"), Case("pg18", "database")]
CROSS = [Case("pg15", "database"), Case("pg18", "role")]
SOAK = [pytest.param(one, marks=pytest.mark.soak) for one in CROSS]


def _fits(path: Path) -> bool:
    wanted = load_file(path).target
    return bool(wanted.postgresql) or not wanted.sqlite


@pytest.mark.parametrize("case", [*CASES, *SOAK], ids=str)
def test_every_step_type_under_hostile_settings(databases: Databases, tmp_path: Path, clean: None, case: Case) -> None:
    with kind_or_skip(databases, case.kind).database("enriched") as database:
        url = make_hostile(database, case.whose, hostile(database.major))
        orders = RunOptions(place=Workplace(target=url, runs=tmp_path), operator="olga")
        names = [path.stem for path in EXAMPLES.glob("*.yaml") if path.stem != "checkpoint" and _fits(path)]
        for name in sorted(names, key=lambda one: (one == "undo", one)):
            execute(EXAMPLES / f"{name}.yaml", orders)


# Of tables that are there; the other examples ask for names that nobody has, which must be answered alike too.
REAL = """\
- {id: r1, check: columns, table: session_summaries, has: {session_id: text}}
- {id: r2, check: rows, table: session_summaries, at_least: 1}
- {id: r3, check: table, table: session_summaries, that: bytes > 0}
- {id: r4, check: query, query: "SELECT count(*) AS n FROM session_summaries WHERE NULL = NULL", that: n == 0}
- {id: r5, check: query, query: "SELECT '2024-02-03'::date - '2024-02-01' AS n, 'a\\b' AS w", that: n == 2}
- {id: r6, check: sample, table: session_summaries, key: session_id, columns: [session_id],
   source: SELECT session_id AS k FROM session_summaries, match: source.k = target.session_id, that: accuracy_pct == 100}
- {id: r7, check: trial, statements: [UPDATE session_summaries SET session_id = session_id]}
""".splitlines()


@pytest.mark.parametrize("case", [*CASES, *SOAK], ids=str)
def test_every_probe_answers_as_in_a_calm_session(
    databases: Databases, tmp_path: Path, clean: None, case: Case
) -> None:
    with kind_or_skip(databases, case.kind).database("enriched") as database:
        for name in ("session_ip.postgresql.sql", "session_ip.sqlite.sql"):
            (tmp_path / name).write_text((EXAMPLES.parent / name).read_text())
        file = tmp_path / "probes.yaml"
        made = {kind: examples.made(kind, "check", model) for kind, model in probe_types().items()}
        checks = [re.sub(r"\bid: \w+", f"id: c{n}", one, count=1) for n, one in enumerate(made.values())]
        body = "".join(f"{one}\n" for one in [*checks, *REAL])
        file.write_text(
            "runbook: 1\nname: probes\ntitle: All of them\npreconditions:\n"
            + "".join(f"  {line}\n" for line in body.splitlines())
            + "steps:\n  - {id: stop, type: checkpoint, approval: {need: 1}}\nsuccess_criteria: {none: it only looks}\n"
        )
        calm = dry_run(load_file(file), RunOptions(place=Workplace(target=database.url)))
        url = make_hostile(database, case.whose, hostile(database.major))
        spoiled = dry_run(load_file(file), RunOptions(place=Workplace(target=url)))
        told = [[(one.id, one.answer) for one in found.answers if hasattr(one, "answer")] for found in (calm, spoiled)]
        assert told[0] == told[1]


TYPES = {
    "real4": ("real", "(0.1 + random())::real"),
    "double8": ("double precision", "1 / 3.0 + random()"),
    "at": ("timestamptz", "clock_timestamp()"),
    "day": ("date", "date '2024-02-03' + g"),
    "span": ("interval", "interval '-1 mon 2 days -03:04:05.678' * g"),
    "raw": ("bytea", r"decode('00ff5c', 'hex')"),
    "cash": ("money", "(1234.56 * g)::numeric::money"),
    "words": ("text[]", "ARRAY['NULL', NULL, 'é']"),
    "many": ("numeric", "12345678901234567890.123456789"),
}
FILL = """runbook: 1
name: fill
title: Fill them
steps:
  - id: fill
    type: backfill
    table: t
    source: SELECT * FROM s
    match: source.id = target.id
    fill: [{names}]
    success_criteria:
      - {{id: all_there, that: visited == in_range and left == 0 and dead == 0}}
"""


@pytest.mark.parametrize("case", [*CASES, *SOAK], ids=str)
def test_rollback_takes_every_type_back(databases: Databases, tmp_path: Path, clean: None, case: Case) -> None:
    """A role's extra_float_digits once let a rollback restore 4 rows of 100."""
    with kind_or_skip(databases, case.kind).database() as database:
        columns = ", ".join(f"{name} {words[0]}" for name, words in TYPES.items())
        values = ", ".join(f"{words[1]} AS {name}" for name, words in TYPES.items())
        database.script(
            f"CREATE TABLE s AS SELECT g AS id, {values} FROM generate_series(1, 100) AS g; ALTER TABLE s ADD PRIMARY KEY (id);"
            f"CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t (id) SELECT generate_series(1, 100)"
        )
        desk = InProcessCli(tmp_path, make_hostile(database, case.whose, hostile(database.major)))
        desk.playbook("fill", FILL.format(names=", ".join(TYPES)))
        done = desk.runbook("exec", "fill.yaml")
        assert done.code == 0, done.text
        differ = " OR ".join(f"t.{name} IS DISTINCT FROM s.{name}" for name in TYPES)
        assert database.value(f"SELECT count(*) FROM public.t JOIN public.s USING (id) WHERE {differ}") == 0
        back = desk.runbook("rollback", "latest", "--reason", "values")
        assert back.code == 0, back.text
        assert database.value(f"SELECT count(*) FROM public.t WHERE num_nonnulls({', '.join(TYPES)}) > 0") == 0


def test_a_statement_timeout_of_the_role_ends_no_question_about_the_session(
    databases: Databases, tmp_path: Path, clean: None
) -> None:
    with kind_or_skip(databases, "pg18").database() as database:
        database.script("CREATE TABLE marks (n int); INSERT INTO marks VALUES (0), (0)")
        desk = InProcessCli(
            tmp_path, make_hostile(database, "role", {"statement_timeout": "1ms", "lock_timeout": "1ms"})
        )
        desk.playbook("mark", MARK)
        done = desk.runbook("exec", "mark.yaml")
        assert done.code == 0, done.text


# ─── what can't be mended ───────────────────────────────────────────────────────────────────────────────────────────
MARK = """runbook: 1
name: mark
title: Mark them
steps:
  - {id: mark, type: sql, text: UPDATE marks SET n = 1, whole_table: true, revert: UPDATE marks SET n = NULL}
success_criteria:
  - {id: marked, check: query, query: SELECT count(*) AS n FROM marks WHERE n = 1, that: n == 2}
"""
TWO = "{id: two, check: rows, table: marks, exactly: 2}"
LOOK = f"""runbook: 1
name: look
title: Look at them
steps:
  - id: look
    type: checkpoint
    success_criteria:
      - {TWO}
"""


@pytest.fixture(params=["pg15", "pg18"])
def marks(databases: Databases, request: pytest.FixtureRequest) -> Iterator[Database]:
    with kind_or_skip(databases, request.param).database() as database:
        database.script("CREATE TABLE marks (id int PRIMARY KEY, n int); INSERT INTO marks VALUES (1), (2)")
        yield database


@pytest.mark.parametrize("whose", ["role", "database", "environment"])
def test_read_only_session_is_refused_by_name(clean: None, marks: Database, tmp_path: Path, whose: str) -> None:
    """In plan and exec, and with the way to mend it; a playbook that only looks runs."""
    url, more = marks.url, {}
    if whose == "environment":
        more = {"PGOPTIONS": "-c default_transaction_read_only=on"}
    else:
        url = make_hostile(marks, whose, {"default_transaction_read_only": "on"})
    desk = InProcessCli(tmp_path, url)
    desk.playbook("mark", MARK)
    desk.playbook("look", LOOK)
    for words in (("plan", "mark.yaml", "-t", url), ("exec", "mark.yaml")):
        refused = desk.runbook(*words, **more)
        assert refused.code in {3, 6}, refused.text
        assert "read-only" in refused.text
        assert "unreachable" not in refused.text
    with psycopg.connect(marks.url) as plain:
        plain.read_only = True
        assert plain.execute("SELECT count(n) FROM marks").fetchone() == (0,)
        assert plain.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'runbook'").fetchone() == (0,)
    assert desk.runbook("exec", "look.yaml", **more).code == 0
    if whose == "role":  # the remedy that is printed
        done = desk.runbook("exec", "mark.yaml", PGOPTIONS="-c default_transaction_read_only=off")
        assert done.code == 0, done.text


@pytest.fixture
def plain(clean: None, marks: Database) -> Iterator[str]:
    """The URL of an ordinary role that may use the table."""
    marks.script(
        f"CREATE ROLE spoiled LOGIN; GRANT ALL ON marks TO spoiled; GRANT CREATE ON DATABASE {marks.name} TO spoiled"
    )
    yield marks.url.replace("owner@", "spoiled@")
    marks.script("DROP OWNED BY spoiled CASCADE")


def test_replica_role_that_may_not_be_set_back_is_refused(marks: Database, plain: str, tmp_path: Path) -> None:
    marks.script("ALTER ROLE spoiled SET session_replication_role = 'replica'")
    desk = InProcessCli(tmp_path, plain)
    desk.playbook("mark", MARK)
    desk.playbook("look", LOOK)
    refused = desk.runbook("exec", "mark.yaml")
    assert refused.code == 6, refused.text
    assert "session_replication_role" in refused.text
    assert desk.runbook("exec", "look.yaml").code == 0
    marks.script("GRANT SET ON PARAMETER session_replication_role TO spoiled")
    assert desk.runbook("exec", "mark.yaml").code == 0


def test_policy_that_hides_rows_is_an_error(marks: Database, plain: str, tmp_path: Path) -> None:
    """A statement and a trial once worked silently on the rows that the policy showed."""
    marks.script(
        "ALTER TABLE marks ENABLE ROW LEVEL SECURITY; CREATE POLICY part_of ON marks TO spoiled USING (id = 1)"
    )
    desk = InProcessCli(tmp_path, plain)
    desk.playbook("mark", MARK)
    failed = desk.runbook("exec", "mark.yaml")
    assert failed.code in {1, 3, 6}, failed.text
    assert "row-level security" in failed.text
    assert marks.value("SELECT count(n) FROM marks") == 0
    desk.playbook("look", LOOK.replace(TWO, "{id: t, check: trial, statements: [UPDATE marks SET n = 2]}"))
    asked = desk.runbook("exec", "look.yaml")
    assert asked.code == 3, asked.text
    assert "row-level security" in asked.text


# ─── encodings ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def odd(databases: Databases, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of the encoding that the test names."""
    server = kind_or_skip(databases, "pg15").server
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE odd ENCODING '{request.param}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        yield Database("odd", "postgresql", server.url("odd"), 15, server)
        admin.execute("DROP DATABASE IF EXISTS odd WITH (FORCE)")


@pytest.mark.parametrize("odd", ["LATIN1", "SQL_ASCII", "WIN1252", "EUC_JP"], indirect=True)
def test_database_of_another_encoding(odd: Database, tmp_path: Path) -> None:
    """A name and a reason with letters that it lacks are recorded all the same."""
    odd.script("CREATE TABLE marks (id int PRIMARY KEY, n int); INSERT INTO marks VALUES (1), (2)")
    desk = InProcessCli(tmp_path, odd.url)
    desk.playbook("mark", MARK.replace("Mark them", "Zażółć 😀"))
    done = desk.runbook("exec", "mark.yaml", "--operator", "Łucja Wąs")
    assert done.code == 0, done.text
    assert desk.status().started.process.operator == "Łucja Wąs"
    back = desk.runbook("rollback", "latest", "--reason", "złe wartości")
    assert back.code == 0, back.text


DEAD_ROW = """
runbook: 1
name: fill
title: A row that is dead, and a copy with its reason
steps:
  - {id: kept, type: keep, what: SELECT * FROM marks, into: copy, because: "złe → 😀"}
  - id: filled
    type: fill_table
    table: doubled
    source: SELECT id, CASE WHEN id = 2 THEN CAST(n AS integer) ELSE 1 END AS n FROM marks
    columns: [id, n]
"""


@pytest.mark.parametrize("odd", ["LATIN1"], indirect=True)
def test_words_of_ours_are_stored_in_any_encoding(odd: Database, tmp_path: Path) -> None:
    """Why a row is dead, with the mark of what was left out; and a reason of the playbook's."""
    odd.script("CREATE TABLE marks (id int PRIMARY KEY, n text); INSERT INTO marks VALUES (1, '1'), (2, '2')")
    odd.script("CREATE TABLE doubled (id int PRIMARY KEY, n int); UPDATE marks SET n = 'x' WHERE id = 2")
    desk = InProcessCli(tmp_path, odd.url)
    desk.playbook("fill", DEAD_ROW)
    done = desk.runbook("exec", "fill.yaml")
    assert done.code == 0, done.text
    assert odd.rows("SELECT id, n FROM doubled") == [(1, 1)]
    ((message,),) = odd.rows("SELECT message FROM runbook.skipped_row")
    assert "can't compute it: invalid input syntax" in message
    assert (
        odd.value("SELECT obj_description('runbook_kept.copy'::regclass)")
        == "kept by runbook: z\\u0142e \\u2192 \\ud83d\\ude00"
    )
    assert desk.runbook("rollback", "latest").code == 0


@pytest.mark.parametrize("odd", ["SQL_ASCII"], indirect=True)
def test_text_that_is_no_utf8_is_an_error_that_says_so(odd: Database, tmp_path: Path) -> None:
    odd.script(r"CREATE TABLE marks (id int, w text); INSERT INTO marks VALUES (1, E'caf\351')")
    desk = InProcessCli(tmp_path, odd.url)
    desk.playbook("look", LOOK.replace(TWO, "{id: two, check: query, query: SELECT w FROM marks, that: w == 'x'}"))
    done = desk.runbook("exec", "look.yaml")
    assert done.code == 3, done.text
    (told,) = desk.events("check_answered")
    assert (told.answer, "UTF8" in told.text) == ("error", True), told


def test_letters_that_an_encoding_lacks_are_written_as_json_writes_them() -> None:
    assert encoding.writable("Łucja 😀 é", "LATIN1") == "\\u0141ucja \\ud83d\\ude00 é"
    assert encoding.writable("Łucja 😀 é", "UTF8") == "Łucja 😀 é"
    assert encoding.writable("жук Ł", "KOI8R") == "жук \\u0141"
    assert encoding.readable("\\u0141ucja \\ud83d\\ude00 é") == "Łucja 😀 é"


# ─── one place ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_table_for_people_is_the_table_in_use() -> None:
    text = (Path(__file__).parents[2] / "docs/session.md").read_text()
    told = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", text, flags=re.MULTILINE))
    for one in (*session_settings.FIXED, *session_settings.OUTSIDE):
        assert told.pop(one.name) == f"`{one.value}`", one.name
    asked = session_settings.to_set(session_settings.SessionSettings("x", 1, 1, ("public",)))[1]
    assert set(told) == {*asked, "client_encoding"}
    assert told["idle_in_transaction_session_timeout"] == f"`{session_settings.IDLE}`"


@pytest.fixture
def database(pg: str) -> Iterator[RunDatabase]:
    with opened(pg) as made:
        yield made


def test_what_is_set_holds_in_every_kind_of_transaction(database: RunDatabase) -> None:
    """Whatever a statement before it left behind in the session."""
    wanted = {one.name: one.value for one in session_settings.FIXED if database.version >= (one.since,)}
    sql = "SELECT " + ", ".join(f"current_setting('{name}') AS \"{name}\"" for name in wanted)
    with database.look() as look:
        assert dict(look.row(sql)) == wanted
    with database.outside("x") as work:
        assert dict(work.row(sql)) == wanted
        assert work.row("SELECT current_setting('default_transaction_read_only') AS a").text("a") == "off"
    with database.own(fenced=False) as work:
        for name, value in {"TimeZone": "Asia/Tokyo", "search_path": "nowhere", "extra_float_digits": "0"}.items():
            work.row(f"SELECT set_config('{name}', :value, false)", {"value": value})
    with database.own(fenced=False) as work:
        assert dict(work.row(sql)) == wanted
        assert work.row("SELECT current_setting('search_path') AS p").text("p") == '"public", pg_temp'


def test_idle_connection_that_an_administrator_ended_is_opened_anew(database: RunDatabase, pg: str) -> None:
    with database.own(fenced=False) as work:
        first = work.row("SELECT pg_backend_pid() AS pid").integer("pid")
    with psycopg.connect(pg, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    with database.own(fenced=False) as work:
        assert work.row("SELECT pg_backend_pid() AS pid").integer("pid") != first


# ─── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_path_is_what_the_author_chose(marks: Database, tmp_path: Path) -> None:
    """Default: the schema, what the database gives its sessions, extensions' schemas; shown by plan, with its risks."""
    marks.script(
        "CREATE SCHEMA app; CREATE SCHEMA tools; CREATE SCHEMA kit; CREATE EXTENSION citext SCHEMA kit;"
        "CREATE TABLE app.t (id int PRIMARY KEY, w kit.citext); INSERT INTO app.t VALUES (1, 'A');"
        "CREATE FUNCTION tools.three() RETURNS int LANGUAGE sql AS 'SELECT 3'; GRANT CREATE ON SCHEMA tools TO PUBLIC;"
        f'ALTER DATABASE {marks.name} SET search_path = "$user", tools, pg_catalog'
    )
    desk = InProcessCli(tmp_path, marks.url)
    ask = """{id: two, check: query, query: "SELECT three() AS n, count(*) AS c FROM t WHERE w = 'a'", that: n == 3 and c == 1}"""
    text = LOOK.replace(TWO, ask)
    desk.playbook("look", text + "schema: app\n")
    done = desk.runbook("exec", "look.yaml")
    assert done.code == 0, done.text
    assert desk.events("run_started")[0].search_path == ("app", "tools", "kit")
    plan = desk.runbook("plan", "look.yaml", "-t", marks.url)
    assert '"app", "tools", "kit"' in " ".join(plan.text.split())
    assert 'REVOKE CREATE ON SCHEMA "tools" FROM PUBLIC' in " ".join(plan.text.split())
    desk.playbook("look", text + "schema: app\nsearch_path: [app]\n")
    failed = desk.runbook("exec", "look.yaml")
    assert failed.code == 3, failed.text
    assert desk.events("run_started")[0].search_path == ("app",)
