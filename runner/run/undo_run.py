"""How a step takes back another playbook's run: that run's own steps, under its name, recorded in both."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

from runner.playbook.model import Entry, Playbook
from runner.record import known
from runner.run.engine import Engine
from runner.run.lease import Holder, other_scope
from runner.run.rollback import Reverser
from runner.target import identity
from runner.target.database import RunDatabase, Session
from runner.trail.events import StepOutcome
from steps.contract import AlreadyCommitted, RunTakenBack, StepError, UndoesRun
from steps.ledger import runs, step_commits
from steps.ledger.runs import RunRow

Loader = Callable[[str], Playbook]
"""A playbook from the source texts (JSON) that a run keeps in the ledger."""


def undoer(
    engine: Engine, load: Loader, connect: Callable[[Session], RunDatabase]
) -> Callable[[UndoesRun, Entry], RunTakenBack]:
    """How the engine carries out a step that undoes another playbook's run."""

    def undo(step: UndoesRun, entry: Entry) -> RunTakenBack:
        row = _chosen(engine, step, entry)
        playbook = load(row.source)
        with _under_lease(engine, playbook.scope, connect):
            reverser = Reverser(engine, row.run, playbook, prefix=f"{entry.id}:")
            with engine.database.look() as look:
                known.refuse_lost_acts(look, row.run, playbook)
            only = step.only_steps()
            entries = reverser.order(only)
            reverser.refuse_at_work(entries)
            reverser.revert(entries)
            return _ended(engine, entry, row, reverser, only=only)

    return undo


def _under_lease(
    engine: Engine, scope: str, connect: Callable[[Session], RunDatabase]
) -> contextlib.AbstractContextManager[None]:
    """Another scope has a lease of its own, which whoever changes things there must hold."""
    if scope == engine.playbook.scope:
        return contextlib.nullcontext()
    process = engine.status.process or identity.process(None)
    holder = Holder(engine.database, engine.control, engine.status.run, scope, process)
    return other_scope(holder, connect, engine.emit)


def _chosen(engine: Engine, step: UndoesRun, entry: Entry) -> RunRow:
    """The run to take back: chosen once, and kept in the ledger before its first step is touched."""
    with engine.database.look() as look:
        text = step_commits.remembered(look, run=engine.status.run, step=entry.id)
        chosen = RunTakenBack.model_validate_json(text).run if text else ""
        row = runs.find_run(look, chosen) if chosen else runs.latest_standing(look, step.undoes())
    if row is None:
        raise StepError(f"no run of {step.undoes()} stands on this target")
    engine.database.at(entry.id)
    engine.database.remember(RunTakenBack(run=row.run))
    with contextlib.suppress(AlreadyCommitted), engine.database.commit("begin"):
        pass
    return row


def _ended(engine: Engine, entry: Entry, row: RunRow, reverser: Reverser, *, only: tuple[str, ...]) -> RunTakenBack:
    """What it came to, in this run's ledger rows and in that of the run that was taken back."""
    told, mine, over = reverser.balance(), reverser.balance(only), not reverser.rest()
    standing = tuple(name for name in told.standing if not only or name in only)
    with engine.database.look() as look:
        back = [
            one
            for one in step_commits.step_rows(look, row.run)
            if one.action == "revert" and one.state == StepOutcome.REVERTED
        ]
    steps = sum(not only or one.step in only for one in back)
    result = RunTakenBack(run=row.run, steps=steps, restored=mine.restored, refused=mine.refused, standing=standing)
    engine.database.at(entry.id)
    engine.database.remember(result)
    with contextlib.suppress(AlreadyCommitted), engine.database.commit("undone") as work:
        if over:
            runs.end_run(
                work, run=row.run, state=told.state, figures=row.figures, head=row.trail_head, length=row.trail_length
            )
    return result


def sources(text: str) -> dict[str, str]:
    """The source texts of a run as the ledger keeps them."""
    found = json.loads(text)
    return {str(name): str(body) for name, body in found.items()} if isinstance(found, dict) else {}
