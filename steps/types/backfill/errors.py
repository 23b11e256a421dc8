"""What a database's refusal means for a backfill: wait, look closer, or stop; and how far that has come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from steps.contract import DEADLOCK, LOCK_NOT_AVAILABLE, QUERY_CANCELED, SERIALIZATION, DatabaseFault
from steps.contract.dialect import Dialect
from steps.contract.errors import KEPT_TOO_LONG

# What a row can be at fault for: its data, a constraint, what a trigger or check option says, too long an index entry.
_DATA_CLASSES = ("21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0")


class Meaning(StrEnum):
    """What to do about a fault."""

    LOCK = "lock"  # the application was there first: try again
    DATA = "data"  # a row in this batch is at fault, or the batch takes too long: make it smaller
    FATAL = "fatal"  # no row is to blame: stop


def meaning(fault: DatabaseFault, dialect: Dialect) -> Meaning:
    """By SQLSTATE only. SQLite has one error for broken JSON and for much else, so a row is suspected first."""
    if fault.lost:
        return Meaning.FATAL
    if fault.sqlstate in (LOCK_NOT_AVAILABLE, DEADLOCK, SERIALIZATION):
        return Meaning.LOCK
    if fault.sqlstate in (QUERY_CANCELED, KEPT_TOO_LONG) or fault.sqlstate.startswith(_DATA_CLASSES):
        return Meaning.DATA
    unnamed = dialect is Dialect.SQLITE and fault.sqlstate in ("", "HY000", "XX000")
    return Meaning.DATA if unnamed else Meaning.FATAL


@dataclass
class RetryState:
    """What the rows at hand have come to, until they are done.

    cap: rows at most; suspects: rows among which the fault must be; skip_locked: rows that others hold are left out.
    """

    cap: int | None = None
    suspects: int = 0
    skip_locked: bool = False
    tries: int = 0

    def halve(self, rows: int) -> None:
        """A batch of so many rows failed: look at half of them."""
        self.cap, self.suspects, self.tries = max(1, rows // 2), max(self.suspects, rows), 0

    def passed(self, rows: int) -> None:
        """So many rows are done; once all suspects are, the size is free again."""
        self.suspects -= rows
        self.skip_locked, self.tries = False, 0
        if self.suspects <= 0:
            self.cap, self.suspects = None, 0
