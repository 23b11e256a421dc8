"""How fast a pass was, by the ledger: with its rests, without the time in which no process was at it."""

from __future__ import annotations

import re
import time

import pytest
from databases import Database
from filling import Watched, at_work, ledger, simple, table
from plain_context import PlainDatabase, Trial

from steps.contract import Paused, Progress, RunPosition, Stopped, Tuning
from steps.types.backfill import store
from steps.types.backfill.step import BackfillResult

ROWS = 6000
RESTING = {"traffic": 0, "batch": "10 ms", "rest": 4}
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)


def started(database: Database, **words: object) -> tuple[Trial, Watched]:
    """A pass of some 30 batches or more, and a context to apply it in."""
    table(database, rows=ROWS)
    trial = Trial(database, simple(batch={"time": "250 ms", "rows": [20, 20]}, **words))
    return trial, Watched(PlainDatabase(database, RunPosition(trial.run, "step", "apply")))


@on_18
@pytest.mark.parametrize("workers", [1, 2])
def test_rests_are_part_of_it(empty_database: Database, workers: int) -> None:
    """A criterion on rows_per_second, or a window, would be met on paper only."""
    trial, context = started(empty_database, throttle=RESTING, workers=workers)
    with at_work(empty_database):
        time.sleep(0.3)  # until it is seen
        began = time.monotonic()
        result = trial.step.apply(context)
        took = time.monotonic() - began
    assert isinstance(result, BackfillResult)
    working = empty_database.value("SELECT sum(ms) / 1000 FROM runbook.batch")
    assert 1.5 * working < result.seconds < took
    assert result.rows_per_second == pytest.approx(ROWS / result.seconds, rel=0.01)


@on_18
@pytest.mark.parametrize(("asked", "at_rest"), [(None, 80), (0.25, 20), (0.0, 0)])
def test_operator_says_how_long_it_rests(empty_database: Database, asked: float | None, at_rest: float) -> None:
    """And the live line and status say what that comes to."""
    trial, context = started(empty_database, throttle=RESTING)
    context.tuning = Tuning(rest=asked)
    with at_work(empty_database):
        time.sleep(0.3)
        trial.step.apply(context)
    told = {one.figures["at_rest_pct"] for one in context.seen if "gently beside" in one.note}
    assert at_rest in told
    assert all(("at rest" in one.note) is (one.figures["at_rest_pct"] > 0) for one in context.seen)


@on_18
def test_forecast_at_a_pause_counts_on_rests(empty_database: Database) -> None:
    trial, context = started(empty_database, throttle=RESTING, pause_after={"written": ROWS // 2})
    with at_work(empty_database), pytest.raises(Paused) as paused:
        time.sleep(0.3)
        trial.step.apply(context)
    said = re.search(r"visited in ([\d.]+) s .* take about ([\d.]+) s", str(paused.value))
    assert said, paused.value
    working = empty_database.value("SELECT sum(ms) / 1000 FROM runbook.batch")
    assert float(said[1]) > 1.5 * working
    assert float(said[2]) == pytest.approx(float(said[1]), rel=0.2, abs=0.1)


def test_time_between_two_processes_is_not(empty_database: Database) -> None:
    """The second half by another process, a day later. F: E07"""
    trial, context = started(empty_database)
    result = trial.step.apply(context)
    assert isinstance(result, BackfillResult)
    day = "at + interval '1 day'"
    if empty_database.dialect == "sqlite":
        day = "strftime('%Y-%m-%dT%H:%M:%fZ', at, '+1 day')"
    batch, act = ledger(empty_database, "batch"), ledger(empty_database, "step_commit")
    later = f"n > (SELECT max(n) / 2 FROM {batch})"
    empty_database.script(f"UPDATE {batch} SET at = {day} WHERE {later}")
    empty_database.script(
        f"UPDATE {act} SET epoch = 2 WHERE label IN (SELECT 'batch ' || n FROM {batch} WHERE {later})"
    )
    with context.db.look() as look:
        assert (
            0.3 * result.seconds < store.seconds(look, RunPosition(trial.run, "step", "apply")) <= result.seconds + 0.01
        )


@on_18
def test_way_back_rests_as_the_step_says(empty_database: Database) -> None:
    """By its own throttle, not by the default one."""
    trial, context = started(empty_database, throttle=RESTING)
    trial.step.apply(context)
    with at_work(empty_database):
        time.sleep(0.3)
        began = time.monotonic()
        trial.revert()
        took = time.monotonic() - began
    assert took > 2.5 * empty_database.value("SELECT sum(ms) / 1000 FROM runbook.batch WHERE action = 'revert'")


@on_18
def test_rest_on_the_way_back_is_no_obstacle_to_stopping(empty_database: Database) -> None:
    """There are safe points within it too."""
    trial, context = started(empty_database, throttle={**RESTING, "rest": 100})
    trial.step.apply(context)
    seen: list[int] = []

    def stop_within_a_rest(told: Progress) -> None:
        if told.done and told.done in seen:
            raise Stopped("somebody wants it")
        seen.append(told.done)

    with at_work(empty_database), pytest.raises(Stopped):
        time.sleep(0.3)
        trial.revert(Watched(trial.database("revert"), act=stop_within_a_rest))
