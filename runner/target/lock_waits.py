"""Watches, over a second connection, which sessions block a statement that waits for a lock."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from runner.target.database import RunDatabase
from runner.target.ended_sessions import Enders
from steps.contract import DatabaseFault
from steps.contract.dialect import Dialect
from steps.sql import other_sessions

_SQL = "SELECT DISTINCT b.pid FROM unnest(pg_blocking_pids(CAST(:pid AS integer))) AS b(pid) WHERE b.pid <> 0"


@contextlib.contextmanager
def watched(
    database: RunDatabase, found: list[str], *, pid: int | None = None, enders: Enders | None = None
) -> Iterator[None]:
    """While the block runs, a thread appends to `found` who blocks this thread's writing connection (or server process `pid`).

    enders: terminates the blockers that may be ended.
    """
    if database.dialect is not Dialect.POSTGRESQL:
        yield
        return
    done = threading.Event()
    pid = database.backend_pid() if pid is None else pid
    acts: list[Callable[[], None]] = [lambda: _watch(database, pid, found, done)]
    if enders is not None and enders.wanted:
        acts.append(lambda: _end(database, pid, enders, done))
    threads = [threading.Thread(target=act, daemon=True, name="blockers") for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(timeout=5)


def _end(database: RunDatabase, pid: int, enders: Enders, done: threading.Event) -> None:
    """Let `enders` act on the blockers. In looks of its own: a refused pg_terminate_backend aborts the transaction."""
    while not done.wait(max(database.session.lock_wait_s * 0.5, 0.05)):
        with contextlib.suppress(DatabaseFault), database.look() as look:
            enders.look_at(look, pid)


def _watch(database: RunDatabase, pid: int, found: list[str], done: threading.Event) -> None:
    pause = max(database.session.lock_wait_s * 0.6, 0.05)
    known: set[int] = set()
    while not done.wait(pause):
        with contextlib.suppress(DatabaseFault), database.look() as look:
            pids = [row.integer("pid") for row in look.rows(_SQL, {"pid": pid})]
            new = [one for one in pids if one not in known]
            known.update(new)
            found += other_sessions.described(look, new).values()
