"""The playbooks that are shipped: lint finds nothing in them that no comment allows with its reason."""

from __future__ import annotations

from pathlib import Path

from runner.playbook.load import load_written_file
from runner.review import lint

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"


def test_shipped_playbooks_are_clean() -> None:
    files = [path for path in sorted(PLAYBOOKS.rglob("*.yaml")) if "\nsteps:" in path.read_text(encoding="utf-8")]
    assert len(files) > 20
    result = lint.lint([load_written_file(path) for path in files])
    assert "\n".join(map(str, result.open)) == ""
    assert result.skipped == ()
