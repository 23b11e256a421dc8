"""Refuses to act on a run if the ledger lacks what the trail says was done, or if changed tables were replaced.

A missing ledger row doesn't prove that the change is absent: the ledger itself may have been lost or restored.
"""

from __future__ import annotations

from collections.abc import Collection

from runner.common.errors import RunRefused
from runner.playbook.model import Playbook
from runner.target import ledger_check
from runner.trail.events import StepOutcome
from runner.trail.status import RunStatus
from steps.catalog import touched_tables
from steps.contract import Look, RunPosition
from steps.ledger import runs, step_commits, tables

_ACTED = frozenset({StepOutcome.DONE, StepOutcome.CRITERIA_NOT_MET})  # outcomes of a step that has committed something


def refuse_lost(look: Look, status: RunStatus, playbook: Playbook, *, act: str, without: Collection[str] = ()) -> None:
    """Raise RunRefused if the ledger lacks what the trail implies: its schema, the run's row, or a step's rows.

    act: the refused action, for the message. without: steps that are left in place and need not be in the ledger.
    """
    if not playbook.changes or not _reached_the_ledger(status):
        return
    done = [name for name, step in status.steps.items() if step.outcome in _ACTED and not step.reverted]
    done = [name for name in done if name in playbook.ids and playbook.entry(name).step.changes]
    if not tables.exists(look):
        ledger_check.refuse_bad(look)  # something else may be in its place
        raise _refusal(status.run, act, "the target has no ledger (any more)", done)
    if runs.find_run(look, status.run) is None:
        raise _refusal(status.run, act, "the ledger in the target does not know this run", done)
    lost = [name for name in _without_acts(look, status.run, done, playbook) if name not in without]
    if lost:
        raise _refusal(
            status.run, act, f"the ledger has no record of what {', '.join(lost)} committed", done, leave=lost[0]
        )


def refuse_lost_acts(look: Look, run: str, playbook: Playbook) -> None:
    """Like refuse_lost, for a run of another playbook, of which only the ledger is available."""
    rows = step_commits.step_rows(look, run)
    back = {row.step for row in rows if row.action == "revert" and row.state == StepOutcome.REVERTED}
    done = [row.step for row in rows if row.action == "apply" and row.state in _ACTED and row.step not in back]
    lost = _without_acts(look, run, [name for name in done if name in playbook.ids], playbook)
    if lost:
        raise _refusal(run, "take back", f"the ledger has no record of what {', '.join(lost)} committed", done)


def refuse_replaced(look: Look, status: RunStatus, playbook: Playbook) -> None:
    """Raise RunRefused if a table that the run changed was dropped and recreated: the change went with the old one."""
    if not tables.exists(look):
        return
    for entry in playbook.entries:
        place = RunPosition(status.run, entry.id, "apply")
        found = touched_tables.replaced(look, place, entry.step, going_on=True) if entry.id in status.steps else []
        if found:
            raise RunRefused(
                f"cannot go on with {status.run}: {'; '.join(found)}",
                why=f"what step {entry.id} ({entry.mark}) did went with the old one",
                state="nothing was changed by this attempt",
                then=f"runbook close {status.run} --reason '…', then begin again; or, where what {entry.id} did is in the new one "
                f"too, runbook resume {status.run} --accept-changes --reason '…'",
            )


def _reached_the_ledger(status: RunStatus) -> bool:
    """Whether the run's row was ever written: that happens before the first check is asked."""
    return bool(status.steps or status.checks)


def _without_acts(look: Look, run: str, done: Collection[str], playbook: Playbook) -> list[str]:
    acted = step_commits.acted(look, run=run, action="apply")
    return [name for name in done if name not in acted and playbook.entry(name).step.lasting]


def _refusal(run: str, act: str, what: str, done: Collection[str], *, leave: str = "") -> RunRefused:
    told = f"the trail says that {', '.join(done)} was done" if done else "the trail says that the run had begun"
    ways = f"runbook close {run} --reason '…' ends the run as what it is"
    ways += f"; or runbook rollback {run} --leave {leave} --reason '…'" if leave else ""
    return RunRefused(
        f"cannot {act} {run}: {what}",
        why=f"{told}; that the ledger is silent does not prove that nothing stands",
        state=f"nothing was changed; {', '.join(done) or 'what the run did'} may still stand",
        then=f"bring the ledger's rows back from a backup; or {ways}",
    )
