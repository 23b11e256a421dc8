"""What is there doesn't take a definition that the server reads: found before anything is changed, and told in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database, Databases
from inside import InProcessCli, written
from plain_context import Trial

from steps import registry
from steps.contract import State, Step

T = "CREATE TABLE t (id int PRIMARY KEY, a int, c text); INSERT INTO t SELECT g, g, 'x' || g FROM generate_series(1, 5) AS g;"
P = "CREATE TABLE p (id int PRIMARY KEY, z text); INSERT INTO p SELECT generate_series(1, 5);"
PART = "CREATE TABLE p (id int, a int, c text) PARTITION BY LIST (a); CREATE TABLE t PARTITION OF p DEFAULT;"
CHILD = "CREATE TABLE p (id int, a int, c text); CREATE TABLE t () INHERITS (p);"
TYPED = "CREATE TYPE ty AS (id int, a int, c text); CREATE TABLE t OF ty;"
VIEW = "CREATE VIEW t AS SELECT 1 AS id, 2 AS a, 'x'::text AS c;"


def _step(kind: str, **fields: object) -> Step:
    return registry.step_types()[kind].model_validate(fields)


def _adds(of_type: str, **fields: object) -> Step:
    return _step("add_column", column="t.b", of_type=of_type, **fields)


def _turns(to: str, **fields: object) -> Step:
    return _step("change_column_type", column="t.a", to=to, **fields)


def _binds(**fields: object) -> Step:
    return _step("add_constraint", table="t", name="k", **fields)


def _refers(column: str, to: str, **fields: object) -> Step:
    return _binds(foreign_key={"columns": [column], "references": to, **fields})


# (what is there, the step, a word of the reason)
REFUSED = [
    (T + "CREATE DOMAIN d AS int NOT NULL", _adds("d"), "does not allow null"),
    (T + "CREATE DOMAIN d AS int CHECK (VALUE > 0)", _adds("d", default="-1"), "violates check"),
    (T, _adds("int", default="-1", check="b > 0"), "violated by some row"),
    (T + "ALTER TABLE t ADD g int GENERATED ALWAYS AS (a) STORED", _adds("int", generated="g + 1"), "generat"),
    (T + P, _adds("text", references="p.id"), "cannot be implemented"),
    (T + P, _adds("text", references="p.z"), "no unique constraint"),
    (T + P, _adds("int", references="p.id", default="77"), "a row that p doesn't have"),
    (T, _adds("int", references="p.id"), "no table p"),
    (T, _step("add_column", column="t.ctid", of_type="int"), "system column"),
    (PART, _adds("int"), "partition of p"),
    (TYPED, _adds("int"), "ALTER TYPE ty ADD ATTRIBUTE"),
    (VIEW, _adds("int"), "is a view"),
    (T + "CREATE TABLE t1 (b text) INHERITS (t)", _adds("int"), "t1 inherits"),
    (T + "ALTER TABLE t ADD CHECK (a <> 7)", _turns("text", using="a::text"), "operator does not exist"),
    (T + P + "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES p", _turns("text"), "foreign key t_a_fkey"),
    (
        T + "ALTER TABLE t ADD UNIQUE (a); CREATE TABLE p (x int REFERENCES t (a))",
        _turns("text"),
        "foreign key p_x_fkey",
    ),
    (T + "CREATE TABLE u (x t)", _turns("bigint"), "u.x holds rows"),
    (T + "ALTER TABLE t ALTER a SET NOT NULL, ALTER a ADD GENERATED ALWAYS AS IDENTITY", _turns("text"), "identity"),
    (PART, _turns("bigint"), "inherited from p"),
    (CHILD, _turns("bigint"), "inherited from p"),
    ("CREATE TABLE t (id int, a int, c text) PARTITION BY LIST (a)", _turns("bigint"), "partitioned by it"),
    (TYPED, _turns("bigint"), "ALTER TYPE ty ALTER ATTRIBUTE"),
    (VIEW, _turns("bigint"), "is a view"),
    (VIEW, _binds(check="a > 0"), "is a view"),
    (T + P, _refers("c", "p.id"), "cannot be implemented"),
    (T + P + "ALTER TABLE p ADD UNIQUE (z) DEFERRABLE", _refers("c", "p.z"), "deferrable"),
    (T + P.replace("TABLE", "UNLOGGED TABLE", 1), _refers("a", "p.id"), "unlogged"),
    (
        T + P + "ALTER TABLE t ADD g int GENERATED ALWAYS AS (a) STORED",
        _refers("g", "p.id", on_delete="set null"),
        "ON DELETE",
    ),
    (T + "CREATE UNIQUE INDEX u ON t (a DESC)", _binds(unique_index="u"), "default sorting"),
    (T + "CREATE UNIQUE INDEX u ON t ((a + 1))", _binds(unique_index="u"), "expressions"),
    (T, _binds(unique_index="t_pkey"), "t_pkey stands on it"),
    (T + P, _binds(unique_index="p_pkey"), "index of p"),
    (T + "CREATE UNIQUE INDEX u ON t (a); CREATE TABLE k ()", _binds(unique_index="u"), "something else is called k"),
    (T + "CREATE TABLE i ()", _step("create_index", table="t", columns=["a"], name="i"), "something else is called"),
    (VIEW, _step("create_index", table="t", columns=["a"], name="i"), "is a view"),
    (T, _step("create_index", table="t", columns=["a"], collation={"a": "C"}), "collations are not supported"),
    (T, _step("create_index", table="t", columns=["c"], operator_class={"c": "int4_ops"}), "int4_ops"),
    (T + "ALTER TABLE t ADD b int", _step("rename_column", column="t.a", to="b"), "has a column b already"),
    (T, _step("rename_column", column="t.a", to="ctid"), "system column"),
    (PART, _step("rename_column", column="t.a", to="b"), "inherited from p"),
    (TYPED, _step("rename_column", column="t.a", to="b"), "RENAME ATTRIBUTE"),
]


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_what_is_there_refuses_before_the_act(databases: Databases, kind: str) -> None:
    for there, step, reason in REFUSED:
        with databases.kind(kind).database() as database:
            database.script(there)
            told = " ".join(Trial(database, step).preflight())
            assert reason in told, (there, step, told)


LITE = "CREATE TABLE t (id integer PRIMARY KEY, a int, c text); INSERT INTO t VALUES (1, 1, 'x');"
REFUSED_BY_SQLITE = [
    (LITE, _adds("text", default="datetime('now')"), "rebuild_table"),
    (LITE, _adds("int", default="-1", check="b > 0"), "rebuild_table"),
    (LITE + "CREATE TABLE p (id integer PRIMARY KEY)", _adds("int", default="5", references="p.id"), "rebuild_table"),
    (LITE + "CREATE VIEW w AS SELECT x FROM nowhere", _step("rename_column", column="t.a", to="b"), "view w"),
    (LITE + "ALTER TABLE t ADD B int", _step("rename_column", column="t.a", to="b"), "duplicate column"),
    (LITE + "CREATE VIEW i AS SELECT 1", _step("create_index", table="t", columns=["a"], name="i"), "something else"),
    (LITE, _step("create_index", table="t", columns=["c"], operator_class={"c": "text_ops"}), "operator_class"),
]


def test_what_is_there_refuses_on_sqlite(tmp_path: Path) -> None:
    for n, (there, step, reason) in enumerate(REFUSED_BY_SQLITE):
        path = tmp_path / f"{n}.sqlite"
        database = Database(str(path), "sqlite", f"sqlite:///{path}")
        database.script(there)
        told = " ".join(Trial(database, step).preflight())
        assert reason in told, (there, step, told)


# ─── there and back ─────────────────────────────────────────────────────────────────────────────────────────────────────
COLUMNS = """SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attidentity::text, a.attgenerated::text,
                    pg_get_expr(d.adbin, d.adrelid)
             FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = 't'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname"""
THERE_AND_BACK = [
    (T + "CREATE DOMAIN d AS int DEFAULT 5", "{id: s, type: add_column, column: t.b, of_type: d}"),
    (
        T + "ALTER TABLE t ALTER a SET NOT NULL, ALTER a ADD GENERATED ALWAYS AS IDENTITY",
        "{id: s, type: change_column_type, column: t.a, to: bigint}",
    ),
    (
        T + "ALTER TABLE t ADD g int GENERATED ALWAYS AS (a * 2) STORED",
        "{id: s, type: change_column_type, column: t.g, to: bigint}",
    ),
    (T + "CREATE DOMAIN d AS int CHECK (VALUE > 0)", "{id: s, type: change_column_type, column: t.a, to: d}"),
]


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
@pytest.mark.parametrize(("there", "step"), THERE_AND_BACK)
def test_odd_columns_come_back(databases: Databases, tmp_path: Path, kind: str, there: str, step: str) -> None:
    with databases.kind(kind).database() as database:
        database.script(there)
        before = database.rows(COLUMNS), database.rows("SELECT * FROM t ORDER BY id")
        desk = InProcessCli(tmp_path, database.url)
        name = written(desk, f"- {step}", "success_criteria: [{id: r, check: rows, table: t, exactly: 5}]\n")
        done = desk.runbook("exec", name)
        assert done.code == 0, done.text
        assert database.rows(COLUMNS) != before[0]
        back = desk.runbook("rollback", "latest", "--reason", "no")
        assert back.code == 0, back.text
        assert (database.rows(COLUMNS), database.rows("SELECT * FROM t ORDER BY id")) == before


def test_an_index_has_the_collation_and_class_that_the_playbook_names(databases: Databases) -> None:
    fields = {"table": "t", "columns": ["c"], "name": "i"}
    with databases.kind("pg15").database() as database:
        for words, more in (
            ('(c COLLATE "C")', {"collation": {"c": "C"}}),
            ("(c text_pattern_ops)", {"operator_class": {"c": "text_pattern_ops"}}),
        ):
            database.script(f"DROP TABLE IF EXISTS t; {T} CREATE INDEX i ON t {words}")
            assert Trial(database, _step("create_index", **fields, **more)).state() is State.DONE
            assert Trial(database, _step("create_index", **fields)).state() is State.PARTLY


# ─── a backfill on SQLite ───────────────────────────────────────────────────────────────────────────────────────────────
FILL = """- id: f
  type: backfill
  table: t
  source: SELECT id, 'x' AS v FROM t
  match: source.id = target.id
  fill: [v]
  {more}
  success_criteria: [{{id: a, that: left == 0 and deferred == 0 and dead == 0}}]
