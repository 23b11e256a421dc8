"""Probes on the server as a whole: its version and role, and the size of the database."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from steps.contract import Look, Model, Probe
from steps.contract.dialect import Dialect

_SERVER = """
SELECT current_setting('server_version_num')::int AS num, pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) AS started_s_ago"""


class ServerResult(Model):
    """started_s_ago: None on SQLite, which has no server."""

    dialect: str
    version_major: int
    version_num: int
    in_recovery: bool = False
    started_s_ago: float | None = None


class ServerProbe(Probe):
    """The server's version, and whether it is a primary or a standby."""

    kind: ClassVar[str] = "server"
    summary: ClassVar[str] = "version, uptime, primary or standby"
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
        )


class SizeResult(Model):
    """bytes: size of the whole database with its indexes."""

    bytes: int
    pretty: str


class Size(Probe):
    """The size of the database."""

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


def _pretty(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
