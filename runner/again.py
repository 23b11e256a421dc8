"""Resume and rollback: the same bytes, inputs and target as when the run began, or a refusal that shows the difference."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from runner import digest, identity, preflight, trail
from runner.context import take_up_orders
from runner.engine import Engine
from runner.errors import Aborted, RolledBack, RunRefused, TrailBroken
from runner.events import RollbackStarted, RunResumed, RunStarted, RunState, jsonable
from runner.lease import refuse_if_held
from runner.model import Entry, Playbook
from runner.playbooks import read_playbook
from runner.rollback import Reverser
from runner.source import BadInput
from runner.status import RunStatus
from runner.workflow import (
    Orders,
    carry,
    given_again,
    masks_of,
    opened,
    run_or_take_back,
    stored,
)
from runner.workplace import Connected, Found, connected, find_run
from steps import ledger
from steps.base import Gate


# ─── resume ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Accepted:
    """A person's word that a changed playbook is meant."""

    reason: str = ""


def resume(name: str, orders: Orders, *, accepted: Accepted | None = None, dead: bool = False) -> str:
    """Find the run → the same playbook, inputs and target → go on where the database says it stands.

    dead: rows that steps had set aside are tried again; that may also be asked of a run that has succeeded.
    """
    found = find_run(runs_of(orders), name)
    status = found.status
    _refuse_running(status)
    _refuse_broken(found)
    playbook, resumed = _playbook_again(found, orders, accepted)
    with connected(orders.place, schema=playbook.db_schema, masks=masks_of(playbook)) as target:
        same_target(status, target)
        if status.state is RunState.ROLLED_BACK or (status.state is RunState.SUCCEEDED and not dead):
            return _finished(status, target)
        _refuse_rolling_back(status)
        _refuse_held(playbook, target)
        if resumed.digest:
            new = digest.for_approval(playbook.digest, inputs=playbook.values, identity=target.identity)
            resumed = resumed.model_copy(update={"approval_digest": new})
        scope = preflight.requirements_scope(playbook, target)
        with opened(playbook, target, orders, found.directory, status, scope) as engine:
            if dead:
                _refuse_none_aside(engine)
            orders.view.begun(status.run, found.directory)
            engine.emit(resumed)
            take_up_orders(target.database, engine.control, status.run)
            carry(engine, target, orders, lambda: _go_on(engine, dead=dead))
    return status.run


def _go_on(engine: Engine, *, dead: bool) -> None:
    if dead:
        engine.redrive()
    run_or_take_back(engine)


def _refuse_none_aside(engine: Engine) -> None:
    engine.database.session.run = engine.status.run
    if not engine.aside():
        raise RunRefused(
            f"nothing to try again: {engine.status.run} has set no row aside",
            state="nothing was changed",
            then=f"runbook report {engine.status.run}",
        )


def _refuse_broken(found: Found) -> None:
    """Nothing goes on from a record that somebody changed; a torn last line is no change."""
    fault = trail.verify(found.trail).fault
    if fault:
        raise TrailBroken(
            f"cannot resume from {found.trail}: {fault}",
            state="nothing was changed",
            then=f"runbook trail verify {found.status.run} --against-target",
        )


def _refuse_rolling_back(status: RunStatus) -> None:
    """What is taken back can't be done again under the same run: its ledger has it as done."""
    if status.rolling_back:
        raise RunRefused(
            f"cannot go on with {status.run}: taking it back has begun",
            state="part of it may still stand",
            then=f"runbook rollback {status.run}, or begin a new run: what stands is found as already so",
        )


def _refuse_held(playbook: Playbook, target: Connected) -> None:
    if playbook.changes:
        refuse_if_held(target.database, playbook.scope)


def runs_of(orders: Orders) -> Path:
    try:
        return orders.place.runs_directory(orders.place.resolve())
    except BadInput:
        return orders.place.runs_directory()


def _refuse_running(status: RunStatus) -> None:
    if status.state is RunState.RUNNING and status.process is not None and identity.alive(status.process):
        raise RunRefused(
            f"cannot resume {status.run}: its process still runs (pid {status.process.pid})",
            then=f"runbook status {status.run}",
        )


def _finished(status: RunStatus, target: Connected) -> str:
    """A run that has ended is not resumed; where it was killed before the ledger heard of its end, the ledger hears it now."""
    with target.database.look() as look:
        row = ledger.find_run(look, status.run) if ledger.exists(look) else None
    words = status.state.replace("_", " ")
    if row is None or row.state == status.state:
        raise RunRefused(f"cannot go on with {status.run}: it has ended ({words})", then=f"runbook report {status.run}")
    with target.database.own(fenced=False) as work:
        ledger.end_run(
            work,
            run=status.run,
            state=status.state,
            figures=json.dumps(status.figures),
            head=status.head,
            length=status.length,
        )
    return status.run


