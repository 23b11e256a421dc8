"""Values through whole runs: recorded, named later, after a resume, by another playbook, and never as SQL."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli

from steps.contract.values import Cut

on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
GATE = "  - {id: go, type: checkpoint, approval: {roles: [dba]}}"
ALL = """SELECT CAST('12345678901234567890.1' AS numeric) AS n
 , CAST('2026-01-01 10:00+00' AS timestamptz) AS at
 , CAST('2026-01-01' AS date) AS d,
  CAST('1 day 2 s' AS interval) AS i
 , CAST('infinity' AS timestamptz) AS e
 , CAST('00000000-0000-0000-0000-000000000001' AS uuid) AS u,
  9007199254740993 AS b
 , CAST('x' AS text) AS t, true AS f
 , ARRAY[1.10, 2] AS l
 , CAST('\\\\x00ff' AS bytea) AS y
 , CAST('{"$decimal": "1", "a": 0.1}' AS jsonb) AS j"""
CRITERION = (
    "steps: [{id: a, type: checkpoint}]\nsuccess_criteria: [{id: c, check: rows, query: SELECT 1 AS n, at_least: 1}]\n"
)
SAME = " and ".join(f"{name} == first.{name}" for name in ("n", "at", "d", "i", "e", "u", "b", "t", "f", "l", "y", "j"))


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    return InProcessCli(tmp_path, empty_database.url)


def passed(desk: InProcessCli, name: str) -> None:
    assert desk.runbook("approve", name, "--step", "go", "--as", "ines", "--role", "dba", "--reason", "seen").code == 0


@on_postgresql
def test_every_type_is_the_same_after_a_resume(desk: InProcessCli) -> None:
    desk.playbook(
        "all",
        f"""runbook: 1
name: all
title: All types
queries: {{everything: {json.dumps(ALL)}}}
steps:
  - {{id: before, type: checkpoint, success_criteria: [{{id: first, check: query, query: everything, record_only: baseline}}]}}
{GATE}
  - {{id: after, type: checkpoint, success_criteria: [{{id: same, check: query, query: everything, that: {json.dumps(SAME)}}}]}}
""",
    )
    assert desk.runbook("exec", "all.yaml").code == 5
    passed(desk, "all")
    done = desk.runbook("resume", "all")
    assert done.code == 0, done.text
    figures = desk.status().figures["first"]
    assert figures["n"] == Decimal("12345678901234567890.1")
    told = json.loads(desk.runbook("status", "all", "--json").out)
    assert told["state"] == "succeeded"


@on_postgresql
def test_figures_of_a_required_run_keep_their_type(desk: InProcessCli) -> None:
    desk.playbook(
        "first",
        """runbook: 1
name: first
title: First
queries: {sums: "SELECT 12345678901234567890 AS s, CAST('2026-01-01' AS date) AS d"}
steps:
  - {id: make, type: sql, text: CREATE TABLE made (n int)}
success_criteria: [{id: base, check: query, query: sums, that: s > 0}]
""",
    )
    second = """runbook: 1
name: second
title: Second
requires: [{playbook: first, as: one}]
queries: {sums: "SELECT %s AS s, CAST('2026-01-01' AS date) AS d"}
steps:
  - {id: look, type: checkpoint, success_criteria: [{id: same, check: query, query: sums, that: s == one.base.s and d == one.base.d}]}
"""
    desk.playbook("second", second % "12345678901234567890")
    assert desk.runbook("exec", "first.yaml").code == 0
    done = desk.runbook("exec", "second.yaml")
    assert done.code == 0, done.text
    desk.playbook("second", second % "12345678901234567891")
    assert desk.runbook("exec", "second.yaml").code == 3


def test_a_huge_value_is_cut_in_the_record_and_never_equal(desk: InProcessCli, empty_database: Database) -> None:
    text = "replace(hex(zeroblob(2000000)), '0', 'x')" if empty_database.dialect == "sqlite" else "repeat('x', 4000000)"
    desk.playbook(
        "huge",
        f"""runbook: 1
