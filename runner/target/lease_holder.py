"""Checks who holds the lease on a target, and refuses to start beside a holder that is alive.

A holder counts as dead if its process is gone on this very host, or if it sent no heartbeat for SILENT_S. Even if that
is wrong, it can do no harm: after the take-over the database refuses its commits (fencing by epoch).
"""

from __future__ import annotations

import time

from pydantic import ValidationError

from runner.common.errors import RunRefused
from runner.target import ledger_check
from runner.target.database import RunDatabase
from runner.trail import run_process
from runner.trail.events import Process
from steps.contract import Look
from steps.ledger import leases, tables

SILENT_S = 15.0  # without a heartbeat for this long, a holder counts as dead


BEAT_S = SILENT_S / 5  # heartbeat interval


WATCH_S = 0.5  # polling interval while watching a holder that may be dead


def refuse_if_held(database: RunDatabase, scope: str) -> leases.Lease | None:
    """Return the lease if it can be taken (None: there is none); raise RunRefused if its holder is, or may be, alive."""
    found = _lease(database, scope)
    if found is None or not found.run:
        return found
    holder = _holder(found)
    alive = run_process.alive(holder) if holder is not None else None
    if alive is False or _silent(database, found):
        return found
    raise _held(found, holder)


def refuse_any_held(look: Look) -> None:
    """Raise RunRefused if any run on this target is, or may be, alive; works with ledgers of earlier versions, too."""
    for scope in leases.scopes_held(look) if {"lease", "heartbeat"} <= tables.tables(look) else []:
        found = leases.lease(look, scope)
        holder = _holder(found) if found is not None else None
        dead = holder is not None and run_process.alive(holder) is False
        if found is not None and not dead and found.silent_s <= SILENT_S:
            raise _held(found, holder)


def _holder(found: leases.Lease) -> Process | None:
    try:
        return Process.model_validate_json(found.holder)
    except ValidationError:
        return None


def _held(found: leases.Lease, holder: Process | None) -> RunRefused:
    who = f"{holder.operator} on {holder.host}, pid {holder.pid}" if holder is not None else "an unknown process"
    return refusal(
        f"run {found.run} ({who}) has been changing this target; its last sign of life is {found.silent_s:.0f} s old",
        f"runbook status {found.run}",
    )


def _lease(database: RunDatabase, scope: str) -> leases.Lease | None:
    with database.look() as look:
        return leases.lease(look, scope) if ledger_check.refuse_bad(look).there else None


def _silent(database: RunDatabase, found: leases.Lease) -> bool:
    """Whether the holder has sent no heartbeat for SILENT_S.

    The server's clock may have been changed. So if the last heartbeat seems too old, or in the future, we watch by our
    own clock whether another one arrives, for longer than a living holder's interval.
    """
    if 0 <= found.silent_s <= SILENT_S:
        return False
    if database.session.silent == found.beat:
        return True  # this process has watched this very heartbeat before
    until = time.monotonic() + (SILENT_S if found.silent_s < 0 else BEAT_S + 1)
    while time.monotonic() < until:
        time.sleep(WATCH_S)
        now = _lease(database, found.scope)
        if now is None or now.beat != found.beat:
            return False
    database.session.silent = found.beat
    return True


def refusal(why: str, then: str) -> RunRefused:
    return RunRefused(f"cannot change this target now: {why}", state="nothing was changed by this run", then=then)
