"""A probe on transactions that are open for long: they hold back locks, index builds and VACUUM."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from steps.base import Look, Probe, Row, Unknown
from steps.dialect import Dialect
from steps.reading import has_role
from steps.words import Model, Seconds

SHOWN = 10  # blockers that are named

_SESSIONS = """
SELECT pid, usename, application_name, state, left(query, 80) AS query,
       greatest(extract(epoch FROM clock_timestamp() - xact_start), 0) AS age_s
FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
  AND backend_type IN ('client backend', 'background worker', 'walsender')
  AND (CAST(:ours AS text) = '' OR left(application_name, length(:ours)) <> :ours)
ORDER BY xact_start"""

_PREPARED = """
SELECT gid, owner, greatest(extract(epoch FROM clock_timestamp() - prepared), 0) AS age_s
FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared"""

_HIDDEN = """
SELECT count(*) AS n FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
  AND NOT pg_catalog.pg_has_role(usesysid, 'USAGE')"""


class TransactionsResult(Model):
    """count: open for longer than asked, prepared ones included; oldest_s: seconds, 0 where none is open at all."""

    count: int
    oldest_s: float
    prepared: int = 0
    blockers: tuple[str, ...] = ()


class Transactions(Probe):
    """Transactions of others in this database that are older than a span.

    Those of the run at hand don't count. On SQLite there is one writer and nothing to list: the count is 0.
    """

    kind: ClassVar[str] = "transactions"
    summary: ClassVar[str] = "transactions of others that are open for long"
    Result: ClassVar[type[BaseModel]] = TransactionsResult

    older_than: Seconds
    prepared: bool = True

    def observe(self, look: Look) -> TransactionsResult:
        if look.dialect is Dialect.SQLITE:
            return TransactionsResult(count=0, oldest_s=0.0)
        _require_sight(look)
        ours = f"runbook:{look.place.run}:" if look.place else ""
        sessions = look.rows(_SESSIONS, {"ours": ours})
        prepared = look.rows(_PREPARED) if self.prepared else []
        old = [_session(row) for row in sessions if row.number("age_s") > self.older_than]
        old_prepared = [_prepared(row) for row in prepared if row.number("age_s") > self.older_than]
        return TransactionsResult(
            count=len(old) + len(old_prepared),
            oldest_s=round(max((row.number("age_s") for row in [*sessions, *prepared]), default=0.0), 1),
            prepared=len(old_prepared),
            blockers=tuple([*old, *old_prepared][:SHOWN]),
        )


def _require_sight(look: Look) -> None:
    if has_role(look, "pg_read_all_stats"):
        return
    hidden = look.row(_HIDDEN).integer("n")
    if hidden:
        raise Unknown(f"{hidden} sessions of other roles hide their transactions: GRANT pg_read_all_stats to this role")


def _session(row: Row) -> str:
    name = row.text("application_name") or "no application name"
    return (
        f"pid {row.integer('pid')}, {row.maybe_text('usename')}, {name}, {row.maybe_text('state')}, "
        f"{row.number('age_s'):.0f} s: {row.maybe_text('query')}"
    )


def _prepared(row: Row) -> str:
    return f"prepared {row.text('gid')!r} of {row.text('owner')}, {row.number('age_s'):.0f} s"
