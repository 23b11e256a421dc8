"""Fixtures that give a test its own real database, and an environment without the user's settings.

`honeypot` and `empty_database` run a test on SQLite and on both versions of PostgreSQL, `pg` on the two alone.
`@pytest.mark.store("enriched")` chooses the honeypot's starting shape: empty (the default), stored or bad.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from databases import DOCUMENTED, Database, Databases, fast_directory, kind_or_skip

from runner.sandbox.binaries import find_binaries
from runner.sandbox.server import Server

VERSIONS = ["pg15", "pg18"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "store(name): the honeypot's store: raw, enriched, rich, bad, documented")


@pytest.hookimpl(tryfirst=True)  # before what is marked `soak` is left out
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if VERSIONS[0] in parameters and item.get_closest_marker("newest"):
            item.add_marker(pytest.mark.soak)


def pytest_report_header() -> str:
    servers = ", ".join(".".join(map(str, each.version)) for each in find_binaries()) or "none"
    drivers = f"psycopg {version('psycopg')}, SQLAlchemy {version('sqlalchemy')}"
    return f"databases: PostgreSQL {servers}; SQLite {sqlite3.sqlite_version}; {drivers}"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("PG", "RUNBOOK_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """All kinds of databases, for tests that need several at once: databases.kind("pg18").database("rich")."""
    with fast_directory(tmp_path_factory.mktemp("databases")) as directory:
        every = Databases(directory)
        yield every
        every.close()


@pytest.fixture
def fast_path(databases: Databases) -> Path:
    """Like tmp_path, but in memory where that is possible: for a test that makes a server of its own."""
    return Path(tempfile.mkdtemp(prefix="test-", dir=databases.directory))


def _store(request: pytest.FixtureRequest) -> str:
    marker = request.node.get_closest_marker("store")
    return marker.args[0] if marker else DOCUMENTED


@pytest.fixture
def pg18(databases: Databases) -> Server:
    """The running server of version 18; a test may stop or kill it, the next one starts it again."""
    kind = kind_or_skip(databases, "pg18")
    kind.server.start()
    return kind.server


@pytest.fixture
def pg15(databases: Databases) -> Server:
    kind = kind_or_skip(databases, "pg15")
    kind.server.start()
    return kind.server


@pytest.fixture(params=VERSIONS)
def pg(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """The URL of a fresh honeypot on each version of PostgreSQL."""
    with kind_or_skip(databases, request.param).database(_store(request)) as database:
        yield database.url


@pytest.fixture
def sqlite_path(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Path]:
    """A fresh SQLite file with the honeypot."""
    with databases.files.database(_store(request)) as database:
        yield Path(database.name)


@pytest.fixture(params=["sqlite", *VERSIONS])
def honeypot(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    """A fresh honeypot of 2,000 sessions on every kind of database."""
    with kind_or_skip(databases, request.param).database(_store(request)) as database:
        yield database


@pytest.fixture(params=["sqlite", *VERSIONS])
def empty_database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    """A fresh database without any table, of every kind."""
    with kind_or_skip(databases, request.param).database() as database:
        yield database
