"""The database under validation: a read-only connection, with the limits and queries of the playbooks themselves."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    import psycopg

PLAYBOOKS = Path(__file__).parent.parent


class Store:
    """One read-only connection; `text` and `limits` come from the playbooks, so that nothing is asserted twice."""

    def __init__(self, connection: sqlite3.Connection | psycopg.Connection) -> None:
        self.connection = connection
        self.is_sqlite = isinstance(connection, sqlite3.Connection)
        self.dialect = "sqlite" if self.is_sqlite else "postgresql"
        common = yaml.safe_load((PLAYBOOKS / "adr007-common.yaml").read_text(encoding="utf-8"))
        self.limits: dict[str, float] = common["limits"]
        self._queries: dict[str, Any] = common["queries"]

    def text(self, name: str) -> str:
        """A named query's SQL for this database."""
        found = self._queries[name]
        return found if isinstance(found, str) else found[self.dialect]

    @property
    def session_ip(self) -> str:
        """The condition under which a session and a row of the inventory belong together."""
        return (PLAYBOOKS / f"session_ip.{self.dialect}.sql").read_text(encoding="utf-8")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        cursor = self.connection.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str) -> dict[str, Any]:
        [found] = self.rows(sql)
        return found

    def tried(self, sql: str) -> dict[str, Any] | None:
        """The only row, or None where a value can't be read, such as JSON with a NUL character in it."""
        if self.is_sqlite:
            return self.row(sql)
        import psycopg

        try:
            with self.connection.transaction():
                return self.row(sql)
        except psycopg.DataError:
            return None

    def begin_again(self) -> None:
        """End the transaction, so that the next statement sees what others have committed since."""
        self.connection.rollback()


@pytest.fixture
def store() -> Iterator[Store]:
    connection = _connected(os.environ.get("RUNBOOK_URL", ""))
    try:
        yield Store(connection)
    finally:
        connection.close()


def _connected(url: str) -> sqlite3.Connection | psycopg.Connection:
    """From RUNBOOK_URL, with the password and the rest from libpq's own variables and files."""
    if not url:
        pytest.fail("set RUNBOOK_URL to the database to look at, without a password in it")
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///").partition("?")[0])
        return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    import psycopg

    connection = psycopg.connect(url.replace("+psycopg", "", 1))
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    return connection
