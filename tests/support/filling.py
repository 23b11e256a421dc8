"""The honeypot's backfill as the playbooks write it, and a context whose pulses a test can use to act as the application."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from command import Cli
from databases import DOCUMENTED, Database, described
from plain_context import PlainContext, PlainDatabase, Trial

from playbooks.demo.oracle import expected
from steps.contract import Progress, Query, RunPosition, Tuning
from steps.types.backfill.step import Backfill, BackfillResult

SHARED = Path(__file__).parents[2] / "playbooks" / "adr007-common.yaml"
QUERY = Query(name="snapshot_source", texts=yaml.safe_load(SHARED.read_text())["queries"]["snapshot_source"])
MATCH = """source.source_ip = coalesce(target.source_ip, target.enrichment -> 'session_metadata' ->> 'source_ip',
    target.enrichment -> 'dshield' -> 'ip' ->> 'number')"""
FILL = ["source_ip", "snapshot_asn", "snapshot_country", "snapshot_ip_type", "enrichment_at"]


def snapshots(**words: Any) -> Backfill:
    """The step `fill` of phase 3, with batches that are small enough to be several."""
    own = {"table": "session_summaries", "source": "snapshot_source", "match": MATCH, "fill": FILL}
    batch = {"batch": {"time": "250 ms", "rows": [100, 400]}}
    return Backfill.model_validate({**own, **batch, **words}, context={"queries": {"snapshot_source": QUERY}})


def backfill(**words: Any) -> Backfill:
    return Backfill.model_validate(words, context={"queries": {}})


def prepare(database: Database) -> None:
    """What phase 1 does before."""
    table = "ALTER TABLE session_summaries"
    if database.dialect == "sqlite":
        database.script(f"{table} RENAME COLUMN snapshot_ip_types TO snapshot_ip_type")
    else:
        database.script(f"{table} DROP COLUMN snapshot_ip_types; {table} ADD COLUMN snapshot_ip_type text")


def filled(database: Database) -> dict[str, tuple]:
    """The five columns by session, in the oracle's form."""
    at = (
        "enrichment_at"
        if database.dialect == "sqlite"
        else "to_char(enrichment_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
    )
    rows = database.rows(
        f"SELECT session_id, source_ip, snapshot_asn, snapshot_country, snapshot_ip_type, {at} FROM session_summaries"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def oracle(database: Database) -> dict[str, tuple]:
    wanted = expected(**described(database.store or DOCUMENTED))
    return {session: tuple(after) for session, after in wanted.rows.items()}


@dataclass
class Watched(PlainContext):
    """Calls `act` at each safe point, where the application gets its turn; keeps what was reported."""

    act: Callable[[Progress], None] = lambda _: None
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        self.seen: list[Progress] = []

    def pulse(self, progress: Progress) -> Tuning:
        self.seen.append(progress)
        self.act(progress)
        return self.tuning


def run(
    trial: Trial,
    act: Callable[[Progress], None] = lambda _: None,
    *,
    lock_timeout: str = "200ms",
    tuning: Tuning = Tuning(),
):
    """Apply with the application at work; (result, reports)."""
    database = PlainDatabase(trial.target, RunPosition(trial.run, "step", "apply"), lock_timeout=lock_timeout)
    context = Watched(database, act=act, tuning=tuning)
    result = trial.step.apply(context)
    assert isinstance(result, BackfillResult)
    return result, context.seen


def adds_up(result: BackfillResult) -> bool:
    parts = result.written + result.already + result.no_key + result.not_in_source + result.deferred + result.dead
    return result.visited == parts


def table(database: Database, *, rows: int) -> None:
    """t(id, v, k) with v to be filled from s(k, v)."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    database.script(f"""CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'one'), (2, NULL);
        CREATE TABLE t (id integer PRIMARY KEY, v text, k integer);
        INSERT INTO t (id, v, k) {numbers} SELECT i, NULL, 1 FROM n;""")


def simple(**words: Any) -> Backfill:
    return backfill(
        **{"table": "t", "source": "SELECT k, v FROM s", "match": "source.k = target.k", "fill": ["v"], **words}
    )


@contextlib.contextmanager
def at_work(database: Database, key: int = 1) -> Iterator[None]:
    """Within: somebody commits again and again, and changes nothing."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.closing(database.connect()) as connection:
            while not ended.wait(0.005):
                connection.execute(f"UPDATE t SET k = k WHERE id = {key}")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# ─── a table with every kind of row, and the single UPDATE beside it ────────────────────────────────────────────────
