"""The effect of a statement on others, against what PostgreSQL does: its strongest lock on the table, and what is rewritten."""

from __future__ import annotations

import psycopg
import pytest
from databases import Databases
from linting import written

from runner.review import lint

STATEMENTS = {
    "ALTER TABLE t ADD COLUMN c integer": "instant",
    "ALTER TABLE t ADD COLUMN c integer DEFAULT 1": "instant",
    "ALTER TABLE t ADD COLUMN c timestamptz DEFAULT now()": "instant",
    "ALTER TABLE t ADD COLUMN c uuid DEFAULT gen_random_uuid()": "one rewrite",
    "ALTER TABLE t ADD COLUMN c bigserial": "one rewrite",
    "ALTER TABLE t ADD COLUMN c integer GENERATED ALWAYS AS (a + 1) STORED": "one rewrite",
    "ALTER TABLE t DROP COLUMN a": "instant",
    "ALTER TABLE t ALTER COLUMN a TYPE bigint": "one rewrite",
    "ALTER TABLE t ALTER COLUMN a SET NOT NULL": "one scan",
    "ALTER TABLE t ALTER COLUMN a DROP NOT NULL": "instant",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0)": "one scan",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID": "instant",
    "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES o (id)": "one scan",
    "ALTER TABLE t ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES o (id) NOT VALID": "instant",
    "ALTER TABLE t VALIDATE CONSTRAINT positive": "one scan",
    "ALTER TABLE t ALTER COLUMN a SET STATISTICS 100": "instant",
    "ALTER TABLE t RENAME COLUMN a TO b": "instant",
    "ALTER TABLE t SET UNLOGGED": "one rewrite",
    "CREATE INDEX i ON t (a)": "one scan",
    "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": "instant",
    "TRUNCATE t": "instant",
    "LOCK TABLE t IN SHARE MODE": "as long as its rows take",
    "UPDATE t SET a = 1 WHERE id = 1": "as long as its rows take",
    "DELETE FROM t WHERE id = 1": "as long as its rows take",
    "INSERT INTO t VALUES (9, 9)": "as long as its rows take",
    "ANALYZE t": "one scan",
}
TABLES = """
CREATE TABLE o (id integer PRIMARY KEY); CREATE TABLE t (id integer PRIMARY KEY, a integer NOT NULL);
ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
INSERT INTO o VALUES (1); INSERT INTO t VALUES (1, 1)
"""
LOCKS = """SELECT mode FROM pg_locks WHERE relation = 't'::regclass AND pid = pg_backend_pid() AND granted"""
ORDER = (
    "AccessShare",
    "RowShare",
    "RowExclusive",
    "ShareUpdateExclusive",
    "Share",
    "ShareRowExclusive",
    "Exclusive",
    "AccessExclusive",
)


def _effect(sql: str) -> dict:
    (found,) = lint.effects(
        [written(f"steps:\n  - id: change\n    type: sql\n    transaction: one\n    text: {sql}\n")]
    )
    return found


@pytest.fixture(scope="module")
def table(databases: Databases) -> psycopg.Connection:
    with databases.kind("pg18").database("empty") as database, psycopg.connect(database.url) as connection:
        connection.execute(TABLES)
        connection.commit()
        yield connection


@pytest.mark.parametrize("sql", STATEMENTS)
def test_effect_is_what_postgresql_does(table: psycopg.Connection, sql: str) -> None:
    found = _effect(sql)
    before = table.execute("SELECT pg_relation_filenode('t')").fetchone()
    try:
        table.execute(sql)
        modes = [row[0].removesuffix("Lock") for row in table.execute(LOCKS).fetchall()]
        after = table.execute("SELECT pg_relation_filenode('t')").fetchone()
    finally:
        table.rollback()
    strongest = max(modes, key=ORDER.index)
    assert found["lock"].replace(" ", "") == strongest.upper()
    assert found["length"] == STATEMENTS[sql]
    if found["length"] == "one rewrite":
        assert before != after
    elif "TRUNCATE" not in sql:
        assert before == after


@pytest.mark.parametrize(
    ("sql", "lost"),
    [
        ("DROP TABLE t", "its rows"),
        ("ALTER TABLE t DROP COLUMN a", "the column's values"),
        ("TRUNCATE t", "all rows"),
        ("DELETE FROM t WHERE id = 1", "the rows that it deletes"),
        ("CREATE INDEX i ON t (a)", ""),
    ],
)
def test_what_is_gone_for_good(sql: str, lost: str) -> None:
    assert _effect(sql)["one_way"] == lost
