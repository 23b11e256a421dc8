"""A backfill beside an application at full speed: the table equals what the single UPDATE and the application's work give."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from command import Cli
from databases import Database
from filling import (
    batches,
    changed,
    checksum,
    counting,
    fill_stock,
    proves_each_batch_once,
    proves_each_row_once,
    proves_exact_figures,
    run,
    simple,
    stock,
    table,
    undo_keys,
    updated,
)
from inside import InProcessCli, session, until
from plain_context import Trial

from steps.contract import Progress

pytestmark = pytest.mark.newest

ROWS, LEAST = 2000, 25  # LEAST: rows of a batch
BRISKLY = (
    "    throttle: {rest: 1}\n"  # the default one rests so long that a busy machine needs minutes for some of these
)
PARTS = 5  # the application's threads share the rows by a digit of their keys, so that what they did can be said
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_postgresql = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)


# ─── the application ────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass
class Application:
    """Threads that write to t without a pause. outcome: what became of a row, as a statement on `twin`, by its key."""

    database: Database
    ended: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    notes: Counter[int] = field(default_factory=Counter)
    moved: dict[int, int] = field(default_factory=dict)
    rate: float = 2.0  # of rows that come between the others, for each row that the pass visits
    outcome: dict[int, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def at_work(self, *kinds: str) -> Iterator[None]:
        """Within: each kind of work in a thread with a connection of its own."""
        with ThreadPoolExecutor(len(kinds)) as pool:
            working = [pool.submit(self._work, kind) for kind in kinds]
            try:
                yield
            finally:
                self.ended.set()
            for one in working:
                one.result(300)

    def _work(self, kind: str) -> None:
        turn: Callable[[Any, int, random.Random], None] = getattr(self, kind)
        chance = random.Random(kind)
        with contextlib.closing(self.database.connect()) as connection:
            sqlite = self.database.dialect == "sqlite"
            settings = (
                "PRAGMA busy_timeout = 60000" if sqlite else "SET default_transaction_isolation = 'read committed'"
            )
            connection.execute(settings)
            while not self.ended.is_set():
                turn(connection, self.done[kind], chance)
                self.done[kind] += 1

    def inserts(self, connection: Any, turn: int, chance: random.Random) -> None:
        """Behind all other keys; twice as many as the pass visits."""
        until(lambda: 2 * LEAST * batches(self.database, connection) >= turn * 50 or self.ended.is_set())
        self._insert(connection, chance, [10**9 + turn * 50 + n for n in range(50)])

    def between(self, connection: Any, turn: int, chance: random.Random) -> None:
        """Between the other keys, so also in front of the pass; so many for each row of it."""
        until(lambda: self.rate * LEAST * batches(self.database, connection) >= turn * 50 or self.ended.is_set())
        numbers = range(turn * 50, turn * 50 + 50)
        self._insert(connection, chance, [1000 * (n * 7919 % ROWS) + 1 + n // ROWS for n in numbers])

    def fills(self, connection: Any, turn: int, chance: random.Random) -> None:
        """A value that we would fill."""
        key = self._key(0, chance)
        connection.execute(f"UPDATE t SET v = 'app' WHERE id = {key}")
        self.outcome[key] = f"UPDATE twin SET v = 'app' WHERE id = {key}"

    def updates(self, connection: Any, turn: int, chance: random.Random) -> None:
        """A column that is none of ours."""
        key = self._key(1, chance)
        connection.execute(f"UPDATE t SET note = note + 1 WHERE id = {key}")
        self.notes[key] += 1
        self.outcome[key] = f"UPDATE twin SET note = {self.notes[key]} WHERE id = {key}"

    def deletes(self, connection: Any, turn: int, chance: random.Random) -> None:
        """Again and again, because another row gets the key in between."""
        key = self._key(2, chance)
        connection.execute(f"DELETE FROM t WHERE id = {key}")
        connection.execute(f"INSERT INTO t VALUES ({key}, NULL, NULL, NULL, -1, NULL)")
        self.outcome[key] = f"DELETE FROM twin WHERE id = {key}"

    def moves(self, connection: Any, turn: int, chance: random.Random) -> None:
        """To any key between the others, so before or behind the pass, and never beyond its end."""
        key = self._key(3, chance)
        before, after = self.moved.get(key, key), 1000 * (turn * 7919 % ROWS) + 500 + turn // ROWS
        connection.execute(f"UPDATE t SET id = {after} WHERE id = {before}")
        self.moved[key] = after
        self.outcome[key] = f"UPDATE twin SET id = {after} WHERE id = {key}"

    def _insert(self, connection: Any, chance: random.Random, keys: list[int]) -> None:
        values = ", ".join(f"({key}, NULL, NULL, {chance.randint(0, 239)}, -1, NULL)" for key in keys)
        connection.execute(f"INSERT INTO t VALUES {values}")

    def _key(self, part: int, chance: random.Random) -> int:
        return 1000 * (1 + part + PARTS * chance.randrange(ROWS // PARTS))


# ─── what must be so ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    stock(empty_database, rows=ROWS)
    return InProcessCli(tmp_path, empty_database.url)


@contextlib.contextmanager
def running(desk: Cli, database: Database) -> Iterator[subprocess.Popen[str]]:
    """The backfill in a process of its own, from its first batch on; it ends well."""
    with counting(database) as batch, desk.start("exec", "fill.yaml") as process:
        try:
            until(lambda: batch() or process.poll() is not None)
            yield process
            assert process.wait(300) == 0, process.stdout.read()
        finally:
            process.kill()


def beside(desk: InProcessCli, database: Database, *kinds: str, rate: float = 2.0) -> Application:
    """Run the playbook, and the application from the first batch to the end."""
    application = Application(database, rate=rate)
    with running(desk, database) as process, application.at_work(*kinds):
        process.wait(300)
    assert set(application.done) == set(kinds)
    return application


def proves_the_same(database: Database, application: Application) -> None:
    """Every row that was there is as the single UPDATE and the application left it; a new one is as it came, or filled."""
    updated(database)
    with contextlib.closing(database.connect()) as connection:
        for one in ("BEGIN", *application.outcome.values(), "COMMIT"):
            connection.execute(one)
    database.script("CREATE TABLE found AS SELECT * FROM t WHERE note >= 0")
    assert database.rows("SELECT id, v, w, k, note FROM found EXCEPT SELECT id, v, w, k, note FROM twin") == []
    assert checksum(database, "found") == checksum(database, "twin")
    wrong = "(t.v IS NOT NULL AND t.v IS DISTINCT FROM s.v) OR (t.w IS NOT NULL AND t.w IS DISTINCT FROM s.w)"
    assert database.rows(f"SELECT * FROM t LEFT JOIN s ON s.k = t.k WHERE t.note = -1 AND ({wrong})") == []
    proves_each_batch_once(database)


@on_18
@pytest.mark.parametrize(
    ("kind", "order"),
    [
        ("inserts", "auto"), ("inserts", "key"), ("between", "key"), ("moves", "auto"), ("moves", "key"),
        ("fills", "auto"), ("updates", "auto"), ("deletes", "key"),
    ],
)  # fmt: skip
def test_backfill_beside_one_kind_of_traffic(
    desk: InProcessCli, empty_database: Database, kind: str, order: str
) -> None:
    """F: B03 F: B12 F: C05 F: H07"""
    desk.playbook("fill", fill_stock(order=order, more=BRISKLY))
    application = beside(desk, empty_database, kind)
    proves_the_same(empty_database, application)
    if kind in ("inserts", "between"):
        assert application.done[kind] * 50 > 1.9 * ROWS  # twice the backfill's speed


@pytest.mark.parametrize("order", ["auto", "key"])
def test_backfill_beside_all_traffic(desk: InProcessCli, empty_database: Database, order: str) -> None:
    """Also on SQLite, where each of them waits for the others. F: B03 F: B12 F: C05 F: H07 F: J01"""
    desk.playbook("fill", fill_stock(order=order, more=BRISKLY))
    new = "inserts" if empty_database.dialect == "sqlite" else "between"
    application = beside(desk, empty_database, new, "fills", "updates", "deletes", "moves", rate=0.25)
    proves_the_same(empty_database, application)


# ─── what moves and what comes while the pass looks for what it missed ──────────────────────────────────────────────
def test_rows_that_go_on_moving_are_reached(empty_database: Database) -> None:
    """They get another key between the query that finds them missed and the batch that would fill them. F: B12"""
    table(empty_database, rows=600)
    turns = count(1)

    def move(progress: Progress) -> None:
        # behind the pass after its first batch, and each time it looks for them to a key that comes earlier as a text
        turn = next(turns) if progress.done in (100, 550) else 9
        if turn < 6:
            empty_database.script(f"UPDATE t SET id = -{9 - turn}000 - abs(id) % 1000 WHERE v IS NULL AND id % 10 = 0")

    step = simple(order="key", batch={"time": "250 ms", "rows": [100, 100]})
    result, _ = run(Trial(empty_database, step), move)
    unfilled = empty_database.value("SELECT count(*) FROM t WHERE v IS NULL")
    assert (unfilled, result.left) == (0, 0)


@on_postgresql
def test_row_that_moves_while_it_is_locked_is_reached(empty_database: Database) -> None:
    """The sweep finds it locked by who gives it another key; when it is returned to, that key has gone. F: B12"""
    table(empty_database, rows=600)
    deferred = "SELECT count(*) FROM runbook.skipped_row WHERE action = 'deferred'"
    with session(empty_database, "SELECT 1") as other, ThreadPoolExecutor(1) as pool:
        committed: list[Future[None]] = []

        def commit() -> None:
            until(lambda: empty_database.value(deferred))
            other.commit()

        def move(progress: Progress) -> None:
            if progress.done == 100:  # behind the pass
                empty_database.script("UPDATE t SET id = -1000 - id WHERE id = (SELECT max(id) FROM t WHERE v IS NULL)")
            elif progress.done == 599 and not committed:
                other.execute("UPDATE t SET id = id - 1000 WHERE id < -1000")
                committed.append(pool.submit(commit))

        result, _ = run(Trial(empty_database, simple(order="key", batch={"time": "250 ms", "rows": [100, 100]})), move)
        committed[0].result()
    unfilled = empty_database.value("SELECT count(*) FROM t WHERE v IS NULL")
    assert (unfilled, result.left, result.deferred) == (0, 0, 0)


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_resume_reaches_what_came_too_fast(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows come faster than the sweep can list them, it ends and says how many it left; resume goes on. F: B03"""
    monkeypatch.setattr("steps.types.backfill.passes.AT_ONCE", 150)
    table(empty_database, rows=600)
    empty_database.script("UPDATE t SET id = id * 1000")
    keys = count(1)

    def insert(_: Progress) -> None:
        values = ", ".join(f"({n * 7919 % 600 * 1000 + 1 + n // 600}, NULL, 1)" for n in islice(keys, 200))
        empty_database.script(f"INSERT INTO t (id, v, k) VALUES {values}")

    trial = Trial(empty_database, simple(order="key", batch={"time": "250 ms", "rows": [100, 100]}))
    first, _ = run(trial, insert)
    assert first.left > 0
    monkeypatch.undo()
    again, _ = run(trial)
    assert again.left == 0
    assert empty_database.value("SELECT count(*) FROM t WHERE v IS NULL") == 0


