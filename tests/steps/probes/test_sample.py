"""The probe sample: random over the key space, repeatable, NULL-safe, and honest about what it could not compare."""

from __future__ import annotations

import pytest
from databases import Database
from looking import look_at, probe
from pydantic import ValidationError

ROWS = 2000


def fill(database: Database) -> None:
    """2,000 rows and their source, both right; ten of the keys have no source."""
    database.script(
        "CREATE TABLE done (id integer PRIMARY KEY, ip text, country text, asn integer);"
        "CREATE TABLE source (ip text, country text, asn integer);"
    )
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
    values = "'10.0.0.' || i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'DE' END, i % 5"
    database.script(f"INSERT INTO done {numbers} SELECT i, {values} FROM n")
    database.script(f"INSERT INTO source {numbers} SELECT {values} FROM n")


def sample(**keys: object) -> object:
    defaults = {"table": "done", "key": "id", "columns": ["country", "asn"], "match": "target.ip = source.ip"}
    source = {"truth": "SELECT ip, country, asn FROM source"}
    return probe("sample", queries=source, **{**defaults, "source": "truth", **keys})


def test_all_right_is_100_percent(empty_database: Database):
    """T: 12 - NULL equals NULL here: both unknown is a match."""
    fill(empty_database)
    seen = look_at(empty_database, sample(size=300))
    assert (seen.sampled, seen.matched, seen.mismatched, seen.not_in_source) == (300, 300, 0, 0)
    assert seen.accuracy_pct == 100.0
    assert seen.worst == ()


def test_errors_in_the_last_tenth_are_found(empty_database: Database):
    """F: I04 - a window at the beginning would see none of them."""
    fill(empty_database)
    empty_database.script(f"UPDATE done SET country = 'XX' WHERE id > {ROWS * 9 // 10}")
    seen = look_at(empty_database, sample(size=200))
    assert 8 <= seen.mismatched <= 35
    assert seen.accuracy_pct == round(100 * seen.matched / 200, 2)
    assert all(int(one.key) > ROWS * 9 // 10 for one in seen.worst)
    assert {(one.column, one.stored) for one in seen.worst} == {("country", "XX")}
    assert {one.expected for one in seen.worst} <= {"DE", None}


def test_sample_spreads_over_the_keys(empty_database: Database):
    fill(empty_database)
    empty_database.script("UPDATE done SET asn = 99")
    keys = sorted(int(one.key) for one in look_at(empty_database, sample(size=20, columns=["asn"])).worst)
    assert len(keys) == 20
    assert keys[0] < 600
    assert keys[-1] > 1400
    assert keys != list(range(keys[0], keys[0] + 20))


def test_same_seed_repeats(empty_database: Database):
    fill(empty_database)
    empty_database.script("UPDATE done SET asn = 99")
    drawn = [[one.key for one in look_at(empty_database, sample(size=15, seed=seed)).worst] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) != set(drawn[2])
    assert look_at(empty_database, sample(size=1)).seed > 0


def test_missing_in_source_is_counted_apart(empty_database: Database):
    """T: 12 - an inner join would hide them."""
    fill(empty_database)
    empty_database.script("DELETE FROM source WHERE asn = 4")
    seen = look_at(empty_database, sample(size=ROWS))
    assert (seen.sampled, seen.not_in_source, seen.mismatched) == (ROWS, ROWS // 5, 0)
    assert seen.accuracy_pct == 100.0


def test_nothing_to_compare_is_unknown(empty_database: Database):
    fill(empty_database)
    empty_database.script("DELETE FROM source")
    assert look_at(empty_database, sample(size=10)).accuracy_pct is None
    nothing = look_at(empty_database, sample(size=10, where="target.country = 'none' -- of them"))
    assert (nothing.sampled, nothing.accuracy_pct) == (0, None)


def test_ambiguous_rows_are_not_right(empty_database: Database):
    fill(empty_database)
    empty_database.script("INSERT INTO source SELECT ip, country, asn FROM source WHERE asn = 1")
    seen = look_at(empty_database, sample(size=ROWS))
    assert (seen.sampled, seen.ambiguous, seen.mismatched) == (ROWS, ROWS // 5, ROWS // 5)


def test_keys_that_are_texts(honeypot: Database):
    """Sessions have random hexadecimal keys; what was not filled differs from what it should be."""
    one = probe(
        "sample",
        table="session_summaries",
        key="session_id",
        columns=["source_ip"],
        source="SELECT session_id AS id, 'x' AS source_ip FROM session_summaries",
        match=r"target.session_id = source.id",
        size=50,
    )
    seen = look_at(honeypot, one)
    assert (seen.sampled, seen.mismatched) == (50, 50)
    assert seen.worst[0].stored is None
    assert len(seen.worst) == 20


def test_sample_refuses_a_writing_source():
    with pytest.raises(ValidationError, match=r"as a query"):
        sample(source="DELETE FROM source RETURNING *")
