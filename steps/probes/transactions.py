"""Probes on long-running transactions: they keep locks, and hold up index builds and VACUUM."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel

from steps.contract import Look, Model, Probe, Row, Seconds, Unknown
from steps.contract.dialect import Dialect
from steps.contract.direction import HIGHER, OFF
from steps.sql import other_sessions
from steps.sql.queries import has_role

SHOWN = 10  # at most so many transactions are named

_SESSIONS = """
SELECT pid, greatest(extract(epoch FROM clock_timestamp() - xact_start), 0) AS age_s
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

# A standby's walsender belongs to no database, and an autovacuum worker to no role.
_HIDDEN_HOLDERS = """
SELECT count(*) AS n FROM pg_catalog.pg_stat_activity
WHERE pid <> pg_backend_pid() AND NOT coalesce(pg_catalog.pg_has_role(usesysid, 'USAGE'), false)
  AND (datname = current_database() OR pid IN (SELECT pid FROM pg_catalog.pg_stat_replication))"""

# Sessions of this database, and those without one (a standby's feedback). A VACUUM's own snapshot holds back no other VACUUM.
_HOLDERS = """
SELECT 'pid ' || a.pid || ', ' || coalesce(a.usename || ', ', '') || coalesce(nullif(a.application_name, ''), a.backend_type)
         || coalesce(', ' || a.state, '') AS who,
       greatest(age(a.backend_xmin), age(a.backend_xid)) AS xmin_age, NULL::int AS catalog_xmin_age
FROM pg_catalog.pg_stat_activity a
WHERE a.pid <> pg_backend_pid() AND (a.datname = current_database() OR a.datname IS NULL)
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
UNION ALL
SELECT 'prepared ' || quote_literal(gid) || ' of ' || owner, age(transaction), NULL
FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()
UNION ALL
SELECT CASE WHEN active THEN '' ELSE 'inactive ' END || slot_type || ' slot ' || slot_name, age(xmin), age(catalog_xmin)
FROM pg_catalog.pg_replication_slots"""

_HORIZON = f"""
SELECT coalesce(max(xmin_age), 0) AS xmin_age, coalesce(max(catalog_xmin_age), 0) AS catalog_xmin_age,
       ARRAY(SELECT h.who || ': ' || greatest(h.xmin_age, h.catalog_xmin_age) || ' transactions' FROM holders h
             WHERE greatest(h.xmin_age, h.catalog_xmin_age) IS NOT NULL
             ORDER BY greatest(h.xmin_age, h.catalog_xmin_age) DESC LIMIT {SHOWN}) AS holders,
       (SELECT max(age(datfrozenxid)) FROM pg_catalog.pg_database) AS frozen_age,
       (SELECT max(mxid_age(datminmxid)) FROM pg_catalog.pg_database) AS multixact_age,
       current_setting('autovacuum_freeze_max_age')::bigint AS frozen_max,
       current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixact_max
FROM holders"""


class TransactionsResult(Model):
    """count: transactions older than `older_than`, prepared ones included; oldest_s: age of the oldest, 0 where none is open."""

    count: int
    oldest_s: float
    prepared: Annotated[int, OFF] = 0
    blockers: tuple[str, ...] = ()


class Transactions(Probe):
    """Transactions of others in this database that are older than `older_than`.

    Those of this run don't count. On SQLite, which can't list transactions, the count is 0.
    """

    kind: ClassVar[str] = "transactions"
    summary: ClassVar[str] = "transactions of others that are open for long"
    Result: ClassVar[type[BaseModel]] = TransactionsResult

    older_than: Annotated[Seconds, HIGHER]
    prepared: bool = True

    def observe(self, look: Look) -> TransactionsResult:
        if look.dialect is Dialect.SQLITE:
            return TransactionsResult(count=0, oldest_s=0.0)
        _require_sight(look, _HIDDEN)
        ours = f"runbook:{look.place.run}:" if look.place else ""
        sessions = look.rows(_SESSIONS, {"ours": ours})
        prepared = look.rows(_PREPARED) if self.prepared else []
        old = [row.integer("pid") for row in sessions if row.number("age_s") > self.older_than]
        old_prepared = [_prepared(row) for row in prepared if row.number("age_s") > self.older_than]
        return TransactionsResult(
            count=len(old) + len(old_prepared),
            oldest_s=round(max((row.number("age_s") for row in [*sessions, *prepared]), default=0.0), 1),
            prepared=len(old_prepared),
            blockers=tuple([*other_sessions.described(look, old[:SHOWN]).values(), *old_prepared][:SHOWN]),
        )


class HorizonResult(Model):
    """Ages are numbers of transactions. xmin_age: how far back VACUUM must keep dead rows; catalog_xmin_age: those of catalogues.

    holders: the first ten that hold it back, oldest first. frozen_age, multixact_age: of the database that was frozen longest
    ago; wraparound_pct: the larger of the two, in per cent of the age at which autovacuum is forced to freeze.
    """

    xmin_age: int
    catalog_xmin_age: int
    holders: tuple[str, ...]
    frozen_age: int
    multixact_age: int
    wraparound_pct: float


class Horizon(Probe):
    """What keeps VACUUM from removing dead rows: open and prepared transactions, slots, standbys' feedback.

    This run's own transactions count, except the probe's. The probe `transactions` gives the age of transactions in seconds.
    """

    kind: ClassVar[str] = "horizon"
    summary: ClassVar[str] = "who keeps VACUUM from removing rows, how near wraparound is"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = HorizonResult

    def observe(self, look: Look) -> HorizonResult:
        _require_sight(look, _HIDDEN_HOLDERS)
        row = look.row(f"WITH holders AS MATERIALIZED ({_HOLDERS}) {_HORIZON}")
        frozen, multixact = row.integer("frozen_age"), row.integer("multixact_age")
        share = max(frozen / row.integer("frozen_max"), multixact / row.integer("multixact_max"))
        return HorizonResult(
            xmin_age=row.integer("xmin_age"),
            catalog_xmin_age=row.integer("catalog_xmin_age"),
            holders=tuple(row.texts("holders")),
            frozen_age=frozen,
            multixact_age=multixact,
            wraparound_pct=round(100 * share, 2),
        )


def _require_sight(look: Look, hidden_ones: str) -> None:
    if has_role(look, "pg_read_all_stats"):
        return
    hidden = look.row(hidden_ones).integer("n")
    if hidden:
        raise Unknown(f"{hidden} sessions of other roles hide their transactions: GRANT pg_read_all_stats to this role")


def _prepared(row: Row) -> str:
    return f"prepared {row.text('gid')!r} of {row.text('owner')}, {row.number('age_s'):.0f} s"
