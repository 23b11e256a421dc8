"""An application at work: so many single-row updates a second, each in a transaction, at random rows; prints how long each took.

Each update has its time in advance, and its latency counts from there: one that had to wait makes the next ones late too.
It ends when its standard input is closed. Arguments: URL of the database, updates a second.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

import psycopg

SESSIONS = 4
UPDATE = "UPDATE session_summaries SET event_count = event_count + 1, updated_at = now() WHERE session_id = %s"


def writer(
    url: str, keys: list[str], *, period: float, first: float, ended: threading.Event, into: list[tuple[float, float]]
) -> None:
    """One session's updates; into: (when it was due, seconds until it was committed)."""
    choice, due = random.Random(first), first
    with psycopg.connect(url, autocommit=True) as connection:
        while not ended.is_set():
            time.sleep(max(0.0, due - time.time()))
            connection.execute(UPDATE, [choice.choice(keys)])
            into.append((due, time.time() - due))
            due += period


def main() -> None:
    url, rate = sys.argv[1], float(sys.argv[2])
    with psycopg.connect(url) as connection:
        keys = [str(row[0]) for row in connection.execute("SELECT session_id FROM session_summaries")]
    ended, period, begin = threading.Event(), SESSIONS / rate, time.time() + 0.2
    found: list[list[tuple[float, float]]] = [[] for _ in range(SESSIONS)]
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