"""


@pytest.mark.parametrize("clause", ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"])
def test_a_conflict_clause_of_the_table_deletes_nothing(tmp_path: Path, clause: str) -> None:
    path = tmp_path / "t.sqlite"
    database = Database(str(path), "sqlite", f"sqlite:///{path}")
    database.script(
        f"CREATE TABLE t (id integer PRIMARY KEY, v UNIQUE ON CONFLICT {clause}); INSERT INTO t (id) VALUES (1), (2), (3)"
    )
    desk = InProcessCli(tmp_path, str(path))
    done = desk.runbook("exec", written(desk, FILL.format(more=""), "rollback: reverse\n"))
    assert done.code in {1, 3}, done.text
    assert database.rows("SELECT count(*), count(v) FROM t") == [(3, 1)]
    assert desk.runbook("rollback", "latest", "--reason", "no").code == 0
    assert database.rows("SELECT count(*), count(v) FROM t") == [(3, 0)]


@pytest.mark.parametrize("clause", ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"])
def test_a_rebuilt_table_loses_no_row_to_its_conflict_clause(tmp_path: Path, clause: str) -> None:
    path = tmp_path / "t.sqlite"
    database = Database(str(path), "sqlite", f"sqlite:///{path}")
    rows = [(1, "x"), (2, "x"), (3, "y")]
    database.script(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x'), (2, 'x'), (3, 'y')"
    )
    desk = InProcessCli(tmp_path, str(path))
    step = f'- {{id: r, type: rebuild_table, table: t, definition: "(id integer PRIMARY KEY, v text UNIQUE ON CONFLICT {clause})"}}'
    head = "success_criteria: [{id: three, check: rows, table: t, exactly: 3}]\n"
    done = desk.runbook("exec", written(desk, step, head))
    assert done.code == 1, done.text
    assert "cannot rebuild t" in done.text
    assert database.rows("SELECT * FROM t ORDER BY id") == rows
    database.script("UPDATE t SET v = 'z' WHERE id = 2")
    assert desk.runbook("resume", "latest").code == 0
    back = desk.runbook("rollback", "latest", "--reason", "no")
    assert back.code == 0, back.text
    assert database.rows("SELECT * FROM t ORDER BY id") == [(1, "x"), (2, "z"), (3, "y")]


@pytest.mark.parametrize("more", ["", "order: key", "order: id"])
def test_texts_with_nuls_are_keys(tmp_path: Path, more: str) -> None:
    path = tmp_path / "t.sqlite"
    database = Database(str(path), "sqlite", f"sqlite:///{path}")
    keys = "('a' || char(0) || 'b'), ('a'), ('a' || char(0)), (''), (char(0)), ('nulx:41'), ('text:x')"
    database.script(f"CREATE TABLE t (id text PRIMARY KEY NOT NULL, v); INSERT INTO t (id) VALUES {keys}")
    desk = InProcessCli(tmp_path, str(path))
    done = desk.runbook("exec", written(desk, FILL.format(more=more), "rollback: reverse\n"))
    assert done.code == 0, done.text
    assert database.value("SELECT count(v) FROM t") == 7
    assert desk.runbook("rollback", "latest", "--reason", "no").code == 0
    assert database.value("SELECT count(v) FROM t") == 0
