"""Tries a query that the database may refuse, without losing the transaction that it runs in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from steps.contract import DatabaseFault, Look
from steps.contract.dialect import Dialect

_POINT = "runbook_attempt"


@contextlib.contextmanager
def attempt(look: Look) -> Iterator[None]:
    """Within: reads on `look`. A DatabaseFault leaves the block as it is, and the snapshot can be used further.

    PostgreSQL refuses all further statements of a transaction after an error, unless it goes back to a savepoint.
    """
    if look.dialect is Dialect.SQLITE:
        yield
        return
    look.rows(f"SAVEPOINT {_POINT}")
    try:
        yield
    except DatabaseFault as fault:
        if not fault.lost:
            look.rows(f"ROLLBACK TO SAVEPOINT {_POINT}")
            look.rows(f"RELEASE SAVEPOINT {_POINT}")
        raise
    look.rows(f"RELEASE SAVEPOINT {_POINT}")