MISSING = "(t.v IS NULL AND s.v IS NOT NULL) OR (t.w IS NULL AND s.w IS NOT NULL)"
STOCK = """CREATE TABLE s (k integer PRIMARY KEY, v text, w integer);
    INSERT INTO s {numbers} SELECT i, CASE WHEN i % 7 > 0 THEN 'v' || i END, CASE WHEN i % 11 > 0 THEN i * 3 END FROM n WHERE i < 200;
    CREATE TABLE was (id bigint PRIMARY KEY NOT NULL, v text, w integer, k integer, note integer NOT NULL, filler text);
    INSERT INTO was {numbers} SELECT 1000 * i, CASE WHEN i % 5 = 0 THEN 'own' END, CASE WHEN i % 17 = 0 THEN -1 END,
        CASE WHEN i % 13 > 0 THEN i * 31 % 240 END, 0, substr('{filler}', 1, 200 + i % 90) FROM n ORDER BY i * 7919 % 10007, i;
    CREATE TABLE t (id bigint PRIMARY KEY NOT NULL, v text, w integer, k integer, note integer NOT NULL, filler text);
    INSERT INTO t SELECT * FROM was;"""
SINGLE = "UPDATE {name} AS t SET v = coalesce(t.v, s.v), w = coalesce(t.w, s.w) FROM s WHERE s.k = t.k AND ({missing})"
FILL_STOCK = """runbook: 1
name: fill
title: Fill two columns in many small batches
{head}steps:
  - id: fill
    type: backfill
    table: t
    source: SELECT k, v, w FROM s
    match: source.k = target.k
    fill: [v, w]
    order: {order}
    batch: {{time: {time}, rows: [{least}, {most}]}}
{more}    success_criteria:
      - {{id: all, that: visited == in_range and left == 0 and deferred == 0 and dead == 0}}
rollback: reverse
"""


def stock(database: Database, *, rows: int) -> None:
    """t(id, v, w, k, note, filler) with ids 1000, 2000, …, v and w to be filled from s; `was` stays as t is now.

    Some rows have both values or one, some no key, some a key that s doesn't have, some a source that is NULL. About
    25 rows lie on a page, and their keys in no order.
    """
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    database.script(STOCK.format(numbers=numbers, filler="x" * 290))


def fill_stock(
    *,
    order: str = "auto",
    time: str = "20 ms",
    rows: tuple[int, int] = (25, 25),
    workers: int = 1,
    head: str = "",
    more: str = "",
) -> str:
    """The playbook that fills it. head: more of the playbook, more: of the step, each as lines of their own."""
    several = f"    workers: {workers}\n" if workers > 1 else ""
    return FILL_STOCK.format(head=head, order=order, time=time, least=rows[0], most=rows[1], more=several + more)


def fill_stock_one_by_one(*, workers: int = 1) -> str:
    """Each batch in a message of its own, also while others work, as a test does that counts them."""
    return fill_stock(time="1 s", workers=workers, more="    throttle: {batch: 1 s, rest: 1}\n")


def updated(database: Database, *, given: str = "was") -> str:
    """The checksum of what the single UPDATE makes of these rows; it leaves them as `twin`."""
    database.script(f"DROP TABLE IF EXISTS twin; CREATE TABLE twin AS SELECT * FROM {given}")
    database.script(SINGLE.format(name="twin", missing=MISSING))
    return checksum(database, "twin")


