"""Undoing another playbook's run as a step: under that run's name, recorded in both runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

from runner.plan import later_runs
from runner.playbook.model import Entry, Playbook
from runner.playbook.stored import stored
from runner.record import known
from runner.run.lease import Holder, other_scope
from runner.run.rollback import Reverser
from runner.run.session import RunSession
from runner.target.database import RunDatabase, Session
from runner.trail import run_process
from runner.trail.events import StepOutcome
from steps.contract import AlreadyCommitted, RunTakenBack, StepError, UndoesRun
from steps.ledger import runs, step_commits
from steps.ledger.runs import RunRow

Loader = Callable[[str], Playbook]
"""Loads a playbook from the source texts (JSON) that the ledger stores for a run."""


def undo_run(
    session: RunSession, step: UndoesRun, entry: Entry, *, load: Loader, connect: Callable[[Session], RunDatabase]
) -> RunTakenBack:
    """Execute a step that undoes another playbook's run."""
    row = _chosen(session, step, entry)
    playbook = load(row.source)
    with _under_lease(session, playbook.scope, connect):
        reverser = Reverser(session, row.run, playbook, prefix=f"{entry.id}:")
        with session.database.look() as look:
            known.refuse_lost_acts(look, row.run, playbook)
        only = step.only_steps()
        entries = reverser.order(only)
        reverser.refuse_at_work(entries)
        reverser.revert(entries)
        return _ended(session, entry, row, reverser, only=only)


def _under_lease(
    session: RunSession, scope: str, connect: Callable[[Session], RunDatabase]
) -> contextlib.AbstractContextManager[None]:
    """Take the lease of that run's scope while the block runs, if it is another scope than ours."""
    if scope == session.playbook.scope:
        return contextlib.nullcontext()
    process = session.status.process or run_process.this_process(None)
    holder = Holder(session.database, session.control, session.status.run, scope, process)
    return other_scope(holder, connect, session.emit)


def _chosen(session: RunSession, step: UndoesRun, entry: Entry) -> RunRow:
    """The run to undo. It is chosen once and committed to the ledger before anything is undone, so a resume keeps to it."""
    with session.database.look() as look:
        text = step_commits.remembered(look, run=session.status.run, step=entry.id)
        chosen = RunTakenBack.model_validate_json(text).run if text else ""
        row = runs.find_run(look, chosen) if chosen else runs.latest_standing(look, step.undoes())
        later = later_runs.built_on(look, row.run, stored) if row is not None and not chosen else []
    if row is None:
        raise StepError(f"no run of {step.undoes()} stands on this target")
    later_runs.refuse(later, row.run, again=f"runbook resume {session.status.run}")
    session.database.at(entry.id)
    session.database.remember(RunTakenBack(run=row.run))
    with contextlib.suppress(AlreadyCommitted), session.database.commit("begin"):
        pass
    return row


def _ended(
    session: RunSession, entry: Entry, row: RunRow, reverser: Reverser, *, only: tuple[str, ...]
) -> RunTakenBack:
    """The result, recorded in the ledger rows of this run and of the undone one."""
    told, mine, over = reverser.balance(), reverser.balance(only), not reverser.rest()
    standing = tuple(name for name in told.standing if not only or name in only)
    with session.database.look() as look:
        back = [
            one
            for one in step_commits.step_rows(look, row.run)
            if one.action == "revert" and one.state == StepOutcome.REVERTED
        ]
    steps = sum(not only or one.step in only for one in back)
    result = RunTakenBack(run=row.run, steps=steps, restored=mine.restored, refused=mine.refused, standing=standing)
    session.database.at(entry.id)
    session.database.remember(result)
    with contextlib.suppress(AlreadyCommitted), session.database.commit("undone") as work:
        if over:
            runs.end_run(
                work, run=row.run, state=told.state, figures=row.figures, head=row.trail_head, length=row.trail_length
            )
    return result


def sources(text: str) -> dict[str, str]:
    """A run's source texts, parsed from the ledger."""
    found = json.loads(text)
    return {str(name): str(body) for name, body in found.items()} if isinstance(found, dict) else {}
