"""What people do by hand belongs to the run: approve, bring evidence, settle, note, steer, and send SQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from runner import approvals, identity
from runner.again import runs_of, same_target
from runner.database import RunDatabase
from runner.errors import RunRefused, StepFailed
from runner.events import Approved, Event, EvidenceGiven, Noted, RunState, Settled, SqlByHand
from runner.masks import Masks
from runner.model import Entry, Playbook
from runner.status import RunStatus
from runner.trail import Trail, utc_now
from runner.workflow import Orders, given_again, stored
from runner.workplace import Found, connected, find_run
from steps import ledger
from steps.base import DatabaseFault, Gate, GateNeeds, StepError, Value
from steps.dialect import controls_transaction, needs_autocommit, split


def approve(
    name: str, orders: Orders, *, step: str, by: str, role: str, reason: str, valid_s: float | None = None
) -> str:
    """Record a person's yes to a gate, bound to what was approved; unsigned, so it is a claim and every report says so."""
    found = _found(name, orders)
    playbook = playbook_of(found)
    entry = _gate(playbook, found, step)
    needs = _needs(entry)
    need = needs.approval
    if need is None:
        raise RunRefused(
            f"cannot approve {entry.id}: it asks for no approval", then=f"runbook resume {found.status.run}"
        )
    if need.roles and role not in need.roles:
        raise RunRefused(
            f"cannot approve {entry.id} as {role or 'nobody'}: it asks for {' or '.join(need.roles)}", then="--role"
        )
    if need.by and by != need.by:
        raise RunRefused(f"cannot approve {entry.id} as {by}: only {need.by} may", then=f"ask {need.by}")
    operator = found.status.started.process.operator if found.status.started else ""
    if need.not_operator and by == operator:
        raise RunRefused(
            f"cannot approve {entry.id} as {by}: the playbook forbids it to the operator", then="ask somebody else"
        )
    who = identity.process(by)
    now = utc_now()
    _append(
        found,
        Approved(
            step=entry.id, name=by, role=role, reason=reason, approval_digest=found.status.approval_digest,
            chain_head=found.status.head, expires=approvals.expiry(need, given_s=valid_s, now=now), user=who.user, host=who.host,
        ),
    )  # fmt: skip
    return _still_open(name, orders, entry, now)


def bring(name: str, orders: Orders, *, step: str, evidence: str, by: str, reason: str, file: Path | None) -> str:
    """Record a person's evidence; a file's SHA-256 says which file it was."""
    found = _found(name, orders)
    entry = _gate(playbook_of(found), found, step)
    wanted = {one.name: one for one in _needs(entry).evidence}
    if evidence not in wanted:
        raise RunRefused(f"cannot take evidence {evidence!r}: {entry.id} asks for {', '.join(wanted) or 'none'}")
    sha = _sha256(file) if file is not None else ""
    now = utc_now()
    expires = approvals.expiry(wanted[evidence], given_s=None, now=now)
    _append(
        found,
        EvidenceGiven(
            step=entry.id, name=evidence, by=by, reason=reason, file=str(file or ""), sha256=sha, expires=expires
        ),
    )
    return _still_open(name, orders, entry, now)


def _still_open(name: str, orders: Orders, entry: Entry, now: datetime) -> str:
    found = _found(name, orders)
    open_needs = approvals.open_needs(_needs(entry), found.status, step=entry.id, now=now)
    if open_needs:
        return f"recorded; {entry.id} still waits for: {'; '.join(open_needs)}"
    return f"recorded; {entry.id} has all that it asks for\nnext: runbook resume {found.status.run}"


def settle(name: str, orders: Orders, *, step: str, done: bool, by: str, reason: str) -> str:
    """A person's word on a step in doubt."""
    found = _found(name, orders)
    status = found.status
    if _running(found):
        raise RunRefused(f"cannot settle {step}: {status.run} still runs", then=f"runbook status {status.run}")
    doubtful = [one.id for one in status.steps.values() if one.open or one.doubtful]
    if step not in doubtful:
        raise RunRefused(
            f"cannot settle {step}: it is not in doubt", why=f"in doubt: {', '.join(doubtful) or 'no step'}"
        )
    _append(found, Settled(step=step, done=done, by=by, reason=reason))
    return f"settled: {step} is {'done' if done else 'not done'}\nnext: runbook resume {status.run}"


def note(name: str, orders: Orders, *, text: str, by: str) -> str:
    """A line in the run's timeline."""
    found = _found(name, orders)
    _append(found, Noted(by=by, text=text))
    return f"noted in {found.status.run}"


