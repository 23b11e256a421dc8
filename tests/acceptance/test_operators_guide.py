"""The operator's guide has each state and each exit code, and names the commands that the product itself would name there."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from documents import README, ROOT, Page

from runner.common.errors import EXIT_CODES
from runner.plan.advice import state_word
from runner.plan.next_commands import Here, onward
from runner.playbook.load import load
from runner.trail.events import RunState
from runner.trail.status import RunStatus, StepStatus

GUIDE = Page.read(ROOT / "docs/operators.md")
NOW = datetime(2026, 12, 1, tzinfo=UTC)
STATES = sorted({state_word(RunStatus(state=state), living=living) for state in RunState for living in (True, False)})


def test_every_state_has_its_section() -> None:
    told = set(re.findall(r"^### ([a-z ]+)$", GUIDE.section("States"), re.MULTILINE))
    assert told == {state.partition(":")[0] for state in STATES}


@pytest.mark.parametrize("section", ["States", "Exit codes"])
def test_sections_say_something(section: str) -> None:
    parts = re.split(r"^### .+$", GUIDE.section(section), flags=re.MULTILINE)[1:]
    assert all(len(part.split()) > 3 for part in parts)


def test_every_exit_code_has_its_section() -> None:
    told = re.findall(r"^### (\d+)$", GUIDE.section("Exit codes"), re.MULTILINE)
    assert told == [str(code) for code in EXIT_CODES]
    in_readme = re.findall(r"\| (\d+) \|", Page.read(README).section("Commands and exit codes"))
    assert sorted(map(int, in_readme)) == list(EXIT_CODES)


@pytest.mark.parametrize("state", RunState)
def test_section_names_the_commands_that_come_next(state: RunState) -> None:
    text = next(fence.text for fence in GUIDE.fences if fence.title == "archive.yaml")
    playbook = load("archive.yaml", lambda _name: text)
    for step in (StepStatus("add"), StepStatus("mark", open="apply")):
        status = RunStatus(state=state, steps={step.id: step}, rolling_back=state.startswith("roll"))
        for alive in (True, False, None) if state is RunState.RUNNING else (False,):
            section = GUIDE.section(state_word(status, living=alive).partition(":")[0])
            for command in onward(playbook, status, Here(NOW, alive=alive)).commands:
                assert f"runbook {command.split()[1]}" in section.replace("\n", " "), command
