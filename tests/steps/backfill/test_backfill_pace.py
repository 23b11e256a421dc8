"""What a backfill does about others: which of its joins suit a batch, and how gently it goes while somebody works."""

from __future__ import annotations

import time

import pytest
from databases import Database
from filling import at_work, simple, table
from plain_context import PlainDatabase, Trial

from steps.contract import RunPosition, Tuning
from steps.types.backfill.planner import JOINS, LOOKUP, JoinChoice, joining
from steps.types.backfill.ranges import begin, window
from steps.types.backfill.throttle import Pace, Throttle

PLACE = RunPosition("run", "step", "apply")
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)


def joined(database: Database) -> JoinChoice:
    """As for the first batch of `simple`."""
    step = simple()
    with PlainDatabase(database, PLACE).look() as look:
        shape = step._shape(look)
        route = step._route(look, shape)
        start = begin(look, shape, route)
        part = start.ranges[0]
        return joining(look, shape, window(shape, route, part, lo=part.lo, start=start, rows=1000))


# ─── joins ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_postgresql
def test_large_source_is_looked_up_and_small_one_read(empty_database: Database) -> None:
    table(empty_database, rows=2000)
    empty_database.script("INSERT INTO s SELECT i, 'v' FROM generate_series(3, 10000) i; ANALYZE s; ANALYZE t")
    found = joined(empty_database)
    assert found.indexed and found.off == ()
    assert found.off_for(10_000 // LOOKUP - 100) == JOINS
    assert found.off_for(10_000 // LOOKUP + 100) == ()


@on_postgresql
def test_source_without_an_index_is_always_read(empty_database: Database) -> None:
    table(empty_database, rows=2000)
    empty_database.script(
        "ALTER TABLE s DROP CONSTRAINT s_pkey; INSERT INTO s SELECT i, 'v' FROM generate_series(3, 10000) i"
    )
    empty_database.script("ANALYZE s; ANALYZE t")
    found = joined(empty_database)
    assert not found.indexed and found.off_for(10) == ()


@on_postgresql
def test_values_are_the_same_by_lookup(empty_database: Database) -> None:
    table(empty_database, rows=3000)
    empty_database.script("""INSERT INTO s SELECT i, 'v' || i FROM generate_series(3, 60000) i; ANALYZE s;
        UPDATE t SET k = id * 17; ANALYZE t""")
    result = Trial(empty_database, simple(batch={"time": "10 s", "rows": [200, 200]})).apply()
    assert result.written == result.visited == 3000
    assert empty_database.value("SELECT count(*) FROM t WHERE v IS DISTINCT FROM 'v' || k AND id <> 0") == 0


# ─── others at work ─────────────────────────────────────────────────────────────────────────────────────────────────
def looks(pace: Pace, *, until_busy: bool) -> None:
    end = time.monotonic() + 120
    while pace.busy is not until_busy:
        assert time.monotonic() < end
        pace.look(0)
        time.sleep(0.1)


@on_postgresql
def test_pass_is_gentle_only_while_others_work(empty_database: Database) -> None:
    table(empty_database, rows=10)
    pace = Pace(PlainDatabase(empty_database, PLACE), Throttle())
    assert (pace.seconds(0.25), pace.rest(0.02)) == (0.25, 0.0)
    with at_work(empty_database):
        looks(pace, until_busy=True)
        assert pace.seconds(0.25) == Throttle().batch == pytest.approx(0.015)
        assert pace.seconds(0.01) == 0.01
        assert (pace.rest(0.02), pace.at_rest) == (pytest.approx(0.02 * Throttle().rest), 0.9)
        pace.look(0, Tuning(rest=1.0))  # by a person, at night
        assert (pace.rest(0.02), pace.at_rest) == (0.02, 0.5)
    looks(pace, until_busy=False)
    assert (pace.seconds(0.25), pace.rest(0.02), pace.at_rest) == (0.25, 0.0, 0.0)


@on_postgresql
def test_batches_shrink_while_somebody_waits_for_a_lock(empty_database: Database) -> None:
    table(empty_database, rows=10)
    pace = Pace(PlainDatabase(empty_database, PLACE), Throttle())
    with empty_database.connect() as holder, at_work(empty_database):
        looks(pace, until_busy=True)
        holder.execute("BEGIN")
        holder.execute("SELECT 1 FROM t WHERE id = 1 FOR UPDATE")
        end = time.monotonic() + 120
        while pace.seconds(0.25) >= Throttle().batch and time.monotonic() < end:
            pace.look(0)
            pace.busy = True  # the only session at work waits now
            time.sleep(0.1)
        assert pace.seconds(0.25) < Throttle().batch
        holder.execute("COMMIT")


def test_sqlite_knows_no_others(empty_database: Database) -> None:
    if empty_database.server is None:
        pace = Pace(PlainDatabase(empty_database, PLACE), Throttle())
        pace.look(0)
        assert not pace.busy
