"""The lease: only one run changes a target at a time; every commit is fenced by the lease's epoch.

Whoever takes the lease raises its epoch. Each transaction of a run reads the lease's row FOR SHARE and requires its own
epoch, so a process that lost the lease without noticing (frozen, cut off from the network) can't commit any more.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runner.common.errors import LeaseLost
from runner.run.control import Control
from runner.target.database import Fence, RunDatabase, Session
from runner.target.lease_holder import BEAT_S, refusal, refuse_if_held
from runner.trail.events import LeaseTaken, Process
from steps.contract import LOCK_NOT_AVAILABLE, DatabaseFault
from steps.contract.dialect import Dialect
from steps.ledger import leases
from steps.sql import other_sessions

# How long a take-over waits for the former holder's transactions: the server ends them after 15 s of silence.
TAKE_S = 20.0
# Only active sessions: one that is idle in a transaction either has the lease's row locked, so that the take-over waits for
# it anyway, or only reads.
_IN_FLIGHT = """SELECT pid
FROM pg_catalog.pg_stat_activity WHERE starts_with(application_name, :prefix) AND state NOT LIKE 'idle%' AND pid <> pg_backend_pid()
AND application_name <> :prefix || 'heartbeat' AND datname = current_database() ORDER BY pid LIMIT 1"""


@dataclass
class Holder:
    """Takes, keeps and returns the lease on behalf of one run."""

    database: RunDatabase
    control: Control
    run: str
    scope: str
    process: Process

    def take(self) -> LeaseTaken:
        """Take the lease if it is free, or if its holder is dead or has been silent for 15 s by the server's clock.

        Waits for the former holder's work in flight: transactions have the lease's row locked, and statements outside of a
        transaction are found by their application_name. Raises RunRefused if another run is alive.
        """
        found = refuse_if_held(self.database, self.scope)
        if found is not None and found.run:
            self._await_end(found.run)
        epoch = self._raise_epoch(found.epoch if found else 0, found.run if found else "")
        if not epoch:  # the row had another epoch than the one we read: somebody took it in between
            raise refusal("another run was faster", "runbook status")
        self.database.session.fence = Fence(self.scope, epoch)
        over = found.run if found is not None and found.run else ""
        return LeaseTaken(scope=self.scope, epoch=epoch, previous_run=over)

    def _raise_epoch(self, epoch: int, holder: str) -> int:
        session = self.database.session
        usual, session.lock_wait_s = session.lock_wait_s, TAKE_S
        try:
            with self.database.own(fenced=False) as work:
                return leases.take_lease(
                    work, scope=self.scope, run=self.run, holder=self.process.model_dump_json(), epoch=epoch
                )
        except DatabaseFault as fault:
            if fault.sqlstate != LOCK_NOT_AVAILABLE:
                raise
            # The holder's transaction is still open, with a share lock on the row that we want to update.
            why = f"a transaction of run {holder or 'another process'} is still open after {TAKE_S:.0f} s"
            raise refusal(why, "look into pg_stat_activity for application_name runbook:…") from fault
        finally:
            session.lock_wait_s = usual

    def _await_end(self, run: str) -> None:
        """Wait until the server executes nothing of that run any more; half a second after a kill -9."""
        if self.database.dialect is not Dialect.POSTGRESQL:
            return  # SQLite executes in the process itself
        until = time.monotonic() + TAKE_S
        while (pid := self._in_flight(run)) is not None:
            if time.monotonic() > until:
                with self.database.look() as look:
                    who = other_sessions.described(look, [pid])[pid]
                raise refusal(
                    f"run {run} still works on the server: {who}", f"wait for it, or SELECT pg_terminate_backend({pid})"
                )
            self.control.wait(0.2)

    def _in_flight(self, run: str) -> int | None:
        with self.database.look() as look:
            rows = look.rows(_IN_FLIGHT, {"prefix": f"runbook:{run}:"[:63]})
        return rows[0].integer("pid") if rows else None

    def give_back(self) -> None:
        """Return the lease. Does nothing if the database is gone or another run has taken it over."""
        fence = self.database.session.fence
        if fence.epoch:
            with contextlib.suppress(DatabaseFault, LeaseLost), self.database.own() as work:
                leases.give_back(work, scope=fence.scope, epoch=fence.epoch)
            self.database.session.fence = Fence()

    @contextlib.contextmanager
    def beating(self, connect: Callable[[Session], RunDatabase]) -> Iterator[None]:
        """Send heartbeats (every BEAT_S) while the block runs, from a thread with its own connection."""
        done, fence = threading.Event(), self.database.session.fence
        thread = threading.Thread(target=self._beat, args=(connect, fence, done), daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=10)

    def _beat(self, connect: Callable[[Session], RunDatabase], fence: Fence, done: threading.Event) -> None:
        database: RunDatabase | None = None
        while not done.wait(BEAT_S):
            try:
                database = database or connect(Session(run=self.run, step="heartbeat"))
                with database.own(fenced=False) as work:
                    kept = leases.beat(work, scope=fence.scope, epoch=fence.epoch)
                if not kept:  # the epoch has changed
                    self.control.lose_lease()
                    break
            except DatabaseFault:
                continue  # the database may come back; if the lease is lost meanwhile, fencing protects the target
        if database is not None:
            database.close()


@contextlib.contextmanager
def other_scope(
    holder: Holder, connect: Callable[[Session], RunDatabase], tell: Callable[[LeaseTaken], None]
) -> Iterator[None]:
    """Fence commits by a second lease, of another scope, while the block runs; the first one is kept with its heartbeats."""
    session = holder.database.session
    own = session.fence
    try:
        tell(holder.take())
        with holder.beating(connect):
            yield
    finally:
        if session.fence is not own:
            holder.give_back()
        session.fence = own
