"""Every value that PostgreSQL can send is read: as ours, or as the server's own text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from databases import Database

from runner.target import resolve
from runner.target.database import RunDatabase

on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
BEYOND = {
    "date": [
        "infinity",
        "-infinity",
        "0044-03-15 BC",
        "0001-12-31 BC",
        "4713-01-01 BC",
        "12026-02-28",
        "5874897-12-31",
    ],
    "timestamp": [
        "infinity",
        "-infinity",
        "0044-03-15 12:30:00.5 BC",
        "0001-02-29 00:00:00 BC",
        "294276-12-31 23:59:59.999999",
    ],
    "timestamptz": ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12026-01-01 00:00:00+00"],
    "time": ["24:00:00", "23:59:59.999999"],
    "timetz": ["24:00:00+00", "24:00:00-05:30"],
    "interval": [
        "1 mon",
        "1 year 2 mons",
        "-1 years -2 mons +3 days 04:05:06.7",
        "1 year -3 days +00:00:01",
        "178000000 years",
        "-5 mons -00:00:01",
        "1 mon -1 days +04:00:00",
    ],
}


@pytest.fixture
def target(empty_database: Database) -> Iterator[RunDatabase]:
    found = resolve.resolve(empty_database.url, environ={}, cwd=Path())
    database = RunDatabase(resolve.connect_arguments(found, {}))
    yield database
    database.close()


@on_postgresql
@pytest.mark.parametrize("kind", sorted(BEYOND))
def test_what_python_has_no_type_for_is_the_servers_text(target: RunDatabase, kind: str) -> None:
    """Read in a look (in binary), in a writing transaction (as text), in an array."""
    for text in BEYOND[kind]:
        sql = f"SELECT v, v::text AS written, ARRAY[v] AS list FROM (SELECT CAST('{text}' AS {kind}) AS v) AS one"
        with target.look() as look:
            row = look.row(sql)
        with target.trial("read") as work:
            assert work.row(sql) == row
        assert str(row["v"]) == row["written"] == text
        assert row["list"] == [row["v"]]


@on_postgresql
def test_ordinary_values_have_their_types(target: RunDatabase) -> None:
    sql = """SELECT timestamptz '2026-01-01 12:00+01' AS at, interval '1 day 2 s' AS span, numeric '1234567890123456789.10' AS n,
             numeric 'NaN' AS nan, jsonb '{"a": 0.12345678901234567890, "b": 1}' AS doc"""
    with target.look() as look:
        row = look.row(sql)
    assert row["at"] == datetime(2026, 1, 1, 11, tzinfo=UTC)
    assert row["span"] == timedelta(days=1, seconds=2)
    assert str(row["n"]) == "1234567890123456789.10"
    assert str(row["nan"]) == "NaN"
    assert row["doc"] == {"a": Decimal("0.12345678901234567890"), "b": 1}


@on_postgresql
def test_days_are_counted_as_the_server_counts_them(target: RunDatabase) -> None:
    sql = """SELECT d, d::text AS written FROM (SELECT date '4713-01-01 BC' + n * 7919 AS d FROM generate_series(0, 900) AS n) AS days
             UNION ALL SELECT d, d::text FROM (SELECT date '9999-12-25' + n AS d FROM generate_series(0, 500) AS n) AS days"""
    with target.look() as look:
        assert [str(row["d"]) for row in look.rows(sql)] == [row["written"] for row in look.rows(sql)]
