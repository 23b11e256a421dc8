"""create_index, drop_index and reindex on real databases: whole lives, leftovers, duplicates, kills."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
from databases import Database, Databases
from plain_context import PlainContext, Trial
from pydantic import ValidationError

from steps.contract import Refused, State, StepError
from steps.ledger import step_commits
from steps.types.indexes import CreateIndex, DropIndex, Reindex

SESSIONS = "session_summaries"
PAIR = "idx_session_summaries_snapshot_country_matcher"


@pytest.fixture(params=["pg15", "pg18"])
def pgdb(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    with databases.kind(request.param).database("documented") as database:
        yield database


def _create(**fields: object) -> CreateIndex:
    return CreateIndex.model_validate({"table": SESSIONS, "columns": ["snapshot_country", "matcher"], **fields})


def _invalidate(database: Database, name: str) -> None:
    database.script(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")


def test_create_whole_life(honeypot: Database) -> None:
    step = _create()
    assert step.describe() == f"create index {PAIR} on session_summaries (snapshot_country, matcher)"
    Trial(honeypot, step).whole_life(SESSIONS)


def test_create_partial_unique_whole_life(honeypot: Database) -> None:
    where = "snapshot_country IN ('DE', 'FR') AND event_count > 1"
    Trial(honeypot, _create(columns=["session_id"], name="one_each", unique=True, where=where)).whole_life(SESSIONS)


def test_create_method_whole_life(pgdb: Database) -> None:
    Trial(pgdb, _create(columns=["created_at"], method="brin")).whole_life(SESSIONS)


def test_create_method_on_sqlite(sqlite_path) -> None:
    database = Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")
    assert "btree only" in Trial(database, _create(method="brin")).preflight()[0]


def test_create_already_so_under_another_name(honeypot: Database) -> None:
    honeypot.script(f"CREATE INDEX theirs ON {SESSIONS} (snapshot_country, matcher)")
    found = Trial(honeypot, _create()).verify()
    assert found.state is State.DONE
    assert "theirs" in found.evidence
    assert Trial(honeypot, _create(name="ours")).state() is State.NOT_DONE


@pytest.mark.parametrize(
    "other",
    [
        f"INDEX {PAIR} ON {SESSIONS} (matcher)",
        f"UNIQUE INDEX {PAIR} ON {SESSIONS} (snapshot_country, matcher) WHERE false",
        f"INDEX {PAIR} ON {SESSIONS} (snapshot_country, matcher DESC)",
        f"INDEX {PAIR} ON files (session_id, shasum)",
        f"INDEX {PAIR} ON {SESSIONS} (snapshot_country, matcher) WHERE event_count > 1",
    ],
)
def test_create_same_name_other_definition(honeypot: Database, other: str) -> None:
    """F: A07"""
    honeypot.script(f"CREATE {other}")
    trial = Trial(honeypot, _create())
    assert trial.state() is State.PARTLY
    with pytest.raises(Refused, match="an index of this name is there, but"):
        trial.apply()


def test_create_repairs_invalid_leftover(pgdb: Database) -> None:
    """F: A07: IF NOT EXISTS would call the invalid index a success"""
    pgdb.script(f"CREATE INDEX {PAIR} ON {SESSIONS} (snapshot_country, matcher)")
    _invalidate(pgdb, PAIR)
    trial = Trial(pgdb, _create())
    found = trial.verify()
    assert found.state is State.PARTLY
    assert "INVALID" in found.evidence
    assert [one.split()[0] for one in trial.statements()] == ["DROP", "CREATE"]
    trial.apply()
    assert trial.state() is State.DONE


def test_create_waits_for_a_build_in_progress(pgdb: Database) -> None:
    """F: A07: an index that somebody builds right now is invalid, and no leftover"""
    holder = pgdb.connect()
    holder.execute("BEGIN")
    holder.execute(f"UPDATE {SESSIONS} SET event_count = 0")
    builder = threading.Thread(target=_build_elsewhere, args=(pgdb,))
    builder.start()
    try:
        while not pgdb.rows(f"SELECT 1 FROM pg_class WHERE relname = '{PAIR}'"):
            time.sleep(0.02)
        with pytest.raises(Refused, match="is building it now"):
            Trial(pgdb, _create()).apply()
    finally:
        holder.execute("ROLLBACK")
        holder.close()
        builder.join()
    assert Trial(pgdb, _create()).state() is State.DONE


def _build_elsewhere(database: Database) -> None:
    with contextlib.closing(database.connect()) as connection:
        connection.execute(f"CREATE INDEX CONCURRENTLY {PAIR} ON {SESSIONS} (snapshot_country, matcher)")


def test_create_unique_names_duplicates(honeypot: Database) -> None:
    """F: A09"""
    honeypot.script(f"UPDATE {SESSIONS} SET matcher = 'twice', snapshot_country = 'DE'")
    trial = Trial(honeypot, _create(unique=True))
    with pytest.raises(StepError, match="snapshot_country='DE', matcher='twice' 2000 times"):
        trial.apply()
    assert trial.state() is State.NOT_DONE
    assert PAIR not in trial.shape(SESSIONS).indexes


def test_create_on_partitioned_table(pgdb: Database) -> None:
    """F: A14"""
    pgdb.script(
        "CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)"
    )
    trial = Trial(pgdb, CreateIndex.model_validate({"table": "p", "columns": ["a"]}))
    [fault] = trial.preflight()
    assert "public.p1" in fault
    with pytest.raises(Refused, match="partitioned"):
        trial.apply()
    Trial(pgdb, CreateIndex.model_validate({"table": "p1", "columns": ["a"]})).whole_life("p1")


def test_create_idle_transactions_none(pgdb: Database) -> None:
    """F: A10: while CONCURRENTLY runs, nothing of ours has a transaction open"""
    trial = Trial(pgdb, _create())
    thread = threading.Thread(target=trial.apply)
    with contextlib.closing(pgdb.connect()) as holder:
        holder.execute("BEGIN")
        holder.execute(f"UPDATE {SESSIONS} SET event_count = 0")
        thread.start()
        while not pgdb.rows("SELECT 1 FROM pg_stat_progress_create_index"):
            time.sleep(0.02)
        idle = pgdb.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND starts_with(state, 'idle in') AND pid <> %s",
            (holder.info.backend_pid,),
        )
        holder.execute("ROLLBACK")
    thread.join()
    assert idle == []
    assert trial.state() is State.DONE


def test_create_killed_and_resumed(pgdb: Database) -> None:
    """F: A07, E01: the building backend is killed, the next apply repairs"""
    trial = Trial(pgdb, _create())
    with contextlib.closing(pgdb.connect()) as holder:
        holder.execute("BEGIN")
        holder.execute(f"UPDATE {SESSIONS} SET event_count = 0")
        thread = threading.Thread(target=_fails, args=(trial,))
        thread.start()
        # Its progress is shown before the index is in the catalogue: a build that is killed there leaves nothing.
        while not pgdb.rows(
            "SELECT pg_terminate_backend(building.pid) FROM pg_stat_progress_create_index AS building"
            " JOIN pg_index ON indexrelid = index_relid WHERE NOT indisvalid"
        ):
            time.sleep(0.02)
        thread.join()
        holder.execute("ROLLBACK")
    assert trial.state() is State.PARTLY
    trial.apply()
    assert trial.state() is State.DONE


def _fails(trial: Trial) -> None:
    with pytest.raises(StepError):
        trial.apply()


def test_create_default_name_fits(honeypot: Database) -> None:
    """F: G09"""
    step = _create(columns=["ssh_key_injections", "unique_ssh_keys", "login_attempts"])
    other = _create(columns=["ssh_key_injections", "unique_ssh_keys", "file_downloads"])
    assert len(step.index.encode()) <= 63
    assert step.index != other.index
    Trial(honeypot, step).whole_life(SESSIONS)


def test_create_in_another_schema(pgdb: Database) -> None:
    """F: G01"""
    pgdb.script(
        "CREATE SCHEMA other; CREATE TABLE other.t (a int); CREATE TABLE t (a int); CREATE INDEX idx_t_a ON t (a)"
    )
    Trial(pgdb, CreateIndex.model_validate({"table": "other.t", "columns": ["a"]})).whole_life("other.t")


def test_drop_whole_life(honeypot: Database) -> None:
    honeypot.script(f"CREATE INDEX gone ON {SESSIONS} (snapshot_country, matcher DESC) WHERE event_count > 1")
    if honeypot.server:
        honeypot.script("COMMENT ON INDEX gone IS 'don''t'")
    Trial(honeypot, DropIndex(index="gone")).whole_life(SESSIONS)


def test_drop_interrupted_is_partly(pgdb: Database) -> None:
    _invalidate(pgdb, "idx_session_source_ip")
    trial = Trial(pgdb, DropIndex(index="idx_session_source_ip"))
    assert trial.state() is State.PARTLY
    trial.apply()
    assert trial.state() is State.DONE


def test_drop_refused_for_a_constraint(honeypot: Database) -> None:
    name = "session_summaries_pkey" if honeypot.server else "sqlite_autoindex_session_summaries_1"
    trial = Trial(honeypot, DropIndex(index=name))
    with pytest.raises(Refused, match="stands on it"):
        trial.apply()
    assert trial.state() is State.NOT_DONE


def test_reindex_runs_each_time(honeypot: Database) -> None:
    """F: A18: never the plain REINDEX, which blocks readers and writers"""
    for fields in ({"table": SESSIONS}, {"index": "idx_session_source_ip"}):
        trial = Trial(honeypot, Reindex.model_validate(fields))
        assert all("CONCURRENTLY" in one for one in trial.statements()) or not honeypot.server
        before = trial.shape(SESSIONS)
        assert trial.state() is State.NOT_DONE
        trial.apply()
        assert trial.state() is State.DONE
        assert trial.shape(SESSIONS) == before
        assert trial.again().state() is State.NOT_DONE


def test_reindex_clears_leftovers(pgdb: Database) -> None:
    """F: A07"""
    pgdb.script(f"""CREATE INDEX idx_session_source_ip_ccnew ON {SESSIONS} (source_ip);
        CREATE INDEX ix_session_summaries_matcher ON {SESSIONS} (matcher)""")
    _invalidate(pgdb, "idx_session_source_ip_ccnew")
    _invalidate(pgdb, "ix_session_summaries_matcher")
    trial = Trial(pgdb, Reindex(table=SESSIONS))
    assert trial.state() is State.PARTLY
    trial.apply()
    assert trial.state() is State.DONE
    held = trial.shape(SESSIONS).indexes
    assert "idx_session_source_ip_ccnew" not in held
    assert held["ix_session_summaries_matcher"][2:4] == (True, True)


def test_reindex_wants_one_target() -> None:
    with pytest.raises(ValidationError, match="either index or table"):
        Reindex()


def test_build_comment_and_remember_in_the_ledger(pgdb: Database) -> None:
    trial = Trial(pgdb, _create())
    trial.step.apply(PlainContext(trial.database("apply")))
    with trial.look() as look:
        before = step_commits.remembered(look, run=trial.run, step="step")
    assert before == f'{{"name":"public.{PAIR}","table":"{SESSIONS}"}}'
