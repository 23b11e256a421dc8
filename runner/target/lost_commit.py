"""What became of work whose connection was lost: the server knows, and a new connection asks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from runner.target import transactions
from steps.contract import DatabaseFault, Look

SETTLE_S = 30.0  # how long work whose connection was lost may still be in progress on the server
AGAIN_S = 0.2


_UNKNOWN = "cannot learn whether the last COMMIT acted: the server does not answer"


def acted(
    look: Callable[[], AbstractContextManager[Look]],
    xid: str | None,
    known: Callable[[Look], bool] | None,
    *,
    pid: int | None = None,
) -> bool:
    """Whether the transaction committed; asked for as long as the server still works on it. pid: of the process that does.

    Once it is over the ledger's row decides, where there is one: after a crash a number may be given out again.
    """
    until = time.monotonic() + SETTLE_S
    while True:
        try:
            with look() as eyes:
                status = transactions.transaction_status(eyes, xid)
                if status == "in progress" and pid is not None:
                    transactions.end_unheard(eyes, pid)
            if status != "in progress":
                if known is None:
                    return status == "committed"
                with look() as eyes:
                    return known(eyes)
        except DatabaseFault as fault:  # a server that restarts is asked again until the time is over
            if fault.silent:
                raise DatabaseFault(_UNKNOWN, sqlstate="08007", lost=True, silent=True) from fault
        if time.monotonic() > until:
            raise DatabaseFault(_UNKNOWN, sqlstate="08007", lost=True)
        time.sleep(AGAIN_S)


def outlive(look: Callable[[], AbstractContextManager[Look]], pid: int) -> None:
    """End the server process of a lost connection, and come back when it is gone: it may go on with what it was sent."""
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
