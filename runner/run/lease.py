"""The lease: one changing run per target, fenced by an epoch that every commit reads."""

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

TAKE_S = (
    20.0  # how long a take-over waits for what its holder has in flight: the server ends that after 15 s of silence
)
# Only what works: whoever is idle in a transaction either holds the lease's row, for which the take-over waits, or only looks.
_IN_FLIGHT = """SELECT pid
FROM pg_catalog.pg_stat_activity WHERE starts_with(application_name, :prefix) AND state NOT LIKE 'idle%' AND pid <> pg_backend_pid()
AND application_name <> :prefix || 'heartbeat' AND datname = current_database() ORDER BY pid LIMIT 1"""


@dataclass
class Holder:
    """This run's hold on the target."""

    database: RunDatabase
    control: Control
    run: str
    scope: str
    process: Process

    def take(self) -> LeaseTaken:
        """Take the lease, over from a holder that is known to be dead or was silent for 15 s by the server's clock.

        Raises RunRefused where another run lives. What the holder has in flight is waited for: commits hold the lease's
        row, and what can't be in a transaction is found by its application_name.
        """
        found = refuse_if_held(self.database, self.scope)
        if found is not None and found.run:
            self._await_end(found.run)
        epoch = self._raise_epoch(found.epoch if found else 0, found.run if found else "")
        if not epoch:
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
            why = f"a transaction of run {holder or 'another process'} is still open after {TAKE_S:.0f} s"
            raise refusal(why, "look into pg_stat_activity for application_name runbook:…") from fault
        finally:
            session.lock_wait_s = usual

    def _await_end(self, run: str) -> None:
        """Wait until nothing of that run works on the server any more; after kill -9 this is half a second."""
        if self.database.dialect is not Dialect.POSTGRESQL:
            return  # its statements die with their process
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
        """End the hold; where the database is gone or another took over there is nothing to give back."""
        fence = self.database.session.fence
        if fence.epoch:
            with contextlib.suppress(DatabaseFault, LeaseLost), self.database.own() as work:
                leases.give_back(work, scope=fence.scope, epoch=fence.epoch)
            self.database.session.fence = Fence()

    @contextlib.contextmanager
    def beating(self, connect: Callable[[Session], RunDatabase]) -> Iterator[None]:
        """Within: a thread with a connection of its own says every 3 s that this process lives."""
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
                if not kept:
                    self.control.lose_lease()
                    break
            except DatabaseFault:
                continue  # a database that is away for a while: tried again, the fence decides
        if database is not None:
            database.close()


@contextlib.contextmanager
def other_scope(
    holder: Holder, connect: Callable[[Session], RunDatabase], tell: Callable[[LeaseTaken], None]
) -> Iterator[None]:
    """Within: what is committed is fenced by a second lease, of another scope; the first is held on and beats on."""
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
