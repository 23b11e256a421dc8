"""Several workers in one pass: disjoint ranges, one ledger, one gate; and rows that were set aside, tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest
from command import Cli
from databases import Database
from filling import adds_up, filled, oracle, prepare, run, simple, snapshots, table
from inside import until
from plain_context import Trial

from steps.contract import Paused, State, Stopped, Tuning
from steps.ledger.tables import table as ledger_table
from steps.types.backfill.pool import WorkerPool

pytestmark = pytest.mark.newest

on_postgresql = pytest.mark.parametrize("honeypot", ["pg15", "pg18"], indirect=True)
SMALL = {"batch": {"time": "250 ms", "rows": [50, 100]}}


@pytest.fixture
def ready(honeypot: Database) -> Database:
    prepare(honeypot)
    return honeypot


def batches(database: Database, columns: str) -> list[tuple]:
    name = ledger_table("batch", trial_dialect(database))
    return database.rows(f"SELECT {columns} FROM {name} WHERE action = 'apply' AND worker >= 0 ORDER BY n")


def trial_dialect(database: Database):
    from steps.contract.dialect import Dialect

    return Dialect(database.dialect)


# ─── workers ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("order", ["auto", "key", "first_event_at"])
def test_workers_fill_what_one_does(ready: Database, order: str) -> None:
    """Four workers on disjoint ranges with one foreign key's parent between them; taken back exactly. F: C13"""
    before = filled(ready)
    trial = Trial(ready, snapshots(order=order, workers=4, **SMALL))
    result, _ = run(trial)
    assert filled(ready) == oracle(ready)
    assert adds_up(result)
    assert (result.visited, result.in_range, result.left) == (2000, 2000, 0)
    assert trial.apply() == result
    trial.revert()
    assert filled(ready) == before


@on_postgresql
@pytest.mark.parametrize("order", ["auto", "key"])
def test_ranges_follow_each_other_without_gap(ready: Database, order: str) -> None:
    """Within each range a batch begins where the last one ended, whoever did it."""
    run(Trial(ready, snapshots(order=order, workers=3, **SMALL)))
    of_range: dict[int, list[tuple[str, str]]] = {}
    for worker, lo, hi in batches(ready, "worker, lo, hi"):
        of_range.setdefault(worker, []).append((lo, hi))
    assert len(of_range) > 1
    assert all(one[1] == other[0] for several in of_range.values() for one, other in pairwise(several))


@on_postgresql
def test_as_many_sessions_as_workers(ready: Database) -> None:
    """Each worker has a connection of its own, and nobody keeps one that is done."""
    threads: set[str] = set()
    run(Trial(ready, snapshots(workers=3, **SMALL)), lambda _: threads.add(threading.current_thread().name))
    assert {"worker 1", "worker 2", "worker 3"} <= threads
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'runbook%'"
    until(lambda: ready.value(left) == 0)


@on_postgresql
def test_running_pass_is_given_more_workers(ready: Database) -> None:
    """`tune --workers` is obeyed at the next safe point, without a new start."""
    threads: set[str] = set()
    run(
        Trial(ready, snapshots(**SMALL)),
        lambda _: threads.add(threading.current_thread().name),
        tuning=Tuning(workers=3),
    )
    assert {"worker 1", "worker 2", "worker 3"} <= threads
    assert filled(ready) == oracle(ready)


def test_canary_with_workers_stops_at_its_row(ready: Database) -> None:
    """Up to its gate a pass has one worker: the number of rows is exact; then the same run goes on with all."""
    trial = Trial(ready, snapshots(workers=4, pause_after={"written": 500}, **SMALL))
    with pytest.raises(Paused, match=r"500 rows written, .* the other 1,\d\d\d rows take about"):
        run(trial)
    result, _ = run(trial)
    assert filled(ready) == oracle(ready)
    assert (result.visited, result.left) == (2000, 0)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_stopped_workers_go_on_where_each_stood(ready: Database, at: int) -> None:
    """A stop reaches all workers at their safe points; none of their batches is done twice. F: E01 F: E05"""
    trial, calls = Trial(ready, snapshots(workers=3, **SMALL)), count(1)

    def stop(_: object) -> None:
        if next(calls) == at:
            raise Stopped("asked")

    with pytest.raises(Stopped, match="asked"):
        run(trial, stop)
    assert trial.state() in {State.PARTLY, State.DONE}
    result, _ = run(trial)
    assert filled(ready) == oracle(ready)
    assert (result.visited, result.left) == (2000, 0)
    assert adds_up(result)


@on_postgresql
def test_heap_rewritten_under_workers_is_begun_again(ready: Database) -> None:
    """VACUUM FULL gives all rows new places while three workers are at their ranges. F: B17"""
    calls = count(1)

    def rewrite(_: object) -> None:
        if next(calls) == 5:
            ready.script("VACUUM FULL session_summaries")

    result, _ = run(Trial(ready, snapshots(workers=3, **SMALL)), rewrite, lock_timeout="2s")
    assert filled(ready) == oracle(ready)
    assert result.left == 0


class Steady:
    """A worker that says when it is at work."""

    rate = 0.0

    def __init__(self, seen: list[int], fault: Exception | None = None) -> None:
        self.seen, self.fault = seen, fault

    def go_over(self, number: int, stays: object) -> bool:
        del stays
        if self.fault is not None and number == 2:
            raise self.fault
        self.seen.append(number)
        return True


