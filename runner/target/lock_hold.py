"""Limits how long a transaction may keep its locks: by the server's setting if it has one, else by a timer here."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runner.target import drivers
from steps.contract import QUERY_CANCELED, DatabaseFault
from steps.contract.dialect import Dialect
from steps.contract.errors import KEPT_TOO_LONG

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_IDLE_TOO_LONG = "25P03"


@contextlib.contextmanager
def bounded(connection: Connection, dialect: Dialect, version: tuple[int, ...], seconds: float) -> Iterator[None]:
    """Limit the transaction of this block to so many seconds (0: unlimited).

    Raises DatabaseFault with sqlstate KEPT_TOO_LONG if it took longer. The server may have ended the session with it;
    that is reported as the same fault and not as a lost connection, since nothing was committed.
    """
    if not seconds:
        yield
        return
    fired = threading.Event()
    timer = threading.Timer(seconds, _cancel, (connection, dialect, fired))
    timer.daemon = True
    if dialect is Dialect.SQLITE or version < (17,):
        timer.start()
    try:
        yield
    except DatabaseFault as fault:
        # A cancelled statement counts only if our timer fired: it may also be the statement's own timeout.
        if fault.sqlstate in {KEPT_TOO_LONG, _IDLE_TOO_LONG} or (fired.is_set() and fault.sqlstate == QUERY_CANCELED):
            raise DatabaseFault(
                f"the transaction was rolled back: it would have kept its locks for longer than {seconds:g} s (lock: hold)",
                sqlstate=KEPT_TOO_LONG,
            ) from fault
        raise
    finally:
        timer.cancel()


def _cancel(connection: Connection, dialect: Dialect, fired: threading.Event) -> None:
    fired.set()
    with contextlib.suppress(Exception):  # if cancelling fails, the statement still ends by its own timeout
        drivers.cancel(connection, dialect)
