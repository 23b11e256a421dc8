"""Probes on the write-ahead log: archiving, checkpoints, and the size of SQLite's WAL file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from steps.contract import Look, Model, Probe, StepError

# A segment's file name has three groups of eight hexadecimal digits: timeline, upper half of the LSN, segment number.
_ARCHIVER = """
SELECT current_setting('archive_mode') <> 'off' AS archives, archived_count, failed_count,
       coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS failing,
       coalesce(last_failed_wal, '') AS last_failed_wal,
       extract(epoch FROM clock_timestamp() - last_archived_time) AS age_s,
       CASE WHEN last_archived_wal ~ '^[0-9A-F]{24}' AND NOT pg_is_in_recovery()
            THEN greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
              - ('x' || substr(last_archived_wal, 9, 8))::bit(32)::bigint * 4294967296
              - (('x' || substr(last_archived_wal, 17, 8))::bit(32)::bigint + 1)
                * pg_size_bytes(current_setting('wal_segment_size'))) END AS behind_bytes
FROM pg_catalog.pg_stat_archiver"""

_COUNTS_BEFORE_17 = """
SELECT checkpoints_timed AS timed, checkpoints_req AS requested, checkpoint_write_time AS write_ms,
       checkpoint_sync_time AS sync_ms, buffers_checkpoint AS buffers FROM pg_catalog.pg_stat_bgwriter"""
_COUNTS = """
SELECT num_timed AS timed, num_requested AS requested, write_time AS write_ms, sync_time AS sync_ms,
       buffers_written AS buffers FROM pg_catalog.pg_stat_checkpointer"""

_BY_SESSIONS_BEFORE_16 = (
    "SELECT buffers_backend * current_setting('block_size')::bigint FROM pg_catalog.pg_stat_bgwriter"
)
_BY_SESSIONS = """
SELECT coalesce(sum({bytes}), 0) FROM pg_catalog.pg_stat_io
WHERE object = 'relation' AND backend_type IN ('client backend', 'background worker')"""

_CHECKPOINTS = """
SELECT c.timed, c.requested, c.write_ms / 1000 AS write_s, c.sync_ms / 1000 AS sync_s,
       c.buffers * current_setting('block_size')::bigint AS written_bytes, ({by_sessions}) AS session_bytes,
       greatest(extract(epoch FROM clock_timestamp() - k.checkpoint_time), 0) AS since_s,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       k.redo_lsn) AS wal_bytes,
       pg_size_bytes(current_setting('max_wal_size')) AS max_wal_bytes
FROM ({counts}) AS c CROSS JOIN pg_control_checkpoint() AS k"""


class ArchiverResult(Model):
    """archives: archive_mode is on or always; failing: the last attempt failed; the counts are since the statistics were reset.

    age_s: since the last success; behind_bytes: WAL written since the last archived segment. Both None before the first success.
    last_failed_wal: "" where none has failed.
    """

    archives: bool
    failing: bool
    archived_count: int
    failed_count: int
    last_failed_wal: str
    age_s: float | None
    behind_bytes: int | None


class Archiver(Probe):
    """Whether WAL is archived; with archive_mode off, `failing` is false.

    An archive command that hangs doesn't count as failing, but behind_bytes grows. On a healthy server that is below one segment.
    Needs no grant.
    """

    kind: ClassVar[str] = "archiver"
    summary: ClassVar[str] = "WAL archiving: failing, how long ago, how far behind"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = ArchiverResult

    def observe(self, look: Look) -> ArchiverResult:
        row = look.row(_ARCHIVER)
        archives = row.flag("archives")
        return ArchiverResult(
            archives=archives,
            failing=archives and row.flag("failing"),
            archived_count=row.integer("archived_count"),
            failed_count=row.integer("failed_count"),
            last_failed_wal=row.text("last_failed_wal"),
            age_s=None if row["age_s"] is None else round(row.number("age_s"), 1),
            behind_bytes=row.maybe_integer("behind_bytes"),
        )


class CheckpointsResult(Model):
    """timed, requested: numbers of checkpoints; write_s, sync_s, written_bytes: their duration and volume. All since the last reset.

    session_bytes: table pages that sessions wrote themselves, for lack of a clean buffer (14 and 15 also count all other
    processes and the extension of files). since_s: since the last checkpoint began; wal_bytes: WAL since then; near max_wal_bytes
    the next one is requested.
    """

    timed: int
    requested: int
    write_s: float
    sync_s: float
    written_bytes: int
    session_bytes: int
    since_s: float
    wal_bytes: int
    max_wal_bytes: int


class Checkpoints(Probe):
    """How often checkpoints occur and what they write; many requested ones mean that max_wal_size is too small for this load.

    Needs no grant.
    """

    kind: ClassVar[str] = "checkpoints"
    summary: ClassVar[str] = "checkpoints: timed, requested, what they write, WAL since the last"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = CheckpointsResult

    def observe(self, look: Look) -> CheckpointsResult:
        row = look.row(
            _CHECKPOINTS.format(
                counts=_COUNTS if look.version >= (17,) else _COUNTS_BEFORE_17, by_sessions=_by_sessions(look.version)
            )
        )
        return CheckpointsResult(
            timed=row.integer("timed"),
            requested=row.integer("requested"),
            write_s=round(row.number("write_s"), 3),
            sync_s=round(row.number("sync_s"), 3),
            written_bytes=row.integer("written_bytes"),
            session_bytes=row.integer("session_bytes"),
            since_s=round(row.number("since_s"), 1),
            wal_bytes=row.integer("wal_bytes"),
            max_wal_bytes=row.integer("max_wal_bytes"),
        )


def _by_sessions(version: tuple[int, ...]) -> str:
    if version < (16,):
        return _BY_SESSIONS_BEFORE_16
    return _BY_SESSIONS.format(bytes="write_bytes" if version >= (18,) else "writes * op_bytes")


class WalResult(Model):
    """bytes: size of the -wal file, 0 where there is none; database_bytes: size of the database file."""

    bytes: int
    database_bytes: int


class Wal(Probe):
    """The size of SQLite's write-ahead log, which grows without limit while a reader stays open.

    A checkpoint doesn't shrink the file, and while the run is on hold nothing does: warn or stop on it rather than hold.
    """

    kind: ClassVar[str] = "wal"
    summary: ClassVar[str] = "the size of SQLite's write-ahead log"
    only: ClassVar[str] = "sqlite"
    Result: ClassVar[type[BaseModel]] = WalResult

    def observe(self, look: Look) -> WalResult:
        path = look.row("SELECT file FROM pragma_database_list WHERE name = 'main'").text("file")
        return WalResult(bytes=_size(f"{path}-wal") if path else 0, database_bytes=_size(path) if path else 0)


def _size(path: str) -> int:
    """A file's size, without opening it: POSIX drops all locks of a process on a file when it closes any descriptor of it."""
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as fault:
        raise StepError(f"cannot measure {path!r}: {fault.strerror}") from fault
