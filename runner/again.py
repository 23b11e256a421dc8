"""Resume and rollback: the same bytes, inputs and target as when the run began, or a refusal that shows the difference."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner import digest, identity, preflight
from runner.engine import Engine
from runner.errors import RolledBack, RunRefused, TrailBroken
from runner.events import RollbackStarted, RunResumed, RunStarted, RunState, jsonable
from runner.model import Playbook
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


# ─── resume ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Accepted:
    """A person's word that a changed playbook is meant."""

    reason: str = ""


def resume(name: str, orders: Orders, *, accepted: Accepted | None = None) -> str:
    """Find the run → the same playbook, inputs and target → go on where the database says it stands."""
    found = find_run(runs_of(orders), name)
    status = found.status
    _refuse_running(status)
    playbook, resumed = _playbook_again(found, orders, accepted)
    with connected(orders.place, schema=playbook.db_schema, masks=masks_of(playbook)) as target:
        same_target(status, target)
        if status.state in {RunState.SUCCEEDED, RunState.ROLLED_BACK}:
            return _finished(status, target)
        if resumed.digest:
            new = digest.for_approval(playbook.digest, inputs=playbook.values, identity=target.identity)
            resumed = resumed.model_copy(update={"approval_digest": new})
        scope = preflight.requirements_scope(playbook, target)
        with opened(playbook, target, orders, found.directory, status, scope) as engine:
            orders.view.begun(status.run, found.directory)
            engine.emit(resumed)
            carry(engine, target, orders, lambda: run_or_take_back(engine))
    return status.run


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
            then=f"runbook resume {status.run} --input {masked[0]}=…",
        )
    process = identity.process(orders.operator)
    path = Path(started.file)
    playbook = read_playbook(path, given) if path.is_file() else stored(status.source, given, file=started.file)
    _same_inputs(started, playbook)
    if playbook.digest == status.digest:
        return playbook, RunResumed(process=process)
    steps = {entry.id: entry.digest for entry in playbook.entries}
    changed = sorted(
        name for name in set(steps) | set(status.step_digests) if steps.get(name) != status.step_digests.get(name)
    )
    ran = [name for name in changed if name in status.steps and (status.steps[name].outcome or status.steps[name].open)]
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
        with opened(playbook, target, orders, found.directory, status, {}) as engine:
            reverser = Reverser(engine, status.run, playbook)
            entries = reverser.order(after=after)
            orders.view.begun(status.run, found.directory)
            process = identity.process(orders.operator)
            engine.emit(RollbackStarted(steps=tuple(entry.id for entry in entries), reason=reason, process=process))
            _carry_back(engine, target, orders, lambda: reverser.revert(entries))
    return status.run


def _carry_back(engine: Engine, target: Connected, orders: Orders, act: Callable[[], object]) -> None:
    """As `_carry`, but the good end is called rolled back."""

    def back() -> None:
        act()
        raise RolledBack(
            f"{engine.status.run} is rolled back", state="every step that had changed something is taken back"
        )

    with contextlib.suppress(RolledBack):
        carry(engine, target, orders, back)
