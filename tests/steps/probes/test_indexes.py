"""The probes index and constraint: there is not the same as valid."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from databases import Database
from looking import answer, look_at, probe
from pydantic import ValidationError

from steps.contract import Answer


def index(**keys: object) -> object:
    return probe("index", table="session_summaries", **keys)


def test_index_by_columns(honeypot: Database):
    seen = look_at(honeypot, index(columns=["snapshot_asn"]))
    assert (seen.exists, seen.valid, seen.ready) == (True, True, True)
    assert "snapshot_asn" in seen.definition
    assert answer(honeypot, index(columns=["snapshot_asn"])) is Answer.PASS
    assert answer(honeypot, index(columns=["enrichment_at"])) is Answer.FAIL


def test_index_by_name(honeypot: Database):
    honeypot.script("CREATE INDEX pair ON session_summaries (snapshot_country, snapshot_asn)")
    assert answer(honeypot, index(name="pair")) is Answer.PASS
    assert answer(honeypot, index(name="pear")) is Answer.FAIL
    assert answer(honeypot, index(columns=["snapshot_country", "snapshot_asn"])) is Answer.PASS
    assert answer(honeypot, index(columns=["snapshot_country", "snapshot_asn"], unique=True)) is Answer.FAIL


def test_partial_index_is_not_an_index_on_the_column(honeypot: Database):
    honeypot.script("CREATE INDEX part ON session_summaries (enrichment_at) WHERE event_count > 3")
    assert answer(honeypot, index(columns=["enrichment_at"])) is Answer.FAIL
    assert answer(honeypot, index(name="part")) is Answer.PASS


def test_index_by_name_and_columns_is_refused():
    with pytest.raises(ValidationError, match=r"either"):
        index(name="a", columns=["b"])


def test_health_counts_indexes(honeypot: Database):
    one = index()
    seen = look_at(honeypot, one)
    assert seen.count > 5
    assert seen.invalid == 0
    assert answer(honeypot, one) is Answer.PASS


def test_invalid_index_fails(honeypot_pg: Database):
    """F: A07 - what an interrupted CREATE INDEX CONCURRENTLY leaves behind exists and is of no use."""
    honeypot_pg.script("CREATE TABLE twice (id int); INSERT INTO twice VALUES (1), (1)")
    with contextlib.closing(honeypot_pg.connect()) as connection, pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY twice_id ON twice (id)")
    by_name = probe("index", table="twice", name="twice_id")
    health = probe("index", table="twice")
    assert (look_at(honeypot_pg, by_name).exists, look_at(honeypot_pg, by_name).valid) == (True, False)
    assert answer(honeypot_pg, by_name) is Answer.FAIL
    assert answer(honeypot_pg, probe("index", table="twice", name="twice_id", valid=False)) is Answer.PASS
    assert look_at(honeypot_pg, health).invalid_names == ("twice_id",)
    assert answer(honeypot_pg, health) is Answer.FAIL


def test_usable_index_is_preferred(honeypot_pg: Database):
    """Where an invalid index and a good one stand on the same column, the good one answers."""
    honeypot_pg.script("CREATE TABLE twice (id int, k int); INSERT INTO twice VALUES (1, 1), (1, 2)")
    with contextlib.closing(honeypot_pg.connect()) as connection, pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY a_broken ON twice (id)")
    honeypot_pg.script("CREATE INDEX z_good ON twice (id)")
    assert look_at(honeypot_pg, probe("index", table="twice", columns=["id"])).name == "z_good"


def test_constraint_there_and_validated(honeypot_pg: Database):
    one = probe("constraint", table="session_summaries", name="fk_session_source_ip")
    seen = look_at(honeypot_pg, one)
    assert (seen.exists, seen.validated, seen.kind) == (True, True, "foreign key")
    assert answer(honeypot_pg, one) is Answer.PASS
    assert answer(honeypot_pg, probe("constraint", table="session_summaries", name="none")) is Answer.FAIL


def test_constraint_never_validated_fails(empty_pg: Database):
    """T: 26 - added NOT VALID and forgotten."""
    empty_pg.script("CREATE TABLE t (n int); ALTER TABLE t ADD CONSTRAINT positive CHECK (n > 0) NOT VALID")
    assert answer(empty_pg, probe("constraint", table="t", name="positive")) is Answer.FAIL
    assert answer(empty_pg, probe("constraint", table="t", name="positive", validated=False)) is Answer.PASS


def test_constraint_on_sqlite(databases):
    with databases.kind("sqlite").database() as database:
        database.script("CREATE TABLE a (id integer primary key); CREATE TABLE b (a integer references a (id))")
        assert answer(database, probe("constraint", table="b", name="fk_0")) is Answer.PASS