name: huge
title: Huge
queries: {{huge: "SELECT {text} AS t, 1 AS n"}}
steps:
  - {{id: a, type: checkpoint, success_criteria: [{{id: first, check: query, query: huge, that: len(t) == 4000000 and n == 1}}]}}
  - {{id: b, type: checkpoint, success_criteria: [{{id: same, check: query, query: huge, that: t == first.t}}]}}
""",
    )
    done = desk.runbook("exec", "huge.yaml")
    assert done.code == 3
    assert "first.t was cut: it had 4,000,000 characters" in done.text
    assert desk.newest.stat().st_size < 50_000
    assert isinstance(desk.status().figures["first"]["t"], Cut)
    assert desk.runbook("report", "huge").code == 0
    assert desk.runbook("status", "huge", "--json").code == 0


@on_postgresql
def test_a_statement_for_the_session_is_refused_by_hand_before_any_is_sent(
    desk: InProcessCli, empty_database: Database
) -> None:
    empty_database.script("CREATE TABLE t (n int)")
    desk.playbook(
        "gate",
        f"runbook: 1\nname: gate\ntitle: Gate\nsteps:\n  - {{id: one, type: sql, text: INSERT INTO t VALUES (1)}}\n{GATE}\n"
        "success_criteria: [{id: c, check: rows, table: t, at_least: 1}]\n",
    )
    assert desk.runbook("exec", "gate.yaml").code == 5
    words = (
        "sql",
        "gate",
        "-c",
        "INSERT INTO t VALUES (2); SET search_path = app; INSERT INTO t VALUES (3)",
        "--as",
        "dana",
        "--reason",
        "mend",
    )
    done = desk.runbook(*words)
    assert done.code == 6
    assert "cannot send SET search_path by hand" in done.text
    assert empty_database.rows("SELECT n FROM t") == [(1,)]


@pytest.mark.parametrize("name", ["title", "why", "params", "message"])
def test_a_query_is_sql_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    desk = InProcessCli(tmp_path, f"sqlite:///{tmp_path}/no.db")
    desk.playbook(
        "named",
        f"""runbook: 1
name: named
title: Named
inputs: {{x: {{required: true}}}}
queries: {{{name}: "SELECT 1 AS n WHERE {{{{ x }}}}"}}
steps:
  - {{id: a, type: checkpoint, success_criteria: [{{id: first, check: query, query: {name}, that: n == 1}}]}}
""",
    )
    done = desk.runbook("exec", "named.yaml", "-i", "x=1 = 1")
    assert done.code == 4
    assert "can stand there" in done.text


@pytest.mark.parametrize(
    ("pattern", "text", "code"),
    [
        ("(a+)+$", "a" * 60 + "!", 4),
        ("(a|a)*b", "a" * 60, 4),
        ("[a-z]+", "abc", 0),
        ("abc|def", "abcd", 4),
        ("(?i)ABC", "abc", 0),
        ("abc$", "abc\n", 4),
    ],
)
def test_a_pattern_is_matched_in_time_and_in_whole(tmp_path: Path, pattern: str, text: str, code: int) -> None:
    desk = InProcessCli(tmp_path, f"sqlite:///{tmp_path}/no.db")
    desk.playbook(
        "p",
        f"runbook: 1\nname: p\ntitle: P\ninputs: {{x: {{pattern: {json.dumps(pattern)}, default: {json.dumps(text)}}}}}\n"
        + CRITERION,
    )
    assert desk.runbook("validate", "p.yaml").code == code


@pytest.mark.parametrize("pattern", ["(?=a)", "(?<!a)b", r"(a)\1", "a{999}{999}{999}", "("])
def test_a_pattern_of_another_engine_is_refused_with_its_place(tmp_path: Path, pattern: str) -> None:
    desk = InProcessCli(tmp_path, f"sqlite:///{tmp_path}/no.db")
    desk.playbook(
        "p",
        f"runbook: 1\nname: p\ntitle: P\ninputs:\n  x: {{pattern: {json.dumps(pattern)}, default: a}}\n" + CRITERION,
    )
    done = desk.runbook("validate", "p.yaml")
    assert done.code == 4
    assert "p.yaml:5:" in done.text
    assert "its pattern can't be read" in done.text
