"""docs/mission.md: each reference from a line of the mission's documents leads to a step, check, monitor or key that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.playbook.find import read_playbook
from runner.playbook.model import Playbook
from runner.playbook.yaml_reader import parse

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "mission.md").read_text()
REFERENCE = re.compile(r"`(adr007-[a-z0-9-]+(?:\.[a-z0-9_]+)*)`")
FOUND = sorted(set(REFERENCE.findall(TABLE)))


def keys(name: str) -> dict[str, object]:
    """What a file says itself, without its includes."""
    path = ROOT / "playbooks" / f"{name}.yaml"
    data = parse(path.read_text(), str(path)).data
    assert isinstance(data, dict)
    return data


def ids(playbook: Playbook) -> set[str]:
    """`step`, `check` and `step.check` of all steps and checks."""
    found = {one.id for one in (*playbook.preconditions, *playbook.success_criteria)}
    found |= {f"monitors.{one.check.id}" for one in playbook.monitors}
    for entry in playbook.entries:
        checks = (*entry.preconditions, *entry.success_criteria, *(one.check for one in entry.guards))
        found |= {entry.id} | {f"{entry.id}.{one.id}" for one in checks}
    return found


@pytest.mark.parametrize("reference", FOUND)
def test_reference_leads_somewhere(reference: str):
    name, _, rest = reference.partition(".")
    data = keys(name)
    if "steps" not in data:
        assert rest in data or rest in dict(data.get("shapes") or {}), f"{name} has no {rest}"
    elif rest and rest not in data:
        assert rest in ids(read_playbook(ROOT / "playbooks" / f"{name}.yaml")), f"{name} has no {rest}"


def test_every_playbook_and_monitor_of_the_mission_has_its_line():
    """What a playbook does that no line of the documents asks for would be a surprise to their readers."""
    told = {reference.partition(".")[0] for reference in FOUND}
    every = {path.stem for path in (ROOT / "playbooks").glob("adr007-*.yaml")}
    assert every == told
    whole = {name: read_playbook(ROOT / "playbooks" / f"{name}.yaml") for name in every if "steps" in keys(name)}
    monitors = {f"{name}.monitors.{one.check.id}" for name, playbook in whole.items() for one in playbook.monitors}
    assert len(monitors) == 4
    assert monitors <= set(FOUND)