def test_fault_of_one_worker_is_the_pools() -> None:
    """It is raised where the workers were sent out; what was not begun stays undone."""
    seen: list[int] = []
    pool = WorkerPool(wanted=2, done=lambda: None)
    with pytest.raises(ValueError, match="broken"):
        pool.work(range(100), lambda: Steady(seen, ValueError("broken")))
    assert {0, 1} <= set(seen)
    assert len(seen) < 100
    assert pool.workers == []


# ─── tried again ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def poisoned(empty_database: Database) -> Iterator[Database]:
    """Rows 3 and 7 of ten can't take the value that the source has for them."""
    table(empty_database, rows=10)
    empty_database.script("INSERT INTO s VALUES (9, 'poison'); UPDATE t SET k = 9 WHERE id IN (3, 7)")
    if empty_database.dialect == "sqlite":
        empty_database.script("""CREATE TRIGGER no BEFORE UPDATE ON t WHEN new.v = 'poison'
            BEGIN SELECT raise(ABORT, 'no poison here'); END""")
    else:
        empty_database.script("ALTER TABLE t ADD CONSTRAINT no CHECK (v <> 'poison')")
    yield empty_database


def test_rows_set_aside_are_tried_again(poisoned: Database) -> None:
    """Once they can be written they are, by the same pass; the counters don't count them twice. F: B15"""
    step = simple(dead_letters={"max": 5, "pct": 100}, triggers="acknowledged")
    trial = Trial(poisoned, step)
    result, _ = run(trial)
    assert (result.written, result.dead, result.visited) == (8, 2, 10)
    assert reopened(trial) == 2
    assert trial.state() is State.PARTLY
    result, _ = run(trial)
    assert (result.written, result.dead, result.deferred, result.visited) == (8, 2, 0, 10)
    name = ledger_table("skipped_row", trial_dialect(poisoned))
    assert poisoned.rows(f"SELECT attempt FROM {name} ORDER BY key") == [(2,), (2,)]

    poisoned.script("UPDATE s SET v = 'cured' WHERE k = 9")
    assert reopened(trial) == 2
    result, _ = run(trial)
    assert (result.written, result.dead, result.deferred, result.visited) == (10, 0, 0, 10)
    assert adds_up(result)
    assert poisoned.rows("SELECT v FROM t WHERE id IN (3, 7)") == [("cured",), ("cured",)]
    assert trial.state() is State.DONE
    assert reopened(trial) == 0
    trial.revert()
    assert poisoned.rows("SELECT count(*) FROM t WHERE v IS NOT NULL") == [(0,)]


PLAYBOOK = """
runbook: 1
name: fill
title: Fill
steps:
  - id: fill
    type: backfill
    table: t
    source: SELECT k, v FROM s
    match: source.k = target.k
    fill: [v]
    triggers: acknowledged
    dead_letters: {max: 5, pct: 100}
    success_criteria: [{id: none_dead, that: dead <= 2}]
"""


def test_resume_dead_is_the_operators_way_back(poisoned: Database, tmp_path: Path) -> None:
    """`runbook resume RUN --dead`: also of a run that has succeeded; where nothing was set aside it says so. F: B15"""
    desk = Cli(tmp_path, poisoned.url)
    done = desk.runbook("exec", desk.playbook("fill", PLAYBOOK))
    assert done.code == 0, done.text
    poisoned.script("UPDATE s SET v = 'cured' WHERE k = 9")
    done = desk.runbook("resume", "latest", "--dead")
    assert done.code == 0, done.text
    assert "2 rows that were set aside are tried again" in done.text
    assert poisoned.rows("SELECT count(*) FROM t WHERE v IS NULL") == [(0,)]
    again = desk.runbook("resume", "latest", "--dead")
    assert again.code != 0
    assert "has set no row aside" in again.text
    assert "are tried again" in desk.runbook("report", "latest").text
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
    assert poisoned.rows("SELECT count(*) FROM t WHERE v IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("point", ["commit.before:9", "commit.after:9", "commit.before:11", "commit.after:10"])
def test_killed_while_trying_again(poisoned: Database, tmp_path: Path, point: str) -> None:
    """kill -9 while rows are tried again: a plain resume ends it, and nothing is counted twice. F: E01"""
    desk = Cli(tmp_path, poisoned.url)
    assert desk.runbook("exec", desk.playbook("fill", PLAYBOOK)).code == 0
    poisoned.script("UPDATE s SET v = 'cured' WHERE k = 9")
    desk.runbook("resume", "latest", "--dead", fault=point)
    for _ in range(3):
        if poisoned.rows("SELECT count(*) FROM t WHERE v IS NULL") == [(0,)]:
            break
        desk.runbook("resume", "latest")
        desk.runbook("resume", "latest", "--dead")
    assert poisoned.rows("SELECT count(*) FROM t WHERE v IS NULL") == [(0,)]
    name = ledger_table("batch", trial_dialect(poisoned))
    assert poisoned.rows(f"SELECT sum(seen), sum(dead), sum(deferred) FROM {name}") == [(10, 0, 0)]


def reopened(trial: Trial) -> int:
    from filling import Watched
    from plain_context import PlainDatabase

    from steps.contract import RunPosition

    database = PlainDatabase(trial.target, RunPosition(trial.run, "step", "apply"))
    with database.look() as look:
        rows = trial.step.aside(look)
    if rows:
        trial.step.reopen(Watched(database))
    return rows
