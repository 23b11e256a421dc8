"""Fills a database with the honeypot's store, and says without the database what a correct backfill makes of it."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from playbooks.demo.generator import CUT, LATE_SHARE, Address, Asn, Session, Shape, World

if TYPE_CHECKING:
    import psycopg

    Connection = sqlite3.Connection | psycopg.Connection
    Row = tuple[object, ...]

__all__ = ["LATE_SHARE", "After", "Expected", "Session", "expected", "insert", "late_sessions", "populate"]

FILES, EVENTS = ("session_id", "shasum", "filename", "file_size"), ("session_id", "payload")


class After(NamedTuple):
    """What the five columns of a session hold after a correct backfill."""

    source_ip: str | None = None
    snapshot_asn: int | None = None
    snapshot_country: str | None = None
    snapshot_ip_type: str | None = None
    enrichment_at: str | None = None  # UTC, 'YYYY-MM-DD HH:MM:SS'


@dataclass(frozen=True)
class Expected:
    """The figures of a correct backfill: total = inventory_hit + not_in_inventory + no_ip; private is part of those."""

    total: int
    inventory_hit: int
    country_filled: int
    no_ip: int
    not_in_inventory: int
    private: int
    private_in_inventory: int
    rows: dict[str, After]

    @property
    def coverage(self) -> float:
        """The part of the sessions that has a country, in per cent."""
        return 100 * self.country_filled / self.total


def populate(
    target: str | Connection, *, sessions: int = 100_000, shape: Shape = "empty", seed: int = 7, width: int = 768
) -> None:
    """Make the tables and fill them, in one transaction; `target` is a URL or a connection without a transaction.

    `shape`: "empty" has source_ip NULL everywhere, "stored" has it where the inventory knows it, "bad" is like "empty"
    with so many unknown addresses that a backfill can cover 90 % only. `width`: bytes of the enrichment, on average.
    """
    world = World(sessions, shape=shape, seed=seed, width=width)
    with _opened(target) as connection, _transaction(connection):
        tables, rest = _schema(connection).split("-- after loading --")
        _script(connection, tables)
        _insert(connection, "schema_state", ("key", "value"), [("schema_version", "16")])
        _insert(connection, "asn_inventory", Asn._fields, world.asns)
        _insert(connection, "ip_inventory", Address._fields, world.addresses)
        ids: list[str] = []
        _insert(connection, "session_summaries", Session._fields, _noting(world.sessions(), ids))
        _insert(connection, "files", FILES, world.files(ids))
        _insert(connection, "raw_events", EVENTS, world.events(ids))
        _script(connection, rest)


def late_sessions(count: int | None = None, *, sessions: int = 100_000, seed: int = 7) -> Iterator[Session]:
    """Sessions that arrive while the playbook runs on a database of that size and seed: 0.5 % of it when not said."""
    return World(sessions, seed=seed).late(round(sessions * LATE_SHARE) if count is None else count)


def insert(target: str | Connection, rows: Iterable[Session]) -> None:
    """Add sessions, in one transaction."""
    with _opened(target) as connection, _transaction(connection):
        _insert(connection, "session_summaries", Session._fields, rows)


def expected(*, sessions: int = 100_000, shape: Shape = "empty", seed: int = 7, late: int = 0) -> Expected:
    """What a correct backfill makes of such a database, from the rows alone; `late` sessions are reached too."""
    world = World(sessions, shape=shape, seed=seed)
    inventory = {address.ip_address: _snapshot(address) for address in world.addresses}
    rows, hit, none, private, private_hit = {}, 0, 0, 0, 0
    for session in itertools.chain(world.sessions(), world.late(late)):
        ip = session.source_ip or _ip_in(session.enrichment)
        rows[session.session_id] = inventory.get(ip or "", After())
        hit += ip in inventory
        none += ip is None
        if ip and ip.startswith(("10.", "172.", "192.")) and ipaddress.ip_address(ip).is_private:
            private += 1
            private_hit += ip in inventory
    filled = sum(after.snapshot_country is not None for after in rows.values())
    return Expected(len(rows), hit, filled, none, len(rows) - hit - none, private, private_hit, rows)


def _ip_in(enrichment: str | None) -> str | None:
    """The address in a session's JSON: session_metadata.source_ip, else dshield.ip.number."""
    try:
        document = json.loads(enrichment or "null")
    except json.JSONDecodeError:
        return None
    for path in (("session_metadata", "source_ip"), ("dshield", "ip", "number")):
        value = document
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return str(value)
    return None


def _snapshot(address: Address) -> After:
    found = json.loads(address.enrichment)
    after = After(source_ip=address.ip_address, enrichment_at=address.enrichment_updated_at)
    if found["validation"]["is_bogon"]:
        return after
    country = found.get("maxmind", {}).get("country") or found.get("cymru", {}).get("country")
    country = country or found.get("dshield", {}).get("ip", {}).get("ascountry")
    return after._replace(
        snapshot_asn=address.current_asn,
        snapshot_country=country.upper() if country else None,
        snapshot_ip_type=address.ip_types[0] if address.ip_types else None,
    )


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


def _schema(connection: Connection) -> str:
    dialect = "sqlite" if isinstance(connection, sqlite3.Connection) else "postgresql"
    return Path(__file__).with_name(f"schema_{dialect}.sql").read_text(encoding="utf-8")


def _script(connection: Connection, text: str) -> None:
    """Run statements inside the transaction; sqlite3's own executescript would commit it."""
    if not isinstance(connection, sqlite3.Connection):
        connection.execute(text)
        return
    for statement in text.split(";\n"):
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
    """Arrays are JSON texts there."""
    if not isinstance(row, Address):
        return row
    return tuple(json.dumps(value) if isinstance(value, list) else value for value in row)


def _for_postgresql(row: Row) -> Row:
    """A jsonb column cannot hold broken JSON: what was cut off is a text in it."""
    if isinstance(row, Session) and row.enrichment == CUT:
        return row._replace(enrichment=json.dumps(CUT))
    return row


def _noting(sessions: Iterator[Session], ids: list[str]) -> Iterator[Session]:
    for session in sessions:
        ids.append(session.session_id)
        yield session