# ─── locks ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("empty_database", "order"), [("pg15", "auto"), ("pg18", "key")], indirect=["empty_database"])
def test_rows_locked_in_every_batch_are_not_lost(desk: InProcessCli, empty_database: Database, order: str) -> None:
    """The cursor goes over hundreds of locked rows; each is returned to. F: B13"""
    desk.playbook("fill", fill_stock(order=order, head="lock: {wait: 1 ms}\n", more=BRISKLY))
    deferred = "SELECT count(*) FROM runbook.skipped_row WHERE action = 'deferred'"
    with (
        session(
            empty_database, "SELECT id FROM t WHERE id % 5000 = 2000 AND (v IS NULL OR w IS NULL) FOR UPDATE"
        ) as rows,
        running(desk, empty_database) as process,
    ):
        until(lambda: empty_database.value(deferred) > 200 or process.poll() is not None)
        rows.rollback()
    assert checksum(empty_database, "t") == updated(empty_database)
    proves_exact_figures(empty_database, rows=ROWS)
    assert empty_database.value(deferred) == 0


FAMILY = """CREATE TABLE p (id integer PRIMARY KEY, n integer NOT NULL); INSERT INTO p SELECT i, 0 FROM generate_series(1, 200) i;
    UPDATE s SET w = NULLIF(k, 0); UPDATE was SET w = NULL WHERE w < 0; UPDATE t SET w = NULL WHERE w < 0;
    ALTER TABLE t ADD FOREIGN KEY (w) REFERENCES p;"""


