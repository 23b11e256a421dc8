"""Backfills of tables of other shapes: large, partitioned, in another collation, with an ambiguous source."""

from __future__ import annotations

import psycopg
import pytest
from databases import Database
from filling import simple, table
from plain_context import Trial

from steps.contract import StepError


def test_large_key_order_needs_no_scan(empty_database: Database) -> None:
    """F: B20 F: B14"""
    table(empty_database, rows=5000)
    if empty_database.dialect != "sqlite":
        empty_database.script("ANALYZE t; ANALYZE s")
    trial = Trial(empty_database, simple(order="key"))
    assert trial.preflight() == []
    with trial.look() as look:
        [shown, *_] = [one for one in trial.step.statements(look) if "rb_j" in one.sql or "target" in one.sql]
        sql = shown.sql.split(" AS ", 1)[1] if look.dialect == "sqlite" else shown.sql
        words = "EXPLAIN QUERY PLAN " if look.dialect == "sqlite" else "EXPLAIN "
        if look.dialect != "sqlite":
            look.rows("SELECT set_config('enable_seqscan', 'off', true)")
        lines = [" ".join(map(str, row.values())) for row in look.rows(words + sql, shown.params)]
    assert not [line for line in lines if "Seq Scan on t" in line or "SCAN target" in line]


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_partitioned_table_is_filled(empty_database: Database) -> None:
    """F: G12"""
    empty_database.script("""CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s SELECT i, 'v' || i FROM generate_series(1, 9) i;
        CREATE TABLE t (id integer, part integer, v text, k integer, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
        CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
        INSERT INTO t SELECT i, 1 + i % 2, NULL, i % 11 FROM generate_series(1, 900) i""")
    trial = Trial(empty_database, simple(batch={"time": "250 ms", "rows": [100, 200]}))
    assert trial.preflight() == []
    result = trial.apply()
    assert (result.visited, result.left, result.written) == (900, 0, result.visited - result.not_in_source)
    assert (
        empty_database.value("SELECT count(*) FROM t WHERE v IS DISTINCT FROM (SELECT s.v FROM s WHERE s.k = t.k)") == 0
    )
    trial.revert()
    assert empty_database.value("SELECT count(v) FROM t") == 0


def test_collation_of_the_key_is_the_servers(empty_database: Database) -> None:
    """F: B09 F: B08"""
    if empty_database.dialect == "sqlite":
        collation = "NOCASE"
    else:
        collation = "folded"
        try:
            empty_database.script("CREATE COLLATION folded (provider = icu, locale = 'de-u-kn-true')")
        except psycopg.errors.FeatureNotSupported:  # a server built without ICU
            collation = '"C"'
    names = ["a-", "A", "ä", "a 10", "a 9", "Z", "z1", "ß", "ss1", "%", "'", '"', "\\", "é", "_"]
    values = ", ".join("('" + name.replace("'", "''") + "', NULL, 1)" for name in names)
    empty_database.script(f"""CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'one');
        CREATE TABLE t (id varchar(20) COLLATE {collation} PRIMARY KEY NOT NULL, v text, k integer); INSERT INTO t VALUES {values}""")
    trial = Trial(empty_database, simple(order="key", batch={"time": "10 s", "rows": [2, 2]}))
    assert trial.preflight() == []
    result = trial.apply()
    assert (result.visited, result.written, result.left) == (15, 15, 0)
    assert empty_database.value("SELECT count(*) FROM t WHERE v IS NULL") == 0
    trial.revert()
    assert empty_database.value("SELECT count(v) FROM t") == 0


def test_ambiguous_source_is_refused(empty_database: Database) -> None:
    table(empty_database, rows=10)
    trial = Trial(empty_database, simple(source="SELECT k, v FROM s UNION ALL SELECT 1, 'other'"))
    assert "more than one row for a k" in trial.preflight()[0]
    with pytest.raises(StepError, match="more than one row"):
        trial.apply()
    assert empty_database.value("SELECT count(v) FROM t") == 0
