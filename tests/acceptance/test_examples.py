"""The example of each step type, run as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database

from runner.common.errors import RunRefused, Waiting
from runner.playbook.load import load_file
from runner.playbook.model import TargetNeeds
from runner.run.execute import RunOptions, execute
from runner.target.workplace import Workplace

EXAMPLES = Path(__file__).parents[2] / "playbooks/examples"


@pytest.mark.store("enriched")
def test_examples_run(honeypot: Database, tmp_path: Path) -> None:
    """Each on the demo's store, one after the other; the checkpoint waits, and what SQLite lacks is refused there."""
    if honeypot.major == 15:
        pytest.skip("what depends on the version is tested with each step type")
    orders = RunOptions(place=Workplace(target=honeypot.url, runs=tmp_path), operator="olga")
    names = [path.stem for path in EXAMPLES.glob("*.yaml")]
    for name in sorted(names, key=lambda one: (one == "undo", one)):  # undo takes add_column's run back
        path = EXAMPLES / f"{name}.yaml"
        if name == "checkpoint":
            with pytest.raises(Waiting):
                execute(path, orders)
        elif (elsewhere := load_file(path).target) and _not_meant(elsewhere, server=bool(honeypot.server)):
            with pytest.raises(RunRefused):
                execute(path, orders)
        else:
            execute(path, orders)


def _not_meant(target: TargetNeeds, *, server: bool) -> bool:
    here, there = (target.postgresql, target.sqlite) if server else (target.sqlite, target.postgresql)
    return bool(there and not here)
