"""Who stands in the way of a statement that waits for a lock, seen from a second connection while it waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from runner.database import RunDatabase
from steps import others
from steps.base import DatabaseFault
from steps.dialect import Dialect

_SQL = "SELECT DISTINCT b.pid FROM unnest(pg_blocking_pids(CAST(:pid AS integer))) AS b(pid) WHERE b.pid <> 0"


@contextlib.contextmanager
def watched(database: RunDatabase) -> Iterator[list[str]]:
    """Within: a thread notes who blocks this thread's writing connection; the list is filled while the body runs."""
    found: list[str] = []
    if database.dialect is not Dialect.POSTGRESQL:
        yield found
        return
    done = threading.Event()
    pid = database.backend_pid()
    thread = threading.Thread(target=_watch, args=(database, pid, found, done), daemon=True, name="blockers")
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join(timeout=5)


def _watch(database: RunDatabase, pid: int, found: list[str], done: threading.Event) -> None:
    pause = max(database.session.lock_wait_s * 0.6, 0.05)
    known: set[int] = set()
    while not done.wait(pause):
        with contextlib.suppress(DatabaseFault), database.look() as look:
            pids = [row.integer("pid") for row in look.rows(_SQL, {"pid": pid})]
            new = [one for one in pids if one not in known]
            known.update(new)
            found += others.described(look, new).values()
