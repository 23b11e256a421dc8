"""Taking back a backfill: exactly its rows, only where they still hold what it wrote, in batches that can be resumed."""

from __future__ import annotations

import pytest
from databases import Database
from filling import backfill, filled, prepare, simple, snapshots, table
from plain_context import PlainContext, Trial

from steps.contract import Progress, State, StepError, Stopped, Tuning
from steps.types.backfill.undo import FIRST, Written


@pytest.fixture
def done(honeypot: Database) -> tuple[Database, Trial, dict]:
    prepare(honeypot)
    before = filled(honeypot)
    trial = Trial(honeypot, snapshots(batch={"time": "10 s", "rows": [300, 300]}))
    trial.apply()
    return honeypot, trial, before


def ledger(database: Database, name: str) -> str:
    return f"runbook_{name}" if database.dialect == "sqlite" else f"runbook.{name}"


def refused(database: Database) -> set[str]:
    rows = database.rows(
        f"SELECT key FROM {ledger(database, 'skipped_row')} WHERE action = 'revert' AND message = 'changed since'"
    )
    return {row[0] for row in rows}


def figures(database: Database) -> tuple[int, int, int]:
    """(rows kept, restored, refused)"""
    kept = database.value(f"SELECT sum(rows) FROM {ledger(database, 'undo')}")
    restored, left = database.rows(
        f"SELECT sum(written), sum(dead) FROM {ledger(database, 'batch')} WHERE action = 'revert'"
    )[0]
    return kept, restored, left


def test_changed_rows_are_refused_and_listed(done) -> None:
    """A row that the application changed or deleted stays as it is. F: F01 F: F02 F: F05 T: 17 T: 19"""
    database, trial, before = done
    keys = [k for k, v in filled(database).items() if v[2] is not None][:6]
    one, two, three, four, gone, moved = keys
    database.script(f"""UPDATE session_summaries SET snapshot_country = 'ZZ' WHERE session_id = '{one}';
        UPDATE session_summaries SET source_ip = NULL WHERE session_id = '{two}';
        UPDATE session_summaries SET risk_score = 99 WHERE session_id IN ('{three}', '{four}');
        DELETE FROM session_summaries WHERE session_id = '{gone}';
        UPDATE session_summaries SET session_id = 'moved' WHERE session_id = '{moved}'""")
    kept_as_is = {key: filled(database)[key] for key in (one, two, "moved")}
    trial.revert()
    assert refused(database) == {f'["{key}"]' for key in (one, two, gone, moved)}
    kept, restored, left = figures(database)
    assert kept == restored + left and left == 4
    found = filled(database)
    assert {key: found[key] for key in kept_as_is} == kept_as_is
    assert all(found[key] == before[key] for key in found if key not in kept_as_is)


def test_values_before_the_run_are_never_wiped(empty_database: Database) -> None:
    """Equal to what was written, and yet not this run's. F: F03 T: 18"""
    empty_database.script("""CREATE TABLE s (k integer PRIMARY KEY, v text, w text); INSERT INTO s VALUES (1, 'same', 'new');
        CREATE TABLE t (id integer PRIMARY KEY, v text, w text, k integer);
        INSERT INTO t VALUES (1, 'same', NULL, 1), (2, NULL, 'new', 1), (3, 'same', 'new', 1), (4, NULL, NULL, 1)""")
    before = empty_database.rows("SELECT * FROM t ORDER BY id")
    step = backfill(table="t", source="SELECT * FROM s", match="source.k = target.k", fill=["v", "w"])
    trial = Trial(empty_database, step)
    assert trial.apply().written == 3
    trial.revert()
    assert empty_database.rows("SELECT * FROM t ORDER BY id") == before


def test_revert_goes_on_after_a_kill(done) -> None:
    database, trial, before = done
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("undo 4").revert()
    assert trial.state("revert") is State.PARTLY
    assert filled(database) != before
    trial.revert()
    assert filled(database) == before
    assert trial.state("revert") is State.NOT_DONE
    kept, restored, left = figures(database)
    assert (kept, left) == (restored, 0)


