"""Makes the honeypot's store in a database: its schema of v15 with rows, its migration v16, and what came afterwards."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from playbooks.demo import migration
from playbooks.demo.enricher import enrich as fill_inventories
from playbooks.demo.generator import CUT, LATE_SHARE, Session, Store, World

if TYPE_CHECKING:
    import psycopg

    Connection = sqlite3.Connection | psycopg.Connection
    Row = tuple[object, ...]

__all__ = ["LATE_SHARE", "Session", "enrich", "insert", "late_sessions", "populate"]


def populate(
    target: str | Connection,
    *,
    sessions: int = 100_000,
    store: Store = "enriched",
    seed: int = 7,
    width: int = 768,
    version: Literal[15, 16] = 16,
    documented: bool = False,
) -> None:
    """Make the store, in one transaction; `target` is a URL or a connection without a transaction.

    `store`: "raw" is what v16 leaves, "enriched" what an enricher has then gone over, "rich" has networks in the JSON of
    most sessions, so that v16 has filled snapshots, "bad" has so many unknown addresses that a backfill can cover 90 %
    only. `documented`: as the documents believe it to be, without source_ip and all else that v16 leaves in sessions.
    `width`: bytes of the enrichment, on average.
    """
    world = World(sessions, store=store, seed=seed, width=width, documented=documented)
    with _opened(target) as connection:
        with _transaction(connection):
            before, later = world.sessions()
            _v15(connection, world, before)
            if version == 16:
                _v16(connection, world, later)
            _run(connection, migration.indexes(_dialect(connection)))  # last, since v16 writes every row twice
        connection.execute("ANALYZE" if _lite(connection) else "VACUUM (ANALYZE)")


def late_sessions(
    count: int | None = None, *, sessions: int = 100_000, store: Store = "enriched", seed: int = 7
) -> Iterator[Session]:
    """Sessions that arrive while the playbook runs on such a store: 0.5 % of it when not said."""
    return World(sessions, store=store, seed=seed).late(round(sessions * LATE_SHARE) if count is None else count)


def insert(target: str | Connection, rows: Iterable[Session]) -> None:
    """Add sessions, in one transaction."""
    with _opened(target) as connection, _transaction(connection):
        _insert(connection, "session_summaries", Session._fields, rows)


def enrich(target: str | Connection, *, sessions: int, seed: int = 7) -> None:
    """Let the enricher go over a raw store of that size and seed."""
    with _opened(target) as connection, _transaction(connection):
        fill_inventories(connection, World(sessions, seed=seed).networks)


def _v15(connection: Connection, world: World, sessions: Iterator[Session]) -> None:
    _run(connection, migration.tables(_dialect(connection)))
    ids: list[str] = []
    _insert(connection, "session_summaries", Session._fields, _noting(sessions, ids))
    _insert(connection, "files", ("session_id", "shasum", "filename", "file_size"), world.files(ids))
    _insert(connection, "raw_events", ("session_id", "payload"), world.events(ids))
    _insert(connection, "password_tracking", ("id", "password_hash"), world.passwords())
    _insert(connection, "password_session_usage", ("password_id", "session_id"), world.uses(ids))
    _insert(connection, "longtail_detections", ("id", "detection_type"), [(n, "rare_command") for n in range(1, 6)])
    _insert(connection, "longtail_detection_sessions", ("detection_id", "session_id"), world.detections(ids))


def _v16(connection: Connection, world: World, later: Iterator[Session]) -> None:
    statements = migration.v16(_dialect(connection))
    if world.documented:  # cleared before the table is written anew for its times, and never filled
        at = [each.name for each in statements].index("add_enrichment_at")
        cleared = migration.Statement(4, "clear", "UPDATE session_summaries SET source_ip = NULL")
        statements = [*statements[:at], cleared, *(each for each in statements[at:] if each.name != "fill_snapshots")]
    _run(connection, [each.sql for each in statements])
    _insert(connection, "session_summaries", Session._fields, later)
    if world.store != "raw":
        fill_inventories(connection, world.networks)


@contextlib.contextmanager
def _opened(target: str | Connection) -> Iterator[Connection]:
    if not isinstance(target, str):
        yield target
    elif target.startswith("sqlite:///"):
        with contextlib.closing(sqlite3.connect(target.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            yield connection
    else:
        import psycopg

        with psycopg.connect(target.replace("+psycopg", "", 1), autocommit=True) as connection:
            yield connection


@contextlib.contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """On either driver; times are texts in UTC, so PostgreSQL has to read them as such."""
    if not isinstance(connection, sqlite3.Connection):
        with connection.transaction():
            connection.execute("SET LOCAL TIME ZONE 'UTC'")
            yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _lite(connection: Connection) -> bool:
    return isinstance(connection, sqlite3.Connection)


def _dialect(connection: Connection) -> migration.Dialect:
    return "sqlite" if _lite(connection) else "postgresql"


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def _insert(connection: Connection, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    names = ", ".join(columns)
    if isinstance(connection, sqlite3.Connection):
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", map(_for_sqlite, rows))
        return
    with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in map(_for_postgresql, rows):
            copy.write_row(row)


def _for_sqlite(row: Row) -> Row:
    """SQLite reads a \\u0000; what it can't read is JSON that was cut off."""
    if isinstance(row, Session) and '"root\\u0000"' in (row.enrichment or ""):
        return row._replace(enrichment=CUT)
    return row


def _for_postgresql(row: Row) -> Row:
    """A json column holds no broken JSON: what was cut off is a text in it."""
    if isinstance(row, Session) and row.enrichment == CUT:
        return row._replace(enrichment=json.dumps(CUT))
    return row


def _noting(sessions: Iterator[Session], ids: list[str]) -> Iterator[Session]:
    for session in sessions:
        ids.append(session.session_id)
        yield session
