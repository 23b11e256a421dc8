"""Throttles a backfill while other sessions work: smaller batches, and rests between them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from steps.contract import Database, DatabaseFault, Model, Seconds, Timespan, Tuning
from steps.contract.dialect import Dialect
from steps.contract.direction import HIGHER, LOWER

LOOK_S = 1.0  # between two looks at the server's activity
WINDOW_S = 4.0  # of the moving average of transactions; sessions report their counts once a second at most
SURE_S = 2.5  # of counting, before a count of zero is taken to mean that nobody works
SHORTEST_S = 0.005  # lower bound of the batch time
REST_S = 0.25  # between two safe points within a rest
AS_WRITTEN = Tuning()
SHRINK, GROW = 0.5, 1.25  # factors on the batch time at each look: if anybody waits for a row lock, and if nobody does

_ACTIVITY = """
SELECT d.xact_commit + d.xact_rollback AS transactions,
       (SELECT count(*) FROM pg_catalog.pg_locks AS l WHERE NOT l.granted AND l.locktype IN ('transactionid', 'tuple')) AS waiting,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.datid = d.datid AND a.pid <> pg_backend_pid()
        AND a.usesysid IS NOT NULL AND coalesce(left(a.application_name, 7) <> 'runbook', true)
        AND coalesce(a.state_change > clock_timestamp() - interval '0.25 seconds' OR a.state = 'active', true)) AS sessions
FROM pg_catalog.pg_stat_database AS d WHERE d.datname = current_database()"""


class Throttle(Model):
    """How a pass gives way to others. traffic: from how many transactions a second of theirs.

    batch: how long a batch may then take, and so hold its locks; rest: how long the pass rests after each, as a multiple of
    the time it worked: at 9 it works a tenth of the time, and 9 of 10 transactions of others don't overlap with it.
    """

    traffic: Annotated[float, Field(ge=0), HIGHER] = 20.0
    batch: Annotated[Seconds, Field(gt=0, le=60), HIGHER] = Timespan(0.015)
    rest: Annotated[float, Field(ge=0, le=100), LOWER] = 9.0


UNTHROTTLED = Throttle(rest=0.25)  # `throttle: none`: at full speed, yet a fifth of the time is left to others


def rest_for(seconds: float, pulse: Callable[[], object]) -> None:
    """Sleep between transactions, never inside one; `pulse` is called meanwhile, so that stop and hold take effect at once."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, REST_S))
        if left > REST_S:
            pulse()


class Pace:
    """Measures the activity of other sessions about once a second, and derives batch time and rest from it.

    Shared by all workers of a pass. `look` is not thread-safe: the caller lets in one worker at a time.
    """

    def __init__(self, db: Database, throttle: Throttle) -> None:
        self._db, self._throttle = db, throttle
        self._seen: deque[tuple[float, int]] = deque()  # (time, number of other sessions' transactions by then)
        self._next = 0.0  # time of the next look
        self._looks = 0
        self._limit = float(throttle.batch)  # seconds that a batch may take now
        self._asked: float | None = None  # `rest` as set by `runbook tune`
        self.others = 0.0  # transactions a second of other sessions
        self.busy = False  # whether other sessions are at work now

    def look(self, batches: int, tuning: Tuning = AS_WRITTEN) -> None:
        """Update from the tuning and the server's activity. batches: the number of the pass's own transactions so far."""
        self._asked, now = tuning.rest, time.monotonic()
        if self._db.dialect is Dialect.SQLITE or now < self._next:
            return
        self._next = now + LOOK_S
        try:
            with self._db.look() as look:
                row = look.row(_ACTIVITY)
        except DatabaseFault:
            return  # the next batch will report what is wrong
        self._looks += 1  # each look is a transaction too
        self._count(now, row.integer("transactions") - batches - self._looks)
        # The count includes transactions of this run's guards and heartbeat; so a session of others must be active as well.
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
        """The target duration of the next batch: `wanted`, or less while others work."""
        return min(wanted, self._limit) if self.busy else wanted

    def rest(self, seconds: float) -> float:
        """How long to rest after a batch that took `seconds`.

        Time beyond twice the target was probably spent waiting for a lock, and isn't work to be made up for by a rest.
        """
        return min(seconds, 2 * self._limit) * self._times() if self.busy else 0.0

    @property
    def at_rest(self) -> float:
        """The fraction of the time that the pass rests at present."""
        return self._times() / (1 + self._times()) if self.busy else 0.0

    def _times(self) -> float:
        return self._throttle.rest if self._asked is None else self._asked
