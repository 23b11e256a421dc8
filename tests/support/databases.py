"""Real databases for the tests: servers started on demand, a template for each store, a cheap clone for each test."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from playbooks.demo import honeypot
from runner.sandbox.binaries import find_binaries
from runner.sandbox.server import Server

SESSIONS = 2_000
SEED = 7
DOCUMENTED = "documented"  # an enriched store as the documents believe it to be: nothing of v16 in its sessions
# A crash of the machine is not tested; autovacuum would make plans and sizes differ from run to run.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}


@dataclass(frozen=True)
class Database:
    """One test's own database; `url` is what a user would write."""

    name: str  # of the database, or the path of the file
    dialect: str  # "postgresql" or "sqlite"
    url: str
    major: int = 0  # of PostgreSQL
    server: Server | None = None
    store: str | None = None  # the honeypot's, when it is one
    _idle: deque[psycopg.Connection] = field(default_factory=deque, init=False, repr=False, compare=False)

    def connect(self) -> Any:
        """A plain driver connection in autocommit mode, for set-up and assertions; the caller closes it."""
        if self.dialect == "sqlite":
            return sqlite3.connect(self.name, isolation_level=None)
        return psycopg.connect(self.url, autocommit=True)

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        """Like connect, for as long as the block lasts. On a server a session that ended well is kept for the next block:
        it is as new by then, and a new one takes longer than most statements, because its caches are empty.
        """
        connection = self._awake()
        try:
            yield connection
            if not self.server or connection.info.transaction_status is TransactionStatus.UNKNOWN:  # it was lost
                return
            if connection.info.transaction_status is not TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
            self._idle.append(connection)
            connection = None
        finally:
            if connection is not None:
                connection.close()

    def _awake(self) -> Any:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                break
            try:
                connection.execute("DISCARD ALL")
            except psycopg.OperationalError:  # lost with its server
                connection.close()
            else:
                return connection
        connection = self.connect()
        if self.server:
            connection.prepare_threshold = None  # what the driver prepares unasked is gone with DISCARD ALL
        return connection

    def close(self) -> None:
        """End the sessions that were kept."""
        while self._idle:
            self._idle.pop().close()

    def rows(self, sql: str, parameters: Any = ()) -> list[tuple]:
        """Run one statement and fetch what it gives; parameters in the driver's own style."""
        with self.session() as connection:
            cursor = connection.execute(sql, parameters or None) if self.server else connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql: str, parameters: Any = ()) -> Any:
        """The first column of the only row."""
        [row] = self.rows(sql, parameters)
        return row[0]

    def script(self, sql: str) -> None:
        """Run several statements without parameters."""
        with self.session() as connection:
            (connection.execute if self.server else connection.executescript)(sql)
        if re.search(r"ALTER (DATABASE|ROLE)", sql):  # of a default, which only new sessions have
            self.close()


def described(store: str, sessions: int = SESSIONS) -> dict[str, Any]:
    """The words that the demo's own functions have for a store of the tests, which has one more."""
    words: dict[str, Any] = {"sessions": sessions, "seed": SEED}
    return words | ({"documented": True} if store == DOCUMENTED else {"store": store})


