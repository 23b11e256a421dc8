"""Finds the rows at which SQL over many of them fails, so that the SQL can go on without them.

One value can make every statement over its table fail: a \\u0000 in a json, malformed JSON, a text that is no number. Whoever
evaluates a playbook's expressions over rows in bulk tries all of them at once, and halves them only where that fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from steps.contract import QUERY_CANCELED, DatabaseFault, Look, Model, cutting
from steps.contract.dialect import Dialect

T = TypeVar("T")
SHOWN = 20  # rows that a probe names
# SQLSTATE classes that a single row can cause: data, constraints, triggers, check options, too large an index entry.
_CLASSES = ("21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0")
_SAVEPOINT = "runbook_attempt"


@dataclass(frozen=True)
class UnreadableRow:
    """A row at which the SQL fails. key: as the caller names it."""

    key: str
    sqlstate: str
    message: str


class FailingRow(Model):
    """An unreadable row in a probe's result, with the database's reason."""

    key: str
    why: str

    @staticmethod
    def of(rows: Sequence[UnreadableRow]) -> tuple[FailingRow, ...]:
        """The first of them; a result holds no more than a person reads."""
        return tuple(FailingRow(key=one.key, why=cutting.shortened(one.message, 200)) for one in rows[:SHOWN])


def caused_by_a_row(fault: DatabaseFault, dialect: Dialect) -> bool:
    """Whether a single row may have caused it. SQLite's generic error may be a row's (malformed JSON)."""
    if fault.lost or fault.sqlstate == QUERY_CANCELED:
        return False
    unnamed = dialect is Dialect.SQLITE and fault.sqlstate in ("", "HY000", "XX000")
    return unnamed or fault.sqlstate.startswith(_CLASSES)


@contextlib.contextmanager
def attempt(look: Look) -> Iterator[None]:
    """What fails within doesn't end the transaction of this look; the fault is raised all the same."""
    if look.dialect is Dialect.SQLITE:  # where a failed statement ends nothing
        yield
        return
    look.rows(f"SAVEPOINT {_SAVEPOINT}")
    try:
        yield
    except DatabaseFault as fault:
        if not fault.lost:
            look.rows(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        raise
    look.rows(f"RELEASE SAVEPOINT {_SAVEPOINT}")


def tried(look: Look, ask: Callable[[], T]) -> T | None:
    """What `ask` gives; None where a row makes it fail, which is then to be found."""
    try:
        with attempt(look):
            return ask()
    except DatabaseFault as fault:
        if not caused_by_a_row(fault, look.dialect):
            raise
        return None


def sift(look: Look, keys: Sequence[str], ask: Callable[[Sequence[str]], object]) -> list[UnreadableRow]:
    """Those of the keys at which `ask` fails, each found by halving; `ask` evaluates the SQL for the rows with these keys."""
    if look.dialect is Dialect.SQLITE:
        return _sifted(look, keys, ask, fails=False)
    look.rows(f"SAVEPOINT {_SAVEPOINT}")
    found = _sifted(look, keys, ask, fails=False)
    look.rows(f"RELEASE SAVEPOINT {_SAVEPOINT}")
    return found


def _sifted(
    look: Look, keys: Sequence[str], ask: Callable[[Sequence[str]], object], *, fails: bool
) -> list[UnreadableRow]:
    """fails: it is known that one of them fails, so that only a single one must be asked for its reason."""
    if not keys:
        return []
    if not fails or len(keys) == 1:
        fault = _fault(look, keys, ask)
        if fault is None:
            return []
        if len(keys) == 1:
            return [UnreadableRow(keys[0], fault.sqlstate, str(fault))]
    half = len(keys) // 2
    left = _sifted(look, keys[:half], ask, fails=False)
    return left + _sifted(look, keys[half:], ask, fails=not left)


def _fault(look: Look, keys: Sequence[str], ask: Callable[[Sequence[str]], object]) -> DatabaseFault | None:
    """Why these keys fail together; None where they don't."""
    try:
        ask(keys)
    except DatabaseFault as fault:
        if not caused_by_a_row(fault, look.dialect):
            raise
        if look.dialect is not Dialect.SQLITE:
            look.rows(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        return fault
    return None
