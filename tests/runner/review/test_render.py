"""`runbook render`: a playbook as the Markdown runbook that a person would have written."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from command import Cli

from runner.playbook.find import read_playbook
from runner.review.render import render

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
EVERY = sorted([*PLAYBOOKS.glob("adr007-*.yaml"), *PLAYBOOKS.glob("examples/*.yaml")])
NAMES = [path for path in EVERY if "steps:" in path.read_text()]


@pytest.fixture
def desk(tmp_path: Path) -> Cli:
    for path in [*PLAYBOOKS.glob("adr007-*.yaml"), *PLAYBOOKS.glob("*.sql")]:
        shutil.copy(path, tmp_path)
    shutil.copytree(PLAYBOOKS / "validation", tmp_path / "validation")
    return Cli(tmp_path, "")


@pytest.mark.parametrize("path", NAMES, ids=lambda path: path.stem)
def test_every_step_check_and_gate_is_told(path: Path):
    """Whatever the step type: nothing that a reviewer weighs is left out, and the diagram has each step once."""
    playbook = read_playbook(path)
    text = render(playbook)
    for number, entry in enumerate(playbook.entries, start=1):
        assert f"### {number}. `{entry.id}`" in text
        assert len(re.findall(rf"^    s{number}[\[{{]", text, re.MULTILINE)) == 1
        assert entry.when is None or "- **Only when**" in text
        for check in (*entry.preconditions, *entry.success_criteria):
            assert f"| `{check.id}` |" in text
        for guard in entry.guards:
            assert f"- {guard.check.id}: " in text.replace("\\", "")
    for check in (*playbook.preconditions, *playbook.success_criteria):
        assert f"| `{check.id}` |" in text
    for monitor in playbook.monitors:
        assert monitor.check.id in text.partition("## After the run")[2].replace("\\", "")
    for role in playbook.contacts.values():
        assert role in text
    assert text == render(read_playbook(path))
    assert str(PLAYBOOKS) not in text


def test_same_text_wherever_it_is_made(desk: Cli):
    """Another folder, another zone, another locale, another hash seed: the same bytes."""
    here = desk.runbook("render", "adr007-phase3.yaml").out
    there = desk.runbook(
        "render", str(desk.directory / "adr007-phase3.yaml"), TZ="Asia/Tokyo", LC_ALL="C.UTF-8", PYTHONHASHSEED="7"
    )
    assert here == there.out == render(read_playbook(PLAYBOOKS / "adr007-phase3.yaml"))


def test_committed_text_is_checked(desk: Cli):
    words = ("adr007-phase1.yaml", "adr007-phase3.yaml")
    missing = desk.runbook("render", *words, "--check")
    assert missing.code == 3 and "adr007-phase3.md" in missing.err
    written = re.search(r"next +(runbook render .*)", missing.err)
    assert written and desk.runbook(*written[1].split()[1:]).code == 0
    assert desk.runbook("render", *words, "--check").code == 0
    before = os.stat(desk.directory / "adr007-phase1.md").st_mtime_ns
    assert "unchanged" in desk.runbook("render", *words, "--write").out
    assert os.stat(desk.directory / "adr007-phase1.md").st_mtime_ns == before
    common = desk.directory / "adr007-common.yaml"
    common.write_text(common.read_text().replace("errors_pct: 0.1", "errors_pct: 5"))
    stale = desk.runbook("render", *words, "--check")
    assert stale.code == 3
    assert "adr007-phase3.md is stale" in stale.err, (
        "the limit of an include is part of the text where it is used, and only there"
    )


def test_texts_that_would_break_the_page(tmp_path: Path):
    """Titles, reasons and names are data: no table, diagram, fence or comment is ended by them."""
    desk = Cli(tmp_path, "")
    desk.playbook(
        "odd",
        """runbook: 1
name: odd
title: "a | b --> c `d` <script>"
description: "# not a heading"
steps:
  - id: gate
    type: checkpoint
    message: "]] --> x"
    approval: {roles: ['a"b', 'c}}'], need: 2}
  - id: one
    type: sql
    why: "| pipe | ``` fence"
    statements: |
      -- ``` in a comment
      UPDATE t SET a = '|' WHERE a IS NULL
success_criteria:
  - {id: ok, check: query, query: "SELECT 1 AS n, '|' AS p", that: n == 1}
rollback: {none: "because | of"}
""",
    )
    text = desk.runbook("render", "odd.yaml").out
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count(" | ") for line in tables if "**" in line}) == 1
    diagram = text.split("```mermaid")[1].split("```")[0]
    assert "]] -->" not in diagram and 'a"b' not in diagram
    assert "````yaml" in text, "a fence longer than any in the text"
    assert not re.search(r"(?<!\\)<script>", text)


def test_odd_playbooks(tmp_path: Path):
    """Unicode, an empty description, names that mean something to Mermaid, 200 steps, all on one line: one node for each step.

    Mermaid reads labels as Markdown, and draws none that is a list: `1. ` at its beginning.
    """
    steps = [
        f"{{id: s{n}, type: sql, statements: [UPDATE t SET a = {n} WHERE b], expect_rows: any}}" for n in range(197)
    ]
    steps += ["{id: end, type: checkpoint, approval: {roles: ['漢字 `x` *y* %% z &amp; ~~']}}"]
    steps += ["{id: subgraph, type: checkpoint}", "{id: graph, type: checkpoint, message: 'тест 🔥'}"]
    (tmp_path / "odd.yaml").write_text(
        "{runbook: 1, name: odd, title: Ünïcode — 漢字, description: '', "
        f"success_criteria: {{none: x}}, rollback: {{none: x}}, steps: [{', '.join(steps)}]}}\n",
        encoding="utf-8",
    )
    text = render(read_playbook(tmp_path / "odd.yaml"))
    labels = re.findall(r'^    s\d+\W*"([^"]*)"\W*$', text, re.MULTILINE)
    assert len(labels) == 200 and "漢字" in labels[197]
    for label in labels:
        assert not re.search(r"^\d+[.)]\s|[`*~%&<>#;(){}\[\]|]", label), label
