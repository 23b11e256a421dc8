"""kill -9 at every point where a crash can leave something to settle; resume; the same result."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import KILLED, Cli
from databases import Database

PHASE1 = """
runbook: 1
name: phase1
title: Make the plural a text, then rename it
lock: {wait: 200 ms, retry_for: 30 s}
steps:
  - {id: make_it_text, type: change_column_type, column: session_summaries.snapshot_ip_types, to: text,
     using: "snapshot_ip_types[1]", while_all_null: replace}
  - {id: rename, type: rename_column, column: session_summaries.snapshot_ip_types, to: snapshot_ip_type}
success_criteria:
  - {id: singular, check: columns, table: session_summaries, has: {snapshot_ip_type: text}, lacks: [snapshot_ip_types]}
rollback: reverse
"""


POINTS = ("trail.before", "trail.after", "commit.before", "commit.after")


def _columns(database: Database) -> list[str]:
    if database.dialect == "sqlite":
        return sorted(f"{row[1]} {row[2]}" for row in database.rows("PRAGMA table_info(session_summaries)"))
    sql = """SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute
             WHERE attrelid = 'session_summaries'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY 1"""
    return [row[0] for row in database.rows(sql)]


def _points(database: Database) -> list[str]:
    """Around every kind of commit and record; all points together are the soak's."""
    if database.dialect == "sqlite":
        points = (
            "trail.before:1 trail.after:1 commit.before:2 commit.after:3 commit.before:4 commit.after:4 commit.before:6"
        )
        return points.split()
    return ["commit.before:4", "commit.after:4", "trail.after:9"] if database.major == 18 else ["commit.after:5"]


@pytest.mark.soak
def test_phase1_killed_at_all_points(honeypot: Database, tmp_path: Path) -> None:
    """Every one of the points, on every database. F: E01, E07."""
    _killed(honeypot, tmp_path, [f"{name}:{n}" for name in POINTS for n in range(1, 12)])


def test_phase1_killed_anywhere(honeypot: Database, tmp_path: Path) -> None:
    """Whatever the point, resume ends with the column renamed once and the rollback restores the catalogue. F: E01, E07."""
    _killed(honeypot, tmp_path, _points(honeypot))


def _killed(honeypot: Database, tmp_path: Path, points: list[str]) -> None:
    before = _columns(honeypot)
    for point in points:
        directory = tmp_path / point.replace(":", "-")
        directory.mkdir()
        desk = Cli(directory, honeypot.url)
        desk.playbook("phase1", PHASE1)
        done = desk.runbook("exec", "phase1.yaml", fault=point)
        if done.code == KILLED and (directory / "runs").exists() and desk.trail.stat().st_size:
            done = desk.runbook("resume", "latest")
        elif done.code == KILLED:
            done = desk.runbook("exec", "phase1.yaml")  # killed before anything was on disk: nothing had begun
        assert done.code == 0 or "it has ended (succeeded)" in done.text, (point, done.text)
        after = _columns(honeypot)
        assert "snapshot_ip_type text" in [one.lower() for one in after], point
        assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0, point
        back = desk.runbook("rollback", "latest")
        assert back.code == 0, (point, back.text)
        assert _columns(honeypot) == before, point


@pytest.mark.parametrize("honeypot", ["pg18"], indirect=True)
def test_values_that_mean_nothing_killed_anywhere(honeypot: Database, tmp_path: Path) -> None:
    """Set aside, kept, dropped: killed between any two of them, resume ends it and the rollback brings each value back."""
    honeypot.script("UPDATE session_summaries SET snapshot_ip_types = '{}' WHERE session_id < 'c'")
    values = "SELECT session_id, snapshot_ip_types FROM session_summaries ORDER BY 1"
    columns, rows = _columns(honeypot), honeypot.rows(values)
    text = PHASE1.replace("while_all_null: replace", "while_all_null: replace, treat_as_null: \"'{}'\"")
    for point in ("commit.after:3", "commit.after:4", "commit.before:6", "commit.after:6"):
        directory = tmp_path / point.replace(":", "-")
        directory.mkdir()
        desk = Cli(directory, honeypot.url)
        desk.playbook("phase1", text)
        assert desk.runbook("exec", "phase1.yaml", fault=point).code == KILLED
        done = desk.runbook("resume", "latest")
        assert done.code == 0, (point, done.text)
        assert not [one for one in _columns(honeypot) if "kept" in one], point
        back = desk.runbook("rollback", "latest")
        assert back.code == 0, (point, back.text)
        assert (_columns(honeypot), honeypot.rows(values)) == (columns, rows), point


@pytest.mark.newest
def test_rollback_killed_anywhere(honeypot: Database, tmp_path: Path) -> None:
    """A rollback that was killed is rolled back again. F: F01."""
    before = _columns(honeypot)
    for point in ("trail.after:3", "commit.before:3", "commit.after:3", "commit.after:4"):
        directory = tmp_path / point.replace(":", "-")
        directory.mkdir()
        desk = Cli(directory, honeypot.url)
        desk.playbook("phase1", PHASE1)
        assert desk.runbook("exec", "phase1.yaml").code == 0
        done = desk.runbook("rollback", "latest", fault=point)
        assert done.code == KILLED, (point, done.text)
        back = desk.runbook("rollback", "latest")
        assert back.code == 0 or "rolled back)" in back.text, (point, back.text)
        assert _columns(honeypot) == before, point


def test_sql_by_hand_is_on_disk_before_it_is_sent(honeypot: Database, tmp_path: Path) -> None:
    """Killed right after the record and before the statement: the trail tells of it, the database has nothing. F: E04."""
    if honeypot.dialect != "sqlite":
        pytest.skip("the order of record and act is the same on every database")
    desk = Cli(tmp_path, honeypot.url)
    desk.playbook("phase1", PHASE1)
    assert desk.runbook("exec", "phase1.yaml").code == 0
    statement = "UPDATE schema_state SET value = '99'"
    words = ("sql", "latest", "-c", statement, "--reason", "a hot fix", "--as", "dana")
    assert desk.runbook(*words, fault="trail.after:1").code == KILLED
    assert statement in desk.trail.read_text()
    assert honeypot.value("SELECT value FROM schema_state WHERE key = 'schema_version'") == "16"
    assert desk.runbook(*words).code == 0
    assert honeypot.value("SELECT value FROM schema_state WHERE key = 'schema_version'") == "99"
