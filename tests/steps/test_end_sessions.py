"""end_sessions: who changes a table is ended, nobody else; and it is done only when the session is gone."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from databases import Database
from inside import InProcessCli, session, written

pytestmark = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)

END = "- {id: end_it, type: end_sessions, changing: [t]}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, a integer)")
    empty_database.script("CREATE TABLE u (id integer PRIMARY KEY)")
    return InProcessCli(tmp_path, empty_database.url)


def test_changer_is_ended_and_others_are_not(desk: InProcessCli, empty_database: Database) -> None:
    """One has altered the table in an open transaction; another writes a row of it; a third alters another table."""
    name = written(desk, END)
    with (
        session(empty_database, "ALTER TABLE t ADD COLUMN b integer") as changer,
        session(empty_database, "ALTER TABLE u ADD COLUMN b integer") as other,
    ):
        plan = desk.runbook("plan", name)
        assert plan.code == 0 and f"pid {changer.info.backend_pid}" in " ".join(plan.out.split()), plan.text
        done = desk.runbook("exec", name)
        assert done.code == 0 and "ended 1" in done.out, done.text
        with pytest.raises(psycopg.OperationalError):
            changer.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchall() == [(1,)]
        changer.close()
    assert empty_database.rows("SELECT count(*) FROM information_schema.columns WHERE table_name = 't'") == [(2,)]


def test_writer_is_left_alone(desk: InProcessCli, empty_database: Database) -> None:
    with session(empty_database, "INSERT INTO t VALUES (1, 1)") as writer:
        done = desk.runbook("exec", written(desk, END))
        assert done.code == 0 and "already applied" in done.out, done.text
        assert writer.execute("SELECT count(*) FROM t").fetchall() == [(1,)]
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
