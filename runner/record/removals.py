"""Which runs have lost their effect: a later run of a playbook with `removes:` has begun to take it away.

The target's ledger decides (steps.ledger.runs); where no target is asked, the trails beside a run tell the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner.common.errors import RunRefused
from runner.target.runs import Found, runs_that_remove
from runner.trail.events import RunState
from runner.trail.status import RunStatus
from steps.ledger.runs import RunRow


def refuse_removed(row: RunRow | None, *, act: str) -> None:
    """Raise RunRefused for a run of which nothing is left to act on. act: resume, take back."""
    if row is not None and row.removed_by:
        raise RunRefused(
            f"cannot {act} {row.run}: run {row.removed_by} takes away what it made",
            why="what its steps wrote down is no longer what stands in the database",
            state="nothing was changed by this command",
            then=f"runbook report {row.removed_by}; then runbook close {row.run} --reason '…', or begin a new run",
        )


def remover(status: RunStatus, others: Iterable[RunStatus]) -> str:
    """The first later run on the same target that has begun to take away what this one made; "" if there is none."""
    mine = status.started
    if mine is None:
        return ""
    later = sorted((one for one in others if one.started_at > status.started_at), key=lambda one: one.started_at)
    return next(
        (
            one.run
            for one in later
            if one.started is not None
            and mine.playbook in one.started.removes
            and one.started.identity == mine.identity
            and one.state is not RunState.ROLLED_BACK
            and any(step.standing for step in one.steps.values())
        ),
        "",
    )


def of_run(found: Found, runs: Path) -> str:
    """Like `remover`, for a run and the trails in its runs directory."""
    started = found.status.started
    return remover(found.status, (one.status for one in runs_that_remove(runs, started.playbook))) if started else ""
