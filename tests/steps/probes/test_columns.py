"""The probes columns and dependants: names, types, what hangs on a column, and other schemas."""

from __future__ import annotations

import pytest
from databases import Database
from looking import answer, look_at, probe, role
from pydantic import ValidationError

from steps.contract import Answer, Unknown


def columns(**keys: object) -> object:
    return probe("columns", table="session_summaries", **keys)


def test_columns_has_and_lacks(honeypot: Database):
    one = columns(has=["snapshot_ip_types", "session_id"], lacks=["snapshot_ip_type"])
    seen = look_at(honeypot, one)
    assert (seen.exists, seen.missing, seen.unwanted, seen.wrong_type) == (True, (), (), ())
    assert "session_id" in seen.columns
    assert answer(honeypot, one) is Answer.PASS


def test_columns_names_what_is_wrong(honeypot: Database):
    one = columns(has=["snapshot_ip_type"], lacks=["snapshot_ip_types", "nothing"])
    verdict = one.verdict(look_at(honeypot, one))
    assert (verdict.answer, verdict.why) == (
        Answer.FAIL,
        "snapshot_ip_type is missing; snapshot_ip_types is there",
    )


def test_columns_of_a_missing_table_fail(honeypot: Database):
    """`lacks` alone would pass on a table that isn't there at all."""
    assert answer(honeypot, probe("columns", table="sessions", lacks=["x"])) is Answer.FAIL


@pytest.mark.parametrize(
    ("name", "wanted", "same"),
    [
        ("snapshot_country", "varchar(2)", True),
        ("snapshot_country", "character varying ( 2 )", True),
        ("snapshot_country", "varchar(3)", False),
        ("snapshot_asn", "int4", True),
        ("snapshot_asn", "bigint", False),
        ("snapshot_ip_types", "text[]", True),
        ("snapshot_ip_types", "text", False),
        ("enrichment_at", "timestamptz", True),
        ("enrichment_at", "timestamp", False),
    ],
)
def test_types_on_postgresql_by_meaning(honeypot_pg: Database, name: str, wanted: str, same: bool):
    assert answer(honeypot_pg, columns(has={name: wanted})) is (Answer.PASS if same else Answer.FAIL)


def test_types_on_sqlite_by_affinity(databases):
    with databases.kind("sqlite").database("documented") as database:
        assert answer(database, columns(has={"snapshot_country": "text", "snapshot_asn": "integer"})) is Answer.PASS
        assert answer(database, columns(has={"snapshot_country": "integer"})) is Answer.FAIL


def test_columns_contradiction_is_refused():
    with pytest.raises(ValidationError, match=r"both"):
        columns(has=["a", "b"], lacks=["b"])


def test_column_of_another_schema_does_not_count(empty_pg: Database):
    """T: 21, F: G01 - a column of the same name in another schema is no hit, and no privilege is needed to see ours."""
    empty_pg.script(
        "CREATE SCHEMA old; CREATE TABLE old.sessions (snapshot text); CREATE TABLE public.sessions (id int);"
        "REVOKE ALL ON public.sessions FROM PUBLIC"
    )
    with role(empty_pg) as user:
        one = probe("columns", table="sessions", has=["id"], lacks=["snapshot"])
        assert look_at(empty_pg, one, user=user).columns == ("id",)
        assert answer(empty_pg, one, user=user) is Answer.PASS


def test_dependants_without_own_indexes(honeypot: Database):
    of_asn = {"column": "session_summaries.snapshot_asn"}
    assert look_at(honeypot, probe("dependants", **of_asn)).count == 0
    assert look_at(honeypot, probe("dependants", **of_asn, indexes=True)).count >= 1


def test_dependants_names_a_view(honeypot: Database):
    honeypot.script("CREATE VIEW by_country AS SELECT snapshot_country, event_count FROM session_summaries")
    seen = look_at(honeypot, probe("dependants", column="session_summaries.snapshot_country"))
    assert seen.count == 1
    assert "view" in seen.names[0]
    assert "by_country" in seen.names[0]


def test_dependants_finds_names_in_function_bodies(honeypot_pg: Database):
    """T: 22, F: G04 - a PL/pgSQL body is text: it breaks only when it next runs."""
    honeypot_pg.script(
        "CREATE FUNCTION countries() RETURNS bigint LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN (SELECT count(snapshot_country) FROM session_summaries); END $$"
    )
    seen = look_at(honeypot_pg, probe("dependants", column="session_summaries.snapshot_country"))
    assert (seen.count, seen.by_text) == (1, 1)
    assert "countries" in seen.names[0]


def test_dependants_of_a_missing_column_are_unknown(honeypot: Database):
    """A misspelt column has no dependants, but that must not pass."""
    with pytest.raises(Unknown, match=r"no column session_summaries.nope"):
        look_at(honeypot, probe("dependants", column="session_summaries.nope"))
