"""What is there under the wanted name but isn't the wanted thing is never "already applied"; what a type change costs and keeps."""

from __future__ import annotations

import pytest
from databases import Database, Databases
from plain_context import Trial
from pydantic import ValidationError

from steps import registry
from steps.contract import State, Step, StepError

TABLE = """CREATE TABLE p (id integer PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, a text, n integer, r integer);
    INSERT INTO p VALUES (1); INSERT INTO t VALUES (1, 'x', 1, 1)"""
INDEX = ("create_index", {"table": "t", "columns": ["a"], "name": "i"})
KEY = ("add_constraint", {"table": "t", "name": "k", "foreign_key": {"columns": ["r"], "references": "p.id"}})
CHECK = ("add_constraint", {"table": "t", "name": "k", "check": "n > 0"})
COLUMN = ("add_column", {"column": "t.c", "of_type": "integer", "default": "0"})
OTHERS = [
    *(
        (INDEX, f"CREATE INDEX i ON t {words}")
        for words in (
            '(a COLLATE "C")',
            "(a text_pattern_ops)",
            "(a DESC)",
            "(a NULLS FIRST)",
            "(a) INCLUDE (n)",
            "(a) WHERE n > 0",
            "(a) WITH (fillfactor = 50)",
            "USING hash (a)",
            "(lower(a))",
            "(n)",
        )
    ),
    (
        ("create_index", {"table": "t", "columns": ["a"], "name": "i", "unique": True}),
        "CREATE UNIQUE INDEX i ON t (a) NULLS NOT DISTINCT",
    ),
    *(
        (KEY, f"ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (r) REFERENCES p (id) {words}")
        for words in (
            "ON UPDATE CASCADE",
            "ON DELETE CASCADE",
            "DEFERRABLE",
            "DEFERRABLE INITIALLY DEFERRED",
            "MATCH FULL",
        )
    ),
    (KEY, "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (n) REFERENCES p (id)"),
    (CHECK, "ALTER TABLE t ADD CONSTRAINT k CHECK (n >= 0)"),
    (CHECK, "ALTER TABLE t ADD CONSTRAINT k CHECK (n > 0) NO INHERIT"),
    *(
        (COLUMN, f"ALTER TABLE t ADD COLUMN c {words}")
        for words in (
            "integer",
            "integer DEFAULT 7",
            "integer NOT NULL DEFAULT 0",
            "bigint DEFAULT 0",
            "integer GENERATED ALWAYS AS (n) STORED",
            "integer GENERATED ALWAYS AS IDENTITY",
        )
    ),
    (("add_column", {"column": "t.c", "of_type": "text"}), 'ALTER TABLE t ADD COLUMN c text COLLATE "C"'),
]


