"""Terminates sessions that block a step, if the playbook names them or the operator agrees.

Each is recorded in the trail before it is terminated: which session, and on whose decision; never its SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.common.durations import format_duration
from runner.trail.events import BlockerEnded, Event
from steps.contract import DatabaseFault, Look

ASK_FROM = 3  # attempts before a person is asked: most blockers go away by themselves

_BLOCKING = """
SELECT a.pid, coalesce(a.usename::text, '') AS role, coalesce(a.application_name, '') AS application,
       coalesce(a.state, '') AS state, coalesce(a.backend_start::text, '') AS began,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint AS age_s
FROM (SELECT DISTINCT b.pid FROM unnest(pg_blocking_pids(CAST(:pid AS integer))) AS b(pid)) AS b
JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
WHERE a.backend_type = 'client backend' AND NOT starts_with(coalesce(a.application_name, ''), 'runbook')"""
# backend_start makes sure that it is still the same session: pids are reused.
_END = """SELECT pg_terminate_backend(a.pid) AS told FROM pg_catalog.pg_stat_activity a
WHERE a.pid = :pid AND a.backend_start::text = :began"""


class Blocker(NamedTuple):
    """A session of others that holds a lock we wait for."""

    pid: int
    role: str
    application: str
    state: str
    began: str
    age_s: int

    @property
    def words(self) -> str:
        of = f" in {self.application!r}" if self.application else ""
        return f"pid {self.pid} ({self.role}{of}, {self.state or 'at work'} for {format_duration(self.age_s)})"


@dataclass
class Enders:
    """Decides which blockers of one step are terminated, and does it.

    named: application_names that the playbook allows to end. ask: asks a person at the terminal; None: nobody is asked.
    """

    step: str
    emit: Callable[[Event], None]
    named: tuple[str, ...] = ()
    ask: Callable[[str], bool] | None = None  # a person at the terminal
    operator: str = ""
    seen: dict[int, Blocker] = field(default_factory=dict)
    _asked: set[tuple[int, str]] = field(default_factory=set)

    @property
    def wanted(self) -> bool:
        return bool(self.named) or self.ask is not None

    def look_at(self, look: Look, pid: int) -> None:
        """Note who blocks the server process `pid` now; terminate those that the playbook names."""
        for row in look.rows(_BLOCKING, {"pid": pid}):
            found = Blocker(
                row.integer("pid"),
                row.text("role"),
                row.text("application"),
                row.text("state"),
                row.text("began"),
                row.integer("age_s"),
            )
            self.seen[found.pid] = found
            if found.application and found.application in self.named and self._first(found):
                self._end(look, found, by="the playbook (lock: blockers)")

    def candidates(self, attempt: int) -> list[Blocker]:
        """The blockers about which a person should be asked now."""
        if self.ask is None or attempt < ASK_FROM:
            return []
        return [one for one in self.seen.values() if (one.pid, one.began) not in self._asked]

    def consult(self, look: Look, found: Blocker) -> None:
        """Ask a person about one blocker, and terminate it on a yes."""
        if self._first(found) and self.ask is not None and self.ask(f"end {found.words}, which is in the way?"):
            self._end(look, found, by=self.operator)

    def _first(self, found: Blocker) -> bool:
        key = (found.pid, found.began)
        new = key not in self._asked
        self._asked.add(key)
        return new

    def _end(self, look: Look, found: Blocker, *, by: str) -> None:
        told = BlockerEnded(step=self.step, by=by, pid=found.pid, user=found.role, application=found.application)
        self.emit(told)
        try:
            rows = look.rows(_END, {"pid": found.pid, "began": found.began})
        except DatabaseFault as fault:
            self.emit(told.model_copy(update={"refused": str(fault)}))
            raise
        if not any(row.flag("told") for row in rows):
            self.emit(told.model_copy(update={"refused": "it was gone already"}))
