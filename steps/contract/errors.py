"""What can stop a step, and how the database's own refusals are told apart: by SQLSTATE, never by their text."""

from __future__ import annotations


class StepError(Exception):
    """The step cannot go on; the message says why, in the operator's words."""


class Refused(StepError):
    """The step was not begun: nothing was changed by it."""


class Paused(Exception):
    """The step stopped at a gate of its own after committing what it had done; `resume` goes on.

    needs_s: how long the rest is expected to take, in seconds, where that can be told.
    """

    def __init__(self, message: str, *, needs_s: float | None = None) -> None:
        super().__init__(message)
        self.needs_s = needs_s


class Stopped(Exception):
    """Someone asked the run to stop; raised at a safe point by `pulse`."""


class DatabaseFault(StepError):
    """The database refused or was lost.

    sqlstate: five characters (SQLite's errors are mapped to the nearest SQLSTATE), or "" where none is known.
    lost: the connection is gone, so what was in flight was settled or must be. silent: nobody answered, not even to refuse.
    """

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str = "",
        detail: str = "",
        constraint: str = "",
        lost: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.detail = detail
        self.constraint = constraint
        self.lost = lost
        self.silent = silent


LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
SERIALIZATION = "40001"
QUERY_CANCELED = "57014"
KEPT_TOO_LONG = "25P04"  # PostgreSQL's transaction_timeout, and what is ended from here for the same reason
INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED = frozenset({"3F000", "42703", "42704", "42883", "42P01"})  # schema, column, object, function, table


class AlreadyCommitted(Exception):
    """This label's transaction is already in the ledger: its work is done."""
