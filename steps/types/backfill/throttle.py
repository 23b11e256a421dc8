"""How fast a backfill may go beside others: smaller batches, and rests in which all of them are on disk."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from steps.contract import Database, DatabaseFault, Model, Seconds, Timespan, Tuning
from steps.contract.dialect import Dialect

LOOK_S = 1.0
WINDOW_S = 4.0  # of counting; the server's sessions report their counts once a second at most
SURE_S = 2.5  # of counting, before nothing counted means that nobody works
SHORTEST_S = 0.005
REST_S = 0.25  # between two safe points of a rest
AS_WRITTEN = Tuning()
SHRINK, GROW = 0.5, 1.25  # of the batch time, at each look: where somebody waits for a lock, and where nobody does

_ACTIVITY = """
SELECT d.xact_commit + d.xact_rollback AS transactions,
       (SELECT count(*) FROM pg_catalog.pg_locks AS l WHERE NOT l.granted AND l.locktype IN ('transactionid', 'tuple')) AS waiting,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.datid = d.datid AND a.pid <> pg_backend_pid()
        AND a.usesysid IS NOT NULL AND coalesce(left(a.application_name, 7) <> 'runbook', true)
        AND coalesce(a.state_change > clock_timestamp() - interval '0.25 seconds' OR a.state = 'active', true)) AS sessions
FROM pg_catalog.pg_stat_database AS d WHERE d.datname = current_database()"""


class Throttle(Model):
    """What a pass does while others work: from so many transactions a second of theirs on.

    batch: how long a batch may take then, with its locks; rest: how long the pass rests afterwards, as a multiple of the
    time for which it worked: at 9 it works a tenth of the time, and 9 of 10 transactions of others don't meet it.
    """

    traffic: Annotated[float, Field(ge=0)] = 20.0
    batch: Annotated[Seconds, Field(gt=0, le=60)] = Timespan(0.015)
    rest: Annotated[float, Field(ge=0, le=100)] = 9.0


UNTHROTTLED = Throttle(rest=0.25)  # `none`: as fast as it can be while a fifth of the time is others' alone


def rest_for(seconds: float, pulse: Callable[[], object]) -> None:
    """Between transactions, never in one; whoever wants us to stop or to hold (`pulse`) needn't wait for its end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, REST_S))
        if left > REST_S:
            pulse()


class Pace:
    """Looks at what others do about once a second; asked by all workers of a pass, by one at a time."""

    def __init__(self, db: Database, throttle: Throttle) -> None:
        self._db, self._throttle = db, throttle
        self._seen: deque[tuple[float, int]] = deque()  # when, and how many transactions that weren't ours
        self._next = 0.0
        self._looks = 0
        self._limit = float(throttle.batch)
        self._asked: float | None = None  # a person's wish for `rest`
        self.others = 0.0  # transactions a second
        self.busy = False  # whether others work here now

    def look(self, batches: int, tuning: Tuning = AS_WRITTEN) -> None:
        """Take in what a person and the server say; batches: how many transactions of the pass itself there were so far."""
        self._asked, now = tuning.rest, time.monotonic()
        if self._db.dialect is Dialect.SQLITE or now < self._next:
            return
        self._next = now + LOOK_S
        try:
            with self._db.look() as look:
                row = look.row(_ACTIVITY)
        except DatabaseFault:
            return  # the batch that follows will say what is wrong
        self._looks += 1  # each is a transaction too
        self._count(now, row.integer("transactions") - batches - self._looks)
        # This run's guards and heartbeat are transactions too, and are in the count: so a session must have been seen at work.
        many = self.others > self._throttle.traffic or not self._sure()
        self.busy = row.integer("sessions") > 0 and many
        self._adapt(waiting=row.integer("waiting"))

    def _count(self, now: float, transactions: int) -> None:
        self._seen.append((now, transactions))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        (then, before), (_, after) = self._seen[0], self._seen[-1]
        self.others = max(after - before, 0) / (now - then) if now > then else 0.0

    def _sure(self) -> bool:
        return self._seen[-1][0] - self._seen[0][0] >= SURE_S

    def _adapt(self, *, waiting: int) -> None:
        factor = SHRINK if waiting else GROW
        self._limit = min(max(self._limit * factor, SHORTEST_S), float(self._throttle.batch))

    def seconds(self, wanted: float) -> float:
        """How long the next batch should take, where `wanted` is asked for."""
        return min(wanted, self._limit) if self.busy else wanted

    def rest(self, seconds: float) -> float:
        """How long to rest after a batch that took so long; between transactions, never in one.

        What it took beyond twice the wanted time it waited for somebody's lock, and no rest would make up for that.
        """
        return min(seconds, 2 * self._limit) * self._times() if self.busy else 0.0

    @property
    def at_rest(self) -> float:
        """The share of the time, now."""
        return self._times() / (1 + self._times()) if self.busy else 0.0

    def _times(self) -> float:
        return self._throttle.rest if self._asked is None else self._asked
