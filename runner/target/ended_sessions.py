"""Sessions that stand in the way and are ended, where the playbook names them or the operator says so.

Each is in the trail before it is told to end: who, since when, and by whose word; never what it was doing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.common.durations import format_duration
from runner.trail.events import BlockerEnded, Event
from steps.contract import DatabaseFault, Look

ASK_FROM = 3  # tries before a person is asked: most blockers go by themselves

_BLOCKING = """
SELECT a.pid, coalesce(a.usename::text, '') AS role, coalesce(a.application_name, '') AS application,
       coalesce(a.state, '') AS state, coalesce(a.backend_start::text, '') AS began,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint AS age_s
FROM (SELECT DISTINCT b.pid FROM unnest(pg_blocking_pids(CAST(:pid AS integer))) AS b(pid)) AS b
JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
WHERE a.backend_type = 'client backend' AND NOT starts_with(coalesce(a.application_name, ''), 'runbook')"""
# The same session still, and not another one that was given its number.
_END = """SELECT pg_terminate_backend(a.pid) AS told FROM pg_catalog.pg_stat_activity a
WHERE a.pid = :pid AND a.backend_start::text = :began"""


class Blocker(NamedTuple):
    """A session of others that holds what we wait for."""

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
    """Who of those in the way of one step may be ended. named: by application_name, as the playbook consents."""

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
        """Note who blocks the server process `pid` now, and end those whom the playbook names."""
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
        """Those about whom a person is to be asked now."""
        if self.ask is None or attempt < ASK_FROM:
            return []
        return [one for one in self.seen.values() if (one.pid, one.began) not in self._asked]

    def consult(self, look: Look, found: Blocker) -> None:
        """Ask about one of them, and do what the person says."""
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
