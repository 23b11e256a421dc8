"""The server's clock, which decides about windows and expiry: read once, then continued by a steady local clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from steps.contract.dialect import Dialect

if TYPE_CHECKING:
    from runner.target.database import RunDatabase


def _steady() -> float:
    """Seconds of a clock that can't be set and, where the system has one, also counts while the machine sleeps."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def server_clock(database: RunDatabase) -> Callable[[], datetime]:
    """A clock in aware UTC that follows the server's (SQLite: this machine's), unaffected by later changes of ours."""
    began, there = _steady(), datetime.now(UTC)
    if database.dialect is Dialect.POSTGRESQL:
        with database.look() as look:
            seconds = look.row("SELECT extract(epoch FROM clock_timestamp())::float8 AS s").number("s")
        there = datetime.fromtimestamp(seconds, UTC)
    return lambda: there + timedelta(seconds=_steady() - began)
