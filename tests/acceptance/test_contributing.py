"""The step type and the probe that CONTRIBUTING.md shows do what it says."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from databases import Databases
from documents import ROOT, Page
from plain_context import Trial

from steps.contract import State
from steps.registry import probe_types, step_types

SESSIONS = "session_summaries"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports the block of code that has this word, as a file that somebody has written."""

    def imported(word: str) -> ModuleType:
        text = next(fence.text for fence in Page.read(ROOT / "CONTRIBUTING.md").fences if word in fence.text)
        (tmp_path / f"shown_{word.lower()}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        return importlib.import_module(f"shown_{word.lower()}")

    return imported


def test_step_type_has_its_whole_life(databases: Databases, shown: Callable[[str], ModuleType]) -> None:
    kind = shown("CommentColumn").CommentColumn
    assert kind.kind not in step_types(), "it exists now: show another one"
    step = kind(column=f"{SESSIONS}.source_ip", text="where the session came from")
    nowhere = kind(column=f"{SESSIONS}.nothing", text="a column that isn't there")
    with databases.kind("pg18").database("documented") as database:
        Trial(database, step).whole_life(SESSIONS)
        assert "no such column" in Trial(database, nowhere).preflight()[0]
        assert Trial(database, nowhere).state() is State.NOT_DONE
        [statement] = Trial(database, step).statements()
    assert statement.startswith("COMMENT ON COLUMN")


def test_probe_looks(databases: Databases, shown: Callable[[str], ModuleType]) -> None:
    kind = shown("ExtensionProbe").ExtensionProbe
    assert kind.kind not in probe_types(), "it exists now: show another one"
    with databases.kind("pg18").database() as database, Trial(database, None).look() as look:
        assert kind(name="plpgsql").observe(look).installed
        assert not kind(name="nothing").observe(look).installed
