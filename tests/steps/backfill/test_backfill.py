"""The backfill on every kind of database: each row once, only NULLs, exact figures, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import threading
from itertools import count

import pytest
from databases import Database
from filling import adds_up, filled, oracle, prepare, run, simple, snapshots, table
from plain_context import Trial

from steps.contract import Paused, State, StepError, Tuning
from steps.probes.preview import Preview

ORDERS = ["auto", "key", "first_event_at"]
on_postgresql = pytest.mark.parametrize("honeypot", ["pg15", "pg18"], indirect=True)  # row locks, VACUUM FULL


@pytest.fixture
def ready(honeypot: Database) -> Database:
    prepare(honeypot)
    return honeypot


# ─── the whole life ─────────────────────────────────────────────────────────────────────────────────────────────────
def lives_its_life(database: Database, order: str) -> None:
    trial, before = Trial(database, snapshots(order=order)), filled(database)
    assert trial.state() is State.NOT_DONE
    assert trial.preflight() == []
    result = trial.apply()
    wanted = oracle(database)
    assert filled(database) == wanted
    assert adds_up(result)
    assert (result.visited, result.in_range, result.at_start, result.left) == (2000, 2000, 2000, 0)
    assert result.written == sum(wanted[key] != before[key] for key in wanted)
    assert result.not_in_source > 0
    assert result.no_key + result.dead > 0  # broken JSON is an error of its batch on SQLite, and a text on PostgreSQL
    assert trial.state() is State.DONE
    assert trial.apply() == result
    trial.revert()
    assert filled(database) == before
    assert trial.state() is State.NOT_DONE


@pytest.mark.parametrize("order", ORDERS)
def test_backfill_fills_what_the_oracle_says(ready: Database, order: str) -> None:
    """One pass ends on rows that never match, and reverts exactly. F: B01 F: B14 F: F01 T: 5 T: 8 T: 11"""
    lives_its_life(ready, order)


@pytest.mark.store("enriched")
@pytest.mark.parametrize("order", ORDERS)
def test_backfill_keeps_a_stored_source(ready: Database, order: str) -> None:
    """Values that existed before stay, also through the way back. F: F03 T: 18"""
    lives_its_life(ready, order)


def test_second_run_writes_no_row_version(ready: Database) -> None:
    """F: H03 T: 9"""
    version = "rowid" if ready.dialect == "sqlite" else "ctid::text || xmin::text"
    Trial(ready, snapshots()).apply()
    before = ready.rows(f"SELECT session_id, {version} FROM session_summaries ORDER BY 1")
    again = Trial(ready, snapshots()).apply()
    assert (again.written, again.visited, again.left) == (0, 2000, 0)
    assert ready.rows(f"SELECT session_id, {version} FROM session_summaries ORDER BY 1") == before


def test_existing_value_is_never_overwritten(ready: Database) -> None:
    """F: C05 T: 9"""
    ready.script("UPDATE session_summaries SET snapshot_country = 'ZZ' WHERE event_count = 5")
    Trial(ready, snapshots()).apply()
    assert ready.value("SELECT count(*) FROM session_summaries WHERE event_count = 5 AND snapshot_country <> 'ZZ'") == 0
    assert ready.value("SELECT count(*) FROM session_summaries WHERE event_count = 5 AND snapshot_asn IS NOT NULL") > 0


def test_where_limits_the_scope(ready: Database) -> None:
    trial = Trial(ready, snapshots(where="target.event_count = 5"))
    result = trial.apply()
    assert (
        result.visited == result.at_start == ready.value("SELECT count(*) FROM session_summaries WHERE event_count = 5")
    )
    assert ready.value("SELECT count(*) FROM session_summaries WHERE event_count <> 5 AND source_ip IS NOT NULL") == 0


def test_empty_scope_is_a_decision(ready: Database) -> None:
    """F: B16 T: 11"""
    with pytest.raises(StepError, match="expect_work: false"):
        Trial(ready, snapshots(where="target.event_count < 0")).apply()
    trial = Trial(ready, snapshots(where="target.event_count < 0", expect_work=False))
    assert trial.apply().visited == 0
    assert trial.state() is State.DONE


def test_without_undo_nothing_is_kept(ready: Database) -> None:
    step = snapshots(undo=False)
    assert "undo: false" in step.one_way()
    Trial(ready, step).apply()
    assert ready.value(f"SELECT count(*) FROM runbook{'_' if ready.dialect == 'sqlite' else '.'}undo") == 0


def test_statement_shown_is_the_statement_that_runs(ready: Database) -> None:
    trial = Trial(ready, snapshots())
    with trial.look() as look:
        shown = trial.step.statements(look)
        with look.trial("shown") as work:
            rows = [
                work.rows(one.sql, one.params) if one is shown[-1] else work.execute(one.sql, {**one.params, "ms": 0})
                for one in shown
            ]
    assert rows[-1][0]["taken"] == 1000 or ready.dialect != "sqlite"
    assert "once per batch" in shown[0].note


def test_preview_says_what_a_batch_would_write(ready: Database) -> None:
    words = snapshots()
    probe = Preview(table=words.table, source=words.source, match=words.match, fill=words.fill, limit=500)
    before = filled(ready)
    with Trial(ready, words).look() as look:
        found = probe.observe(look) if ready.dialect != "sqlite" else None
    if found:
        assert found.seen == 500 == found.would_write + found.already + found.no_key + found.not_in_source
    assert filled(ready) == before


# ─── stopping and going on ──────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("order", ["auto", "key"])
def test_killed_anywhere_counts_once(ready: Database, order: str) -> None:
    """Killed before each commit in turn, every process gets one batch further. F: E01 F: E02 F: E05 T: 10"""
    trial, result = Trial(ready, snapshots(order=order, batch={"time": "10 s", "rows": [300, 300]})), None
    for n in count(1):
        with contextlib.suppress(KeyboardInterrupt):
            result = trial.dying_before(f"batch {n}").apply()
            break
        assert trial.state() is (State.NOT_DONE if n == 0 else State.PARTLY)
    assert n > 6
    assert (result.visited, result.in_range) == (2000, 2000)
    assert filled(ready) == oracle(ready)


def test_pause_after_exactly_so_many_written(ready: Database) -> None:
    trial = Trial(ready, snapshots(pause_after={"written": 500}))
    with pytest.raises(Paused, match=r"500 rows written.*the other"):
        trial.apply()
    assert sum(row[0] is not None for row in filled(ready).values()) == 500
    assert trial.state() is State.PARTLY
    result = trial.apply()
    assert result.visited == 2000
    assert filled(ready) == oracle(ready)


def test_pause_after_batches_comes_once(ready: Database) -> None:
    trial = Trial(ready, snapshots(pause_after={"batches": 2}))
    with pytest.raises(Paused, match="after 2 batches"):
        trial.apply()
    assert trial.apply().visited == 2000


def test_batches_grow_and_obey_tuning(ready: Database) -> None:
    trial = Trial(ready, snapshots(batch={"time": "20 s", "rows": [10, 10_000]}))
    result, reports = run(trial, tuning=Tuning(max_rows=100))
    assert result.batches >= 19 and result.visited == 2000
    sizes = [one.figures["batch_rows"] for one in reports]
    assert max(sizes[1:]) <= 100
    assert all(one.done <= one.total for one in reports)


# ─── rows at fault ──────────────────────────────────────────────────────────────────────────────────────────────────
def poison(database: Database, rows: int) -> list[str]:
    """Make so many rows impossible to write, each for itself."""
    keys = [
        row[0]
        for row in database.rows(
            f"SELECT session_id FROM session_summaries WHERE event_count = 7 ORDER BY 1 LIMIT {rows}"
        )
    ]
    listed = ", ".join(f"'{key}'" for key in keys)
    if database.dialect == "sqlite":
        database.script(f"""CREATE TRIGGER poison BEFORE UPDATE ON session_summaries WHEN OLD.session_id IN ({listed})
                            BEGIN SELECT RAISE(ABORT, 'poisoned'); END""")
    else:
        database.script(
            f"ALTER TABLE session_summaries ADD CONSTRAINT poison CHECK (source_ip IS NULL OR session_id NOT IN ({listed}))"
        )
    return keys


@pytest.mark.parametrize("order", ["auto", "key"])
def test_poisoned_rows_become_dead_letters(ready: Database, order: str) -> None:
    """The rest is done, and each transaction tries a smaller batch. F: B15 F: C12 F: G08"""
    keys = poison(ready, 3)
    trial = Trial(ready, snapshots(order=order, triggers="acknowledged"))
    result = trial.apply()
    broken = result.dead - len(keys)  # SQLite's broken JSON
    assert (result.visited, result.left, broken <= 1) == (2000, 0, True)
    assert adds_up(result)
    prefix = "runbook_" if ready.dialect == "sqlite" else "runbook."
    letters = ready.rows(f"SELECT key, sqlstate, message FROM {prefix}skipped_row WHERE action = 'apply'")
    assert {f'["{key}"]' for key in keys} <= {letter[0] for letter in letters}
    wanted, found = oracle(ready), filled(ready)
    assert all(found[key] == wanted[key] for key in wanted if key not in keys)


def test_too_many_dead_letters_stop_the_step(ready: Database) -> None:
    """F: B15"""
    poison(ready, 6)
    with pytest.raises(StepError, match="dead_letters allows 4"):
        Trial(ready, snapshots(triggers="acknowledged", dead_letters={"max": 4, "pct": 100})).apply()


@on_postgresql
def test_fault_of_the_statement_stops_at_once(ready: Database) -> None:
    ready.script("REVOKE ALL ON session_summaries FROM PUBLIC; DROP TABLE ip_inventory CASCADE")
    with pytest.raises(StepError, match="ip_inventory"):
        Trial(ready, snapshots()).apply()


# ─── the application at work ────────────────────────────────────────────────────────────────────────────────────────
@on_postgresql
def test_locked_row_is_deferred_and_returned_to(ready: Database) -> None:
    """F: B13"""
    with ready.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT session_id FROM session_summaries WHERE event_count = 9 LIMIT 1 FOR UPDATE")

        def release(progress):
            if progress.done == 2000 and progress.figures["deferred"] == 1:
                other.execute("COMMIT")

        result, reports = run(Trial(ready, snapshots()), release)
    assert any(one.figures["deferred"] == 1 for one in reports)
    assert (result.deferred, result.visited, result.left) == (0, 2000, 0)
    assert filled(ready) == oracle(ready)


@on_postgresql
def test_row_locked_to_the_end_stays_deferred(ready: Database) -> None:
    """F: B13"""
    with ready.connect() as other:
        other.execute("BEGIN")
        [key] = other.execute(
            "SELECT session_id FROM session_summaries WHERE event_count = 9 LIMIT 1 FOR UPDATE"
        ).fetchone()
        result, _ = run(Trial(ready, snapshots()))
        other.execute("ROLLBACK")
    wanted = oracle(ready)
    assert (result.deferred, result.visited, result.in_range) == (1, 2000, 2000)
    assert {k for k, v in filled(ready).items() if v != wanted[k]} == {key}


@on_postgresql
def test_pass_that_ends_early_returns_to_locked_rows(ready: Database) -> None:
    """The end that stop_after asks for is no fault, also where a row was locked on the way. F: B13"""
    with ready.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT ctid FROM session_summaries WHERE ctid > '(0,0)' ORDER BY ctid LIMIT 1 FOR UPDATE")

        def release(progress):
            if progress.figures["deferred"] == 1 and progress.done > 500:
                other.execute("COMMIT")

        step = snapshots(batch={"time": "10 s", "rows": [100, 100]}, stop_after={"batches": 8})
        result, _ = run(Trial(ready, step), release)
    assert result.visited < 2000 and result.left > 0
    assert result.deferred == 0


@on_postgresql
def test_value_written_while_we_wait_is_kept(ready: Database) -> None:
    """The application commits its own value while our batch waits for its lock. F: C05"""
    with ready.connect() as other:
        other.execute("BEGIN")
        [key] = other.execute(
            "UPDATE session_summaries SET snapshot_country = 'ZZ' WHERE session_id = (SELECT min(session_id) FROM "
            "session_summaries WHERE event_count = 9) RETURNING session_id"
        ).fetchone()
        timer = threading.Timer(0.4, other.execute, ["COMMIT"])
        timer.start()
        result, _ = run(Trial(ready, snapshots()), lock_timeout="10s")
        timer.join()
    found, wanted = filled(ready)[key], oracle(ready)[key]
    assert found[2] == "ZZ"
    assert (found[0], found[1], found[3]) == (wanted[0], wanted[1], wanted[3])
    assert (result.deferred, result.left) == (0, 0)


@on_postgresql
def test_deadlock_is_tried_again(ready: Database) -> None:
    """The application takes two rows against our order. F: C03 F: C16"""
    keys = [row[0] for row in ready.rows("SELECT session_id FROM session_summaries ORDER BY ctid LIMIT 300")]
    with ready.connect() as other:
        other.execute("BEGIN")
        other.execute("UPDATE session_summaries SET risk_score = 1 WHERE session_id = %s", [keys[-1]])

        def cross() -> None:
            with contextlib.suppress(Exception):
                other.execute("UPDATE session_summaries SET risk_score = 1 WHERE session_id = %s", [keys[0]])
            other.execute("ROLLBACK")

        timer = threading.Timer(0.5, cross)
        timer.start()
        result, _ = run(Trial(ready, snapshots()), lock_timeout="20s")
        timer.join()
    assert (result.visited, result.deferred) == (2000, 0)
    assert filled(ready) == oracle(ready)


@pytest.mark.parametrize("order", ["auto", "key", "first_event_at"])
def test_rows_that_the_application_moves_are_reached(ready: Database, order: str) -> None:
    """Updates give rows new places, deletes make room behind the cursor, key moves included. F: B10 F: B12 F: B17"""
    turns = count()

    def work(progress):
        turn = next(turns)
        ready.script(f"""UPDATE session_summaries SET risk_score = {turn}, first_event_at = NULL WHERE event_count = {3 + 2 * (turn % 8)};
                         DELETE FROM session_summaries WHERE event_count = {19 + 2 * (turn % 4)} AND login_attempts < 12
                            AND session_id NOT IN (SELECT session_id FROM password_session_usage);""")
        if ready.dialect != "sqlite" and turn % 3 == 0:
            ready.script("VACUUM session_summaries")

    result, _ = run(Trial(ready, snapshots(order=order)), work)
    wanted = oracle(ready)
    found = filled(ready)
    assert {key: found[key] for key in found} == {key: wanted[key] for key in found}
    assert (result.left, result.in_range == result.visited) == (0, True)


def test_inserts_cannot_keep_it_going(empty_database: Database) -> None:
    """At twice its speed: the sweep takes what came until it looked, and no more. F: B03"""
    table(empty_database, rows=600)
    keys = count(1000)

    def insert(progress):
        values = ", ".join(f"({next(keys)}, NULL, 1)" for _ in range(200))
        empty_database.script(f"INSERT INTO t (id, v, k) VALUES {values}")

    step = simple(order="key", batch={"time": "250 ms", "rows": [100, 100]})
    result, _ = run(Trial(empty_database, step), insert)
    assert (result.at_start, result.left) == (600, 0)
    assert 600 < result.visited == result.in_range == result.written < 5_000
    assert empty_database.value("SELECT count(*) FROM t WHERE id < 1000 AND v IS NULL") == 0


def test_inserts_cannot_keep_the_heap_going(empty_database: Database) -> None:
    """F: B03"""
    table(empty_database, rows=3000)
    keys = count(10_000)

    def insert(progress):
        values = ", ".join(f"({next(keys)}, NULL, 1)" for _ in range(800))
        empty_database.script(f"INSERT INTO t (id, v, k) VALUES {values}")

    result, _ = run(Trial(empty_database, simple(batch={"time": "250 ms", "rows": [400, 400]})), insert)
    assert (result.at_start, result.left) == (3000, 0)
    assert result.visited == result.in_range < 30_000
    assert empty_database.value("SELECT count(*) FROM t WHERE id < 10000 AND v IS NULL") == 0


@on_postgresql
def test_rewritten_heap_is_begun_again(ready: Database) -> None:
    """VACUUM FULL while it waits gives each row another place, and nothing is written twice. F: B17"""
    trial = Trial(ready, snapshots(pause_after={"written": 700}))
    with pytest.raises(Paused):
        trial.apply()
    ready.script("DELETE FROM session_summaries WHERE event_count = 7 AND source_ip IS NULL")
    ready.script("VACUUM FULL session_summaries")
    result = trial.apply()
    wanted, found = oracle(ready), filled(ready)
    assert found == {key: wanted[key] for key in found}
    assert (result.left, result.written) == (0, sum(row != (None,) * 5 for row in found.values()))
