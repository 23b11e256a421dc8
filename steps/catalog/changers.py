"""Who is changing some tables right now: server processes that hold or wait for a lock of DDL, and runs with a live lease."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from steps.catalog import catalog
from steps.contract import INSUFFICIENT_PRIVILEGE, DatabaseFault, Look, Row
from steps.ledger import leases, tables
from steps.sql import other_sessions
from steps.sql.unreadable import attempt

LIVE_S = 15.0  # a run whose last heartbeat is older has no living process, or may be taken over

# Modes that only DDL takes, with LOCK TABLE; VACUUM and ANALYZE take the weakest of them and change no definition.
_MODES = ("ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
_SESSIONS = """
WITH mine AS MATERIALIZED (
  SELECT c.oid, n.nspname || '.' || c.relname AS name
  FROM unnest(CAST(:schemas AS text[]), CAST(:tables AS text[])) AS w(s, t)
  JOIN pg_catalog.pg_class c ON c.relname = CAST(w.t AS name)
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = CAST(w.s AS name)),
locked AS MATERIALIZED (
  SELECT l.pid, l.virtualtransaction AS transaction, l.mode, l.granted, c.oid AS known, coalesce(m.name, i.name) AS name
  FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
  LEFT JOIN mine m ON m.oid = l.relation
  LEFT JOIN (SELECT x.indexrelid, mine.name FROM pg_catalog.pg_index x JOIN mine ON mine.oid = x.indrelid) i ON i.indexrelid = l.relation
  WHERE l.locktype = 'relation' AND l.mode = ANY(CAST(:modes AS text[])) AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
SELECT l.pid, l.transaction, l.mode, l.granted, l.name,
       coalesce(a.usename::text, '') AS role, coalesce(a.state, '') AS state,
       to_char(coalesce(a.xact_start, a.query_start), 'YYYY-MM-DD HH24:MI:SS TZ') AS since
FROM locked l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE (l.name IS NOT NULL OR (:unseen AND l.known IS NULL AND l.granted AND l.mode = 'AccessExclusiveLock'))
  AND coalesce(a.backend_type, '') <> 'autovacuum worker'
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = l.pid)
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_analyze v WHERE v.pid = l.pid)
  AND (CAST(:ours AS text) = '' OR left(coalesce(a.application_name, ''), length(:ours)) <> :ours)
ORDER BY l.granted DESC, l.mode, l.pid, l.name"""


@dataclass(frozen=True)
class Changer:
    """Somebody who may be changing the tables. closed: the tables (schema.table) that can't even be read until it has ended."""

    pid: int | None
    who: str
    closed: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.who


class AtWork(NamedTuple):
    """Who changes some tables now. hidden: what this role can't see of it."""

    changers: tuple[Changer, ...]
    hidden: str = ""


def at_work(look: Look, names: Sequence[str], *, unseen: bool = False) -> AtWork:
    """Who changes these tables now, apart from the run that looks.

    unseen: also sessions that hold ACCESS EXCLUSIVE on a relation that nobody else can see yet, since it may become a table
    that is missing now.
    """
    sessions = _sessions(look, names, unseen=unseen) if catalog.on_postgresql(look) and names else []
    try:
        with attempt(look):
            return AtWork((*sessions, *_runs(look)))
    except DatabaseFault as fault:
        if fault.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        return AtWork(
            tuple(sessions), "whether a run is at work: this role may not read the ledger (runbook target init --print)"
        )


def _sessions(look: Look, names: Sequence[str], *, unseen: bool) -> list[Changer]:
    pairs = [catalog.named(look, one) for one in names]
    rows = look.rows(
        _SESSIONS,
        {
            "schemas": [schema for schema, _ in pairs],
            "tables": [table for _, table in pairs],
            "modes": [*_MODES],
            "unseen": unseen,
            "ours": f"runbook:{look.place.run}:" if look.place else "",
        },
    )
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.text("transaction" if row["pid"] is None else "pid"), []).append(row)
    return [_changer(found) for found in grouped.values()]


def _changer(rows: list[Row]) -> Changer:
    first = rows[0]
    pid = first.maybe_integer("pid")
    locks = "; ".join(dict.fromkeys(_lock(row) for row in rows))
    closed = frozenset(
        row.text("name")
        for row in rows
        if row["name"] is not None and row.flag("granted") and row.text("mode") == "AccessExclusiveLock"
    )
    if pid is None:
        return Changer(None, f"a prepared transaction {locks}", closed)
    since = f", since {first.text('since')}" if first["since"] is not None else ""
    role = first.text("role") or "a role that is hidden from this one"
    state = f", {first.text('state')}" if first.text("state") else ""
    return Changer(pid, f"pid {pid}, {role}{since}{state}, {locks}; its statement: {other_sessions.ask(pid)}", closed)


def _lock(row: Row) -> str:
    words = re.findall("[A-Z][a-z]+", row.text("mode").removesuffix("Lock"))
    what = row.maybe_text("name") or "a relation that nobody else can see yet"
    return f"{'holds' if row.flag('granted') else 'waits for'} {' '.join(words).upper()} on {what}"


def _runs(look: Look) -> list[Changer]:
    """The runs on this target whose process is alive."""
    if not tables.exists(look):
        return []
    held = [found for scope in leases.scopes_held(look) if (found := leases.lease(look, scope)) is not None]
    mine = look.place.run if look.place else ""
    return [
        Changer(
            None,
            f"run {one.run} is at work: its last heartbeat was {max(one.silent_s, 0):.0f} s ago (ledger, lease {one.scope!r})",
        )
        for one in held
        if one.run and one.run != mine and one.silent_s <= LIVE_S
    ]
