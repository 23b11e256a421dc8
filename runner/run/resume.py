"""The command `resume`: continues a run with the same playbook, inputs and target, or refuses and shows what differs."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.common.errors import BadInput, RunbookError, RunRefused, TrailBroken
from runner.plan import advice, next_commands, original_gates, preflight, window
from runner.playbook import programs
from runner.playbook.find import read_playbook
from runner.playbook.model import Entry, Playbook
from runner.record import known, removals, trust
from runner.run.context import take_up_orders
from runner.run.engine import Engine
from runner.run.execute import (
    RunOptions,
    approval_digest,
    engine_of,
    given_again,
    machine_programs,
    masks_of,
    open_session,
    path_of,
    run_or_take_back,
    run_under_lease,
    stored,
)
from runner.run.session import RunSession
from runner.target import identity
from runner.target.lease_holder import refuse_if_held
from runner.target.runs import Found, find_run
from runner.target.workplace import Connected, Workplace, connected, now, pointed
from runner.trail import run_process
from runner.trail.events import Process, RowsRequeued, RunResumed, RunStarted, RunState, StepOutcome
from runner.trail.status import RunStatus
from steps.contract import Gate, Requeueable
from steps.contract.values import readable_all
from steps.ledger import step_commits, tables

_WELL = frozenset({RunState.SUCCEEDED, RunState.ENDED_UNPROVEN})
_OVER = frozenset({RunState.ROLLED_BACK, RunState.ROLLED_BACK_IN_PART, RunState.CLOSED})  # no way forward


# ─── resume ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Accepted:
    """What a person accepts. changes: the edited playbook; outside: continuing although the window is closed."""

    reason: str = ""
    changes: bool = False
    outside: bool = False


NOTHING_ACCEPTED = Accepted()


def resume(name: str, orders: RunOptions, *, accepted: Accepted = NOTHING_ACCEPTED, dead: bool = False) -> str:
    """Find the run, check that playbook, inputs and target are the same, and continue where the database says it is.

    dead: retry the rows that steps had set aside; also possible for a run that has succeeded.
    """
    found = find_run(runs_of(orders), name)
    status = found.status
    refuse_running(status)
    refuse_broken(found, "resume")
    playbook, resumed = _playbook_again(found, orders, accepted)
    path = path_of(status, playbook)
    with connected(orders.place, schema=playbook.db_schema, path=path, masks=masks_of(playbook)) as target:
        same_target(status, target)
        refuse_read_only(status, playbook, target)
        refuse_lost(status, playbook, target, act="resume")
        told = trust.proven(found, target.database, changes=playbook.changes, what="resume")
        _refuse_unbegun_elsewhere(found, told)
        _refuse_ended(status, told, dead=dead)
        _refuse_changed_since(status, playbook, target, accepted)
        refuse_held(playbook, target)
        unmet = status.state is RunState.CRITERIA_NOT_MET
        if resumed.digest:
            new = approval_digest(playbook, target, exchanged=_exchanged(status, resumed))
            resumed = resumed.model_copy(update={"approval_digest": new})
        allowed = preflight.refuse_unmet(playbook, target)
        with open_session(playbook, target, orders, found.directory, status, allowed.scope, seen=found.seen) as session:
            if dead:
                _refuse_none_aside(session)
            resumed = _within_window(session, resumed, accepted)
            orders.view.begun(status.run, found.directory)
            engine = engine_of(session, target, orders, unproven=trust.unanchored_steps(found, told))
            take_up_orders(target.database, session.control, status.run)
            run_under_lease(session, target, orders, lambda: _go_on(engine, again=dead or unmet), first=resumed)
    return status.run


def _within_window(session: RunSession, resumed: RunResumed, accepted: Accepted) -> RunResumed:
    """Refuse to continue outside of the window, unless a person accepts it; the reason is then recorded."""
    status, playbook = session.status, session.playbook
    ahead = [
        e for e in playbook.entries if e.step.changes and (e.id not in status.steps or not status.steps[e.id].finished)
    ]
    shut = window.why_shut(playbook, status, now=session.now()) if ahead else ""
    if not shut:
        return resumed
    if not accepted.outside:
        raise RunRefused(
            f"cannot go on with {status.run} now: {shut}",
            state="nothing was changed by this attempt; what had committed stays",
            then=f"runbook resume {status.run} --outside-window --reason '…', or runbook rollback {status.run}",
        )
    session.outside_window = True
    return resumed.model_copy(update={"outside_window": True, "reason": accepted.reason})


def _go_on(engine: Engine, *, again: bool) -> None:
    """Continue the run. again: first requeue rows that steps had set aside or deferred, which a criterion may wait for."""
    if again:
        _requeue(engine.session)
    run_or_take_back(engine)


def _requeue(session: RunSession) -> None:
    """Mark the steps that set rows aside as unfinished, so that they retry these rows; nothing else changes."""
    for name, rows in _aside(session).items():
        entry = session.playbook.entry(name)
        session.database.at(name, what=entry.step)
        session.database.policy(lock=entry.lock, timeout=entry.timeout)
        session.emit(RowsRequeued(step=name, rows=rows))
        if isinstance(entry.step, Requeueable):
            entry.step.reopen(session.context(entry))


def _aside(session: RunSession) -> dict[str, int]:
    """Step → the number of rows that it has set aside, if any."""
    found: dict[str, int] = {}
    for entry in session.playbook.entries:
        if isinstance(entry.step, Requeueable) and session.status.step(entry.id).outcome is not None:
            session.database.at(entry.id)
            with session.database.look() as look:
                found[entry.id] = entry.step.aside(look)
    return {step: rows for step, rows in found.items() if rows}


def _refuse_none_aside(session: RunSession) -> None:
    session.database.session.run = session.status.run
    if not _aside(session):
        raise RunRefused(
            f"nothing to try again: {session.status.run} has set no row aside",
            state="nothing was changed by this command",
            then=f"runbook report {session.status.run}",
        )


def refuse_broken(found: Found, what: str) -> None:
    """Refuse a record that is inconsistent in itself (a torn last line is not), before the target is asked."""
    trust.uncontradicted(found, None, what=what)


def _refuse_unbegun_elsewhere(found: Found, told: trust.Trust) -> None:
    """If the ledger has no row yet, require the playbook's file: the trail alone is not trusted for what to execute."""
    started = found.status.started
    if told.row is None and not told.begun and started is not None and not Path(started.file).is_file():
        raise RunRefused(
            f"cannot go on with {found.status.run}: the target's ledger doesn't know it yet, and {started.file} isn't there",
            why="what the trail alone says isn't sent",
            state="nothing was changed by this command",
            then=f"put {started.file} back, or begin again: runbook exec",
        )


