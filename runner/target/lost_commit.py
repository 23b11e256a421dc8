"""Determines the outcome of a transaction whose connection was lost, by asking the server over a new connection.

A COMMIT without an answer may have taken effect or not, or still be in progress on the server. Repeating the work, or
calling it failed, is safe only once the server has decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from runner.target import transactions
from steps.contract import DatabaseFault, Look

SETTLE_S = 30.0  # how long to wait for a transaction that is still in progress on the server
AGAIN_S = 0.2  # polling interval


_UNKNOWN = "cannot learn whether the last COMMIT acted: the server does not answer"


def acted(
    look: Callable[[], AbstractContextManager[Look]],
    xid: str | None,
    known: Callable[[Look], bool] | None,
    *,
    pid: int | None = None,
) -> bool:
    """Whether transaction `xid` committed; polls while it is in progress.

    known: looks for the transaction's ledger row. Once the transaction is over this decides, not the server's status:
    after a crash of the server the same xid may be assigned again. pid: the server process that worked for us.
    Raises DatabaseFault (08007, lost) if the outcome can't be determined in time.
    """
    until = time.monotonic() + SETTLE_S
    while True:
        try:
            with look() as eyes:
                status = transactions.transaction_status(eyes, xid)
                if status == "in progress" and pid is not None:
                    # If our COMMIT never arrived, that process would wait for it, with its locks, until its idle timeout.
                    transactions.end_unheard(eyes, pid)
            if status != "in progress":
                if known is None:
                    return status == "committed"
                with look() as eyes:
                    return known(eyes)
        except DatabaseFault as fault:  # a server that restarts is asked again until the time is up
            if fault.silent:
                raise DatabaseFault(_UNKNOWN, sqlstate="08007", lost=True, silent=True) from fault
        if time.monotonic() > until:
            raise DatabaseFault(_UNKNOWN, sqlstate="08007", lost=True)
        time.sleep(AGAIN_S)


def outlive(look: Callable[[], AbstractContextManager[Look]], pid: int) -> None:
    """Terminate the server process of a lost connection and wait until it is gone: until then it may go on committing."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        try:
            with look() as eyes:
                if transactions.session_ended(eyes, pid):
                    return
        except DatabaseFault as fault:
            if fault.silent:
                break
        time.sleep(AGAIN_S)
    raise DatabaseFault("cannot learn what became of the last batches: the server does not answer", lost=True)