@on_18
@pytest.mark.parametrize(
    ("wait", "workers"), [("50 ms", 1), ("10 s", 1), ("50 ms", 4), pytest.param("10 s", 4, marks=pytest.mark.soak)]
)
def test_application_that_locks_in_another_order(
    desk: InProcessCli, empty_database: Database, wait: str, workers: int
) -> None:
    """Parents before children, children backwards. With a short wait we always give way; with a long one the server ends
    a transaction of ours, and it is tried again. The application loses none of its own. F: C03 F: C13 F: C16
    """
    name = empty_database.name
    empty_database.script(FAMILY)
    empty_database.script(f"ALTER DATABASE {name} SET deadlock_timeout = '30ms'")
    desk.playbook("fill", fill_stock(workers=workers, head=f"lock: {{wait: {wait}}}\n", more=BRISKLY))
    with (
        running(desk, empty_database) as process,
        session(empty_database, "SET deadlock_timeout = '60s'") as connection,
    ):
        connection.commit()
        chance, committed = random.Random(1), 0
        while process.poll() is None:
            connection.execute("SELECT 1 FROM p WHERE id = ANY(%s) FOR UPDATE", [chance.sample(range(1, 200), 20)])
            for key in sorted(chance.sample(range(1, ROWS + 1), 20), reverse=True):
                connection.execute("UPDATE t SET note = note + 1 WHERE id = %s", [1000 * key])
            connection.commit()
            committed += 1
    assert committed > 0
    assert empty_database.value("SELECT sum(note) FROM t") == 20 * committed
    empty_database.script("UPDATE t SET note = 0")
    assert checksum(empty_database, "t") == updated(empty_database)
    proves_each_row_once(empty_database)
    assert len(undo_keys(empty_database)) == changed(empty_database)


@on_postgresql
def test_serialization_failures_are_tried_again(desk: InProcessCli, empty_database: Database) -> None:
    """Where every transaction is serializable by default, ours is refused by what the application does. F: C06"""
    empty_database.script(f"ALTER DATABASE {empty_database.name} SET default_transaction_isolation = 'serializable'")
    desk.playbook("fill", fill_stock(more=BRISKLY))
    application = beside(desk, empty_database, "fills", "updates")
    proves_the_same(empty_database, application)
