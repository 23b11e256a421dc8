"""Probes on the server as a whole: what it is, how big the database is, how its replicas keep up."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from steps.base import Look, Probe, Unknown
from steps.dialect import Dialect
from steps.reading import has_role
from steps.words import Model

_SERVER = """
SELECT current_setting('server_version_num')::int AS num, pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) AS started_s_ago,
       current_setting('max_connections')::int AS max_connections,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend') AS connections"""

_STANDBYS = """
SELECT count(*) AS standbys, count(*) FILTER (WHERE state IS DISTINCT FROM 'streaming') AS not_streaming,
       max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) AS lag_bytes,
       max(extract(epoch FROM replay_lag)) AS lag_s
FROM pg_catalog.pg_stat_replication"""

_SLOTS = """
SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS retained_bytes
FROM pg_catalog.pg_replication_slots ORDER BY slot_name"""


class ServerResult(Model):
    """started_s_ago, connections and max_connections are None on SQLite, which has no server."""

    dialect: str
    version_major: int
    version_num: int
    in_recovery: bool = False
    started_s_ago: float | None = None
    connections: int | None = None
    max_connections: int | None = None


class Server(Probe):
    """Version, role and connections of the server."""

    kind: ClassVar[str] = "server"
    summary: ClassVar[str] = "version, uptime, primary or standby, connections"
    Result: ClassVar[type[BaseModel]] = ServerResult

    def observe(self, look: Look) -> ServerResult:
        if look.dialect is Dialect.SQLITE:
            major, minor, patch = (*look.version, 0, 0, 0)[:3]
            return ServerResult(
                dialect="sqlite", version_major=major, version_num=major * 1_000_000 + minor * 1_000 + patch
            )
        row = look.row(_SERVER)
        return ServerResult(
            dialect="postgresql",
            version_major=row.integer("num") // 10_000,
            version_num=row.integer("num"),
            in_recovery=row.flag("in_recovery"),
            started_s_ago=round(row.number("started_s_ago"), 1),
            connections=row.integer("connections"),
            max_connections=row.integer("max_connections"),
        )


class SizeResult(Model):
    """bytes: of the whole database with its indexes."""

    bytes: int
    pretty: str


class Size(Probe):
    """How much room the database takes."""

    kind: ClassVar[str] = "size"
    summary: ClassVar[str] = "the database's size"
    Result: ClassVar[type[BaseModel]] = SizeResult

    def observe(self, look: Look) -> SizeResult:
        if look.dialect is Dialect.SQLITE:
            sql = "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()"
        else:
            sql = "SELECT pg_database_size(current_database()) AS bytes"
        size = look.row(sql).integer("bytes")
        return SizeResult(bytes=size, pretty=_pretty(size))


class ReplicationResult(Model):
    """lag_*: of the standby that is furthest behind; retained_bytes: WAL kept for the slot that is furthest behind."""

    standbys: int
    not_streaming: int
    lag_bytes: int | None
    lag_s: float | None
    slots: int
    inactive_slots: int
    inactive: tuple[str, ...]
    retained_bytes: int


class Replication(Probe):
    """Standbys' lag and the WAL that replication slots keep.

    Raises Unknown where a standby doesn't say how far it is: no lag is not the same as no answer.
    """

    kind: ClassVar[str] = "replication"
    summary: ClassVar[str] = "standbys' lag, WAL kept for slots"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = ReplicationResult

    def observe(self, look: Look) -> ReplicationResult:
        if look.row("SELECT pg_is_in_recovery() AS standby").flag("standby"):
            raise Unknown("this server is a standby: look at the primary")
        row = look.row(_STANDBYS)
        standbys = row.integer("standbys")
        if standbys and row["lag_bytes"] is None:
            if not has_role(look, "pg_read_all_stats"):
                raise Unknown(
                    "this role can't see how far the standbys are: GRANT pg_read_all_stats (or pg_monitor) to it"
                )
            raise Unknown("no standby says how far it is")
        slots = look.rows(_SLOTS)
        inactive = tuple(slot.text("slot_name") for slot in slots if not slot.flag("active"))
        return ReplicationResult(
            standbys=standbys,
            not_streaming=row.integer("not_streaming"),
            lag_bytes=row.maybe_integer("lag_bytes"),
            lag_s=None if row["lag_s"] is None else row.number("lag_s"),
            slots=len(slots),
            inactive_slots=len(inactive),
            inactive=inactive,
            retained_bytes=max((slot.maybe_integer("retained_bytes") or 0 for slot in slots), default=0),
        )


def _pretty(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
