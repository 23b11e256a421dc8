"""Runs of a playbook that are still open on a target: something of theirs stands, and nobody has said how they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import RunRefused
from runner.events import RunState
from runner.model import Playbook
from runner.source import BadInput
from runner.workplace import Connected
from steps import ledger
from steps.base import Look
from steps.ledger import RunRow

ENDED = frozenset({
    RunState.SUCCEEDED, RunState.ENDED_UNPROVEN, RunState.ROLLED_BACK, RunState.ROLLED_BACK_IN_PART, RunState.CLOSED,
})  # fmt: skip

Loader = Callable[[Mapping[str, str], Mapping[str, str]], Playbook]
"""A playbook from its source texts and its inputs."""


@dataclass(frozen=True)
class Open:
    """One of them, with the steps of which something stands."""

    run: str
    state: str
    stands: tuple[str, ...]


def refuse_open(playbook: Playbook, target: Connected, runs: Path, load: Loader, *, begin_at: str = "") -> None:
    """Raise RunRefused where a run of this playbook and scope is open: a second one beside it would do its work again.

    A run that changed nothing is in nobody's way, whatever became of it; nor is one of which only such steps stand as the
    new run does not begin with (begin_at: the engine asks for them to be done).
    """
    before = playbook.ids[: playbook.ids.index(begin_at)] if begin_at in playbook.ids else ()
    with target.database.look() as look:
        if not ledger.exists(look):
            return
        rows = [row for row in ledger.latest_runs(look, playbook=playbook.name) if _may_be_open(row)]
        found = [one for row in rows if (one := _open(look, row, playbook, load)) is not None]
        found = [one for one in found if not set(one.stands) <= set(before)]
    if found:
        raise _refusal(playbook, found, runs, target.name)


def stands(look: Look, run: str, playbook: Playbook | None) -> tuple[str, ...]:
    """The steps of a run of which something stands, as the ledger has it."""
    names = ledger.standing(look, run)
    if playbook is None:
        return tuple(sorted(names))
    return tuple(entry.id for entry in playbook.entries if entry.id in names and entry.step.lasting)


def of_row(row: RunRow, load: Loader) -> Playbook | None:
    """The playbook of a run as the ledger keeps it; None where it can't be read (any more)."""
    try:
        return load(_texts(row.source), _texts(row.inputs))
    except (BadInput, ValueError):
        return None


def _texts(document: str) -> dict[str, str]:
    found = json.loads(document)
    return {str(key): _typed(value) for key, value in found.items() if value is not None}


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _may_be_open(row: RunRow) -> bool:
    return not row.rolled_back and row.state not in ENDED


def _open(look: Look, row: RunRow, playbook: Playbook, load: Loader) -> Open | None:
    theirs = of_row(row, load)
    if theirs is not None and theirs.scope != playbook.scope:
        return None
    standing = stands(look, row.run, theirs)
    return Open(row.run, row.state, standing) if standing else None


def _refusal(playbook: Playbook, found: list[Open], runs: Path, target: str) -> RunRefused:
    first = found[0]
    told = "; ".join(
        f"{one.run} ({one.state.replace('_', ' ')}), of which {', '.join(one.stands)} stands" for one in found
    )
    lost = not (runs / first.run / "trail.jsonl").is_file()
    back = f"runbook recover {first.run} -t {target} (its folder is not in {runs}), then " if lost else ""
    return RunRefused(
        f"cannot begin {playbook.name}: a run of it is still open on this target: {told}",
        why="a second run beside it would do again what that one has done",
        state="nothing was changed",
        then=f"{back}runbook resume {first.run}, or runbook rollback {first.run}, "
        f"or runbook close {first.run} --reason '…' (takes nothing back)",
    )
