"""A Look, and what a step needs to write, over plain driver connections, for tests that want no engine."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from pydantic import BaseModel

from steps.contract import AlreadyCommitted, DatabaseFault, Params, Progress, Row, RunPosition, StepError, Tuning, Work
from steps.contract.dialect import Dialect
from steps.ledger import step_commits, tables
from steps.sql.dialect import bind

READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}


def _authorize(action: int, table: str | None, *_: str | None) -> int:
    # SQLite asks for an UPDATE of its own catalogue when it declares json_each or a pragma; it refuses a real one
    declares = action == sqlite3.SQLITE_UPDATE and table == "sqlite_master"
    allowed = declares or action in {*READING, sqlite3.SQLITE_PRAGMA}
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class PlainLook:
    """Look and Work over one connection."""

    def __init__(self, database: PlainDatabase, connection: Any, *, reading: bool) -> None:
        self.database, self.connection, self.reading = database, connection, reading
        self.dialect, self.schema, self.place = database.dialect, database.schema, database.place
        self.assumed = ()

    @property
    def version(self) -> tuple[int, ...]:
        if self.dialect is Dialect.SQLITE:
            return sqlite3.sqlite_version_info
        number = self.connection.info.server_version
        return number // 10000, number % 10000

    def _run(self, sql: str, params: Params) -> Any:
        values = {k: json.dumps(v) if isinstance(v, list | dict) and self._lite else v for k, v in params.items()}
        values = {k: float(v) if isinstance(v, Decimal) and self._lite else v for k, v in values.items()}
        try:
            if self._lite:
                return self.connection.execute(bind(sql, self.dialect), values)
            cursor = self.connection.cursor(binary=self.reading)
            return cursor.execute(bind(sql, self.dialect), values, prepare=False if self.reading else None)
        except psycopg.Error as fault:
            state = fault.sqlstate or ""
            raise DatabaseFault(str(fault), sqlstate=state, lost=self.connection.closed) from fault
        except sqlite3.Error as fault:
            raise DatabaseFault(str(fault)) from fault

    @property
    def _lite(self) -> bool:
        return self.dialect is Dialect.SQLITE

    def rows(self, sql: str, params: Params = {}) -> list[Row]:
        cursor = self._run(sql, params)
        names = [column[0] for column in cursor.description or []]
        return [Row(zip(names, values, strict=True)) for values in cursor.fetchall()] if names else []

    def row(self, sql: str, params: Params = {}) -> Row:
        rows = self.rows(sql, params)
        if len(rows) != 1:
            raise StepError(f"expected one row, got {len(rows)}")
        return rows[0]

    def columns(self, sql: str, params: Params = {}) -> list[str]:
        return [column[0] for column in self._run(f"SELECT * FROM ({sql}) AS described LIMIT 0", params).description]

    def execute(self, sql: str, params: Params = {}) -> int:
        return self._run(sql, params).rowcount

    def trial(self, label: str) -> contextlib.AbstractContextManager[Work]:
        return self.database.writing(keep=False)

    def environment(self) -> Mapping[str, str]:
        return self.database.environment


class PlainDatabase:
    """Implements steps.contract.step.Database on the tests' own databases; `place` is set by the test."""

    def __init__(self, target: Any, *, place: RunPosition | None = None, user: str | None = None) -> None:
        self.target, self.place, self.user = target, place, user
        self.dialect = Dialect(target.dialect)
        self.schema = "main" if self.dialect is Dialect.SQLITE else "public"
        self.environment = {"RUNBOOK_URL": target.url}
        self._before: str | None = None

    def _connect(self, *, reading: bool) -> Any:
        if self.dialect is Dialect.SQLITE:
            connection = sqlite3.connect(self.target.name, isolation_level=None, timeout=5)
            if reading:
                connection.set_authorizer(_authorize)
            return connection
        options = {"user": self.user} if self.user else {}
        connection = psycopg.connect(self.target.url, **options)
        if reading:
            connection.read_only, connection.isolation_level = True, psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(
            "SELECT set_config('search_path', 'public, pg_catalog', false), set_config('lock_timeout', '10s', false),"
            " set_config('row_security', 'off', false)"
        )
        return connection

    @property
    def version(self) -> tuple[int, ...]:
        with self.look() as look:
            return look.version

    @contextlib.contextmanager
    def look(self) -> Iterator[PlainLook]:
        with contextlib.closing(self._connect(reading=True)) as connection:
            if self.dialect is Dialect.SQLITE:
                connection.execute("BEGIN")
            yield PlainLook(self, connection, reading=True)

    @contextlib.contextmanager
    def writing(self, *, keep: bool) -> Iterator[PlainLook]:
        with contextlib.closing(self._connect(reading=False)) as connection:
            if self.dialect is Dialect.SQLITE:
                connection.execute("BEGIN IMMEDIATE")
            yield PlainLook(self, connection, reading=False)
            if keep:
                connection.commit()
            else:
                connection.rollback()

    @contextlib.contextmanager
    def commit(self, label: str, *, durable: bool = True) -> Iterator[PlainLook]:
        place = self.place
        assert place is not None
        with self.writing(keep=True) as work:
            if step_commits.is_committed(work, place, label=label):
                raise AlreadyCommitted(label)
            yield work
            work.execute(*step_commits.record_commit(work.dialect, place, label=label, epoch=1, before=self._before))
            self._before = None

    def outside(self, label: str, *, bounded: bool = False) -> contextlib.AbstractContextManager[Work]:
        raise NotImplementedError(label)

    def release(self) -> None:
        """Each transaction has a connection of its own."""

    def committed(self) -> list[str]:
        with self.look() as look:
            return step_commits.committed_labels(look, self.place)


class PlainContext:
    """A Context without an engine: pulses are kept, and raise `stop` where it is set."""

    def __init__(self, db: PlainDatabase) -> None:
        self.db = db
        self.folder: Path | None = None
        self.pulses: list[Progress] = []
        self.stop: Exception | None = None
        with db.writing(keep=True) as work:
            tables.create(work)

    def pulse(self, progress: Progress) -> Tuning:
        self.pulses.append(progress)
        if self.stop is not None:
            raise self.stop
        return Tuning()

    def remember(self, before: BaseModel) -> None:
        self.db._before = self.db._before or before.model_dump_json()
