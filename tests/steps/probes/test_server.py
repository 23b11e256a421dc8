"""The probes server, size and privileges."""

from __future__ import annotations

import os

import pytest
from databases import Database
from looking import answer, look_at, probe, role
from pydantic import ValidationError

from steps.contract import Answer, StepError


def test_server_says_what_it_is(empty_database: Database):
    seen = look_at(empty_database, probe("server"))
    assert seen.dialect == empty_database.dialect
    assert not seen.in_recovery
    if empty_database.dialect == "sqlite":
        assert (seen.version_major, seen.started_s_ago) == (3, None)
    else:
        assert seen.version_major == empty_database.major
        assert seen.started_s_ago > 0


def test_size_grows_with_rows(empty_database: Database):
    before = look_at(empty_database, probe("size")).bytes
    empty_database.script("CREATE TABLE t (x text)")
    empty_database.script(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
        "SELECT '0123456789012345678901234567890123456789' FROM n"
    )
    after = look_at(empty_database, probe("size"))
    assert after.bytes > before
    assert after.pretty.split()[1] in {"kB", "MB"}


def test_privileges_of_the_owner(honeypot: Database):
    one = probe("privileges", table="session_summaries", needs=["select", "update"], create_in_schema=True)
    assert look_at(honeypot, one).missing == ()
    assert answer(honeypot, one) is Answer.PASS


def test_privileges_name_the_grant(honeypot_pg: Database):
    with role(honeypot_pg, "GRANT SELECT ON session_summaries TO {}") as user:
        one = probe(
            "privileges",
            table="session_summaries",
            needs=["select", "update", "owner"],
            create_in_schema=True,
            member_of=["pg_read_all_stats"],
        )
        seen = look_at(honeypot_pg, one, user=user)
        assert seen.missing == ("update", "owner", "create", "pg_read_all_stats")
        assert seen.grant[0] == f'GRANT UPDATE ON "public"."session_summaries" TO "{user}"'
        assert answer(honeypot_pg, one, user=user) is Answer.FAIL
        for grant in seen.grant:
            honeypot_pg.script(grant)
        assert look_at(honeypot_pg, one, user=user).missing == ()
        honeypot_pg.script(f"REVOKE owner, pg_read_all_stats FROM {user}")


def test_privileges_of_a_missing_table(honeypot_pg: Database):
    with pytest.raises(StepError, match=r"no table 'nope'"):
        look_at(honeypot_pg, probe("privileges", table="nope", needs=["select"]))


@pytest.mark.parametrize("keys", [{}, {"table": "t"}, {"needs": ["select"]}])
def test_privileges_without_a_question_is_refused(keys: dict[str, object]):
    with pytest.raises(ValidationError):
        probe("privileges", **keys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_privileges_on_sqlite_are_the_file_s(databases):
    with databases.kind("sqlite").database("documented") as database:
        os.chmod(database.name, 0o444)
        assert answer(database, probe("privileges", table="files", needs=["select"])) is Answer.PASS
        assert answer(database, probe("privileges", table="files", needs=["update"])) is Answer.FAIL
