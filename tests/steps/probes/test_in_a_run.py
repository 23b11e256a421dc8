"""The probes on a server's health through the command: a run whose preconditions they are."""

from __future__ import annotations

import re
from pathlib import Path

from databases import Database
from inside import InProcessCli

from steps.contract import Answer

PLAYBOOK = """
runbook: 1
name: healthy
title: Look at everything before anything is done
preconditions:
{checks}
steps:
  - {{id: statistics, type: analyze, table: session_summaries}}
"""
ON_A_SERVER = """
  - {id: archived, check: archiver, that: failing == False}
  - {id: gentle, check: checkpoints, that: since_s >= 0 and wal_bytes < max_wal_bytes}
  - {id: unobstructed, check: waiters, that: count == 0}
  - {id: room, check: connections, that: free_pct > 10 and idle_in_transaction == 0}
  - {id: removable, check: horizon, that: xmin_age < 1000000 and wraparound_pct < 90}
  - {id: standbys, check: replication, standbys: 0, that: lag_s < 10 and lost_slots == 0}
  - {id: sound, check: table, table: session_summaries, that: dead_pct < 50 and autovacuum_wraparound == False}
"""
ON_A_FILE = "  - {id: log, check: wal, that: bytes < 1000000000}"


def test_healthy_database_opens_the_gate(honeypot: Database, tmp_path: Path):
    checks = ON_A_FILE if honeypot.dialect == "sqlite" else ON_A_SERVER
    if honeypot.server:
        honeypot.script("ANALYZE session_summaries")
    desk = InProcessCli(tmp_path, honeypot.url)
    done = desk.runbook("exec", desk.playbook("healthy", PLAYBOOK.format(checks=checks)))
    assert done.code == 0, done.text
    answers = desk.events("check_answered")
    assert [one.probe for one in answers][: checks.count("check:")] == [*re.findall(r"check: (\w+)", checks)]
    assert {one.answer for one in answers} == {Answer.PASS}