def _playbook_again(found: Found, orders: Orders, accepted: Accepted | None) -> tuple[Playbook, RunResumed]:
    """The playbook at hand if it means the same, or what changed of it, step by step."""
    status = found.status
    started = status.started
    if started is None:
        raise TrailBroken(f"the trail {found.trail} does not begin with a start")
    given = {**given_again(status), **orders.inputs}
    masked = [name for name, value in started.inputs.items() if value == "***" and name not in orders.inputs]
    if masked:
        raise RunRefused(
            f"cannot resume {status.run} without its secret inputs: {', '.join(masked)}",
            why="the trail has no secret, so they must be given again",
            then=f"set RUNBOOK_INPUT_{masked[0].upper()}, then runbook resume {status.run}",
        )
    process = identity.process(orders.operator)
    path = Path(started.file)
    playbook = read_playbook(path, given) if path.is_file() else stored(status.source, given, file=started.file)
    _same_inputs(started, playbook)
    if playbook.digest == status.digest:
        return playbook, RunResumed(process=process)
    steps = {entry.id: entry.digest for entry in playbook.entries}
    before = stored(status.source, given)
    changed = _changed(before, playbook)
    ran = [name for name in changed if name in before.ids and _began(before.entry(name), status)]
    words = ", ".join(changed) or "checks, queries, limits or header"
    if ran:
        raise RunRefused(
            f"cannot resume {status.run}: {path} was changed in a step that ran: {', '.join(ran)}",
            why=f"changed since the run began: {words}",
            then=f"git diff {path}; put it back, or runbook rollback {status.run}",
        )
    if accepted is None:
        raise RunRefused(
            f"cannot resume {status.run}: {path} was changed since it began: {words}",
            why="approvals and rehearsals were given for other bytes",
            then=f"runbook resume {status.run} --accept-changes --reason '…' (voids the approvals), or put the file back",
        )
    return playbook, RunResumed(
        process=process, reason=accepted.reason, changed_steps=tuple(changed), digest=playbook.digest,
        source=dict(playbook.source), steps=steps, approval_digest=status.approval_digest,
    )  # fmt: skip


def _changed(before: Playbook, now: Playbook) -> list[str]:
    """The steps that are written otherwise, or that name a query which is: what a step does is more than its own lines."""
    then = {entry.id: (entry.digest, entry.step) for entry in before.entries}
    here = {entry.id: (entry.digest, entry.step) for entry in now.entries}
    return sorted(name for name in set(then) | set(here) if then.get(name) != here.get(name))


def _began(entry: Entry, status: RunStatus) -> bool:
    """Whether anything of a step may have happened; a gate that is not passed has done nothing."""
    step = status.step(entry.id)
    return step.finished if isinstance(entry.step, Gate) else bool(step.outcome or step.open)


def _same_inputs(started: RunStarted, playbook: Playbook) -> None:
    now_given = jsonable(playbook.values)
    changed = [name for name, value in started.inputs.items() if value != "***" and now_given.get(name) != value]
    if changed:
        raise RunRefused(
            f"cannot resume with other inputs: {', '.join(changed)}",
            why="; ".join(f"{name} was {started.inputs[name]!r}, is {now_given.get(name)!r}" for name in changed),
            then="resume without --input, or begin a new run",
        )


def same_target(status: RunStatus, target: Connected) -> None:
    then = status.started.identity if status.started else {}
    differ = identity.differences(then, target.identity)
    if differ:
        copy = then.get("system") is not None and then.get("system") == target.identity.get("system")
        raise RunRefused(
            f"cannot go on with {status.run} here: this is {'a copy or a failover of' if copy else 'not'} the target on which it began",
            why="; ".join(differ),
            state="nothing was changed",
            then=f"runbook resume {status.run} --target {status.started.target if status.started else ''}",
        )


# ─── rollback ───────────────────────────────────────────────────────────────────────────────────────────────────────
def rollback(name: str, orders: Orders, *, reason: str, after: str = "") -> str:
    """Take back a run of which something stands: its own steps, in reverse, from what each remembered."""
    found = find_run(runs_of(orders), name)
    status = found.status
    if status.state is RunState.RUNNING and status.process is not None and identity.alive(status.process):
        raise RunRefused(
            f"cannot roll back {status.run} while it runs", then="stop it with ^C or `runbook tune RUN stop` first"
        )
    playbook = stored(status.source, given_again(status))
    with connected(orders.place, schema=playbook.db_schema, masks=masks_of(playbook)) as target:
        same_target(status, target)
        if status.state is RunState.ROLLED_BACK:
            return _finished(status, target)
        _refuse_held(playbook, target)
        with opened(playbook, target, orders, found.directory, status, {}) as engine:
            reverser = Reverser(engine, status.run, playbook)
            entries = reverser.order(after=after)
            orders.view.begun(status.run, found.directory)
            process = identity.process(orders.operator)
            engine.emit(RollbackStarted(steps=tuple(entry.id for entry in entries), reason=reason, process=process))
            take_up_orders(target.database, engine.control, status.run)
            _carry_back(engine, target, orders, reverser, entries)
    return status.run


class _PartlyBack(Aborted):
    """Taken back as far as --to asked: the good end of a rollback after which something still stands."""


def _carry_back(engine: Engine, target: Connected, orders: Orders, reverser: Reverser, entries: list[Entry]) -> None:
    """As `carry`, but the good end is called rolled back, or aborted where some steps were to be kept."""

    def back() -> None:
        reverser.revert(entries)
        left = reverser.standing()
        if left:
            raise _PartlyBack(
                f"taken back as far as asked; {', '.join(left)} still stand",
                then=f"runbook rollback {engine.status.run} takes back the rest",
            )
        raise RolledBack(
            f"{engine.status.run} is rolled back", state="every step that had changed something is taken back"
        )

    with contextlib.suppress(RolledBack, _PartlyBack):
        carry(engine, target, orders, back)
