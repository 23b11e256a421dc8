"""kill -9 of the real command in the middle of a backfill, at random; resume; each row filled and counted once."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import KILLED, Cli
from databases import DOCUMENTED, Database, described
from filling import checksum, counting, fill_stock, fill_stock_one_by_one, ledger, proves_exact_figures, stock, updated

from playbooks.demo.oracle import expected

pytestmark = pytest.mark.newest

ROWS, SESSIONS = 5000, 2000
PLAYBOOKS = Path(__file__).parents[3] / "playbooks"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> Cli:
    return Cli(tmp_path, empty_database.url)


def words(desk: Cli) -> tuple[str, ...]:
    """What an operator types after the process is gone."""
    return ("resume", "latest") if list((desk.directory / "runs").glob("*/trail.jsonl")) else ("exec", "fill.yaml")


def kill(desk: Cli, *command: str, due: Callable[[], bool]) -> int:
    """Start the command and kill it as soon as it is due; how it ended."""
    with desk.start(*command) as process:
        while process.poll() is None and not due():
            time.sleep(0.002)
        process.kill()
    return process.returncode


def moment(count: Callable[[], int], chance: random.Random, *, most: int) -> Callable[[], bool]:
    """A random moment: after so many more batches and a little while, or in the second in which a command starts."""
    before, began = count(), time.monotonic()
    if chance.random() < 0.25:
        early = began + chance.uniform(0.0, 1.0)
        return lambda: time.monotonic() > early or count() > before
    wanted, while_longer = before + chance.randint(1, most), chance.uniform(0.0, 0.006)

    def due() -> bool:
        if count() < wanted:
            return False
        time.sleep(while_longer)
        return True

    return due


def dies_often(desk: Cli, database: Database, *, kills: int, chance: random.Random, most: int) -> None:
    """So many deaths, then one command to the end. most: batches that a process may commit before it dies."""
    with counting(database) as count:
        for _ in range(kills):
            due = moment(count, chance, most=most)
            assert kill(desk, *words(desk), due=due) == KILLED, "it ended before its time"
    done = desk.runbook(*words(desk))
    assert done.code == 0, done.text


def results(desk: Cli) -> dict:
    (fill,) = json.loads(desk.runbook("status", "latest", "--json").out)["steps"]
    return fill["results"]


# ─── against the single UPDATE ──────────────────────────────────────────────────────────────────────────────────────
def survives(desk: Cli, database: Database, *, rows: int, kills: int, workers: int = 1) -> None:
    """As the single UPDATE in rows and in figures; and all the way back."""
    stock(database, rows=rows)
    wanted, before = updated(database), checksum(database, "was")
    desk.playbook("fill", fill_stock_one_by_one(workers=workers))
    dies_often(desk, database, kills=kills, chance=random.Random(7), most=rows // 20 // kills)
    assert checksum(database, "t") == wanted
    proves_exact_figures(database, rows=rows)
    told = results(desk)
    assert (told["visited"], told["in_range"], told["at_start"], told["left"]) == (rows, rows, rows, 0)
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0
    assert desk.runbook("rollback", "latest").code == 0
    assert checksum(database, "t") == before


@pytest.mark.parametrize(
    ("empty_database", "kills", "workers"),
    [("pg18", 20, 1), ("pg18", 3, 4), ("sqlite", 5, 1)],
    ids=["pg18", "pg18-workers", "sqlite"],
    indirect=["empty_database"],
)
def test_backfill_killed_at_random_moments(empty_database: Database, desk: Cli, kills: int, workers: int) -> None:
    """Also while it starts, and again as soon as it goes on. F: E01 F: E04 F: E05 F: E07"""
    survives(desk, empty_database, rows=ROWS, kills=kills, workers=workers)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("empty_database", "workers"),
    [("pg18", 1), ("pg18", 2), ("pg18", 4), ("pg15", 1), ("sqlite", 1)],
    ids=["pg18-1", "pg18-2", "pg18-4", "pg15-1", "sqlite-1"],
    indirect=["empty_database"],
)
def test_backfill_killed_very_often(empty_database: Database, desk: Cli, workers: int) -> None:
    """The same on a larger table. F: E01 F: E05 F: C13"""
    survives(desk, empty_database, rows=100_000, kills=200, workers=workers)


# ─── on the way back ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
def test_rollback_killed_at_random_moments(empty_database: Database, desk: Cli) -> None:
    """Rows restored and the note that they are commit together, so each is restored once. F: H05 F: F01 F: F02"""
    stock(empty_database, rows=2000)
    desk.playbook("fill", fill_stock())
    assert desk.runbook("exec", "fill.yaml").code == 0
    chance = random.Random(11)
    back = f"SELECT count(*) FROM {ledger(empty_database, 'batch')} WHERE action = 'revert'"
    with contextlib.closing(empty_database.connect()) as connection:
        for _ in range(3):
            wanted = connection.execute(back).fetchone()[0] + chance.randint(1, 12)
            due = lambda: connection.execute(back).fetchone()[0] >= wanted  # noqa: E731 - called in this turn only
            assert kill(desk, "rollback", "latest", due=due) == KILLED
    done = desk.runbook("rollback", "latest")
    assert done.code == 0, done.text
    assert checksum(empty_database, "t") == checksum(empty_database, "was")
    kept = empty_database.value(f"SELECT sum(rows) FROM {ledger(empty_database, 'undo')}")
    figures = f"SELECT sum(written), sum(dead), count(*) - count(DISTINCT n) FROM {ledger(empty_database, 'batch')}"
    assert empty_database.rows(f"{figures} WHERE action = 'revert'") == [(kept, 0, 0)]


# ─── against what an independent computation says ───────────────────────────────────────────────────────────────────
FILL = """
runbook: 1
name: fill
title: Fill the snapshots in many small batches
queries:
  found:
    postgresql: >
      SELECT ip_address AS source_ip, enrichment_updated_at AS enrichment_at,
      CASE WHEN ip_address NOT LIKE '10.%' THEN nullif(nullif(geo_country, 'XX'), '') END AS snapshot_country FROM ip_inventory
    sqlite: >
      SELECT ip_address AS source_ip, enrichment_updated_at AS enrichment_at,
      CASE WHEN ip_address NOT LIKE '10.%' THEN nullif(nullif(geo_country, 'XX'), '') END AS snapshot_country FROM ip_inventory