def _refuse_ended(status: RunStatus, told: trust.Trust, *, dead: bool) -> None:
    """Refuse a run that has ended. An end that the ledger doesn't know does not count: the run is checked once more."""
    row = told.row  # another run may have undone it, or a person closed it without its folder
    removals.refuse_removed(row, act="go on with")
    elsewhere = row is not None and (row.rolled_back or row.state in _OVER)
    ended = status.state in _OVER or (status.state in _WELL and not dead)
    if not elsewhere and (not ended or (told.row is not None and told.row.state != status.state)):
        return
    words = (row.state if elsewhere and row is not None else status.state).replace("_", " ")
    raise RunRefused(f"cannot go on with {status.run}: it has ended ({words})", then=f"runbook report {status.run}")


def _refuse_rolling_back(status: RunStatus) -> None:
    """Refuse a run whose rollback has started: in its ledger the undone commits still count as done."""
    if status.rolling_back:
        raise RunRefused(
            f"cannot go on with {status.run}: taking it back has begun",
            state="part of it may still stand",
            then=f"runbook rollback {status.run}",
        )


def refuse_lost(
    status: RunStatus, playbook: Playbook, target: Connected, *, act: str, without: Collection[str] = ()
) -> None:
    """Raise RunRefused if the ledger lacks what the trail says was done."""
    with target.database.look() as look:
        known.refuse_lost(look, status, playbook, act=act, without=without)


def _refuse_undone(status: RunStatus, target: Connected) -> None:
    """Refuse a run that another run has undone, at least partly."""
    with target.database.look() as look:
        rows = step_commits.step_rows(look, status.run) if tables.exists(look) else []
    back = [one.step for one in rows if one.action == "revert" and one.state == StepOutcome.REVERTED]
    if back:
        raise RunRefused(
            f"cannot go on with {status.run}: {', '.join(back)} was taken back since, by another run",
            state="nothing was changed by this command",
            then=f"runbook rollback {status.run} takes back what still stands; or begin a new run",
        )


