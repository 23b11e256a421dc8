"""The command `rollback`: undoes a run's own steps in reverse order. However it ends, it can be continued or closed."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.common.errors import RolledBack, RunRefused
from runner.common.secrets import MASK
from runner.plan import later_runs
from runner.playbook.find import read_playbook
from runner.playbook.model import Entry, Playbook
from runner.record import removals, trust
from runner.run.context import take_up_orders
from runner.run.execute import RunOptions, given_again, masks_of, open_session, path_of, run_under_lease, stored
from runner.run.resume import refuse_broken, refuse_held, refuse_lost, refuse_read_only, runs_of, same_target
from runner.run.rollback import Choice, Reverser
from runner.run.session import RunSession
from runner.target.runs import find_run
from runner.target.workplace import Connected, connected
from runner.trail import run_process
from runner.trail.events import RollbackStarted, RunState
from runner.trail.status import RunStatus
from steps.contract import Mendable
from steps.ledger import runs


@dataclass(frozen=True)
class Asked:
    """The options of a rollback. leave: steps to leave in place; mended: use the corrected undo of the edited playbook.

    despite_later: also if what later runs built on it still stands.
    """

    reason: str
    after: str = ""
    leave: tuple[str, ...] = ()
    mended: bool = False
    despite_later: bool = False


@dataclass(frozen=True)
class RunRollback:
    """A completely rolled back run, with the result in words."""

    run: str
    words: str


@dataclass(frozen=True)
class _Meant:
    """The playbook to roll back by, and what was corrected in it since the run started."""

    playbook: Playbook
    changed: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)


def rollback(name: str, orders: RunOptions, asked: Asked) -> RunRollback:
    """Roll back a run. Raises RolledBackInPart if something is left in place."""
    found = find_run(runs_of(orders), name)
    status = found.status
    if status.state is RunState.RUNNING and status.process is not None and run_process.alive(status.process):
        raise RunRefused(
            f"cannot roll back {status.run} while it runs",
            state="it goes on; nothing was taken back",
            then=f"runbook tune {status.run} stop --reason '…', then runbook rollback {status.run}",
        )
    refuse_broken(found, "roll back")
    meant = _meant(status, asked, _values(status, orders))
    playbook = meant.playbook
    path = path_of(status, playbook)
    with connected(orders.place, schema=playbook.db_schema, path=path, masks=masks_of(playbook)) as target:
        same_target(status, target)
        refuse_read_only(status, playbook, target)
        earlier = _left_earlier(status)
        choice = Choice(asked.after, {**earlier, **_asked_to_leave(asked)}, set(earlier) - set(asked.leave))
        refuse_lost(status, playbook, target, act="take back", without=choice.left)
        told = trust.proven(found, target.database, changes=playbook.changes, what="roll back")
        _refuse_unbegun(status, told)
        _refuse_gone(status, told)
        refuse_held(playbook, target)
        with open_session(playbook, target, orders, found.directory, status, {}, seen=found.seen) as session:
            reverser = Reverser(session, status.run, playbook, choice=choice)
            entries = reverser.order()
            _refuse_nothing_left(status, reverser, entries)
            _refuse_secrets_missing(status, entries)
            asked = _despite_later(session, status, asked) if entries else asked
            reverser.refuse_at_work(entries)
            orders.view.begun(status.run, found.directory)
            first = _started(orders, asked, meant, reverser, entries)
            take_up_orders(target.database, session.control, status.run)
            return _carry_back(session, target, orders, reverser, first)


def _values(status: RunStatus, orders: RunOptions) -> dict[str, str]:
    """The run's inputs; secrets, which the trail doesn't have, are taken from the environment."""
    known = given_again(status)
    given = {name: orders.place.environ.get(f"RUNBOOK_INPUT_{name.upper()}") for name in known if known[name] == MASK}
    return known | {name: value for name, value in given.items() if value is not None}


def _refuse_secrets_missing(status: RunStatus, entries: list[Entry]) -> None:
    """Refuse if a step needs a secret input that was not given again: its mask must never be sent instead."""
    for entry in entries:
        if MASK in entry.step.model_dump_json():
            started = status.started
            names = [name for name, value in started.inputs.items() if value == MASK] if started is not None else []
            variables = " and ".join(f"RUNBOOK_INPUT_{name.upper()}" for name in names)
            raise RunRefused(
                f"cannot take back step {entry.id} ({entry.mark}) without the run's secret inputs: {', '.join(names)}",
                why="the trail has no secret, so they must be given again",
                state="nothing was taken back",
                then=f"set {variables}, then runbook rollback {status.run}",
            )


def _refuse_unbegun(status: RunStatus, told: trust.Trust) -> None:
    if told.row is None and not told.begun:
        raise RunRefused(
            f"nothing to roll back: the target's ledger has no row of {status.run}, which began nothing",
            state="nothing was changed by this command",
            then=f"runbook status {status.run}",
        )


def _refuse_gone(status: RunStatus, told: trust.Trust) -> None:
    """Refuse a run that is rolled back already, unless the ledger doesn't know of that end."""
    removals.refuse_removed(told.row, act="take back")
    elsewhere = told.row is not None and told.row.rolled_back
    unknown = told.row is not None and told.row.state != status.state
    if elsewhere or (status.state is RunState.ROLLED_BACK and not unknown):
        raise RunRefused(
            f"cannot take back {status.run}: it has ended (rolled back)",
            then=f"runbook report {status.run}",
        )


