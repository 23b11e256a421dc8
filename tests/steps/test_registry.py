"""Step types and probes are found by their words: however `kind` is spelled, in any folder, and none is overlooked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import steps.probes
import steps.types
from steps.contract import Probe, Step
from steps.registry import DuplicateKind, Types, Unloadable, UnreadableKind, probe_types, step_types

SPELLINGS = [
    'kind: ClassVar[str] = "odd"',
    "kind: ClassVar[str] = 'odd'",
    'kind = "odd"',
    "kind : ClassVar[str]='odd'",
    'kind: ClassVar[str] = (\n        "odd"\n    )',
]
TYPE = """
from __future__ import annotations
from typing import ClassVar
from steps.contract import Step

class Odd(Step):
    {line}
"""


def _types(folder: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> Types[Step]:
    monkeypatch.syspath_prepend(folder.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    return Types(Step, folder, package, "runbook.nothing")


@pytest.mark.parametrize(("package", "base", "types"), [
    (steps.types, Step, step_types), (steps.probes, Probe, probe_types),
], ids=["steps", "probes"])  # fmt: skip
def test_every_class_is_found(package, base, types):
    """All modules are imported: whatever calls itself by a kind is what the registry gives for that word."""
    every = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(value, base) and "kind" in vars(value) and value.__module__ == module.name:
                every[value.kind] = value
    assert every == dict(types())


@pytest.mark.parametrize("line", SPELLINGS)
@pytest.mark.parametrize("place", ["one.py", "deeper/one.py"])
def test_kind_is_found_however_it_is_spelled(line: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "spelled"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_text(TYPE.format(line=line))
    found = _types(folder, "spelled", monkeypatch)
    assert list(found) == ["odd"] and "odd" in found and found["odd"].__name__ == "Odd"
    assert "other" not in found


def test_kind_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "computed"
    folder.mkdir()
    (folder / "one.py").write_text(TYPE.format(line='kind: ClassVar[str] = "o" + "dd"'))
    with pytest.raises(UnreadableKind, match="must be a string"):
        list(_types(folder, "computed", monkeypatch))


def test_one_word_for_two_types_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "double"
    folder.mkdir()
    for name in ("one.py", "two.py"):
        (folder / name).write_text(TYPE.format(line=SPELLINGS[0]))
    with pytest.raises(DuplicateKind, match="'odd' is already"):
        list(_types(folder, "double", monkeypatch))


def test_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "one.py").write_text(TYPE.format(line=SPELLINGS[0]).replace("import Step", "import Nothing, Step"))
    with pytest.raises(Unloadable, match=r"cannot load broken\.one: .*Nothing"):
        _types(folder, "broken", monkeypatch)["odd"]


def test_module_that_cannot_be_parsed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "one.py").write_text("kind = (\n")
    with pytest.raises(SyntaxError, match=r"torn\.one, line 1"):
        list(_types(folder, "torn", monkeypatch))
