"""The probes query and rows: figures, zero and many rows, bounds, and rows that a role may not see."""

from __future__ import annotations

import pytest
from databases import Database
from looking import answer, look_at, probe, role
from pydantic import ValidationError

from steps.contract import Answer, StepError, Unknown

COVERAGE = """SELECT count(*) AS total, count(snapshot_country) AS covered,
  round(100.0 * count(snapshot_country) / nullif(count(*), 0), 2) AS pct FROM session_summaries -- all of them
"""


def test_query_gives_its_columns(honeypot: Database):
    one = probe("query", query="coverage", queries={"coverage": COVERAGE})
    seen = look_at(honeypot, one).model_dump()
    assert (seen["rows"], seen["total"], seen["covered"], seen["pct"]) == (1, 2000, 0, 0)
    assert one.open_names
    assert not one.decides()


def test_query_without_rows_says_so(honeypot: Database):
    one = probe("query", query="SELECT session_id FROM session_summaries WHERE 1 = 0;", rows=0)
    assert look_at(honeypot, one).model_dump() == {"rows": 0}
    assert answer(honeypot, one) is Answer.PASS


def test_query_with_many_rows_shows_some(honeypot: Database):
    """Rows are shown in the query's own order, at most max_rows, and all are counted."""
    sql = "SELECT session_id, event_count FROM session_summaries ORDER BY session_id"
    one = probe("query", query=sql, show=["session_id"], max_rows=3, rows=5)
    seen = look_at(honeypot, one).model_dump()
    first = honeypot.rows("SELECT session_id FROM session_summaries ORDER BY session_id LIMIT 3")
    assert seen["rows"] == 2000
    assert seen["table"] == [{"session_id": row[0]} for row in first]
    assert answer(honeypot, one) is Answer.FAIL


def test_query_percent_and_colon_in_literals(honeypot: Database):
    seen = look_at(honeypot, probe("query", query="SELECT '100 % :x' AS text, 7 % 4 AS three")).model_dump()
    assert (seen["text"], seen["three"]) == ("100 % :x", 3)


def test_query_show_of_unknown_column(honeypot: Database):
    with pytest.raises(StepError, match=r"cannot show nope: the query has one"):
        look_at(honeypot, probe("query", query="SELECT 1 AS one", show=["nope"]))


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM session_summaries",
        "SELECT 1; DELETE FROM session_summaries",
        "WITH gone AS (DELETE FROM session_summaries RETURNING 1) SELECT * FROM gone",
        "SELECT * INTO copied FROM session_summaries",
        "EXPLAIN ANALYZE DELETE FROM session_summaries",
        "PRAGMA user_version = 3",
        "SHOW search_path",
    ],
)
def test_query_that_is_no_select_is_refused(sql: str):
    for kind in ("query", "rows", "plan"):
        with pytest.raises(ValidationError, match=r"as a query"):
            probe(kind, query=sql)


def test_query_may_have_a_text_per_dialect(honeypot: Database):
    texts = {"postgresql": "SELECT 'pg' AS name", "sqlite": "SELECT 'lite' AS name"}
    seen = look_at(honeypot, probe("query", query="who", queries={"who": texts})).model_dump()
    assert seen["name"] == ("lite" if honeypot.dialect == "sqlite" else "pg")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"exactly": 2000}, Answer.PASS),
        ({"at_least": 1, "at_most": 1999}, Answer.FAIL),
        ({"at_least": 2001}, Answer.FAIL),
        ({}, None),
    ],
)
def test_rows_keeps_its_bounds(honeypot: Database, bounds: dict[str, int], expected: Answer | None):
    one = probe("rows", table="session_summaries", **bounds)
    assert answer(honeypot, one) is expected
    assert one.decides() is (expected is not None)


def test_rows_with_condition_or_query(honeypot: Database):
    of_table = probe("rows", table="session_summaries", where="source_ip IS NOT NULL -- none yet", exactly=0)
    of_query = probe("rows", query="SELECT DISTINCT key FROM schema_state", at_least=1)
    assert answer(honeypot, of_table) is Answer.PASS
    assert answer(honeypot, of_query) is Answer.PASS


@pytest.mark.parametrize("keys", [{}, {"table": "t", "query": "SELECT 1"}, {"query": "SELECT 1", "where": "x = 1"}])
def test_rows_needs_one_source(keys: dict[str, str]):
    with pytest.raises(ValidationError):
        probe("rows", **keys)


def test_hidden_rows_are_unknown(empty_pg: Database):
    """A policy that hides rows from this role would make a count of 0 pass."""
    empty_pg.script(
        "CREATE TABLE notes (id int); INSERT INTO notes VALUES (1), (2); CREATE TABLE open_notes (id int);"
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY; CREATE POLICY only_one ON notes USING (id = 1)"
    )
    with role(empty_pg, "GRANT SELECT ON notes, open_notes TO {}") as user:
        for one in (probe("rows", table="notes", exactly=1), probe("query", query="SELECT count(*) AS n FROM notes")):
            with pytest.raises(Unknown, match=r"notes.*rows may be hidden"):
                look_at(empty_pg, one, user=user)
        assert answer(empty_pg, probe("rows", table="open_notes", exactly=0), user=user) is Answer.PASS
        assert answer(empty_pg, probe("rows", table="notes", exactly=2)) is Answer.PASS


FAILING = {  # checks that one row makes impossible; {} is what fails at it
    "query": {"query": "SELECT count({}) AS n, max(s.id) AS top FROM s JOIN other ON other.id = s.id"},
    "rows": {"query": "SELECT id FROM (SELECT id, {} AS n FROM s) AS one WHERE n > 1"},
    "compare": {"a": "WITH own AS (SELECT {} AS n FROM s) SELECT sum(n) FROM own", "b": "SELECT count(*) FROM other"},
}


@pytest.mark.parametrize("empty_database", ["sqlite", "pg15", "pg18"], indirect=True)
@pytest.mark.parametrize("kind", FAILING)
def test_row_that_makes_a_query_fail_is_named(empty_database: Database, kind: str):
    """Among many pages of rows, and by a key of two columns; a query that fails by itself names none."""
    database = empty_database
    database.script(
        "CREATE TABLE s (id integer, part text, facts text, PRIMARY KEY (part, id)); CREATE TABLE other (id integer)"
    )
    numbers = "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 3000)"
    database.script(f"{numbers} INSERT INTO s SELECT id, 'p', CASE WHEN id = 2741 THEN 'no json' ELSE '[1]' END FROM n")
    database.script(f"{numbers} INSERT INTO other SELECT id FROM n")
    fails = "json_array_length(CAST(facts AS json))" if database.server else "json_array_length(facts)"
    keys = {name: text.format(fails) for name, text in FAILING[kind].items()}
    with pytest.raises(StepError, match=r"(?si)json.*, first at the row part = p, id = 2741 of s"):
        look_at(database, probe(kind, **keys))
    alone = fails.replace("facts", "'no json'")
    keys = {name: text.format(alone) for name, text in FAILING[kind].items()}
    with pytest.raises(StepError) as failed:
        look_at(database, probe(kind, **keys))
    assert "first at" not in str(failed.value) or not database.server
