"""Statements as reviewers meet them: what is dangerous in each is found, and what only looks dangerous is not."""

from __future__ import annotations

import json

import pytest
from linting import linted

_OF_PLAYBOOKS = {"RB101", "RB102", "RB106", "RB110"}


def _codes(sql: str) -> set[str]:
    """What is found in a step of this SQL, of the SQL."""
    step = f"{{id: go, type: sql, expect_rows: any, whole_table: true, text: {json.dumps(sql)}}}"
    return {one.code for one in linted(f"schema: public\nsteps: [{step}]\n").open} - _OF_PLAYBOOKS


DANGEROUS = {
    "DELETE FROM sessions USING addresses AS a WHERE a.ip = sessions.ip": "RB203",
    "DELETE FROM sessions WHERE id > 0": "RB203",
    "DELETE FROM sessions WHERE id = 1 OR country IS NULL": "RB203",
    "DELETE FROM sessions WHERE NOT id = 1": "RB203",
    "UPDATE sessions SET country = (SELECT 'x') WHERE country = (SELECT a.c FROM a WHERE a.ip = sessions.ip)": "RB203",
    "MERGE INTO sessions AS s USING a ON a.ip = s.ip WHEN MATCHED THEN UPDATE SET country = a.country": "RB203",
    "WITH moved AS (DELETE FROM sessions RETURNING *) INSERT INTO archive SELECT * FROM moved": "RB202",
    "UPDATE sessions SET country = 'x' FROM (VALUES (1)) AS v": "RB202",
    "EXPLAIN (ANALYZE) WITH d AS (DELETE FROM sessions WHERE id = 1 RETURNING 1) SELECT * FROM d": "RB204",
    "EXPLAIN (ANALYZE on, BUFFERS) UPDATE sessions SET country = 'x' WHERE id = 1": "RB204",
    "UPDATE sessions SET country = 'x' WHERE ctid IN (SELECT ctid FROM sessions LIMIT 1000)": "RB205",
    "TRUNCATE sessions, events CASCADE": "RB207",
    '/* a copy */ DROP /* only */ TABLE "Sessions" -- of last night': "RB206",
    "DROP TABLE fresh; CREATE TABLE fresh (id int)": "RB206",
    "CREATE TABLE IF NOT EXISTS old (id int); DROP TABLE old": "RB206",
    "DROP OWNED BY joe": "RB206",
    "DROP DATABASE store": "RB506",
    "DROP SCHEMA app CASCADE": "RB206",
    "ALTER TYPE pair DROP ATTRIBUTE a CASCADE": "RB207",
    "REINDEX (VERBOSE, CONCURRENTLY false) INDEX sessions_pkey": "RB201",
    "VACUUM (FULL, ANALYZE) sessions": "RB201",
    "CLUSTER": "RB201",
    "REFRESH MATERIALIZED VIEW totals": "RB201",
    "ALTER TABLE sessions ADD COLUMN n bigserial": "RB201",
    "ALTER TABLE sessions DROP COLUMN IF EXISTS a, DROP COLUMN b": "RB206",
    "COPY sessions TO PROGRAM 'gzip > /tmp/sessions.gz'": "RB210",
    "COPY sessions FROM '/tmp/sessions.csv'": "RB210",
    "SELECT pg_catalog.pg_cancel_backend(5)": "RB210",
    "DO $$ BEGIN DELETE FROM sessions; END $$": "RB212",
    "DO $body$ BEGIN EXECUTE 'DROP TABLE sessions CASCADE'; END $body$": "RB212",
}


@pytest.mark.parametrize("sql", DANGEROUS)
def test_danger_is_found(sql: str) -> None:
    assert DANGEROUS[sql] in _codes(sql)


HARMLESS = (
    "SELECT 'DROP TABLE sessions CASCADE' AS said",
    "-- DROP TABLE sessions\nSELECT 1 AS one",
    "INSERT INTO log (what) VALUES ('DELETE FROM sessions; TRUNCATE events')",
    "UPDATE sessions SET note = 'DROP TABLE x CASCADE' WHERE id = 7",
    "UPDATE sessions SET country = 'x' WHERE id = ANY (ARRAY[1, 2, 3])",
    "UPDATE sessions SET country = 'x' WHERE id = ANY ('{1,2,3}'::int[])",
    "UPDATE sessions SET country = 'x' WHERE (id, day) IN ((1, 2), (3, 4))",
    "UPDATE sessions SET country = 'x' WHERE id = 1 OR id = 2",
    "UPDATE sessions SET country = 'x' WHERE id IN (SELECT id FROM sessions ORDER BY id LIMIT 1000)",
    "UPDATE sessions SET country = v.c FROM (VALUES (1, 'a')) AS v (id, c) WHERE v.id = sessions.id",
    "DELETE FROM sessions WHERE id >= 1 AND id < 1000",
    "DELETE FROM sessions WHERE id = (SELECT max(id) FROM sessions)",
    "DELETE FROM sessions WHERE day = current_date",
    "MERGE INTO t USING (VALUES (1, 'a')) AS v (id, c) ON v.id = t.id WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.c)",
    "CREATE TABLE fresh (id int); CREATE INDEX i ON fresh (id); INSERT INTO fresh VALUES (1); DROP TABLE fresh",
    "CREATE TABLE fresh AS SELECT 1 AS id; CREATE INDEX i ON fresh (id); DROP TABLE fresh",
    "DROP TABLE IF EXISTS pg_temp.scratch",
    "REINDEX (CONCURRENTLY) INDEX sessions_pkey",
    "VACUUM (FULL false, ANALYZE) sessions",
    "VACUUM (FULL off) sessions",
    "EXPLAIN (ANALYZE false) UPDATE sessions SET country = 'x' WHERE id = 1",
    "EXPLAIN (ANALYZE, COSTS off) SELECT * FROM sessions WHERE id = 1",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY totals",
    "ALTER TABLE sessions ADD COLUMN at timestamptz DEFAULT now()",
    "ALTER TABLE sessions ADD CONSTRAINT u UNIQUE USING INDEX i",
    "ALTER TABLE sessions SET (fillfactor = 90)",
    "COMMENT ON TABLE sessions IS 'DROP TABLE is forbidden here'",
    "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM sessions WHERE id = 1; END $$",
    "DO $$ BEGIN RAISE NOTICE 'DROP TABLE x'; /* DELETE FROM x */ END $$",
    "DO $$ BEGIN PERFORM 1; ASSERT (SELECT count(*) FROM sessions) > 0, 'nothing to update'; END $$",
)


@pytest.mark.parametrize("sql", HARMLESS)
def test_harmless_statement_is_left_alone(sql: str) -> None:
    assert _codes(sql) == set()
