"""vacuum and analyze: they run each time, and only this run's ledger says that they ran."""

from __future__ import annotations

import pytest
from databases import Database
from plain_context import Trial

from steps.contract import State
from steps.types.upkeep import Analyze, Vacuum

SESSIONS = "session_summaries"


@pytest.mark.parametrize(
    "step", [Vacuum(table=SESSIONS), Vacuum(table=SESSIONS, analyze=False), Analyze(table=SESSIONS)]
)
def test_upkeep_whole_life(honeypot: Database, step: Vacuum | Analyze) -> None:
    trial = Trial(honeypot, step)
    before = trial.shape(SESSIONS)
    assert trial.state() is State.NOT_DONE
    assert trial.preflight() == []
    trial.apply()
    assert trial.state() is State.DONE
    trial.apply()  # the mark is there: not run again
    assert trial.shape(SESSIONS) == before
    assert step.lasting is False
    assert trial.again().state() is State.NOT_DONE


def test_vacuum_clears_and_analyzes(databases) -> None:
    """F: D06"""
    with databases.kind("pg18").database("documented") as database:
        database.script(f"UPDATE {SESSIONS} SET event_count = event_count + 1")
        Trial(database, Vacuum(table=SESSIONS)).apply()
        assert database.value(f"SELECT relallvisible > 0 FROM pg_class WHERE relname = '{SESSIONS}'") is True
        assert database.value(f"SELECT count(*) > 0 FROM pg_stats WHERE tablename = '{SESSIONS}'") is True


def test_vacuum_on_sqlite_is_analyze(sqlite_path) -> None:
    database = Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")
    assert Trial(database, Vacuum(table=SESSIONS)).statements() == [f'ANALYZE "main"."{SESSIONS}"']


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_upkeep_not_this_roles_table(databases, kind: str) -> None:
    """PostgreSQL would only warn, and the step would be called done"""
    with databases.kind(kind).database() as database:
        role = f"other_{database.name}_{kind}"
        database.script(f"CREATE TABLE t (a int); CREATE ROLE {role}; GRANT SELECT ON t TO {role}")
        step = Vacuum(table="t")
        with Trial(database, step).look() as look:
            look.connection.execute(f"SET ROLE {role}")
            [fault] = step.preflight(look)
        assert "connect as its owner" in fault
        if kind == "pg18":
            database.script(f"GRANT MAINTAIN ON t TO {role}")
            with Trial(database, step).look() as look:
                look.connection.execute(f"SET ROLE {role}")
                assert step.preflight(look) == []