def test_revert_is_stopped_between_batches(done) -> None:
    _, trial, _ = done

    class Stopping(PlainContext):
        def pulse(self, progress: Progress) -> Tuning:
            if progress.done > 0:
                raise Stopped(progress.note)
            return Tuning()

    with pytest.raises(Stopped, match="restored, 0 refused"):
        trial.revert(Stopping(trial.database("revert")))
    assert trial.state("revert") is State.PARTLY


@pytest.mark.parametrize("honeypot", ["pg15", "pg18"], indirect=True)
def test_revert_in_another_time_zone(done) -> None:
    """The same rows, whatever the session's zone says of a time. F: F06 T: 17"""
    database, trial, before = done
    database.script(f"ALTER DATABASE {database.name} SET timezone = 'Asia/Kathmandu'")
    trial.revert()
    assert figures(database)[2] == 0
    assert filled(database) == before


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_types_without_equality_are_compared_as_text(empty_database: Database) -> None:
    empty_database.script("""CREATE TYPE mood AS ENUM ('glad', 'sad');
        CREATE TABLE s (k integer PRIMARY KEY, j json, p point, b bytea, a text[], n numeric(9, 3), c char(5), m mood, f float8);
        INSERT INTO s VALUES (1, '{"a":  1}', '(1,2)', '\\x00ff', '{a,NULL,"b,c"}', 1.5, 'x', 'sad', 0.1);
        CREATE TABLE t (id integer PRIMARY KEY, k integer, j json, p point, b bytea, a text[], n numeric(9, 3), c char(5),
            m mood, f float8);
        INSERT INTO t (id, k) SELECT i, 1 FROM generate_series(1, 3) i""")
    fill = ["j", "p", "b", "a", "n", "c", "m", "f"]
    trial = Trial(empty_database, backfill(table="t", source="SELECT * FROM s", match="source.k = target.k", fill=fill))
    assert trial.preflight() == []
    assert trial.apply().written == 3
    empty_database.script("""UPDATE t SET j = '{"a": 1}' WHERE id = 2""")
    trial.revert()
    assert refused(empty_database) == {'["2"]'}
    assert empty_database.value("SELECT count(*) FROM t WHERE num_nonnulls(j, p, b, a, n, c, m, f) = 0") == 2


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_large_batch_is_taken_back_in_small_ones(empty_database: Database) -> None:
    """As long a batch as on the way forward, whatever size it had there; killed in between it goes on. F: F05"""
    table(empty_database, rows=5000)
    trial = Trial(empty_database, simple(batch={"time": "60 s", "rows": [5000, 5000]}))
    assert trial.apply().batches == 1
    empty_database.script("UPDATE t SET v = 'mine' WHERE id IN (3, 4000)")
    first = f"undo 1 to {FIRST}"
    acts = "SELECT label FROM runbook.step_commit WHERE action = 'revert' ORDER BY seq"

    class Dying(PlainContext):
        def pulse(self, progress: Progress) -> Tuning:
            if progress.done >= FIRST:
                raise KeyboardInterrupt
            return Tuning()

    before = Written.model_validate_json(
        empty_database.value("SELECT before FROM runbook.step_commit WHERE label = 'begin'")
    )
    with pytest.raises(KeyboardInterrupt):
        trial.step.revert(Dying(trial.database("revert")), before)
    assert [row[0] for row in empty_database.rows(acts)] == [first]
    assert empty_database.value("SELECT count(*) FROM t WHERE v IS NULL") == FIRST - 1
    trial.revert()
    labels = [row[0] for row in empty_database.rows(acts)]
    assert labels[0] == first and labels[-2:] == ["undo 1", "undo end"] and len(labels) == len(set(labels))
    assert figures(empty_database) == (5000, 4998, 2)
    assert refused(empty_database) == {'["3"]', '["4000"]'}
    assert trial.state("revert") is State.NOT_DONE


@pytest.mark.parametrize("part", ["undo", "batch"])
def test_rows_that_the_ledger_has_lost_are_not_called_taken_back(done, part: str) -> None:
    """That it is silent of them proves nothing: not one row is touched, and the message says how many are meant."""
    database, trial, _before = done
    written = filled(database)
    database.script(f"DELETE FROM {ledger(database, part)} WHERE n > 1")
    with pytest.raises(StepError, match="the ledger has lost"):
        trial.revert()
    assert filled(database) == written
