"""The traps of real runbooks, each as somebody would write it in a small playbook: what their text shows is found."""

from __future__ import annotations

import json

import pytest
from linting import codes, finding

FILL = """\
steps:
  - id: fill
    type: command
    argv: [sh, -c, "uv run fill.py --batch-size 1000 --max-batches 10 --verbose 2>&1 | tee fill.log"]
"""
PASSWORD = """\
steps:
  - {id: fill, type: command, argv: [fill.py, --db, "postgresql://fill:correct-horse@db.example:5432/store"]}
"""
ACCURACY = """\
schema: public
queries:
  accuracy: >-
    SELECT count(*) AS total, sum(CASE WHEN ss.asn = ip.asn THEN 1 ELSE 0 END) AS asn_matches
    FROM sessions AS ss JOIN inventory AS ip ON ss.source_ip = ip.ip_address
    WHERE ss.country IS NOT NULL LIMIT 1000
  ten: SELECT session_id, country FROM sessions WHERE country IS NOT NULL LIMIT 10
steps:
  - id: go
    type: checkpoint
    success_criteria:
      - {id: accurate, check: query, query: accuracy, that: total == asn_matches}
      - {id: ten_random_sessions, check: query, query: ten, rows: 10}
"""
TIMED = """\
steps:
  - id: go
    type: checkpoint
    success_criteria:
      - {id: faster, check: command, argv: [bash, -c, "time psql -d store -c 'SELECT count(*) FROM sessions'"], exit_codes: [0]}
"""
NUMBERS = """\
title: Fill 1,682,827 sessions
takes: 90-120 minutes
steps:
  - id: fill
    type: backfill
    table: session_summaries
    source: SELECT ip_address, geo_country AS country FROM inventory
    match: source.ip_address = target.source_ip
    fill: [country]
    batch: {time: 5 s, rows: [1000, 1000]}
    guards:
      - {id: fast, that: visited_per_second >= 1000, else: warn}
"""
WATCHED = """\
queries:
  progress: SELECT count(*) AS total, count(country) AS filled FROM public.sessions
steps:
  - id: fill
    type: sql
    text: UPDATE public.sessions SET country = 'DE' WHERE id = 1
    guards:
      - {id: progress, check: query, query: progress, that: filled >= 0, every: 5 s, else: warn}
"""
BACK = """\
schema: public
steps:
  - id: back
    type: sql
    text: >-
      UPDATE session_summaries SET source_ip = NULL, snapshot_asn = NULL, snapshot_country = NULL, enrichment_at = NULL
      WHERE enrichment_at > '2025-11-06 00:00:00'
"""
REINDEX = "steps: [{id: again, type: sql, text: REINDEX TABLE public.session_summaries}]\n"
DISK = """\
preconditions:
  - {id: room, check: command, argv: [df, -h, /var/lib/postgresql], exit_codes: [0]}
steps:
  - {id: mark, type: sql, text: UPDATE public.sessions SET seen = true WHERE id = 1}
"""
COLUMNS = """\
preconditions:
  - id: renamed
    check: query
    query: SELECT count(*) AS n FROM information_schema.columns WHERE table_name = 'sessions' AND column_name LIKE 'snapshot%'
    that: n == 3
steps:
  - {id: mark, type: sql, text: UPDATE public.sessions SET seen = true WHERE id = 1}
"""
RENAME = (
    "steps: [{id: name, type: sql, text: ALTER TABLE sessions RENAME COLUMN snapshot_ip_types TO snapshot_ip_type}]\n"
)
CLEAN = """\
steps:
  - id: clean
    type: sql
    text: |
      DROP TABLE IF EXISTS ip_asn_history CASCADE;
      DROP TABLE IF EXISTS ip_inventory CASCADE;
      ALTER TABLE session_summaries DROP COLUMN IF EXISTS source_ip CASCADE;
      UPDATE schema_state SET value = '15' WHERE key = 'schema_version';
"""
TRAPS = {
    "2: the pipe's exit code": (FILL, {"RB401"}),
    "4: a password in the command line": (PASSWORD, {"RB005"}),
    "12: an accuracy that can't decide": (ACCURACY, {"RB301", "RB302", "RB304", "RB306"}),
    "14: one timing, cold against warm": (TIMED, {"RB403", "RB404"}),
    "15: numbers that contradict each other": (NUMBERS, {"RB112"}),
    "16: progress by a full count": (WATCHED, {"RB311"}),
    "17: rows found by a naive time": (BACK, {"RB105", "RB305"}),
    "19: REINDEX blocks readers and writers": (REINDEX, {"RB201"}),
    "20: df on the operator's host": (DISK, {"RB402"}),
    "21: information_schema without table_schema": (COLUMNS, {"RB308"}),
    "22: a rename that readers don't survive": (RENAME, {"RB209"}),
    "25: a clean-up with CASCADE": (CLEAN, {"RB206", "RB207"}),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_trap_is_found(trap: str) -> None:
    text, wanted = TRAPS[trap]
    assert wanted <= set(codes(text))


def test_rate_and_batch_both_contradict_the_plan() -> None:
    from linting import linted

    said = [one.why for one in linted(NUMBERS).findings if one.code == "RB112"]
    assert any("take at most 28 min" in one and "90-120 minutes" in one for one in said), said
    assert any("200 rows/s" in one for one in said), said


def test_safe_form_has_the_names_of_the_playbook() -> None:
    assert (
        "{type: rename_column, column: sessions.snapshot_ip_types, to: snapshot_ip_type}"
        in finding(RENAME, "RB209").instead
    )
    assert "ss.asn IS NOT DISTINCT FROM ip.asn" in finding(ACCURACY, "RB304").instead


FOURTEEN = """\
schema: public
steps:
  - id: danger
    type: sql
    statements:
      - DROP TABLE ip_inventory CASCADE
      - DROP TABLE old_sessions
      - ALTER TABLE sessions DROP COLUMN source_ip
      - TRUNCATE events
      - ALTER TABLE sessions ALTER COLUMN id TYPE bigint
      - ALTER TABLE sessions ALTER COLUMN country SET NOT NULL
      - ALTER TABLE sessions ADD CONSTRAINT ip_key FOREIGN KEY (ip) REFERENCES addresses (ip)
      - CREATE INDEX by_country ON sessions (country)
      - VACUUM FULL sessions
      - CLUSTER sessions USING by_country
      - ALTER TABLE sessions ADD COLUMN token uuid DEFAULT gen_random_uuid()
      - UPDATE sessions SET country = a.country FROM addresses AS a WHERE a.ip = sessions.ip
      - ALTER TABLE sessions SET TABLESPACE slow
      - DELETE FROM sessions
"""


def test_fourteen_dangerous_statements_are_each_named() -> None:
    """And the last, which a run would stop at after the others were done, is an error, without any extra."""
    from linting import linted

    found = linted(FOURTEEN)
    lines = {one.mark.line for one in found.findings if one.code != "RB206" or one.mark.line}
    assert set(range(9, 23)) <= lines, sorted(lines)
    assert "RB001" in {one.code for one in found.findings if one.severity == "error"}


def _program(*argv: str) -> str:
    return f"steps: [{{id: fill, type: command, argv: {json.dumps(argv)}}}]\n"


def _asks(query: str) -> str:
    check = f"{{id: right, check: query, query: {json.dumps(query)}, rows: 1}}"
    return f"steps: [{{id: go, type: checkpoint, success_criteria: [{check}]}}]\n"


def _watches(query: str) -> str:
    guard = f"{{id: left, check: query, query: {json.dumps(query)}, that: n >= 0, every: 5 s, else: warn}}"
    return f"steps: [{{id: go, type: sql, text: UPDATE s SET c = 1 WHERE id = 1, guards: [{guard}]}}]\n"


def _goes_back(sql: str) -> str:
    return f"steps: [{{id: go, type: sql, text: UPDATE s SET c = 1 WHERE id = 1, revert: {json.dumps(sql)}}}]\n"


def _sends(sql: str) -> str:
    return f"steps: [{{id: go, type: sql, text: {json.dumps(sql)}}}]\n"


IN_OTHER_WORDS = [
    (_program("bash", "-lc", "python fill.py || true"), "RB401"),
    (_program("/bin/bash", "-o", "errexit", "-c", "python fill.py | tee -a fill.log"), "RB401"),
    (_program("sh", "-c", "python fill.py; echo finished"), "RB401"),
    (_program("sh", "-c", "python fill.py &"), "RB401"),
    (_program("sh", "-c", "PGPASSWORD=correct-horse psql -h db"), "RB005"),
    (_program("fill", "--password", "correct-horse"), "RB005"),
    (_program("fill", "host=db user=fill password=correct-horse"), "RB005"),
    (_asks("SELECT avg(s.asn) AS share FROM a.s LEFT JOIN a.i USING (ip) FETCH FIRST 500 ROWS ONLY"), "RB301"),
    (_asks("SELECT count(*) AS all, count(s.asn) AS good FROM a.s, a.i WHERE s.ip = i.ip"), "RB306"),
    (_asks("SELECT avg((s.asn = i.asn)::int) AS share FROM a.s LEFT JOIN a.i USING (ip)"), "RB304"),
    (_asks("SELECT count(*) FILTER (WHERE s.asn <> i.asn) AS bad FROM a.s LEFT JOIN a.i USING (ip)"), "RB304"),
    (_asks("SELECT count(*) AS n FROM (SELECT 1 FROM a.s OFFSET 5000 LIMIT 1000) AS x"), "RB205"),
    (_program("/usr/bin/time", "-p", "psql", "-f", "query.sql"), "RB403"),
    (_watches("SELECT sum(CASE WHEN c IS NULL THEN 1 ELSE 0 END) AS n FROM public.s"), "RB311"),
    (_goes_back("UPDATE s SET c = NULL WHERE enriched_at >= now() - interval '1 day'"), "RB105"),
    (_goes_back("UPDATE s SET c = NULL WHERE enriched_at::date = DATE '2025-11-06'"), "RB105"),
    (_goes_back("UPDATE s SET c = NULL WHERE enriched_at BETWEEN '2025-11-06 00:00' AND '2025-11-07 00:00'"), "RB105"),
    (_sends("REINDEX INDEX public.by_country"), "RB201"),
    (_program("sh", "-c", "test $(df --output=avail /var/lib/postgresql | tail -1) -gt 1000"), "RB402"),
    (_program("sudo", "-n", "df", "-h"), "RB402"),
    (_asks("SELECT count(*) AS n FROM INFORMATION_SCHEMA.TABLES WHERE table_name = 's'"), "RB308"),
    (_asks("SELECT table_schema AS n FROM information_schema.tables WHERE table_name = 's'"), "RB308"),
    (_sends('ALTER TABLE IF EXISTS ONLY public."S" RENAME "a" TO b'), "RB209"),
    (_sends("DROP EXTENSION IF EXISTS pgcrypto CASCADE"), "RB207"),
    (_sends("DROP FUNCTION f(int) CASCADE"), "RB207"),
]


@pytest.mark.parametrize(("text", "code"), IN_OTHER_WORDS)
def test_trap_in_other_words_is_found(text: str, code: str) -> None:
    assert code in codes(text)


SOUND = [
    (_program("bash", "-o", "pipefail", "-c", "python fill.py | tee -a fill.log"), "RB401"),
    (_program("sh", "-c", "echo begins; python fill.py"), "RB401"),
    (_program("sh", "-c", "test -f done && echo done"), "RB401"),
    (_program("sh", "-c", "PGPASSWORD=$SECRET fill"), "RB005"),
    (_program("ssh", "db1", "df", "-P", "/var/lib/postgresql"), "RB402"),
    (_program("env", "LANG=C", "fill", "--time"), "RB403"),
    (_asks("SELECT count(*) AS n FROM a.s, a.i WHERE s.ip = i.ip"), "RB306"),
    (_asks("SELECT count(*) AS n FROM a.s LEFT JOIN a.i ON s.ip = i.ip"), "RB304"),
    (_asks("SELECT 1 AS n FROM information_schema.tables WHERE table_schema = 'a' AND table_name = 's'"), "RB308"),
    (_watches("SELECT reltuples AS n FROM pg_class WHERE oid = 'public.s'::regclass"), "RB311"),
    (_goes_back("UPDATE s SET c = NULL WHERE c = 'DE' AND enriched_at > '2025-11-06 00:00+00'"), "RB105"),
]


@pytest.mark.parametrize(("text", "code"), SOUND)
def test_sound_form_is_left_alone(text: str, code: str) -> None:
    assert code not in codes(text)
