"""fill_table in real processes: kill -9 at records and commits, resume, rollback; and what the report says of its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import KILLED, Cli
from databases import Database

PLAYBOOK = """
runbook: 1
name: fill
title: Count the visits of each host
steps:
  - id: fill
    type: fill_table
    table: host
    source: SELECT source_ip AS address, count(*) AS visits FROM visit GROUP BY source_ip
    columns: [address, visits]
    batch: {rows: [1, 20]}
    throttle: none
    dead_letters: {max: 5, pct: 50}
    success_criteria:
      - {id: whole, that: visited == 60 and written == 58 and already == 1 and dead == 1 and left == 0}
success_criteria: [{id: there, check: rows, table: host, exactly: 59}]
rollback: reverse
"""
TABLES = """
CREATE TABLE visit (id integer PRIMARY KEY, source_ip text);
CREATE TABLE host (address varchar(45) PRIMARY KEY, visits integer NOT NULL CHECK (visits < 3))
"""
FORWARD = ("trail.after:4", "trail.after:7", "commit.before:4", "commit.after:5", "commit.before:6", "commit.after:8")
BACK = ("commit.before:3", "commit.after:4", "trail.after:3")


@pytest.fixture
def hosts(empty_database: Database) -> Database:
    """181 visits: three of host h17, which the table refuses, and one of h05, which is there already."""
    empty_database.script(TABLES)
    rows = ", ".join(f"({n}, 'h{n % 60:02}')" for n in range(120))
    empty_database.script(f"INSERT INTO visit VALUES {rows}, (500, 'h17'); INSERT INTO host VALUES ('h05', 1)")
    return empty_database


def _addresses(database: Database) -> list[tuple]:
    return database.rows("SELECT address, visits FROM host ORDER BY address")


def _killed(hosts: Database, tmp_path: Path, forward: list[str], back: list[str]) -> None:
    before = _addresses(hosts)
    wanted = [*before, *((f"h{n:02}", 2) for n in range(60) if n not in (5, 17))]
    for n, point in enumerate(forward):
        directory = tmp_path / f"{n}"
        directory.mkdir()
        desk = Cli(directory, hosts.url)
        desk.playbook("fill", PLAYBOOK)
        done = desk.runbook("exec", "fill.yaml", fault=point)
        if done.code == KILLED and (directory / "runs").exists() and desk.trail.stat().st_size:
            done = desk.runbook("resume", "latest")
        elif done.code == KILLED:
            done = desk.runbook("exec", "fill.yaml")
        assert done.code == 0 or "it has ended (succeeded)" in done.text, (point, done.text)
        assert _addresses(hosts) == sorted(wanted), point
        assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0, point
        assert "h17" in desk.runbook("report", "latest", "--rows", "dead").text
        gone = desk.runbook("rollback", "latest", fault=back[n % len(back)])
        if gone.code == KILLED:
            gone = desk.runbook("rollback", "latest")
        assert gone.code == 0 or "rolled back)" in gone.text, (point, gone.text)
        assert _addresses(hosts) == before, point


@pytest.mark.newest
def test_fill_killed_anywhere(hosts: Database, tmp_path: Path) -> None:
    _killed(hosts, tmp_path, [*FORWARD], [*BACK])


@pytest.mark.soak
def test_fill_killed_at_all_points(hosts: Database, tmp_path: Path) -> None:
    names = ("trail.before", "trail.after", "commit.before", "commit.after")
    points = [f"{name}:{n}" for name in names for n in range(1, 16)]
    _killed(hosts, tmp_path, points, [f"{name}:{n}" for name in names for n in range(1, 9)])
