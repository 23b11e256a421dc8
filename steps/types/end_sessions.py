"""Ends the sessions that are changing some tables: a migration whose program is gone may still work in its server process."""

from __future__ import annotations

import time
from typing import ClassVar

from steps.catalog import changers
from steps.contract import Context, Effect, Identifiers, Look, Progress, State, Step, StepError, StepResult, Work

ENDS_S = 30.0  # how long a session that was told to end may take: it rolls back what it had done
EVERY_S = 0.2


class EndSessionsResult(StepResult):
    """ended: how many sessions were told to end."""

    ended: int


class EndSessions(Step):
    """Ends the sessions that hold a lock of a definition's change on one of these tables, or wait for one.

    What such a session had not committed is rolled back by the server. Other runs and prepared transactions are never ended:
    a run is stopped by `runbook tune`, a prepared transaction by who prepared it. Put a checkpoint with an approval before it.
    """

    kind: ClassVar[str] = "end_sessions"
    summary: ClassVar[str] = "end the sessions that are changing these tables, once a person has agreed"
    only: ClassVar[str] = "postgresql"
    lasting: ClassVar[bool] = False
    Result: ClassVar[type[StepResult]] = EndSessionsResult

    changing: Identifiers

    def describe(self) -> str:
        return f"end the sessions that are changing {', '.join(self.changing)}"

    def verify(self, look: Look) -> Effect:
        found = changers.at_work(look, self.changing, unseen=True)
        if found.hidden:
            return Effect(State.UNKNOWN, found.hidden)
        if not found.changers:
            return Effect(State.DONE, f"nobody is changing {', '.join(self.changing)}")
        return Effect(State.NOT_DONE, "; ".join(map(str, found.changers)))

    def preflight(self, look: Look) -> list[str]:
        found = changers.at_work(look, self.changing, unseen=True).changers
        return [f"cannot end {one}: it is no session" for one in found if one.pid is None]

    def apply(self, ctx: Context) -> EndSessionsResult:
        with ctx.db.look() as look:
            pids = {
                one.pid for one in changers.at_work(look, self.changing, unseen=True).changers if one.pid is not None
            }

        def end(work: Work) -> None:
            for pid in sorted(pids):
                work.rows("SELECT pg_terminate_backend(CAST(:pid AS integer)) AS told", {"pid": pid})

        ctx.patiently(f"end {', '.join(map(str, sorted(pids)))}", end)
        self._await(ctx, pids)
        return EndSessionsResult(ended=len(pids))

    def _await(self, ctx: Context, pids: set[int]) -> None:
        until = time.monotonic() + ENDS_S
        while True:
            with ctx.db.look() as look:
                left = [one for one in changers.at_work(look, self.changing, unseen=True).changers if one.pid in pids]
            if not left:
                return
            if time.monotonic() > until:
                raise StepError(f"told to end, and still there after {ENDS_S:.0f} s: {'; '.join(map(str, left))}")
            ctx.pulse(Progress(len(pids) - len(left), len(pids), "sessions"))
            time.sleep(EVERY_S)
