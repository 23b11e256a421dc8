"""A probe on what the server writes: tables and indexes, write-ahead log, temporary files."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from steps.contract import Look, Model, Probe

_PAGES_BEFORE_16 = """
SELECT (buffers_checkpoint + buffers_clean + buffers_backend) * current_setting('block_size')::bigint
FROM pg_catalog.pg_stat_bgwriter"""
_PAGES = "SELECT coalesce(sum({bytes}), 0) FROM pg_catalog.pg_stat_io WHERE object = 'relation'"
_WRITES = """
SELECT ({pages})::bigint AS data_bytes, (SELECT wal_bytes FROM pg_catalog.pg_stat_wal)::bigint AS wal_bytes,
       (SELECT sum(temp_bytes) FROM pg_catalog.pg_stat_database)::bigint AS temp_bytes"""


class WritesResult(Model):
    """Bytes since the last reset of the statistics: pages of tables and indexes, write-ahead log, temporary files."""

    data_bytes: int
    wal_bytes: int
    temp_bytes: int


class Writes(Probe):
    """What the whole server has written; a guard's `per_min.wal_bytes` is its write throughput.

    Pages count once they leave the server's buffers, the log at once. Needs no grant.
    """

    kind: ClassVar[str] = "writes"
    summary: ClassVar[str] = "what the server writes: pages, write-ahead log, temporary files"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = WritesResult

    def observe(self, look: Look) -> WritesResult:
        row = look.row(_WRITES.format(pages=_pages(look.version)))
        return WritesResult(
            data_bytes=row.integer("data_bytes"),
            wal_bytes=row.integer("wal_bytes"),
            temp_bytes=row.integer("temp_bytes"),
        )


def _pages(version: tuple[int, ...]) -> str:
    if version < (16,):
        return _PAGES_BEFORE_16
    return _PAGES.format(bytes="write_bytes" if version >= (18,) else "writes * op_bytes")
