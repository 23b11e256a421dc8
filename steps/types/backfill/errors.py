"""Classifies the database's errors for a backfill (retry, bisect or stop), and keeps the retry state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from steps.contract import DEADLOCK, LOCK_NOT_AVAILABLE, QUERY_CANCELED, SERIALIZATION, DatabaseFault
from steps.contract.dialect import Dialect
from steps.contract.errors import KEPT_TOO_LONG
from steps.sql.unreadable import caused_by_a_row


class Meaning(StrEnum):
    """How to react to a database error."""

    LOCK = "lock"  # another transaction is in the way: retry
    DATA = "data"  # a row of this batch causes it, or the batch takes too long: make it smaller
    FATAL = "fatal"  # no row causes it: stop


def meaning(fault: DatabaseFault, dialect: Dialect) -> Meaning:
    """Classify by SQLSTATE alone."""
    if fault.lost:
        return Meaning.FATAL
    if fault.sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK, SERIALIZATION):
        return Meaning.LOCK
    slow = fault.sqlstate in (QUERY_CANCELED, KEPT_TOO_LONG)
    return Meaning.DATA if slow or caused_by_a_row(fault, dialect) else Meaning.FATAL


@dataclass
class RetryState:
    """Retry state of the current rows, until they are done.

    cap: the maximum batch size; suspects: how many of the next rows contain the faulty one; skip_locked: skip locked rows;
    tries: attempts so far; bad: the keys of rows that can't be read; readable: all others can, so a fault comes from writing.
    """

    cap: int | None = None
    suspects: int = 0
    skip_locked: bool = False
    tries: int = 0
    bad: tuple[str, ...] = ()
    readable: bool = False

    def halve(self, rows: int) -> None:
        """A batch of this size failed: continue with half of it, to isolate the faulty row."""
        self.cap, self.suspects, self.tries = max(1, rows // 2), max(self.suspects, rows), 0

    def passed(self, rows: int) -> None:
        """This many rows are done; once all suspects are, the size cap is lifted."""
        self.suspects -= rows
        self.skip_locked, self.tries = False, 0
        if self.suspects <= 0:
            self.cap, self.suspects, self.bad, self.readable = None, 0, (), False
