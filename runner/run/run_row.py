"""The run's row in the ledger: creates the ledger if needed, adds or updates the row, and records the end."""

from __future__ import annotations

import contextlib
import json

from runner.common.errors import RunRefused
from runner.run.session import RunSession
from runner.target import ledger_check
from runner.trail.events import RunEnded, RunState
from steps.contract import INSUFFICIENT_PRIVILEGE, DatabaseFault
from steps.contract.values import in_json
from steps.ledger import runs, tables


def make_ledger(session: RunSession) -> bool:
    """Create the ledger if there is none; returns whether it was created."""
    with session.database.look() as look:
        if ledger_check.refuse_bad(look).there:
            return False
    try:
        with session.database.own(fenced=False) as work:
            tables.create(work)
    except DatabaseFault as fault:
        if fault.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        raise RunRefused(
            "cannot run without a ledger in the target, and this role may not make it",
            why=str(fault),
            state="nothing was changed by this command",
            then="runbook target init --print, and give what it prints to the DBA",
        ) from fault
    return True


def keep_row(session: RunSession) -> None:
    """Write the run's ledger row: a new one, or an updated one after a person accepted changes of the playbook."""
    status = session.status
    started = status.started
    if not session.recorded or started is None:
        return
    with session.database.look() as look:
        if not tables.exists(look):
            session.recorded = False  # a read-only playbook needs no ledger
            return
        known = runs.find_run(look, started.run)
    now = (status.digest, status.approval_digest, status.source)
    if known is not None and (known.digest, known.approval_digest, json.loads(known.source)) == now:
        return
    row = runs.RunRow(
        run=started.run,
        playbook=started.playbook,
        digest=status.digest,
        approval_digest=status.approval_digest,
        kind=started.kind,
        state="running",
        target=started.target,
        identity=json.dumps(started.identity),
        inputs=json.dumps(started.inputs),
        operator=started.process.operator,
        host=started.process.host,
        steps=json.dumps({entry.id: entry.digest for entry in session.playbook.entries}),
        source=json.dumps(status.source),
        figures="{}",
        trail_head=session.trail.head,
        trail_length=session.trail.length,
        removes=runs.in_column(session.playbook.removes),
    )
    try:
        with session.database.own() as work:
            (runs.add_run if known is None else runs.change_run)(work, row)
    except DatabaseFault:
        if session.playbook.changes:
            raise
        session.recorded = False  # the role may only read: the run is valid, but no other playbook can require it


def record_end(session: RunSession, state: RunState, code: int, *, what: str = "", why: str = "") -> None:
    """Record the end in trail and ledger within one fenced transaction, for which a take-over has to wait.

    Raises LeaseLost if another process has taken over the run; then recording the end is up to that one.
    """
    ended = RunEnded(state=state, exit_code=code, what=what, why=why)
    written = False
    if session.recorded:
        with contextlib.suppress(DatabaseFault), session.database.own() as work:
            session.emit(ended)
            written = True
            runs.end_run(
                work,
                run=session.status.run,
                state=state,
                figures=in_json(session.status.figures),
                head=session.trail.head,
                length=session.trail.length,
            )
    # The database is gone: record it in the trail alone, where `append` refuses if another process has taken over.
    if not written:
        session.emit(ended)