def _refuse_changed_since(status: RunStatus, playbook: Playbook, target: Connected, accepted: Accepted) -> None:
    """Refuse a run whose changes were undone, or whose tables were replaced."""
    _refuse_rolling_back(status)
    _refuse_undone(status, target)
    _refuse_replaced(status, playbook, target, accepted)


def _refuse_replaced(status: RunStatus, playbook: Playbook, target: Connected, accepted: Accepted) -> None:
    """Refuse a run if a table that it changed was replaced, unless a person accepts the new one."""
    if not accepted.changes:
        with target.database.look() as look:
            known.refuse_replaced(look, status, playbook)


def refuse_read_only(status: RunStatus, playbook: Playbook, target: Connected) -> None:
    """Raise RunRefused if the playbook changes something and this session can't be given the needed settings."""
    if playbook.changes:
        preflight.writing_session(target.database, what=f"go on with {status.run} here")


def refuse_held(playbook: Playbook, target: Connected) -> None:
    if playbook.changes:
        refuse_if_held(target.database, playbook.scope)


def runs_of(orders: RunOptions) -> Path:
    try:
        return orders.place.runs_directory(orders.place.resolve())
    except BadInput:
        return orders.place.runs_directory()


def refuse_running(status: RunStatus) -> None:
    if status.state is RunState.RUNNING and status.process is not None and run_process.alive(status.process):
        raise RunRefused(
            f"cannot resume {status.run}: its process still runs (pid {status.process.pid})",
            then=f"runbook status {status.run}",
        )


def here(found: Found, given: Mapping[str, str]) -> next_commands.Here:
    """The circumstances for next_commands, including why a resume would be refused. given: secret inputs."""
    living, options = advice.alive(found.status), found.options()
    obstacle = None if living else _obstacle(found, given, options)
    return next_commands.Here(now(), alive=living, options=options, obstacle=obstacle)


def _obstacle(found: Found, given: Mapping[str, str], options: str) -> next_commands.Obstacle | None:
    run = found.status.run
    if fault := trust.alone(found):
        verify = f"runbook trail verify {run} --against-target"
        return next_commands.Obstacle(f"its record does not verify: {fault}", pointed(verify, run, options), every=True)
    try:
        _playbook_again(found, RunOptions(place=Workplace(), inputs=given), Accepted())
    except RunbookError as error:
        first = " ".join(error.what.split("\n")[:2])
        return next_commands.Obstacle(first, pointed(error.then or f"mend it, then runbook resume {run}", run, options))
    return None


def _playbook_again(found: Found, orders: RunOptions, accepted: Accepted) -> tuple[Playbook, RunResumed]:
    """Load the playbook again, and the RunResumed event with what has changed. Raises RunRefused for unaccepted changes."""
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
    process = run_process.this_process(orders.operator)
    path = Path(started.file)
    playbook = (
        read_playbook(path, given)
        if path.is_file()
        else stored(status.source, given, file=started.file, programs=status.programs)
    )
    _same_inputs(started, playbook)
    resumed = RunResumed(process=process, reason=accepted.reason)
    machine = machine_programs(playbook)
    if not _means_the_same(playbook, status) or _differ(status.system_programs, machine):
        resumed = _with_changes(playbook, found, accepted, process=process, machine=machine, given=given)
    if playbook.digest != started.digest:
        playbook = original_gates.with_gates_of(playbook, stored(started.source, given, programs=started.programs))
    return playbook, resumed


def _refuse_replaced_gates(status: RunStatus, playbook: Playbook, given: Mapping[str, str]) -> None:
    """Refuse an edit that gives a gate's id to another kind of step: the gate stays in force under this id."""
    if status.started is None:
        return
    began = stored(status.started.source, given, programs=status.started.programs)
    if names := original_gates.replaced(playbook, began):
        raise RunRefused(
            f"cannot resume {status.run}: {', '.join(names)} was a gate when it began, and is another step now",
            why="the gate stays in force under its name",
            state="nothing was changed by this attempt",
            then=f"give the step in {shlex.quote(str(playbook.file))} another id, then runbook resume {status.run}",
        )