def tune(name: str, orders: Orders, *, order: Mapping[str, Value], by: str, reason: str) -> str:
    """Steer a running run: it reads the order at its next safe point."""
    found = _found(name, orders)
    if _running(found) is False:
        raise RunRefused(
            f"cannot tell {found.status.run} anything: it does not run now ({found.status.state.replace('_', ' ')})",
            then=f"runbook status {found.status.run}",
        )
    _known_limits(found.status, order)
    with connected(orders.place) as target:
        same_target(found.status, target)
        target.database.session.run = found.status.run
        with target.database.own(fenced=False) as work:
            ledger.add_command(work, run=found.status.run, order=order, by=by, reason=reason)
    return f"told {found.status.run}: {', '.join(f'{key}={value!r}' for key, value in order.items())}; it obeys at its next safe point"


def _known_limits(status: RunStatus, order: Mapping[str, Value]) -> None:
    """Only a number that the playbook names: anything else would change nothing, and look as if it did."""
    given = status.started.limits if status.started else {}
    numbers = [
        f"limits.{key}"
        for key, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    for name in order:
        if name.startswith("limits.") and name not in numbers:
            raise RunRefused(
                f"cannot change {name}: the playbook has no such number",
                why=f"it has {', '.join(numbers) or 'none'}",
            )


def sql(name: str, orders: Orders, *, text: str, by: str, reason: str) -> list[SqlByHand]:
    """Break-glass: one statement at a time under the run's name and timeouts, each in the trail before the next."""
    found = _found(name, orders)
    playbook = playbook_of(found)
    sent: list[SqlByHand] = []
    with connected(orders.place, schema=playbook.db_schema) as target:
        same_target(found.status, target)
        database = target.database
        database.session.run, database.session.step = found.status.run, "by_hand"
        for piece in split(text, database.dialect):
            if controls_transaction(piece.text, dialect=database.dialect):
                raise RunRefused("cannot send transaction control by hand: each statement is a transaction of its own")
            # on disk before the act, as every other change is: a kill must not hide what may have been sent
            _append(found, Noted(by=by, text=f"sends by hand ({reason}): {piece.text}"), target.masks)
            rows, error = _send(database, piece.text)
            event = SqlByHand(by=by, reason=reason, sql=piece.text, rows=rows, error=error)
            _append(found, event, target.masks)
            sent.append(event)
            if event.error:
                raise StepFailed(
                    f"cannot run this by hand: {event.error}",
                    state=f"{len(sent) - 1} statements before it are committed",
                )
    return sent


def _send(database: RunDatabase, text: str) -> tuple[int, str]:
    """One statement in a transaction of its own, or outside of one where it must be; rows, and what went wrong."""
    alone = needs_autocommit(text, dialect=database.dialect)
    try:
        with database.outside("by hand") if alone else database.own(fenced=False) as work:
            return work.execute(text), ""
    except (DatabaseFault, StepError) as fault:
        return -1, str(fault)


def _running(found: Found) -> bool | None:
    """Whether the run's process lives; None where that can't be seen from here."""
    process = found.status.process
    if found.status.state is not RunState.RUNNING or process is None:
        return False
    return identity.alive(process)


def _found(name: str, orders: Orders) -> Found:
    return find_run(runs_of(orders), name)


def playbook_of(found: Found) -> Playbook:
    """The playbook as the run keeps it."""
    return stored(found.status.source, given_again(found.status))


def _gate(playbook: Playbook, found: Found, step: str) -> Entry:
    waiting = [entry for entry in playbook.entries if isinstance(entry.step, Gate)]
    if not step:
        unfinished = [entry for entry in waiting if not found.status.step(entry.id).finished]
        if len(unfinished) == 1:
            return unfinished[0]
    for entry in waiting:
        if entry.id == step:
            return entry
    raise RunRefused(
        f"cannot find the gate {step!r} in {playbook.name}",
        why=f"its gates: {', '.join(one.id for one in waiting) or 'none'}",
        then="--step",
    )


def _needs(entry: Entry) -> GateNeeds:
    return entry.step.needs() if isinstance(entry.step, Gate) else GateNeeds()


def _append(found: Found, event: Event, masks: Masks | None = None) -> None:
    trail = Trail(found.trail, masks=masks or Masks())
    try:
        trail.append(event)
    finally:
        trail.close()


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise RunRefused(f"cannot read the evidence {file}: {error.strerror or error}") from error
