"""Finds open runs of a playbook on a target: unfinished ones of which some change is still in place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.common.errors import BadInput, RunRefused, TrailBroken
from runner.plan.plan import one_way
from runner.playbook.model import Playbook
from runner.target import identity
from runner.target.runs import begun_as, load_run
from runner.target.workplace import Connected
from runner.trail.events import RunState, StepOutcome
from runner.trail.status import RunStatus
from steps.contract import Look
from steps.ledger import step_commits, tables
from steps.ledger.runs import RunRow, latest_runs

ENDED = frozenset(
    {
        RunState.SUCCEEDED,
        RunState.ENDED_UNPROVEN,
        RunState.ROLLED_BACK,
        RunState.ROLLED_BACK_IN_PART,
        RunState.CLOSED,
    }
)

Loader = Callable[[Mapping[str, str], Mapping[str, str]], Playbook]
"""Loads a playbook from its source texts and its inputs."""


@dataclass(frozen=True)
class Open:
    """An open run, with the steps that left something in place.

    lost: only its trail knows it, the ledger doesn't; one_way: one of the steps can't be undone; back: it is partly rolled
    back, so it can't go forward.
    """

    run: str
    state: str
    stands: tuple[str, ...]
    lost: bool = False
    one_way: bool = False
    back: bool = False


def refuse_open(playbook: Playbook, target: Connected, runs: Path, load: Loader, *, begin_at: str = "") -> None:
    """Raise RunRefused if a run of this playbook and scope is open: a second one would repeat its work.

    Runs that changed nothing don't count, nor runs of which only steps before `begin_at` are in place: the engine
    requires these to be done.
    """
    before = playbook.ids[: playbook.ids.index(begin_at)] if begin_at in playbook.ids else ()
    with target.database.look() as look:
        rows = latest_runs(look, playbook=playbook.name) if tables.exists(look) else []
        found = [one for row in rows if may_be_open(row) and (one := _open(look, row, playbook, load)) is not None]
    found += _lost(runs, playbook, target, load, known={row.run for row in rows})
    found = [one for one in found if not set(one.stands) <= set(before)]
    if found:
        raise _refusal(playbook, found, runs, target.name)


def _lost(runs: Path, playbook: Playbook, target: Connected, load: Loader, *, known: set[str]) -> list[Open]:
    """Open runs according to their trails that the ledger doesn't know: its rows may have been lost."""
    found = []
    for folder in begun_as(runs, playbook.name):
        if folder.name in known:
            continue
        with contextlib.suppress(TrailBroken, RunRefused):
            one = _as_told(load_run(folder).status, playbook, target, load)
            found += [one] if one is not None else []
    return found


def _as_told(status: RunStatus, playbook: Playbook, target: Connected, load: Loader) -> Open | None:
    began = status.started
    if began is None or status.state in ENDED or identity.differences(began.identity, target.identity):
        return None
    try:
        theirs = load(status.source, {key: _typed(value) for key, value in began.inputs.items() if value is not None})
    except (BadInput, ValueError):
        return None
    if theirs.scope != playbook.scope:
        return None
    standing = [entry for entry in theirs.entries if entry.step.lasting and _told(status, entry.id)]
    return Open(status.run, status.state, tuple(entry.id for entry in standing), lost=True) if standing else None


def _told(status: RunStatus, step: str) -> bool:
    return step in status.steps and status.steps[step].standing


def stands(look: Look, run: str, playbook: Playbook | None) -> tuple[str, ...]:
    """The steps of a run that left something in place, according to the ledger."""
    names = step_commits.standing(look, run)
    if playbook is None:
        return tuple(sorted(names))
    return tuple(entry.id for entry in playbook.entries if entry.id in names and entry.step.lasting)


def of_row(row: RunRow, load: Loader) -> Playbook | None:
    """The playbook of a run as stored in the ledger; None if it can't be loaded (any more)."""
    try:
        return load(_texts(row.source), _texts(row.inputs))
    except (BadInput, ValueError):
        return None


def _texts(document: str) -> dict[str, str]:
    found = json.loads(document)
    return {str(key): _typed(value) for key, value in found.items() if value is not None}


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def may_be_open(row: RunRow) -> bool:
    """Whether a run may be open: not ended, or partly rolled back after it had succeeded; and its effect not taken away."""
    return not (row.rolled_back or row.removed_by) and (row.state not in ENDED or row.going_back)


def _open(look: Look, row: RunRow, playbook: Playbook, load: Loader) -> Open | None:
    theirs = of_row(row, load)
    if theirs is not None and theirs.scope != playbook.scope:
        return None
    standing = stands(look, row.run, theirs)
    stuck = theirs is not None and any(one_way(theirs.entry(name)) for name in standing)
    back = any(
        one.action == "revert" and one.state == StepOutcome.REVERTED for one in step_commits.step_rows(look, row.run)
    )
    return Open(row.run, row.state, standing, one_way=stuck, back=back) if standing else None


def _refusal(playbook: Playbook, found: list[Open], runs: Path, target: str) -> RunRefused:
    first = found[0]
    told = "; ".join(
        f"{one.run} ({one.state.replace('_', ' ')}), of which {', '.join(one.stands)} stands" for one in found
    )
    return RunRefused(
        f"cannot begin {playbook.name}: a run of it is still open on this target: {told}",
        why="a second run beside it would do again what that one has done"
        + ("; the ledger has lost it, and only its trail tells of it" if first.lost else ""),
        state="nothing was changed by this command",
        then=_ways(first, runs, target),
    )


def _ways(first: Open, runs: Path, target: str) -> str:
    """The commands that resolve an open run; none of them would be refused."""
    close = f"runbook close {first.run} --reason '…' (takes nothing back)"
    if first.lost:
        return f"bring the ledger's rows back from a backup; or {close}"
    gone = not (runs / first.run / "trail.jsonl").is_file()
    back = f"runbook recover {first.run} -t {target} (its folder is not in {runs}), then " if gone else ""
    roll = "" if first.one_way else f"runbook rollback {first.run}, or "
    go_on = "" if first.back else f"runbook resume {first.run}, or "
    return f"{back}{go_on}{roll}{close}"