steps:
  - id: fill
    type: backfill
    table: session_summaries
    key: session_id
    source: found
    match: {postgresql: {file: session_ip.postgresql.sql}, sqlite: {file: session_ip.sqlite.sql}}
    fill: [source_ip, snapshot_country, enrichment_at]
    batch: {time: 20 ms, rows: [20, 60]}
    success_criteria:
      - {id: all, that: visited == in_range and left == 0 and deferred == 0 and dead == 0}
rollback: reverse
"""


@pytest.mark.parametrize("honeypot", ["sqlite", "pg18"], indirect=True)
def test_sessions_filled_by_a_killed_backfill(honeypot: Database, tmp_path: Path) -> None:
    """The mission's own table, match and batches that grow. F: B17 F: F01 F: F02"""
    for name in ("session_ip.postgresql.sql", "session_ip.sqlite.sql"):
        (tmp_path / name).write_text((PLAYBOOKS / name).read_text())
    desk = Cli(tmp_path, honeypot.url)
    desk.playbook("fill", FILL)
    dies_often(desk, honeypot, kills=2, chance=random.Random(7), most=12)
    fill, oracle = results(desk), expected(**described(DOCUMENTED, SESSIONS))
    assert fill["visited"] == SESSIONS
    assert fill["written"] + fill["already"] + fill["no_key"] + fill["not_in_source"] == SESSIONS
    assert fill["no_key"] == oracle.no_ip
    found = dict(honeypot.rows("SELECT session_id, source_ip FROM session_summaries"))
    assert found == {session: after.source_ip for session, after in oracle.rows.items()}
    countries = dict(honeypot.rows("SELECT session_id, snapshot_country FROM session_summaries"))
    assert countries == {session: after.snapshot_country for session, after in oracle.rows.items()}
    assert desk.runbook("rollback", "latest").code == 0
    left = "SELECT count(source_ip) + count(snapshot_country) + count(enrichment_at) FROM session_summaries"
    assert honeypot.value(left) == 0
