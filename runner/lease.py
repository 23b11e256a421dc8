"""The lease: one changing run per target, fenced by an epoch that every commit reads."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from runner import identity
from runner.control import Control
from runner.database import Fence, RunDatabase, Session
from runner.errors import LeaseLost, RunRefused
from runner.events import LeaseTaken, Process
from steps import ledger
from steps.base import DatabaseFault

BEAT_S = 3.0
SILENT_S = 15.0


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

        Raises RunRefused where another run lives; whoever is waited for commits first, because commits hold the row.
        """
        with self.database.look() as look:
            found = ledger.lease(look, self.scope)
        if found is not None and found.run:
            self._refuse_if_alive(found)
        with self.database.own(fenced=False) as work:
            epoch = ledger.take_lease(
                work,
                scope=self.scope,
                run=self.run,
                holder=self.process.model_dump_json(),
                epoch=found.epoch if found else 0,
            )
        if not epoch:
            raise self._refusal("another run was faster", "runbook status")
        self.database.session.fence = Fence(self.scope, epoch)
        over = found.run if found is not None and found.run else ""
        return LeaseTaken(scope=self.scope, epoch=epoch, over_from=over)

    def give_back(self) -> None:
        """End the hold; where the database is gone or another took over there is nothing to give back."""
        fence = self.database.session.fence
        if fence.epoch:
            with contextlib.suppress(DatabaseFault, LeaseLost), self.database.own() as work:
                ledger.give_back(work, scope=fence.scope, epoch=fence.epoch)
            self.database.session.fence = Fence()

    @contextlib.contextmanager
    def beating(self, connect: Callable[[Session], RunDatabase]) -> Iterator[None]:
        """Within: a thread with a connection of its own says every 3 s that this process lives."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(connect, done), daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=10)

    def _beat(self, connect: Callable[[Session], RunDatabase], done: threading.Event) -> None:
        fence = self.database.session.fence
        database: RunDatabase | None = None
        while not done.wait(BEAT_S):
            try:
                database = database or connect(Session(run=self.run, step="heartbeat"))
                with database.own(fenced=False) as work:
                    kept = ledger.beat(work, scope=fence.scope, epoch=fence.epoch)
                if not kept:
                    self.control.lose_lease()
                    break
            except DatabaseFault:
                continue  # a database that is away for a while: tried again, the fence decides
        if database is not None:
            database.close()

    def _refuse_if_alive(self, found: ledger.Lease) -> None:
        try:
            holder = Process.model_validate_json(found.holder)
        except ValidationError:
            holder = None
        alive = identity.alive(holder) if holder is not None else None
        if alive is False or found.silent_s > SILENT_S:
            return
        who = f"{holder.operator} on {holder.host}, pid {holder.pid}" if holder is not None else "an unknown process"
        raise self._refusal(
            f"run {found.run} ({who}) has been changing this target; its last sign of life is {found.silent_s:.0f} s old",
            f"runbook status {found.run}",
        )

    def _refusal(self, why: str, then: str) -> RunRefused:
        return RunRefused(f"cannot change this target now: {why}", state="nothing was changed by this run", then=then)


def holder_words(found: ledger.Lease) -> str:
    """Who holds a lease, for `status`."""
    holder = json.loads(found.holder)
    return f"{holder.get('operator')} on {holder.get('host')}, pid {holder.get('pid')}, seen {found.silent_s:.0f} s ago"
