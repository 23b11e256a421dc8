"""A run opened for the action of a person: its record is checked, and what is done is recorded and anchored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from runner.common.errors import BadInput, TargetUnreachable
from runner.common.secrets import Masks
from runner.plan import original_gates
from runner.playbook.model import Playbook
from runner.record import trust
from runner.run.execute import RunOptions, given_again, masks_of_run, stored
from runner.run.resume import runs_of
from runner.target import identity
from runner.target.runs import Found, find_run
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected, connected, told_masked
from runner.trail.events import Event
from runner.trail.trail import Trail, utc_now
from steps.contract import DatabaseFault
from steps.ledger import anchors, runs


@dataclass(frozen=True)
class OpenedRun:
    """A run opened for an action of a person; target: None if it can't be reached from here."""

    found: Found
    masks: Masks
    target: Connected | None
    trust: str

    def now(self) -> tuple[datetime, str]:
        """The target's time, and its text for the record; this machine's time and "" if the target can't be asked."""
        if self.target is None:
            return utc_now(), ""
        there = server_clock(self.target.database)()
        return there, there.isoformat(timespec="milliseconds")

    def write(self, event: Event, *, what: str) -> str:
        """Append an event and anchor the new head in the target's ledger; returns "" or why it could not be anchored."""
        head, length = append_event(self.found, event, self.masks)
        if self.target is None:
            return " (the target was not asked, so no ledger vouches for it yet)"
        run = self.found.status.run
        try:
            with self.target.database.own(fenced=False) as work:
                if runs.find_run(work, run) is None:
                    return ""
                anchors.add_anchor(work, run=run, what=what, head=head, length=length)
        except DatabaseFault as fault:
            return f" (no ledger vouches for it yet: {fault})"
        return ""


@contextlib.contextmanager
def open_run(name: str, orders: RunOptions, *, what: str, contradicted: bool = False) -> Iterator[OpenedRun]:
    """Open a run by name; raises TrailBroken if its record is contradicted (unless `contradicted` allows it)."""
    found = find_run(runs_of(orders), name)
    masks = masks_of_run(found.status, orders)
    with told_masked(masks), contextlib.ExitStack() as stack:
        target = _reachable(stack, found, orders, masks)
        verdict = trust.trusted(found, target.database if target is not None else None)
        if verdict.answer is trust.RecordTrust.CONTRADICTED and not contradicted:
            raise trust.refusal(found, verdict, what)
        yield OpenedRun(found, masks, target, verdict.answer.value)


def _reachable(stack: contextlib.ExitStack, found: Found, orders: RunOptions, masks: Masks) -> Connected | None:
    """The run's target; None if it can't be reached from here or isn't the one on which the run started."""
    with contextlib.suppress(TargetUnreachable, BadInput):
        target = stack.enter_context(connected(orders.place, schema=schema_of(found), masks=masks))
        then = found.status.started.identity if found.status.started else {}
        return None if identity.differences(then, target.identity) else target
    return None


def schema_of(found: Found) -> str:
    """The schema in which the run works."""
    then = found.status.started.identity if found.status.started else {}
    return str(then.get("schema") or "public")


def playbook_of(found: Found) -> Playbook:
    """The playbook as stored in the run's trail."""
    return stored(found.status.source, given_again(found.status))


def in_force(found: Found) -> Playbook:
    """The stored playbook; if it was edited since the run started, with the original gates kept in force."""
    status, playbook = found.status, playbook_of(found)
    if status.started is None or status.started.digest == status.digest:
        return playbook
    began = stored(status.started.source, given_again(status), programs=status.started.programs)
    return original_gates.with_gates_of(playbook, began)


def append_event(found: Found, event: Event, masks: Masks) -> tuple[str, int]:
    """Append after the part of the trail that was read; returns the chain's new head and length."""
    trail = Trail(found.trail, masks=masks, seen=found.seen)
    try:
        trail.append(event)
        return trail.head, trail.length
    finally:
        trail.close()
