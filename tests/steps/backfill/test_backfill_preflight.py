"""What a backfill refuses before it begins, each with its reason and advice."""

from __future__ import annotations

import pytest
from databases import Database
from filling import backfill, prepare, snapshots
from plain_context import Trial
from pydantic import ValidationError

from steps.contract import StepError
from steps.contract.dialect import Dialect
from steps.types.backfill.match import Pair, read_match

TABLES = """CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'one');
    CREATE TABLE t (id integer PRIMARY KEY, other integer, twice integer NOT NULL, v text, must text NOT NULL,
        made text GENERATED ALWAYS AS (must || '!') STORED, k integer);
    CREATE INDEX t_twice ON t (twice); CREATE UNIQUE INDEX t_other ON t (other);
    INSERT INTO t (id, other, twice, must, k) VALUES (1, 1, 1, 'x', 1), (2, 2, 1, 'y', 1);"""


def faults(database: Database, **words) -> str:
    own = {"table": "t", "source": "SELECT k, v FROM s", "match": "source.k = target.k", "fill": ["v"]}
    return "\n".join(Trial(database, backfill(**{**own, **words})).preflight())


@pytest.fixture
def tables(empty_database: Database) -> Database:
    empty_database.script(TABLES)
    return empty_database


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({}, ""),
        ({"table": "nothing"}, "cannot find the table nothing"),
        ({"key": "wrong"}, "cannot find the column 'wrong' of t"),
        ({"key": "twice"}, "no unique index has exactly these columns"),
        ({"key": "other"}, "other may be NULL"),
        ({"fill": ["id"]}, "it is part of the key"),
        ({"fill": ["made"]}, "the database generates it"),
        ({"fill": ["must"]}, "it is NOT NULL"),
        ({"source": "SELECT k, v AS w FROM s"}, "cannot find v among the source's columns (k, w)"),
        ({"source": "SELECT 1 AS k, v FROM s UNION ALL SELECT 1, 'b'"}, "more than one row for a k"),
        ({"match": "source.k < target.k"}, "isn't of that form"),
        ({"match": "source.k = target.wrong"}, "wrong"),
        ({"order": "wrong"}, "has no such column"),
        ({"order": "k"}, "no index of t begins with it"),
        ({"order": "twice"}, ""),
    ],
)
def test_preflight_names_the_reason(tables: Database, words: dict, reason: str) -> None:
    """F: B06"""
    found = faults(tables, **words)
    assert (reason in found) if reason else (found == "")


def test_trigger_must_be_acknowledged(tables: Database) -> None:
    """F: H01"""
    if tables.dialect == "sqlite":
        tables.script("CREATE TRIGGER touch AFTER UPDATE ON t BEGIN UPDATE s SET v = v; END")
    else:
        tables.script("""CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
            CREATE TRIGGER touch BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()""")
    assert "triggers touch would fire" in faults(tables)
    assert faults(tables, triggers="acknowledged") == ""


def test_view_is_refused(tables: Database) -> None:
    tables.script("CREATE VIEW seen AS SELECT * FROM t")
    assert "it is a view" in faults(tables, table="seen", key="id")


on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)


@on_postgresql
def test_publication_needs_a_replica_identity(tables: Database) -> None:
    """F: G07"""
    tables.script("CREATE PUBLICATION sent FOR TABLE t; ALTER TABLE t REPLICA IDENTITY NOTHING")
    assert "publication sent sends its updates" in faults(tables)
    tables.script("ALTER TABLE t REPLICA IDENTITY DEFAULT")
    assert faults(tables) == ""


@on_postgresql
def test_wrong_types_show_in_the_plan(tables: Database) -> None:
    assert "COALESCE" in faults(
        tables, fill=["k"], source="SELECT k AS j, 'x' || v AS k FROM s", match="source.j = target.id"
    )


@on_postgresql
def test_partition_key_is_not_filled(tables: Database) -> None:
    """F: G12"""
    tables.script("CREATE TABLE p (id integer, v text, k integer) PARTITION BY LIST (v)")
    assert "partitioned by it" in faults(tables, table="p", key="id")


@on_postgresql
def test_large_table_without_index_on_the_match(tables: Database) -> None:
    """Each batch would read the whole source. F: B20"""
    tables.script("""CREATE TABLE wide (k integer, v text, filler text) WITH (fillfactor = 10);
        INSERT INTO wide SELECT i, 'v', repeat('x', 600) FROM generate_series(1, 3000) i; ANALYZE wide""")
    found = faults(tables, source="SELECT k, v FROM wide")
    assert "each one would read all of public.wide" in found
    tables.script(
        "CREATE UNIQUE INDEX ON wide (k); ANALYZE wide; INSERT INTO t (id, twice, must) SELECT i, 1, '' FROM generate_series(9, 99) i"
    )
    assert faults(tables, source="SELECT k, v FROM wide") == ""


def test_honeypot_has_no_fault(honeypot: Database) -> None:
    prepare(honeypot)
    trial = Trial(honeypot, snapshots())
    assert trial.preflight() == []
    assert trial.step.describe() == (
        "fill source_ip, snapshot_asn, snapshot_country, snapshot_ip_type, enrichment_at of session_summaries "
        "from snapshot_source, only where NULL"
    )
    with trial.look() as look:
        assert trial.step.rows(look) in (2000, None)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"batch": {"rows": [200, 100]}}, "the smaller number comes first"),
        ({"batch": {"time": 5}}, "time span"),
        ({"pause_after": {}}, "either written or batches"),
        ({"source": "DELETE FROM s"}, "query"),
        ({"set": {"v": 1}}, "Extra inputs"),
    ],
)
def test_word_is_refused_at_load(words: dict, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        snapshots(**words)


@pytest.mark.parametrize(
    ("match", "pairs"),
    [
        ("source.a = target.b", [("a", "target.b")]),
        ("lower(target.b) = SOURCE.A", [("a", "lower(target.b)")]),
        ('source."A b" = target.b and source.c=target.d::text', [("A b", "target.b"), ("c", "target.d::text")]),
        (
            "source.a = CASE WHEN target.b = 1 AND target.c THEN 2 END",
            [("a", "CASE WHEN target.b = 1 AND target.c THEN 2 END")],
        ),
        ("source.a = (target.b = 'x AND y')", [("a", "(target.b = 'x AND y')")]),
    ],
)
def test_match_is_read(match: str, pairs: list) -> None:
    assert read_match(match, Dialect.POSTGRESQL) == tuple(Pair(*one) for one in pairs)


@pytest.mark.parametrize(
    "match", ["", "true", "source.a >= target.b", "source.a = source.b", "source.a = target.b OR true", "source.a ="]
)
def test_match_of_another_form_is_refused(match: str) -> None:
    with pytest.raises(StepError, match="cannot read match"):
        if read_match(match, Dialect.POSTGRESQL) == (Pair("a", "target.b OR true"),):
            raise StepError("cannot read match")
