"""Short batches beside others at work: many in one message, and as sure as each alone."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import KILLED
from databases import Database
from filling import (
    Watched,
    at_work,
    counting,
    fill_stock,
    proves_all,
    simple,
    stock,
    table,
)
from inside import InProcessCli, until
from plain_context import PlainDatabase, Trial

from steps.contract import Paused, RunPosition
from steps.types.backfill.step import BackfillResult

pytestmark = pytest.mark.newest

ROWS = 20_000
BUSY = "    throttle: {traffic: 0, batch: 10 ms, rest: 0}\n"
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'runbook:%fill'"


# ─── which ones are sent together ───────────────────────────────────────────────────────────────────────────────────
def sent(database: Database, **words: object) -> tuple[BackfillResult | None, list[int]]:
    """A pass over 6,000 rows beside somebody at work: what it came to (None: it paused), how many batches were sent at once."""
    table(database, rows=6000)
    gentle = {"traffic": 0, "batch": "10 ms", "rest": 0}
    step = simple(**{"batch": {"time": "250 ms", "rows": [20, 20]}, "throttle": gentle, **words})
    trial = Trial(database, step)
    plain = PlainDatabase(database, RunPosition(trial.run, "step", "apply"))
    result = None
    with at_work(database), contextlib.suppress(Paused):
        time.sleep(0.3)
        applied = step.apply(Watched(plain))
        assert isinstance(applied, BackfillResult)
        result = applied
    return result, plain.together


@on_postgresql
def test_short_batches_are_sent_together(empty_database: Database) -> None:
    result, together = sent(empty_database)
    assert result is not None and (result.visited, result.written, result.left) == (6000, 6000, 0)
    assert max(together) > 10
    assert sum(together) <= empty_database.value("SELECT count(*) FROM runbook.batch")


@on_18
def test_batches_in_another_order_go_alone(empty_database: Database) -> None:
    """Where one begins is known only when the one before has ended."""
    result, together = sent(empty_database, order="key")
    assert (result.written if result else 0, together) == (6000, [])


@on_18
def test_up_to_a_gate_they_go_alone(empty_database: Database) -> None:
    """It stops at the row that was asked for."""
    result, together = sent(empty_database, pause_after={"written": 3000})
    assert (result, together) == (None, [])
    assert empty_database.value("SELECT sum(written) FROM runbook.batch") == 3000


# ─── by the real command ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    return stocked(empty_database, tmp_path, rows=ROWS)


def stocked(database: Database, directory: Path, *, rows: int) -> InProcessCli:
    stock(database, rows=rows)
    found = InProcessCli(directory, database.url)
    found.playbook("fill", fill_stock(more=BUSY))
    assert found.runbook("target", "init").code == 0
    # all transactions of a message begin when it comes
    database.script("ALTER TABLE runbook.batch ADD COLUMN message timestamptz DEFAULT now()")
    return found


def messages(database: Database) -> tuple[int, int]:
    """How many batches there were, and in how many messages."""
    [found] = database.rows("SELECT count(*), count(DISTINCT message) FROM runbook.batch WHERE worker >= 0")
    return found


def proves(desk: InProcessCli, database: Database, *, rows: int = ROWS) -> None:
    """Many were sent at once, and all is as by the single UPDATE."""
    batches, sent = messages(database)
    assert batches > 4 * sent
    proves_all(desk, database, rows=rows)


@contextlib.contextmanager
def beside(database: Database) -> Iterator[None]:
    """Within: somebody is at work, and has been seen."""
    with at_work(database, 1000):
        time.sleep(0.3)
        yield


@on_postgresql
def test_many_at_once_are_as_the_single_update(desk: InProcessCli, empty_database: Database) -> None:
    """F: B03 F: E05"""
    with beside(empty_database):
        found = desk.runbook("exec", "fill.yaml")
    assert found.code == 0, found.text
    longer = (
        "SELECT message FROM runbook.batch GROUP BY 1 HAVING sum(ms) > 1000 * extract(epoch FROM max(at) - message)"
    )
    assert empty_database.rows(longer) == []  # each has its own time, and not that of those before it
    proves(desk, empty_database)


@on_18
def test_two_workers_send_theirs(desk: InProcessCli, empty_database: Database) -> None:
    """F: C13"""
    desk.playbook("fill", fill_stock(more=BUSY, workers=2))
    with beside(empty_database):
        found = desk.runbook("exec", "fill.yaml")
    assert found.code == 0, found.text
    proves(desk, empty_database)


@on_18
def test_row_at_fault_among_many(desk: InProcessCli, empty_database: Database) -> None:
    """Those before it are committed, it is found and set aside alone, and all others are filled."""
    empty_database.script("""UPDATE t SET v = NULL, k = 1 WHERE id IN (5000000, 15000000);
        ALTER TABLE t ADD CONSTRAINT not_these CHECK (v IS NULL OR id NOT IN (5000000, 15000000))""")
    desk.playbook(
        "fill", fill_stock(more=f"{BUSY}    dead_letters: {{max: 2, pct: 100}}\n").replace(" and dead == 0", "")
    )
    with beside(empty_database):
        found = desk.runbook("exec", "fill.yaml")
    assert found.code == 0, found.text
    batches, sent = messages(empty_database)
    assert batches > 4 * sent
    dead = "SELECT key FROM runbook.skipped_row WHERE action = 'apply' ORDER BY key"
    assert [json.loads(key) for (key,) in empty_database.rows(dead)] == [["15000000"], ["5000000"]]
    sums = "SELECT sum(seen), sum(written + already + no_key + not_in_source + dead) FROM runbook.batch"
    assert empty_database.rows(sums) == [(ROWS, ROWS)]
    unfilled = """SELECT count(*) FROM t JOIN s ON s.k = t.k WHERE t.id NOT IN (5000000, 15000000)
        AND ((t.v IS NULL AND s.v IS NOT NULL) OR (t.w IS NULL AND s.w IS NOT NULL))"""
    assert empty_database.value(unfilled) == 0


@on_18
def test_source_with_two_rows_for_a_key_among_many(desk: InProcessCli, empty_database: Database) -> None:
    """Nobody looks before COMMIT, so the server refuses it; the batch that goes alone says why."""
    empty_database.script("""ALTER TABLE s DROP CONSTRAINT s_pkey; INSERT INTO s VALUES (777, 'one', 1);
        UPDATE t SET v = NULL, w = NULL, k = 777 WHERE ctid > '(250,0)' AND id % 40000 = 0""")
    with beside(empty_database), counting(empty_database) as count, desk.start("exec", "fill.yaml") as process:
        until(lambda: count() > 60 or process.poll() is not None)
        empty_database.script("INSERT INTO s VALUES (777, 'two', 2)")
        process.wait(300)
        assert "the source has more than one row for a key" in process.stdout.read()
    batches, sent = messages(empty_database)
    assert batches > 4 * sent
    assert empty_database.value("SELECT count(*) FROM t WHERE k = 777 AND (v = 'two' OR w = 2)") == 0


@on_18
def test_row_that_is_held_is_returned_to(desk: InProcessCli, empty_database: Database) -> None:
    """F: B13"""
    desk.playbook("fill", fill_stock(more=BUSY, head="lock: {wait: 20 ms}\n"))
    held = empty_database.connect()
    with contextlib.closing(held), beside(empty_database), desk.start("exec", "fill.yaml") as process:
        held.execute("BEGIN")
        held.execute("SELECT 1 FROM t WHERE id % 1000000 = 0 AND (v IS NULL OR w IS NULL) FOR UPDATE")
        deferred = "SELECT count(*) FROM runbook.skipped_row WHERE action = 'deferred'"
        until(lambda: empty_database.value(deferred) > 5 or process.poll() is not None)
        held.execute("ROLLBACK")
        assert process.wait(300) == 0, process.stdout.read()
    proves(desk, empty_database)


# ─── whatever ends it ───────────────────────────────────────────────────────────────────────────────────────────────
@on_18
def test_killed_between_and_within_messages(desk: InProcessCli, empty_database: Database) -> None:
    """What the server was sent it goes on with, until the next run takes the lease. F: E01 F: E05 F: C08"""
    survives(desk, empty_database, rows=ROWS, kills=4)


@pytest.mark.soak
@on_postgresql
def test_killed_very_often_within_messages(empty_database: Database, tmp_path: Path) -> None:
    """The same on a larger table. F: E01 F: E05 F: C08"""
    survives(stocked(empty_database, tmp_path, rows=200_000), empty_database, rows=200_000, kills=60)


def survives(desk: InProcessCli, database: Database, *, rows: int, kills: int) -> None:
    """So many deaths, then one command to the end."""
    chance, left = random.Random(5), kills
    with beside(database), counting(database) as count:
        command = ("exec", "fill.yaml")
        while left:
            wanted = count() + chance.randint(3, 60)
            with desk.start(*command) as process:
                until(lambda wanted=wanted, process=process: count() >= wanted or process.poll() is not None)
                process.kill()
            assert process.returncode == KILLED
            command, left = ("resume", "latest"), left - 1
        done = desk.runbook(*command)
    assert done.code == 0, done.text
    proves(desk, database, rows=rows)


@on_18
def test_backends_terminated_within_messages(desk: InProcessCli, empty_database: Database) -> None:
    """F: C01"""
    chance = random.Random(3)
    with beside(empty_database), counting(empty_database) as count, desk.start("exec", "fill.yaml") as process:
        for _ in range(5):
            wanted = count() + chance.randint(20, 90)
            until(lambda wanted=wanted: count() >= wanted or process.poll() is not None)
            empty_database.rows(ENDED)
        assert process.wait(300) == 0, process.stdout.read()
    proves(desk, empty_database)


@on_18
def test_rest_is_no_obstacle_to_stopping(desk: InProcessCli, empty_database: Database) -> None:
    """A rest of a minute ends when somebody wants the run to stop."""
    desk.playbook("fill", fill_stock(more=BUSY.replace("rest: 0", "rest: 100")))
    with beside(empty_database), counting(empty_database) as count, desk.start("exec", "fill.yaml") as process:
        until(lambda: count() > 1 or process.poll() is not None)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) != 0
    assert 0 < messages(empty_database)[0] < ROWS / 25
