"""The change cards: what an operator sees before a run, at any width, and what a pull request shows."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from runner.plan.plan import plan
from runner.playbook.load import load_file
from runner.report import plan_cards
from runner.run.dry_run import DryRun, dry_run
from runner.run.execute import RunOptions
from runner.target.workplace import Workplace

PLAYBOOK = """
runbook: 1
name: fill
title: Fill the snapshots | of a few thousand sessions, which is a title that is longer than a narrow terminal is wide
contacts: {owner: DBA}
queries:
  coverage: SELECT count(*) AS total, count(snapshot_country) AS covered FROM session_summaries
preconditions:
  - {id: work, check: query, query: coverage, that: total > covered}
  - {id: later, due: another}
steps:
  - {id: go, type: checkpoint, approval: {roles: [dba]}}
  - id: fill
    type: backfill
    why: Country, ASN and type as they were at the attack, without the join
    table: session_summaries
    key: session_id
    source: "SELECT ip_address, current_asn AS snapshot_asn, 'a  b -- c' AS matcher FROM ip_inventory"
    match: source.ip_address = target.source_ip
    fill: [snapshot_asn]
    on_failure: rollback
    if_stopped_here: safe; each batch is complete in itself
    success_criteria:
      - {id: nothing_left, that: visited == in_range and left == 0 and deferred == 0 and dead == 0}
  - {id: by_risk, type: create_index, table: session_summaries, columns: [risk_score]}
  - {id: gone, type: sql, text: "UPDATE session_summaries SET risk_score = 1 WHERE session_id = 'x'"}
success_criteria:
  - {id: has_index, check: index, table: session_summaries, columns: [risk_score]}
"""


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    path = tmp_path / "fill.yaml"
    path.write_text(PLAYBOOK)
    return path


@pytest.fixture
def looked(playbook: Path, sqlite_path: Path, tmp_path: Path) -> DryRun:
    return dry_run(
        load_file(playbook), RunOptions(place=Workplace(f"sqlite:///{sqlite_path}", cwd=tmp_path, environ={}))
    )


def shown(found: DryRun, width: int, monkeypatch: pytest.MonkeyPatch, **options: bool) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    plan_cards.show(found.plan, checks=found.answers, out=out, **options)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140, 200])
def test_show_stays_within_the_terminal(looked: DryRun, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(looked, width, monkeypatch)
    for line in text.splitlines():
        assert len(line) <= width or "/" in line.split()[-1]  # a path is never broken
    assert "\x1b" not in text  # no colour: it isn't a terminal


def test_show_tells_what_a_reviewer_weighs(looked: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(looked, 140, monkeypatch)
    assert f"digest        {looked.plan.digest[:16]}" in text
    assert "✓ work: pass, total=2000, covered=0  (total > covered)".replace("  (", " (") in text
    assert "· later: not due here, decided by another" in text
    assert "2  fill · backfill" in text
    assert "now           not done:" in text
    assert "rows          2,000" in text
    assert (
        "gate          nothing_left: the step's result, that: visited == in_range and left == 0 and deferred == 0 and dead == 0"
        in text
    )
    assert "on failure    rollback" in text
    assert "if stopped    safe; each batch is complete in itself" in text
    assert "taking back   one way: the playbook gives no SQL for the way back (revert:)" in text
    assert "lock          EXCLUSIVE (one scan)" in text
    assert "rollback      reverse: by_risk, then fill" in text


def test_show_without_a_target_has_no_sql(playbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    out = io.StringIO()
    plan_cards.show(plan(load_file(playbook)), out=out)
    assert "SQL" not in out.getvalue().replace("no SQL for the way back", "")
    assert "work: query (query: " in out.getvalue()
    assert "that: total > covered" in out.getvalue()


def test_show_sql_is_whole_with_its_parameters_apart(looked: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(looked, 100, monkeypatch, show_sql=True)
    flat = re.sub(r"\s+", " ", text)
    for statement in looked.plan.cards[1].statements:
        assert re.sub(r"\s+", " ", statement.sql.strip()) in flat
    assert "'a  b -- c'" in text  # what is quoted is never broken or squeezed
    assert "bound: :rb_hi0 = " in text


def test_document_is_json(looked: DryRun) -> None:
    found = json.loads(json.dumps(plan_cards.document(looked.plan)))
    assert [step["id"] for step in found["steps"]] == ["go", "fill", "by_risk", "gone"]
    assert found["steps"][1]["rows"] == 2000
    assert found["steps"][1]["statements"][0]["params"]
    assert found["steps"][2]["now"]["state"] == "not_done"


def test_markdown_cells_hold_what_would_end_them(looked: DryRun) -> None:
    text = plan_cards.markdown(looked.plan)
    assert text.startswith(r"## Fill the snapshots \| of")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert len(rows) == 2 + len(looked.plan.cards)


def test_show_gives_no_way_in_to_the_terminal(playbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playbook.write_text(PLAYBOOK.replace("safe; each batch", r'"safe\e[2J\u202e').replace("in itself", 'in itself"'))
    monkeypatch.setenv("COLUMNS", "100")
    out = io.StringIO()
    plan_cards.show(plan(load_file(playbook)), out=out)
    assert "\x1b" not in out.getvalue()
    assert r"safe\x1b[2J\u202e is complete" in out.getvalue()
