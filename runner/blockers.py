"""Who stands in the way of a statement that waits for a lock, seen from a second connection while it waits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from runner.database import RunDatabase
from steps.base import DatabaseFault
from steps.dialect import Dialect

_SQL = """
SELECT a.pid, coalesce(a.usename::text, '?') AS role, coalesce(a.application_name, '') AS application, coalesce(a.state, '') AS state,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint AS age_s,
       coalesce(left(regexp_replace(a.query, '\\s+', ' ', 'g'), 80), '') AS query, a.backend_type AS type
FROM unnest(pg_blocking_pids(CAST(:pid AS integer))) AS b(pid) JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid"""


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
    while not done.wait(pause):
        with contextlib.suppress(DatabaseFault), database.look() as look:
            for row in look.rows(_SQL, {"pid": pid}):
                who = f"pid {row.integer('pid')} ({row.text('role')}{_of(row.text('application'))}, {row.text('type')})"
                words = f"{who}, {row.text('state')} for {row.integer('age_s')} s: {row.text('query')}"
                if not any(one.startswith(who) for one in found):
                    found.append(words)


def _of(application: str) -> str:
    return f" in {application}" if application else ""
