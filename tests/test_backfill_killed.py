"""kill -9 in the middle of a backfill, at random; resume; the same rows, each counted once."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from command import Desk
from databases import Database

from playbooks.demo import honeypot as data

SESSIONS = 2000
FILL = """
runbook: 1
name: fill
title: Fill the snapshots in many small batches
queries:
  found:
    postgresql: >
      SELECT ip_address AS source_ip, enrichment_updated_at AS enrichment_at,
      CASE WHEN NOT is_bogon THEN nullif(geo_country, 'XX') END AS snapshot_country FROM ip_inventory
    sqlite: >
      SELECT ip_address AS source_ip, enrichment_updated_at AS enrichment_at,
      CASE WHEN NOT is_bogon THEN nullif(geo_country, 'XX') END AS snapshot_country FROM ip_inventory
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
      - {id: all, that: visited == in_range and left == 0 and dead == 0}
rollback: reverse
"""


def _desk(honeypot: Database, directory: Path) -> Desk:
    directory.mkdir()
    for name in ("session_ip.postgresql.sql", "session_ip.sqlite.sql"):
        (directory / name).write_text((Path(data.__file__).parents[1] / name).read_text())
    desk = Desk(directory, honeypot.url)
    desk.playbook("fill", FILL)
    return desk


def _kill_within(desk: Desk, words: tuple[str, ...], seconds: float) -> int | None:
    """Start, wait until the backfill has begun, and kill after so long; None where it was faster."""
    process = desk.start(*words)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        trails = list((desk.directory / "runs").glob("*/trail.jsonl"))
        if trails and '"type":"backfill"' in trails[0].read_text():
            break
        time.sleep(0.02)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    return process.returncode


def _killed_and_resumed(honeypot: Database, directory: Path, *, kills: int, chance: random.Random) -> None:
    desk = _desk(honeypot, directory)
    words: tuple[str, ...] = ("exec", "fill.yaml")
    for _ in range(kills):
        _kill_within(desk, words, chance.uniform(0.0, 0.6))
        words = ("resume", "latest")
    done = desk.runbook("resume", "latest")
    assert done.code == 0 or "it has ended (succeeded)" in done.text, done.text
    status = json.loads(desk.runbook("status", "latest", "--json").out)
    (fill,) = [step["results"] for step in status["steps"] if step["id"] == "fill"]
    oracle = data.expected(sessions=SESSIONS)
    assert fill["visited"] == SESSIONS
    assert fill["written"] + fill["already"] + fill["no_key"] + fill["not_in_source"] == SESSIONS
    assert fill["no_key"] == oracle.no_ip
    found = dict(honeypot.rows("SELECT session_id, source_ip FROM session_summaries"))
    assert found == {session: after.source_ip for session, after in oracle.rows.items()}
    countries = dict(honeypot.rows("SELECT session_id, snapshot_country FROM session_summaries"))
    assert countries == {session: after.snapshot_country for session, after in oracle.rows.items()}
    assert desk.runbook("rollback", "latest").code == 0
    assert (
        honeypot.value(
            "SELECT count(source_ip) + count(snapshot_country) + count(enrichment_at) FROM session_summaries"
        )
        == 0
    )
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0


def test_backfill_killed_at_random_moments(honeypot: Database, tmp_path: Path) -> None:
    """Each row as an independent computation says, each counter a sum of the ledger. F: E01 E04 E05 B17 F01 F02."""
    if honeypot.dialect != "sqlite" and honeypot.major == 15:
        pytest.skip("one server is enough in every run; the soak has both")
    _killed_and_resumed(honeypot, tmp_path / "desk", kills=2, chance=random.Random(7))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(50))
def test_backfill_killed_very_often(honeypot: Database, tmp_path: Path, seed: int) -> None:
    """The same, hundreds of times. F: E01."""
    _killed_and_resumed(honeypot, tmp_path / "desk", kills=4, chance=random.Random(seed))