def _with_changes(
    playbook: Playbook,
    found: Found,
    accepted: Accepted,
    *,
    process: Process,
    machine: dict[str, str],
    given: Mapping[str, str],
) -> RunResumed:
    """The event with the accepted changes. Raises RunRefused if nobody accepts them, or a changed step has run already."""
    status, path = found.status, playbook.file
    before = stored(status.source, given, programs=status.programs)
    files = [*_differ(status.programs, playbook.programs), *_differ(status.system_programs, machine)]
    changed = _changed(before, playbook, files)
    ran = [name for name in changed if name in before.ids and _began(before.entry(name), status)]
    words = ", ".join([*changed, *(f"{file} is another one now" for file in files)])
    words = words or "checks, queries, limits or header"
    if ran:
        raise RunRefused(
            f"cannot resume {status.run}: {path} was changed in a step that ran: {', '.join(ran)}",
            why=f"changed since the run began: {words}",
            then=f"git diff {shlex.quote(str(path))}; put it back, or runbook rollback {status.run}",
        )
    _refuse_replaced_gates(status, playbook, given)
    if not accepted.changes:
        raise RunRefused(
            f"cannot resume {status.run}: {path} was changed since it began: {words}",
            why="approvals and rehearsals were given for other bytes",
            then=f"runbook resume {status.run} --accept-changes --reason '…' (voids the approvals), or put the file back",
        )
    asked = {check.id: original_gates.question(check) for check in before.preconditions}
    anew = [check.id for check in playbook.preconditions if original_gates.question(check) != asked.get(check.id)]
    return RunResumed(
        process=process,
        reason=accepted.reason,
        changed_steps=tuple(changed),
        digest=playbook.digest,
        source=dict(playbook.source),
        steps={entry.id: entry.digest for entry in playbook.entries},
        approval_digest=status.approval_digest,
        programs=dict(playbook.programs),
        system_programs=machine,
        changed_checks=tuple(anew),
    )


def _means_the_same(playbook: Playbook, status: RunStatus) -> bool:
    """Whether the playbook has the same digest; for runs of older engines, whose digests differ, the same text."""
    earlier = status.programs is None and dict(playbook.source) == status.source
    return playbook.digest == status.digest or earlier


def _differ(then: Mapping[str, str] | None, now: Mapping[str, str]) -> list[str]:
    """The files whose hashes differ; [] if none were recorded."""
    if then is None:
        return []
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


def _exchanged(status: RunStatus, resumed: RunResumed) -> dict[str, str]:
    """The replaced programs of this machine, which are not part of the playbook's digest."""
    now = resumed.system_programs or {}
    return {name: now.get(name, "") for name in _differ(status.system_programs, now)}


def _changed(before: Playbook, now: Playbook, files: list[str]) -> list[str]:
    """The steps that changed: their own text, a query that they use, or a file that they execute."""
    then = {entry.id: _means(entry, before) for entry in before.entries}
    here = {entry.id: _means(entry, now) for entry in now.entries}
    changed = {name for name in set(then) | set(here) if then.get(name) != here.get(name)}
    folder = Path(now.file).parent
    changed |= {entry.id for entry in now.entries if programs.named(programs.of_entry(entry), folder) & set(files)}
    return sorted(changed)


def _means(entry: Entry, playbook: Playbook) -> tuple[object, ...]:
    """What a step does, and on which condition; the latter with its query and limits, which stand elsewhere in the file."""
    if entry.when is None:
        return (entry.digest, entry.step)
    limits = {name for name in (entry.when.that.names if entry.when.that else ()) if name.startswith("limits.")}
    values = {name: playbook.limits.get(name.removeprefix("limits.")) for name in limits}
    return (entry.digest, entry.step, original_gates.question(entry.when), values)


def _began(entry: Entry, status: RunStatus) -> bool:
    """Whether a step may have done anything; an unpassed gate has not."""
    step = status.step(entry.id)
    return step.finished if isinstance(entry.step, Gate) else bool(step.outcome or step.open)


def _same_inputs(started: RunStarted, playbook: Playbook) -> None:
    now_given = readable_all(playbook.values)
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
            state="nothing was changed by this command",
            then=f"runbook resume {status.run} --target {shlex.quote(status.started.target if status.started else '')}",
        )