def _step(word: tuple[str, dict[str, object]]) -> Step:
    return registry.step_types()[word[0]].model_validate(word[1])


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_another_thing_of_the_name_is_a_fault_in_plan(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        for word, sql in OTHERS:
            database.script(f"DROP TABLE IF EXISTS t, p; {TABLE}; {sql}")
            trial = Trial(database, _step(word))
            assert trial.state() is State.PARTLY, (sql, trial.verify())
            assert trial.preflight(), sql


def test_another_thing_of_the_name_on_sqlite(tmp_path) -> None:
    for n, (word, sql) in enumerate(
        (
            (INDEX, "CREATE INDEX i ON t (a COLLATE NOCASE)"),
            (INDEX, "CREATE INDEX i ON t (a DESC)"),
            (INDEX, "CREATE INDEX i ON t (lower(a))"),
            (INDEX, "CREATE INDEX i ON t (a) WHERE n > 0"),
            (COLUMN, "ALTER TABLE t ADD COLUMN c integer DEFAULT 7"),
            (COLUMN, "ALTER TABLE t ADD COLUMN c integer DEFAULT 0 COLLATE NOCASE"),
            (COLUMN, "ALTER TABLE t ADD COLUMN c text DEFAULT 0"),
            (COLUMN, "ALTER TABLE t ADD COLUMN c integer AS (n)"),
        )
    ):
        path = tmp_path / f"{n}.sqlite"
        database = Database(str(path), "sqlite", f"sqlite:///{path}")
        database.script(f"{TABLE}; {sql}")
        trial = Trial(database, _step(word))
        assert trial.state() is State.PARTLY, (sql, trial.verify())
        assert trial.preflight(), sql


# ─── change_column_type ─────────────────────────────────────────────────────────────────────────────────────────────────
def _change(**fields: object) -> Step:
    return registry.step_types()["change_column_type"].model_validate({"column": "c.x", **fields})


@pytest.fixture(params=["pg15", "pg18"])
def pgdb(request: pytest.FixtureRequest, databases: Databases):
    with databases.kind(request.param).database() as database:
        yield database


def _column(database: Database) -> tuple[object, ...]:
    [row] = database.rows(
        """SELECT format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'c'::regclass AND a.attname = 'x'"""
    )
    return row


@pytest.mark.parametrize(
    ("column", "fields", "became", "length"),
    [
        ('varchar(20) COLLATE "C"', {"to": "text"}, ("text", '"C"', None), "instant"),
        ('varchar(20) COLLATE "C" UNIQUE', {"to": "text", "collation": "POSIX"}, ("text", '"POSIX"', None), "one scan"),
        (
            "varchar(20) CHECK (x <> 'no')",
            {"to": "varchar(40)"},
            ("character varying(40)", '"default"', None),
            "one scan",
        ),
        ("text DEFAULT '5'", {"to": "integer", "using": "x::integer"}, ("integer", "-", "5"), "one rewrite"),
        (
            "integer DEFAULT 1",
            {"to": "text", "using": "CASE x WHEN 1 THEN 'one' ELSE 'other' END"},
            ("text", '"default"', "'one'::text"),
            "one rewrite",
        ),
        (
            "timestamp DEFAULT now()",
            {"to": "timestamptz", "using": "x AT TIME ZONE 'Europe/Berlin'"},
            ("timestamp with time zone", "-", "now()"),
            "one rewrite",
        ),
    ],
)
def test_change_keeps_collation_and_turns_the_default(
    pgdb: Database, column: str, fields: dict[str, object], became: object, length: str
) -> None:
    pgdb.script(f"CREATE TABLE c (id integer PRIMARY KEY, x {column})")
    before, trial = _column(pgdb), Trial(pgdb, _change(**fields))
    with trial.look() as look:
        assert trial.step.statements(look)[0].length == length  # type: ignore[attr-defined]
    trial.apply()
    assert (trial.state(), _column(pgdb)) == (State.DONE, became)
    trial.revert()
    assert _column(pgdb) == before


@pytest.mark.parametrize(
    ("column", "fields", "said"),
    [
        ("timestamp", {"to": "timestamptz"}, "time zone"),
        ("timestamptz", {"to": "date"}, "time zone"),
        ("date", {"to": "timestamptz", "using": "x::timestamptz"}, "time zone"),
        ("text DEFAULT 'word'", {"to": "integer", "using": "x::integer"}, "turn the default"),
        ("text", {"to": 'text COLLATE "C"'}, "as a type"),
        ("text", {"to": "integer", "collation": "C", "using": "1"}, "collations are not supported"),
        ("text", {"to": "varchar(9)", "collation": "nowhere"}, "cannot find the collation"),
        ("text", {"to": "integer", "using": "nosuch(x)"}, "nosuch"),
    ],
)
def test_change_refused_in_plan(pgdb: Database, column: str, fields: dict[str, object], said: str) -> None:
    pgdb.script(f"CREATE TABLE c (id integer PRIMARY KEY, x {column})")
    before, trial = _column(pgdb), Trial(pgdb, _change(**fields))
    assert said in "; ".join(trial.preflight())
    with pytest.raises(StepError):
        trial.apply()
    assert _column(pgdb) == before


# ─── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
LONG = "é" * 40
NAMES = [
    ("rename_column", {"column": "t.b", "to": LONG}),
    ("rename_column", {"column": f"t.{LONG}", "to": "a"}),
    ("rename_column", {"column": f"{LONG}.a", "to": "b"}),
    ("add_column", {"column": f"t.{LONG}", "of_type": "int"}),
    ("add_column", {"column": "t.a", "of_type": "int", "references": f"p.{LONG}"}),
    ("change_column_type", {"column": f"{LONG}.a", "to": "int"}),
    ("create_index", {"table": LONG, "columns": ["a"]}),
    ("create_index", {"table": "t", "columns": [LONG]}),
    ("create_index", {"table": "t", "columns": ["a"], "name": LONG}),
    ("drop_index", {"index": LONG}),
    ("reindex", {"table": LONG}),
    ("add_constraint", {"table": "t", "name": LONG, "check": "true"}),
    ("add_constraint", {"table": "t", "name": "k", "not_null": LONG}),
    ("add_constraint", {"table": "t", "name": "k", "unique_index": LONG}),
    ("vacuum", {"table": LONG}),
    ("analyze", {"table": f"s.{LONG}"}),
    ("add_constraint", {"table": "t", "name": "k", "foreign_key": {"columns": ["a"], "references": f"{LONG}.id"}}),
    (
        "backfill",
        {"table": LONG, "key": "id", "fill": ["a"], "source": "SELECT 1 AS a", "match": "source.id = target.id"},
    ),
    ("rebuild_table", {"table": LONG, "definition": "(id int)"}),
    ("rebuild_table", {"table": "t", "definition": "(id int)", "drops": [LONG]}),
]


@pytest.mark.parametrize(("kind", "fields"), NAMES)
def test_long_names_are_refused_when_read(kind: str, fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="of its 80 bytes PostgreSQL keeps 63; shorten it"):
        registry.step_types()[kind].model_validate(fields)


def test_schema_and_table_have_63_bytes_each() -> None:
    registry.step_types()["analyze"].model_validate({"table": f"{'s' * 63}.{'t' * 63}"})
