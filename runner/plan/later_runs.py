"""Later runs on a target that were built on a run: their playbooks require it, and something of them stands.

They worked on what the run had made. Taken back before them, it leaves them half of that, and their own way back fails.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from runner.common.errors import RunRefused
from runner.plan.next_commands import REASON
from runner.plan.open_runs import Loader, of_row, stands
from runner.plan.plan import one_way
from runner.playbook.find import required_by
from steps.contract import Look, UndoesRun
from steps.ledger import step_commits, tables
from steps.ledger.runs import RunRow, all_runs

OPTION = "--despite-later-runs"


@dataclass(frozen=True)
class LaterRun:
    """A run that was built on another one, with its steps that stand. stuck: those of them that are one way."""

    run: str
    stands: tuple[str, ...]
    stuck: tuple[str, ...] = ()


def built_on(look: Look, run: str, load: Loader) -> list[LaterRun]:
    """The later runs that require this one, directly or through another run, and of which something stands; newest first.

    As in `requires:`, the newest run of a playbook that changed something is the one that counts.
    """
    rows = all_runs(look) if tables.exists(look) else []
    place = next((at for at, row in enumerate(rows) if row.run == run), 0)
    required, found = {rows[place].playbook} if rows else set(), []
    for row in reversed(rows[:place]):
        if row.playbook == rows[place].playbook:
            if step_commits.acted(look, run=row.run, action="apply"):
                required.discard(row.playbook)
        elif required & _required(row):
            required.add(row.playbook)
            found += _standing(look, row, load)
    return found[::-1]


def _required(row: RunRow) -> set[str]:
    texts = json.loads(row.source)
    return set(required_by(str(next(iter(texts.values()), "")), row.playbook))


def _standing(look: Look, row: RunRow, load: Loader) -> list[LaterRun]:
    """The run, if something of it stands; what another run's undo has done is nothing that was built on it."""
    if row.rolled_back or row.removed_by:
        return []
    theirs = of_row(row, load)
    names = stands(look, row.run, theirs)
    if theirs is None:
        return [LaterRun(row.run, names)] if names else []
    names = tuple(name for name in names if not isinstance(theirs.entry(name).step, UndoesRun))
    stuck = tuple(name for name in names if one_way(theirs.entry(name)))
    return [LaterRun(row.run, names, stuck)] if names else []


def refuse(later: list[LaterRun], run: str, *, again: str = "") -> None:
    """Raise RunRefused if later runs were built on this one. again: what takes it back then, if not `rollback` itself."""
    if not later:
        return
    told = "; ".join(f"{one.run}, of which {', '.join(one.stands)} stands" for one in later)
    back = f"runbook rollback {shlex.quote(run)}"
    despite = f"{back} {OPTION} {REASON}"
    first = [f"runbook rollback {shlex.quote(one.run)}" for one in later if not one.stuck]
    stuck = [f"{', '.join(one.stuck)} of {one.run}" for one in later if one.stuck]
    last = [despite] if stuck else [again or back]
    when = f"the way back of {'; '.join(stuck)} is missing" if stuck else f"in this order; or at once: `{despite}`"
    raise RunRefused(
        f"cannot take back {run}: what later runs built on it still stands: {told}",
        why="they require it: taken back first, it leaves them half of what they made, and their own way back can fail",
        state="nothing was taken back",
        then="\n".join([*first, *last, f"({when})"]),
    )
