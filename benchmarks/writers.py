"""An application at work: so many single-row updates a second, each in a transaction, at random rows; prints how long each took.

And for how much of that it, or its server process, was ready to run and had no core to run on.

Each update has its time in advance, and its latency counts from there: one that had to wait makes the next ones late too.
It ends when its standard input is closed. Arguments: URL of the database, updates a second.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

SESSIONS = 4
UPDATE = "UPDATE session_summaries SET event_count = event_count + 1, updated_at = now() WHERE session_id = %s"


Update = tuple[float, float, float]  # when it was due, seconds until it was committed, seconds without a core


def waited(pid: int, thread: int) -> Callable[[], float]:
    """Asks for how many seconds this thread of a process of this machine was ready to run and had no core (Linux; else NaN)."""
    try:
        file = Path(f"/proc/{pid}/task/{thread}/schedstat").open("rb", buffering=0)  # noqa: SIM115 - for good
    except OSError:
        return lambda: math.nan
    return lambda: int(os.pread(file.fileno(), 100, 0).split()[1]) / 1e9


def writer(
    url: str, keys: list[str], *, period: float, first: float, ended: threading.Event, into: list[Update]
) -> None:
    """One session's updates."""
    choice, due = random.Random(first), first
    with psycopg.connect(url, autocommit=True) as connection:
        server = connection.info.backend_pid
        both = (waited(server, server), waited(os.getpid(), threading.get_native_id()))
        before = sum(each() for each in both)
        while not ended.is_set():
            time.sleep(max(0.0, due - time.time()))
            connection.execute(UPDATE, [choice.choice(keys)])
            took, after = time.time() - due, sum(each() for each in both)
            into.append((due, took, after - before))
            due, before = due + period, after


def main() -> None:
    url, rate = sys.argv[1], float(sys.argv[2])
    with psycopg.connect(url) as connection:
        keys = [str(row[0]) for row in connection.execute("SELECT session_id FROM session_summaries")]
    ended, period, begin = threading.Event(), SESSIONS / rate, time.time() + 0.2
    found: list[list[Update]] = [[] for _ in range(SESSIONS)]
    threads = [
        threading.Thread(
            target=writer,
            args=(url, keys),
            kwargs={"period": period, "first": begin + n * period / SESSIONS, "ended": ended, "into": found[n]},
        )
        for n in range(SESSIONS)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    json.dump(sorted(one for each in found for one in each), sys.stdout)


if __name__ == "__main__":
    main()
