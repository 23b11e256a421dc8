"""The probe on a table's health: size, dead rows, HOT updates, autovacuum."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from steps.catalog import catalog
from steps.contract import Identifier, Look, Model, Probe, Row, StepError

# This uses the functions behind pg_stat_all_tables, since the view, when joined, computes its figures for every table.
# Counters that were reset after the table was filled (a crash, an upgrade) know nothing of its rows (counted: false). They can
# be trusted once VACUUM or ANALYZE has run, or if as many rows were inserted since as the table has (at least one per page).
_TABLE = """
WITH root AS (
  SELECT c.oid, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = :schema AND c.relname = :table),
parts AS MATERIALIZED (
  SELECT c.oid, c.reltoastrelid AS toast, c.reltuples, pg_relation_size(c.oid) AS heap_bytes,
         pg_total_relation_size(c.oid) AS bytes,
         CASE WHEN c.reltoastrelid <> 0 THEN pg_total_relation_size(c.reltoastrelid) ELSE 0 END AS toast_bytes,
         greatest(age(c.relfrozenxid), (SELECT age(t.relfrozenxid) FROM pg_catalog.pg_class t WHERE t.oid = c.reltoastrelid))
           AS xid_age,
         pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead,
         pg_stat_get_tuples_inserted(c.oid) AS inserted,
         pg_stat_get_tuples_updated(c.oid) AS updated, pg_stat_get_tuples_hot_updated(c.oid) AS hot,
         pg_stat_get_last_autovacuum_time(c.oid) AS autovacuumed,
         greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed,
         greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed
  FROM (SELECT oid FROM root UNION SELECT p.relid FROM root, pg_partition_tree(root.oid) AS p) AS o
  JOIN pg_catalog.pg_class c ON c.oid = o.oid WHERE c.relkind IN ('r', 'm', 't')),
workers AS MATERIALIZED (
  SELECT coalesce(a.query, '') AS query
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  WHERE l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND a.usesysid IS NULL
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND l.relation IN (SELECT oid FROM parts UNION ALL SELECT toast FROM parts))
SELECT (SELECT relkind::text FROM root) AS kind, count(*) AS parts,
       sum(bytes) AS bytes, sum(heap_bytes) AS heap_bytes, sum(toast_bytes) AS toast_bytes, max(xid_age) AS xid_age,
       sum(live) AS live, sum(dead) AS dead, sum(updated) AS updated, sum(hot) AS hot,
       bool_and(vacuumed IS NOT NULL OR analyzed IS NOT NULL OR heap_bytes = 0
                OR inserted >= greatest(reltuples, heap_bytes / current_setting('block_size')::int)) AS counted,
       CASE WHEN bool_and(autovacuumed IS NOT NULL) THEN extract(epoch FROM clock_timestamp() - min(autovacuumed)) END
         AS autovacuumed_s,
       CASE WHEN bool_and(vacuumed IS NOT NULL) THEN extract(epoch FROM clock_timestamp() - min(vacuumed)) END
         AS vacuumed_s,
       CASE WHEN bool_and(analyzed IS NOT NULL) THEN extract(epoch FROM clock_timestamp() - min(analyzed)) END
         AS analyzed_s,
       (SELECT count(*) FROM workers) AS workers,
       (SELECT count(*) FROM workers WHERE query NOT LIKE 'autovacuum: %') AS hidden,
       (SELECT count(*) FROM workers WHERE query LIKE '%(to prevent wraparound)%') AS wraparound
FROM parts"""


class TableResult(Model):
    """bytes: with indexes and TOAST; heap_bytes: of the table alone; toast_bytes: of TOAST with its index.

    live_rows, dead_rows, dead_pct (dead of all): PostgreSQL's estimates, None where its counters have not seen the rows: ANALYZE
    the table. updates, hot_updates: since the counters were reset; hot_pct: None before any update.
    last_vacuum_s, last_autovacuum_s, last_analyze_s: seconds ago, manual or automatic, None for never since the counters were
    reset; of several partitions, the one longest ago. xid_age: age of the oldest row that isn't frozen, in transactions.
    autovacuum_running: a worker vacuums or analyzes the table; autovacuum_wraparound: to prevent wraparound, and so without yielding
    to others' locks; None where this role can't see it (pg_read_all_stats).
    """

    bytes: int
    heap_bytes: int
    toast_bytes: int
    live_rows: int | None
    dead_rows: int | None
    dead_pct: float | None
    updates: int
    hot_updates: int
    hot_pct: float | None
    last_vacuum_s: float | None
    last_autovacuum_s: float | None
    last_analyze_s: float | None
    autovacuum_running: bool
    autovacuum_wraparound: bool | None
    xid_age: int


class Table(Probe):
    """The health of one table, or of all its partitions. It counts no rows, so it is cheap enough for every second."""

    kind: ClassVar[str] = "table"
    summary: ClassVar[str] = "a table's size, dead rows, HOT updates, autovacuum at work"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = TableResult

    table: Identifier

    def observe(self, look: Look) -> TableResult:
        schema, name = catalog.named(look, self.table)
        row = look.row(_TABLE, {"schema": schema, "table": name})
        if row["kind"] is None:
            raise StepError(f"cannot look at a table: there is no {name!r} in schema {schema!r}")
        if not row.integer("parts"):
            raise StepError(f"cannot look at {name!r}: it has no rows of its own (a view, or without partitions)")
        live, dead = (row.integer("live"), row.integer("dead")) if row.flag("counted") else (None, None)
        return TableResult(
            bytes=row.integer("bytes"),
            heap_bytes=row.integer("heap_bytes"),
            toast_bytes=row.integer("toast_bytes"),
            live_rows=live,
            dead_rows=dead,
            dead_pct=None if live is None or dead is None else _pct(dead, live + dead) or 0.0,
            updates=row.integer("updated"),
            hot_updates=row.integer("hot"),
            hot_pct=_pct(row.integer("hot"), row.integer("updated")),
            last_vacuum_s=_ago(row, "vacuumed_s"),
            last_autovacuum_s=_ago(row, "autovacuumed_s"),
            last_analyze_s=_ago(row, "analyzed_s"),
            autovacuum_running=row.integer("workers") > 0,
            autovacuum_wraparound=_wraparound(row),
            xid_age=row.integer("xid_age"),
        )


def _pct(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None


def _ago(row: Row, name: str) -> float | None:
    return None if row[name] is None else round(max(row.number(name), 0.0), 1)


def _wraparound(row: Row) -> bool | None:
    if row.integer("wraparound"):
        return True
    return None if row.integer("hidden") else False
