"""Probes on the server's sessions: who waits for a lock, and how many more may connect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from pydantic import BaseModel

from steps.contract import Look, Model, Probe, Row, Unknown
from steps.sql import other_sessions

SHOWN = 10  # waiting sessions that are named

# pg_locks and application names are visible without a grant. pg_blocking_pids, which is expensive (it locks the whole lock
# table for a moment), is called only for sessions that wait.
_WAITING = """
SELECT w.pid, w.waits_s, w.lock, pg_blocking_pids(w.pid) AS blockers, a.datname IS NOT DISTINCT FROM current_database() AS here
FROM (SELECT pid, max(coalesce(greatest(extract(epoch FROM clock_timestamp() - waitstart), 0), 0)) AS waits_s,
             max(mode || ' on ' || coalesce(relation::regclass::text, locktype)) AS lock
      FROM pg_catalog.pg_locks WHERE NOT granted GROUP BY pid) AS w
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
ORDER BY w.waits_s DESC"""

_OURS = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE left(application_name, length(:ours)) = CAST(:ours AS text)"

_CONNECTIONS = """
WITH clients AS MATERIALIZED (
  SELECT datname, usename, coalesce(state, '') AS state, backend_type IS NULL AS hidden
  FROM pg_catalog.pg_stat_activity
  WHERE usesysid IS NOT NULL AND datname IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend')
SELECT count(*) AS used, count(*) FILTER (WHERE hidden) AS hidden,
       count(*) FILTER (WHERE state = 'active') AS active,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction,
       count(*) FILTER (WHERE usename = session_user) AS used_by_role,
       count(*) FILTER (WHERE datname = current_database()) AS used_in_database,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
       (SELECT CASE WHEN rolsuper OR rolconnlimit < 0 THEN NULL ELSE rolconnlimit END
        FROM pg_catalog.pg_roles WHERE rolname = session_user) AS role_limit,
       (SELECT CASE WHEN datconnlimit < 0 OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user)
                    THEN NULL ELSE datconnlimit END
        FROM pg_catalog.pg_database WHERE datname = current_database()) AS database_limit
FROM clients"""


class WaitersResult(Model):
    """count: waiting sessions; longest_s: the longest wait so far, 0 where none waits; who: the first ten of them."""

    count: int
    longest_s: float
    who: tuple[str, ...] = ()


class Waiters(Probe):
    """Sessions that wait for a lock which this run holds, directly or behind another session that waits for it.

    Outside a run, as in a plan: all sessions of this database that wait for a lock. The run's own sessions never count. Needs
    no grant; without pg_read_all_stats only the activity of other roles' sessions stays hidden.
    """

    kind: ClassVar[str] = "waiters"
    summary: ClassVar[str] = "sessions that wait for a lock behind this run"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = WaitersResult

    def observe(self, look: Look) -> WaitersResult:
        waiting = look.rows(_WAITING)
        if not waiting:
            return WaitersResult(count=0, longest_s=0.0)
        if look.place:
            ours = look.rows(_OURS, {"ours": f"runbook:{look.place.run}:"})
            found = _behind(waiting, [row.text("pid") for row in ours])
        else:
            found = [row for row in waiting if row.flag("here")]
        return WaitersResult(
            count=len(found),
            longest_s=round(max((row.number("waits_s") for row in found), default=0.0), 1),
            who=tuple(_waiters(look, found[:SHOWN])),
        )


def _behind(waiting: Sequence[Row], ours: Iterable[str]) -> list[Row]:
    """The waiting sessions that our sessions block, directly or through others; never our own."""
    roots = set(ours)
    reached = set(roots)
    for _ in waiting:  # each round follows the chains of blockers by one more link
        more = {row.text("pid") for row in waiting if reached.intersection(row.texts("blockers"))}
        if more <= reached:
            break
        reached |= more
    return [row for row in waiting if row.text("pid") in reached - roots]


def _waiters(look: Look, rows: Sequence[Row]) -> Iterator[str]:
    known = other_sessions.described(look, [row.integer("pid") for row in rows])
    for row in rows:
        blockers = ", ".join(row.texts("blockers"))
        wait = f"waits {row.number('waits_s'):.0f} s for {row.text('lock')}, which pid {blockers} holds or awaits"
        yield f"{known[row.integer('pid')]}; {wait}"


class ConnectionsResult(Model):
    """used: by clients, in all databases; reserved: for superusers and members of pg_use_reserved_connections.

    free: how many more this role may open in this database; bound_by: which limit applies ("server", "role" or "database");
    free_pct: of that limit. active and idle_in_transaction: of the connections in use.
    """

    free: int
    free_pct: float
    bound_by: str
    used: int
    reserved: int
    max_connections: int
    active: int
    idle_in_transaction: int


class Connections(Probe):
    """How many connections are left for an ordinary session, not counting the reserved ones.

    The limits of the server, of the probe's role and of the database count; those of other roles don't.
    Unknown where sessions of other roles can't be told apart from server processes, for lack of pg_read_all_stats.
    """

    kind: ClassVar[str] = "connections"
    summary: ClassVar[str] = "connections in use and left, idle in transaction"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = ConnectionsResult

    def observe(self, look: Look) -> ConnectionsResult:
        row = look.row(_CONNECTIONS)
        hidden = row.integer("hidden")
        if hidden:
            raise Unknown(f"{hidden} sessions of other roles hide what they are: GRANT pg_read_all_stats to this role")
        free, limit, bound_by = min(_limits(row))
        return ConnectionsResult(
            free=free,
            free_pct=round(100 * free / limit, 2) if limit > 0 else 0.0,
            bound_by=bound_by,
            used=row.integer("used"),
            reserved=row.integer("reserved"),
            max_connections=row.integer("max_connections"),
            active=row.integer("active"),
            idle_in_transaction=row.integer("idle_in_transaction"),
        )


def _limits(row: Row) -> list[tuple[int, int, str]]:
    """(free, limit, whose) for each limit that applies."""
    limits = [
        (row.integer("max_connections") - row.integer("reserved"), row.integer("used"), "server"),
        (row.maybe_integer("role_limit"), row.integer("used_by_role"), "role"),
        (row.maybe_integer("database_limit"), row.integer("used_in_database"), "database"),
    ]
    return [(max(limit - used, 0), limit, of) for limit, used, of in limits if limit is not None]
