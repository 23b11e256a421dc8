"""keep, drop, create, fill_table in one run: planned before any of it is there, and taken back to where it began."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import KILLED, Cli
from databases import Database

pytestmark = pytest.mark.newest

PLAYBOOK = """
runbook: 1
name: move
title: Keep what addresses say, and give it a new table
queries:
  kept: {postgresql: SELECT * FROM runbook_kept.notes, sqlite: SELECT * FROM runbook_kept_notes}
steps:
  - id: keep_notes
    type: keep
    what: SELECT id, note FROM address WHERE note IS NOT NULL
    into: notes
    because: nobody knows them
    counted: "{rows} addresses have a note"
  - {id: nothing, type: keep, what: SELECT * FROM never_there, into: never, because: it may be gone, absent: fine}
  - id: make
    type: create_table
    table: noted
    columns: {id: integer, note: text}
    primary_key: [id]
  - id: fill
    type: fill_table
    table: noted
    source: kept
    columns: [id, note]
    success_criteria:
      - {id: whole, that: visited == in_range and written == 3 and dead == 0 and left == 0}
success_criteria: [{id: there, check: rows, table: noted, exactly: 3}]
rollback: reverse
"""


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> Cli:
    empty_database.script("CREATE TABLE address (id integer PRIMARY KEY, note text)")
    empty_database.script("INSERT INTO address VALUES (1, 'a'), (2, NULL), (3, 'it''s'), (4, '')")
    desk = Cli(tmp_path, empty_database.url)
    desk.playbook("move", PLAYBOOK)
    return desk


def test_kept_and_filled_in_one_run(desk: Cli, empty_database: Database) -> None:
    plan = desk.runbook("plan", "move.yaml")
    assert plan.code == 0, plan.text
    assert "3 addresses have a note" in plan.text
    done = desk.runbook("exec", "move.yaml", fault="commit.after:5")
    assert done.code == KILLED
    done = desk.runbook("resume", "latest")
    assert done.code == 0, done.text
    assert empty_database.rows("SELECT * FROM noted ORDER BY id") == [(1, "a"), (3, "it's"), (4, "")]
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
    assert desk.runbook("exec", "move.yaml").code == 0
