"""Describes other sessions of the server without their statements: those may hold secrets, and a record can't be redacted later."""

from __future__ import annotations

from collections.abc import Sequence

from steps.contract import Look, Row

SHOWN = 5  # at most so many relations are named
_WORDS = (
    "SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE|COPY|BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE|EXECUTE|"
    "DEALLOCATE|DECLARE|FETCH|MOVE|CLOSE|CREATE|ALTER|DROP|TRUNCATE|COMMENT|GRANT|REVOKE|ANALYZE|VACUUM|CLUSTER|REINDEX|REFRESH|LOCK|"
    "SET|RESET|SHOW|EXPLAIN|CALL|DO|DISCARD|CHECKPOINT|LISTEN|NOTIFY|UNLISTEN|IMPORT|SECURITY|REASSIGN|LOAD"
)

# Of a statement only the first word is taken, and only if it is an SQL keyword.
_SQL = rf"""
WITH held AS MATERIALIZED (
  SELECT l.pid, l.relation::regclass::text || ' (' || string_agg(DISTINCT l.mode, ', ') || ')' AS what
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
  WHERE l.locktype = 'relation' AND l.granted AND l.pid = ANY(:pids) AND c.relkind <> 'i' AND c.relnamespace <> 'pg_catalog'::regnamespace
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  GROUP BY l.pid, l.relation)
SELECT a.pid, coalesce(a.usename::text, '') AS role, coalesce(a.application_name, '') AS application,
       coalesce(a.backend_type, '') AS type, coalesce(a.state, '') AS state, a.query_id,
       greatest(extract(epoch FROM clock_timestamp() - a.xact_start), 0) AS age_s,
       upper(substring(a.query from '(?i)^\s*({_WORDS})\M')) AS command,
       ARRAY(SELECT what FROM held WHERE held.pid = a.pid ORDER BY what LIMIT {SHOWN}) AS relations
FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY(:pids)"""


def described(look: Look, pids: Sequence[int]) -> dict[int, str]:
    """Pid → role, application, activity and locked tables of each session, in words; or that it is gone."""
    if not pids:
        return {}
    found = {row.integer("pid"): _words(row) for row in look.rows(_SQL, {"pids": [*pids]})}
    return {pid: found.get(pid, f"pid {pid} (gone)") for pid in pids}


def ask(pid: int) -> str:
    """The query by which an operator with the privilege can see the session's statement."""
    return f"SELECT query FROM pg_stat_activity WHERE pid = {pid}"


def _words(row: Row) -> str:
    pid, command, query = row.integer("pid"), row.maybe_text("command"), row.maybe_integer("query_id")
    parts = [
        f"pid {pid}",
        row.text("role") or "no role",
        row.text("application") or "no application name",
        row.text("type") if row.text("type") != "client backend" else "",
        f"{row.text('state') or 'state hidden'} for {row.number('age_s'):.0f} s",
        f"{'last ' if row.text('state').startswith('idle') else ''}{command}" if command else "",
        f"query_id {query}" if query else "",
        f"holds {', '.join(row.texts('relations'))}" if row.texts("relations") else "",
    ]
    return f"{', '.join(part for part in parts if part)}; its statement: {ask(pid)}"