def _despite_later(session: RunSession, status: RunStatus, asked: Asked) -> Asked:
    """Refuse if later runs were built on this one, unless that is accepted: then the reason in the trail names them."""
    if status.rolling_back:
        return asked  # it has begun
    with session.database.look() as look:
        later = later_runs.built_on(look, status.run, stored)
    if not asked.despite_later:
        later_runs.refuse(later, status.run)
    names = ", ".join(one.run for one in later)
    return replace(asked, reason=f"{asked.reason} (despite {names})") if names else asked


def _started(
    orders: RunOptions, asked: Asked, meant: _Meant, reverser: Reverser, entries: list[Entry]
) -> RollbackStarted:
    changed = (
        {"changed_steps": meant.changed, "source": dict(meant.source), "digest": meant.playbook.digest}
        if meant.changed
        else {}
    )
    given = {
        "steps": [entry.id for entry in entries],
        "reason": asked.reason,
        "kept": reverser.kept(),
        "process": run_process.this_process(orders.operator),
    }
    return RollbackStarted.model_validate({**given, **changed})


def _left_earlier(status: RunStatus) -> dict[str, str]:
    """Steps left in place earlier in this (interrupted) rollback → by whom."""
    if status.state is RunState.ROLLED_BACK_IN_PART:
        return {}
    return {name: f"left by {step.left}" for name, step in status.steps.items() if step.left}


def _asked_to_leave(asked: Asked) -> dict[str, str]:
    return dict.fromkeys(asked.leave, asked.reason)


def _refuse_nothing_left(status: RunStatus, reverser: Reverser, entries: list[Entry]) -> None:
    """Refuse to repeat a partial rollback if nothing more can be undone."""
    if entries or status.state is not RunState.ROLLED_BACK_IN_PART:
        return
    told = reverser.balance()
    stands = ", ".join(told.standing)
    words = [f"{told.restored:,} rows restored, {told.refused:,} refused"] if told.refused else []
    words += [f"{stands} still stands"] if stands else []
    raise RunRefused(
        f"cannot take back more of {status.run}: {'; '.join(words) or 'nothing of it stands'}",
        why="what stands is kept by decision" if told.standing else "refused rows are never overwritten",
        state="nothing was changed by this command",
        then=told.end().then,
    )


def _carry_back(
    session: RunSession, target: Connected, orders: RunOptions, reverser: Reverser, first: RollbackStarted
) -> RunRollback:
    """Like run_under_lease, but success is RolledBack."""
    words = ""

    def back() -> None:
        nonlocal words
        # Before anything is undone: if killed from here on, the run must not count as succeeded any more.
        with session.database.own() as work:
            runs.take_up_run(work, run=session.status.run, head=session.trail.head, length=session.trail.length)
        reverser.leave(run_process.this_process(orders.operator).operator)
        reverser.revert([session.playbook.entry(name) for name in first.steps])
        told = reverser.balance()
        words = told.words() or (f"taken back: {', '.join(first.steps)}" if first.steps else "it had changed nothing")
        raise told.end()

    with contextlib.suppress(RolledBack):
        run_under_lease(session, target, orders, back, first=first)
    return RunRollback(session.status.run, words)


# ─── a mended way back ──────────────────────────────────────────────────────────────────────────────────────────────
def _meant(status: RunStatus, asked: Asked, values: Mapping[str, str]) -> _Meant:
    """The run's own copy of the playbook; with --accept-changes the edited one, if only undo definitions differ."""
    kept = stored(status.source, values)
    if not asked.mended or status.started is None:
        return _Meant(kept)
    path = Path(status.started.file)
    if not path.is_file():
        raise RunRefused(
            f"cannot take back {status.run} by a changed playbook: there is no file {path}",
            state="nothing was taken back",
            then="put it back where the run began",
        )
    now = read_playbook(path, dict(values))
    changed = _changed(kept, now)
    wrong = [name for name in changed if not _only_way_back(kept, now, name)]
    if wrong or kept.ids != now.ids:
        raise RunRefused(
            f"cannot take back {status.run} by the changed {path}: more than its way back differs",
            why=f"what a step did is taken back as it was done; changed: {', '.join(wrong) or 'the order of the steps'}",
            state="nothing was taken back",
            then=f"git diff {shlex.quote(str(path))}; change nothing but the revert of its steps and rollback",
        )
    order = (kept.rollback, kept.rollback_steps) != (now.rollback, now.rollback_steps)
    changed += ["rollback"] if order else []
    return _Meant(now, tuple(changed), now.source) if changed else _Meant(kept)


def _changed(kept: Playbook, now: Playbook) -> list[str]:
    mine = {entry.id: entry.step for entry in kept.entries}
    theirs = {entry.id: entry.step for entry in now.entries}
    return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))


def _only_way_back(kept: Playbook, now: Playbook, name: str) -> bool:
    if name not in kept.ids or name not in now.ids:
        return False
    step = now.entry(name).step
    return isinstance(step, Mendable) and step.only_way_back_differs(kept.entry(name).step)