def checksum(database: Database, name: str) -> str:
    """Of all rows of a table with all their columns, in the order of their keys."""
    if database.dialect == "postgresql":
        return database.value(f"SELECT md5(coalesce(string_agg(md5(r::text), '' ORDER BY id), '')) FROM {name} AS r")
    return hashlib.md5(repr(database.rows(f"SELECT * FROM {name} ORDER BY id")).encode()).hexdigest()


def changed(database: Database) -> int:
    """How many rows the single UPDATE changes."""
    return database.value("""SELECT count(*) FROM was JOIN twin ON was.id = twin.id
        WHERE was.v IS DISTINCT FROM twin.v OR was.w IS DISTINCT FROM twin.w""")


# ─── the ledger, read as anybody may ────────────────────────────────────────────────────────────────────────────────
def ledger(database: Database, name: str) -> str:
    """The name of one of the ledger's tables."""
    return f"runbook_{name}" if database.dialect == "sqlite" else f"runbook.{name}"


def batches(database: Database, connection: Any) -> int:
    """How many batches are committed by now, asked on this connection; 0 before there is a ledger."""
    there = (
        "SELECT count(*) FROM sqlite_master WHERE name = 'runbook_skipped_row'"
        if database.dialect == "sqlite"
        else "SELECT count(*) FROM pg_class WHERE oid = to_regclass('runbook.skipped_row')"
    )
    sql = f"SELECT count(*) FROM {ledger(database, 'batch')} WHERE action = 'apply'"
    return connection.execute(sql).fetchone()[0] if connection.execute(there).fetchone()[0] else 0


@contextlib.contextmanager
def counting(database: Database) -> Iterator[Callable[[], int]]:
    """Within: a function that says how many batches are committed by now."""
    with contextlib.closing(database.connect()) as connection:
        yield lambda: batches(database, connection)


def undo_keys(database: Database) -> list[tuple[str, str]]:
    """(run, key) of each row that was written, as often as it was written."""
    if database.dialect == "sqlite":
        each = "runbook_undo AS u, json_each(u.payload) AS e"
        return database.rows(f"SELECT u.run, CAST(json_extract(e.value, '$[0]') AS text) FROM {each}")
    return database.rows(
        "SELECT u.run, u.payload[e.at][1] FROM runbook.undo AS u, generate_subscripts(u.payload, 1) AS e(at)"
    )


def proves_each_batch_once(database: Database) -> None:
    """Each range of a pass is a chain without a gap or an overlap."""
    sql = f"""SELECT run, worker, n, lo, hi FROM {ledger(database, "batch")}
        WHERE action = 'apply' AND worker >= 0 ORDER BY run, worker, n"""
    for (run, worker, _, _, hi), (other, another, n, lo, _) in pairwise(database.rows(sql)):
        assert (run, worker) != (other, another) or lo == hi, (
            f"batch {n} begins at {lo}, and the one before ended at {hi}"
        )


def proves_each_row_once(database: Database) -> None:
    """No row was written twice, whichever run wrote it."""
    proves_each_batch_once(database)
    keys = undo_keys(database)
    assert len(keys) == len({key for _, key in keys})


def proves_exact_figures(database: Database, *, rows: int) -> None:
    """The ledger's sums are those of one pass over so many rows, of which the single UPDATE changes some."""
    proves_each_row_once(database)
    sums = "sum(seen), sum(written), sum(written + already + no_key + not_in_source + deferred + dead)"
    [found] = database.rows(f"SELECT {sums} FROM {ledger(database, 'batch')} WHERE action = 'apply'")
    assert tuple(map(int, found)) == (rows, changed(database), rows)
    assert database.value(f"SELECT sum(rows) FROM {ledger(database, 'undo')}") == changed(database)


def proves_all(desk: Cli, database: Database, *, rows: int) -> None:
    """As the single UPDATE, in rows and in figures; and all the way back."""
    assert checksum(database, "t") == updated(database)
    proves_exact_figures(database, rows=rows)
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0
    assert desk.runbook("rollback", "latest").code == 0
    assert checksum(database, "t") == checksum(database, "was")
