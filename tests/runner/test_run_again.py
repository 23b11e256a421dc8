"""A finished playbook may be run again: what its own later steps made of an earlier one's change is recognised."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg15"], indirect=True)
on_pg = pytest.mark.parametrize("empty_database", ["pg15"], indirect=True)
ADD = "- {id: add, type: add_column, column: t.w, of_type: integer, default: '0'}"
ON_POSTGRESQL = {
    "not null": "- {id: more, type: add_constraint, table: t, name: w_there, not_null: w}",
    "type": "- {id: more, type: change_column_type, column: t.w, to: bigint}",
    "not null by sql": "- {id: more, type: sql, text: ALTER TABLE t ALTER COLUMN w SET NOT NULL, revert: SELECT 1}",
    "default by sql": "- {id: more, type: sql, text: ALTER TABLE public.t ALTER w DROP DEFAULT, revert: SELECT 1}",
}  # fmt: skip
RENAME = "- {id: more, type: rename_column, column: t.w, to: x}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


@on_pg
@pytest.mark.parametrize("kind", ON_POSTGRESQL)
def test_later_step_changed_the_column(desk: InProcessCli, empty_database: Database, kind: str) -> None:
    """Refused where nothing in the playbook made it so; done already where a later step did."""
    written(desk, f"{ADD}\n{ON_POSTGRESQL[kind]}")
    assert desk.runbook("exec", "change.yaml").code == 0
    again = desk.runbook("exec", "change.yaml")
    assert again.code == 0, again.text
    assert next(one.outcome for one in desk.events("step_ended")) == "already_applied"
    written(desk, ADD, name="other")
    other = desk.runbook("exec", "other.yaml")
    assert other.code in (3, 6) and "cannot add t.w" in other.err, other.text
    del empty_database


@on_both
def test_later_step_renamed_the_column(desk: InProcessCli, empty_database: Database) -> None:
    written(desk, f"{ADD}\n{RENAME}")
    assert desk.runbook("exec", "change.yaml").code == 0
    first = desk.newest.parent.name
    again = desk.runbook("exec", "change.yaml")
    assert again.code == 0, again.text
    assert {one.outcome for one in desk.events("step_ended")} == {"already_applied"}
    assert list(empty_database.rows("SELECT id, x FROM t ORDER BY id")) == [(1, 0), (2, 0)]
    back = desk.runbook("rollback", first)
    assert back.code == 0, back.text
    assert empty_database.rows("SELECT * FROM t ORDER BY id") == [(1,), (2,)]


@on_pg
def test_later_steps_are_no_part_of_a_step(desk: InProcessCli, empty_database: Database) -> None:
    """A change of what is still to come is no change of a step that ran."""
    gate = "- {id: look, type: checkpoint, approval: {by: [ines]}}"
    written(desk, f"{ADD}\n{gate}\n{ON_POSTGRESQL['not null']}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    written(desk, f"{ADD}\n{gate}\n{ON_POSTGRESQL['type']}")
    assert desk.runbook("resume", "latest", "--operator", "dana", "--accept-changes", "--reason", "wider").code == 5
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "looked").code == 0
    assert desk.runbook("resume", "latest").code == 0
    del empty_database