class Cluster:
    """One PostgreSQL server of this session with its templates."""

    def __init__(self, directory: Path, major: int) -> None:
        self.major = major
        self.server = Server(directory, major=major, settings=SETTINGS)
        self.server.start()
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    @contextlib.contextmanager
    def database(self, store: str | None = None, *, sessions: int = SESSIONS) -> Iterator[Database]:
        """A fresh database: that store of the honeypot's, or an empty one; dropped at the end, whoever is connected."""
        self.server.start()  # a test may have stopped or killed it
        template = "template0" if store is None else self._template(store, sessions)
        name = f"test_{next(self._numbers)}"
        self._copy(template, name)
        database = Database(name, "postgresql", self.server.url(name), self.major, self.server, store)
        try:
            yield database
        finally:
            database.close()
            self.server.start()
            self._admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.contextmanager
    def saved(self, database: Database) -> Iterator[Callable[[], None]]:
        """Within: a function that makes this database again what it is now, with its name and oid, as a restored one can't be
        told from it; whoever is connected is thrown out.
        """
        copy = f"{database.name}_saved"
        oid = database.value("SELECT oid FROM pg_database WHERE datname = current_database()")
        database.close()
        self._copy(database.name, copy)

        def restore() -> None:
            database.close()
            self._admin(f"DROP DATABASE {database.name} WITH (FORCE)")
            self._copy(copy, database.name, f"OID {oid}")

        try:
            yield restore
        finally:
            self._admin(f"DROP DATABASE {copy}")

    def _copy(self, template: str, name: str, more: str = "") -> None:
        # copying the files takes two thirds of the CPU that going over their pages takes, where nothing waits for a disk
        self._admin(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY {more}")

    def _template(self, store: str, sessions: int) -> str:
        name = f"honeypot_{store}_{sessions}"
        if name not in self._templates:
            self._admin(f"CREATE DATABASE {name} TEMPLATE template0")
            honeypot.populate(self.server.url(name), **described(store, sessions))
            self._admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            self._templates.add(name)
        return name

    def _admin(self, sql: str) -> None:
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(sql)


class SQLiteFiles:
    """The session's template files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def database(self, store: str | None = None, *, sessions: int = SESSIONS) -> Iterator[Database]:
        """A fresh file in a directory of its own, with that store of the honeypot's or without anything."""
        folder = self.directory / f"test_{next(self._numbers)}"
        folder.mkdir()
        path = folder / "database.sqlite"
        if store is None:
            sqlite3.connect(path).close()
        else:
            shutil.copyfile(self._template(store, sessions), path)
        try:
            yield Database(str(path), "sqlite", f"sqlite:///{path}", store=store)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _template(self, store: str, sessions: int) -> Path:
        path = self.directory / f"honeypot_{store}_{sessions}.sqlite"
        if not path.exists():
            honeypot.populate(f"sqlite:///{path}", **described(store, sessions))
        return path


@dataclass
class Databases:
    """All kinds under their names: sqlite, pg15, pg18; servers start when first asked for."""

    directory: Path

    def __post_init__(self) -> None:
        self._clusters: dict[str, Cluster] = {}

    @cached_property
    def files(self) -> SQLiteFiles:
        folder = self.directory / "sqlite"
        folder.mkdir()
        return SQLiteFiles(folder)

    def kind(self, name: str) -> Cluster | SQLiteFiles:
        """Raises LookupError when this machine has no such PostgreSQL."""
        if name == "sqlite":
            return self.files
        major = int(name.removeprefix("pg"))
        if name not in self._clusters:
            if not find_binaries(major):
                raise LookupError(f"PostgreSQL {major} is not on this machine")
            self._clusters[name] = Cluster(self.directory / name, major)
        return self._clusters[name]

    def close(self) -> None:
        for cluster in self._clusters.values():
            cluster.server.discard()


@contextlib.contextmanager
def fast_directory(fallback: Path) -> Iterator[Path]:
    """A directory in memory where the system offers one with room: a clone takes 0.04 s there, 0.3 s on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2 << 30:
        yield fallback
        return
    for left in memory.glob("runbook-tests-*"):  # a session that was killed cannot clean up
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"runbook-tests-{os.getpid()}-", dir=memory) as directory:
        yield Path(directory)


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


REQUIRED = "pg18"  # comes by pip: where it is missing in CI, the tests prove nothing


def kind_or_skip(databases: Databases, name: str) -> Cluster | SQLiteFiles:
    try:
        return databases.kind(name)
    except LookupError as missing:
        if name == REQUIRED and in_ci():
            pytest.fail(str(missing))
        pytest.skip(str(missing))
