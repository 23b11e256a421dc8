"""A private PostgreSQL with the honeypot's store as phase 1 of ADR-007 leaves it, and fresh copies of that database."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from measuring import Broken, Skipped, progress, spend

from runner.sandbox.binaries import ServerUnavailable
from runner.sandbox.server import Server

PREPARED, COPY = "prepared", "copy"
SETTINGS = {  # what happens by the clock would hit one side and spare the other; durability is as it ships, fsync on
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
    "min_wal_size": "8GB",  # WAL files are used again
    "shared_buffers": "512MB",
}
WAL_PER_ROW = 4000  # bytes that a benchmark writes between two checkpoints; the backfill takes 2,700
WAL_AT_ONCE = 8_000_000
FILL = "from playbooks.demo import honeypot; import sys; honeypot.populate(sys.argv[1], sessions=int(sys.argv[2]), documented=True)"
PHASE_1 = """
ALTER TABLE session_summaries ALTER snapshot_ip_types TYPE text USING snapshot_ip_types[1];
ALTER TABLE session_summaries RENAME snapshot_ip_types TO snapshot_ip_type;
"""


@dataclass(frozen=True)
class Prepared:
    """The server and how many sessions its template holds."""

    server: Server
    rows: int

    @contextlib.contextmanager
    def copy(self) -> Iterator[psycopg.Connection]:
        """A fresh copy: the same files, as vacuumed and analyzed as the template, read once, nothing left to be flushed."""
        with self._owner() as connection:
            connection.execute(f"CREATE DATABASE {COPY} TEMPLATE {PREPARED} STRATEGY file_copy")
        try:
            with psycopg.connect(self.server.conninfo(COPY), autocommit=True) as connection:
                connection.execute("SELECT count(created_at) FROM session_summaries")
                connection.execute("SELECT count(first_seen) FROM ip_inventory")
                connection.execute("CHECKPOINT")
                yield connection
        finally:
            with self._owner() as connection:
                connection.execute(f"DROP DATABASE {COPY} WITH (FORCE)")

    @property
    def url(self) -> str:
        return self.server.url(COPY)

    def fill(self) -> None:
        """By a process of its own: this one has to stay smaller than what it measures."""
        with self._owner() as connection:
            connection.execute(f"CREATE DATABASE {PREPARED}")
        spend([sys.executable, "-c", FILL, self.server.url(PREPARED), str(self.rows)])
        with psycopg.connect(self.server.conninfo(PREPARED), autocommit=True) as connection:
            connection.execute(PHASE_1)
            connection.execute("VACUUM (FREEZE, ANALYZE)")
            self._make_wal_files(connection)

    def _make_wal_files(self, connection: psycopg.Connection) -> None:
        """As many as on a server that has run for a while: making one takes some 10 ms, in which no COMMIT ends."""
        for _ in range(max(self.rows * WAL_PER_ROW // WAL_AT_ONCE, 1)):
            connection.execute("SELECT pg_logical_emit_message(false, '', repeat('x', %s))", [WAL_AT_ONCE])
        connection.execute("CHECKPOINT")

    def _owner(self) -> psycopg.Connection:
        return psycopg.connect(self.server.conninfo(), autocommit=True)


@contextlib.contextmanager
def prepared(directory: Path, *, rows: int, major: int | None) -> Iterator[Prepared]:
    """Start the server in `directory` and fill its template."""
    try:
        server = Server(directory, major=major, settings=SETTINGS)
        server.start()
    except ServerUnavailable as error:
        raise Skipped(str(error)) from error
    try:
        found = Prepared(server, rows)
        progress(f"PostgreSQL {'.'.join(map(str, server.version))}: preparing {rows:,} sessions")
        found.fill()
        yield found
    except psycopg.Error as error:
        raise Broken(str(error)) from error
    finally:
        server.discard()
