"""The exceptions that stop a step. Database errors are told apart by SQLSTATE, never by their message."""

from __future__ import annotations


class StepError(Exception):
    """The step cannot continue; the message tells the operator why."""


class Refused(StepError):
    """The step was not started and has changed nothing."""


class Paused(Exception):
    """The step stopped at a safe point of its own, with its work so far committed; `resume` continues from there.

    needs_s: the expected duration of the rest in seconds; None where unknown.
    """

    def __init__(self, message: str, *, needs_s: float | None = None) -> None:
        super().__init__(message)
        self.needs_s = needs_s


class Stopped(Exception):
    """An operator or a signal asked the run to stop; `Context.pulse` raises it at a safe point."""


class DatabaseFault(StepError):
    """The database refused a statement, or the connection was lost.

    sqlstate: five characters (SQLite's errors are mapped to the nearest SQLSTATE), or "" where none is known.
    detail, constraint: as PostgreSQL reports them with the error.
    lost: the connection is gone: whether a COMMIT in flight took effect has been determined, or still must be.
    silent: there was no answer at all, not even a refusal.
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
KEPT_TOO_LONG = "25P04"  # transaction_timeout (PostgreSQL 17 and later), and our own cancellation for the same reason
INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED = frozenset({"3F000", "42703", "42704", "42883", "42P01"})  # schema, column, object, function, table


class AlreadyCommitted(Exception):
    """The ledger already has this label: its transaction was committed before, and is not run again."""
