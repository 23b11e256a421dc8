"""The command `close`: a person ends an open run in its current state; nothing is undone."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from runner.common.errors import RunClosed, RunRefused
from runner.common.secrets import Masks
from runner.plan import open_runs
from runner.playbook.model import Playbook
from runner.record import known, trust
from runner.run.control import Control
from runner.run.execute import RunOptions, given_again, masks_given, masks_of_run, open_session, run_under_lease, stored
from runner.run.lease import Holder
from runner.run.resume import refuse_broken, refuse_held, refuse_running, runs_of, same_target
from runner.target.lease_holder import refuse_if_held
from runner.target.runs import Found, find_run
from runner.target.workplace import Connected, connected
from runner.trail import run_process
from runner.trail.events import Closed, RunEnded, RunState
from runner.trail.status import RunStatus
from runner.trail.trail import Trail
from steps.contract import Work
from steps.ledger import commands, runs, tables
from steps.ledger.runs import RunRow


@dataclass(frozen=True)
class ClosingDecision:
    """Who closes a run, and why."""

    by: str
    reason: str

    def masked(self, masks: Masks) -> ClosingDecision:
        return ClosingDecision(masks.mask(self.by), masks.mask(self.reason))


@dataclass(frozen=True)
class Ended:
    """A closed run. note: where it could not be recorded, in words."""

    run: str
    stands: tuple[str, ...]
    note: str = ""


def close(name: str, orders: RunOptions, word: ClosingDecision) -> Ended:
    """Close an open run, in trail and ledger; if its folder or its ledger rows are lost, only in the other one."""
    try:
        found = find_run(runs_of(orders), name)
    except RunRefused as nowhere:
        return _in_the_ledger(name, orders, word, nowhere)
    status = found.status
    masks = masks_of_run(status, orders)
    word = word.masked(masks)
    refuse_running(status)
    refuse_broken(found, "close")
    playbook = stored(status.source, given_again(status))
    with connected(orders.place, schema=playbook.db_schema, masks=masks) as target:
        same_target(status, target)
        if status.state in open_runs.ENDED and not _going_back(status, target):
            raise _over(status.run, status.state)
        lost = _lost(status, playbook, target)
        if lost or not playbook.changes:
            return _in_the_trail(found, masks, word, lost)
        trust.proven(found, target.database, changes=playbook.changes, what="close")
        refuse_held(playbook, target)
        return _in_both(found, playbook, target, orders, word)


def _over(run: str, state: str) -> RunRefused:
    return RunRefused(f"cannot close {run}: it has ended ({state.replace('_', ' ')})", then=f"runbook report {run}")


def _going_back(status: RunStatus, target: Connected) -> bool:
    """Whether the run had succeeded, but another run has partly undone it since, so that it is open again."""
    with target.database.look() as look:
        row = runs.find_run(look, status.run) if tables.exists(look) else None
    return row is not None and open_runs.may_be_open(row) and row.going_back


def _lost(status: RunStatus, playbook: Playbook, target: Connected) -> str:
    """What the ledger lacks of the run, in words; "" if nothing. The run can then be closed only in its trail."""
    with target.database.look() as look:
        try:
            known.refuse_lost(look, status, playbook, act="close")
        except RunRefused as lost:
            return lost.what
    return ""


def _in_both(found: Found, playbook: Playbook, target: Connected, orders: RunOptions, word: ClosingDecision) -> Ended:
    run = found.status.run
    with target.database.look() as look:
        standing = open_runs.stands(look, run, playbook)
    with open_session(playbook, target, orders, found.directory, found.status, {}, seen=found.seen) as session:

        def act() -> None:
            with session.database.own() as work:
                _record(work, run, word)
            raise RunClosed(
                f"closed by {word.by}: {word.reason}",
                state=f"nothing was taken back; what stands: {', '.join(standing) or 'nothing'}",
                then=f"runbook report {run}",
            )

        with contextlib.suppress(RunClosed):
            run_under_lease(session, target, orders, act, first=Closed(by=word.by, reason=word.reason, stands=standing))
    return Ended(run, standing)


def _record(work: Work, run: str, word: ClosingDecision) -> None:
    commands.add_command(work, run=run, order={"closed": True}, by=word.by, reason=word.reason)


def _in_the_trail(found: Found, masks: Masks, word: ClosingDecision, lost: str) -> Ended:
    status = found.status
    standing = tuple(one.id for one in status.steps.values() if one.standing)
    trail = Trail(found.trail, masks=masks, seen=found.seen)
    try:
        trail.append(Closed(by=word.by, reason=word.reason, stands=standing))
        trail.append(RunEnded(state=RunState.CLOSED, exit_code=0, what=f"closed by {word.by}: {word.reason}"))
    finally:
        trail.close()
    return Ended(status.run, standing, f"in the trail alone: {lost}" if lost else "")


def _in_the_ledger(name: str, orders: RunOptions, word: ClosingDecision, nowhere: RunRefused) -> Ended:
    """Close a run whose folder is lost, in the ledger alone; its full name is needed."""
    with connected(orders.place) as target:
        with target.database.look() as look:
            row = runs.find_run(look, name) if tables.exists(look) else None
            if row is None:
                raise nowhere
            playbook = open_runs.of_row(row, stored)
            standing = open_runs.stands(look, name, playbook)
        if not open_runs.may_be_open(row):
            raise _over(name, row.state)
        _end_row(target, orders, row, playbook, word.masked(masks_given(json.loads(row.inputs), orders)))
    return Ended(name, standing, "in the ledger alone: the run's folder is not here")


def _end_row(
    target: Connected, orders: RunOptions, row: RunRow, playbook: Playbook | None, word: ClosingDecision
) -> None:
    database = target.database
    scope = playbook.scope if playbook is not None else "target"
    refuse_if_held(database, scope)
    database.session.run = row.run
    holder = Holder(
        database, Control(cancel=database.cancel), row.run, scope, run_process.this_process(orders.operator)
    )
    holder.take()
    try:
        with database.own() as work:
            _record(work, row.run, word)
            runs.end_run(
                work,
                run=row.run,
                state=RunState.CLOSED,
                figures=json.dumps(json.loads(row.figures)),
                head=row.trail_head,
                length=row.trail_length,
            )
    finally:
        holder.give_back()
