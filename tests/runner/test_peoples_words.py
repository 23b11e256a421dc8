"""What people say by hand is theirs: no place that a hint left open stands for it, and nothing is said of a run that is over."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
GATE = "- {id: go, type: checkpoint, approval: {roles: [dba]}, evidence: [{name: backup}]}"
UP = "- {id: up, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
PLACES = ["…", "'…'", "...", "<reason>", "TEXT", " ", "[why]"]
NAMES = ["NAME", "<name>", "…", "<your name>", "{name}"]
APPROVE = ("approve", "latest", "--role", "dba")
ACTS = {
    "approve": ("approve", "latest", "--role", "dba"),
    "evidence": ("approve", "latest", "--evidence", "backup"),
    "settle": ("settle", "latest", "up", "done"),
    "judge": ("judge", "latest", "x", "pass", "--role", "dba"),
    "close": ("close", "latest"),
    "leave": ("rollback", "latest", "--leave", "up"),
    "accept": ("resume", "latest", "--accept-changes"),
    "sql": ("sql", "latest", "-c", "SELECT 1"),
    "tune": ("tune", "latest", "hold"),
}


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer DEFAULT 0); INSERT INTO t (id) VALUES (1)")
    desk = InProcessCli(tmp_path, empty_database.url)
    written(desk, f"{UP}\n{GATE}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    return desk


@on_sqlite
@pytest.mark.parametrize("act", ACTS)
def test_place_for_a_word_is_no_word(desk: InProcessCli, act: str) -> None:
    """Pasted as the hint stands: neither a reason nor a name. Nothing is recorded."""
    before = desk.newest.read_bytes()
    for reason in PLACES:
        refused = desk.runbook(*ACTS[act], "--reason", reason)
        assert refused.code == 6 and "as a reason" in refused.err, refused.text
    if act not in {"leave", "accept"}:
        for name in NAMES:
            refused = desk.runbook(*ACTS[act], "--as", name, "--reason", "looked")
            assert refused.code == 6 and "as a name" in refused.err, refused.text
    assert desk.newest.read_bytes() == before


@on_sqlite
@pytest.mark.parametrize("end", ["succeeded", "rolled back", "rolled back in part", "closed"])
def test_nothing_is_approved_in_a_run_that_is_over(desk: InProcessCli, end: str) -> None:
    if end == "succeeded":
        assert desk.runbook(*APPROVE, "--as", "ines", "--reason", "looked").code == 0
        assert desk.runbook("approve", "latest", "--evidence", "backup", "--as", "ines", "--reason", "looked").code == 0
        assert desk.runbook("resume", "latest").code == 0
    elif end == "closed":
        assert desk.runbook("close", "latest", "--as", "dana", "--reason", "no more").code == 0
    else:
        leave = ("--leave", "up", "--reason", "it may stay") if end.endswith("part") else ()
        assert desk.runbook("rollback", "latest", *leave).code in (0, 9)
    for act in ("approve", "evidence", "judge"):
        refused = desk.runbook(*ACTS[act], "--as", "otto", "--reason", "looked")
        assert refused.code == 6 and f"it has ended ({end})" in refused.err, refused.text
        assert "runbook report" in refused.err
    assert not [one for one in desk.events("approved") if one.name == "otto"]
