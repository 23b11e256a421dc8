"""The view that steps and probes have of one open connection: named rows, bound values, translated errors."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from runner.target import drivers
from runner.target.drivers import translated
from steps.contract import NOTHING, Params, Row, RunPosition, StepError, Value, Work, cutting
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.contract.values import NoPlace, for_sqlite, readable
from steps.sql.dialect import bind

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, CursorResult


class Known(Protocol):
    """What a ConnectionView needs of its database."""

    dialect: Dialect
    schema: str
    version: tuple[int, ...]

    def trial(self, label: str) -> contextlib.AbstractContextManager[Work]: ...
    def environment(self) -> Mapping[str, str]: ...


class ConnectionView:
    """A view of one open connection; implements steps.contract Look and Work."""

    def __init__(
        self,
        database: Known,
        connection: Connection,
        *,
        place: RunPosition | None = None,
        assumed: tuple[Trace, ...] = (),
        spell: Callable[[str], str] | None = None,
    ) -> None:
        """spell: rewrites texts that the database's encoding can't store."""
        self._database = database
        self._connection = connection
        self._spell = spell
        self.dialect = database.dialect
        self.schema = database.schema
        self.version = database.version
        self.place = place
        self.assumed = assumed

    def rows(self, sql: str, params: Params = NOTHING) -> list[Row]:
        with translated(self.dialect, sql):
            found = self._run(sql, params)
            if not found.returns_rows:
                return []
            names = list(found.keys())
            return [Row(zip(names, map(drivers.plain, row), strict=True)) for row in found.fetchall()]

    def row(self, sql: str, params: Params = NOTHING) -> Row:
        rows = self.rows(sql, params)
        if len(rows) != 1:
            raise StepError(f"cannot read one row: the query gave {len(rows)}: {cutting.on_one_line(sql, 120)}")
        return rows[0]

    def columns(self, sql: str, params: Params = NOTHING) -> list[str]:
        """The names of a query's columns. The query is planned and described; no rows are fetched."""
        with translated(self.dialect, sql):
            text = sql.strip().rstrip(";")
            found = self._run(f"SELECT * FROM (\n{text}\n) AS described LIMIT 0", params)
            return list(found.keys())

    def execute(self, sql: str, params: Params = NOTHING) -> int:
        with translated(self.dialect, sql):
            return int(self._run(sql, params).rowcount)

    def trial(self, label: str) -> contextlib.AbstractContextManager[Work]:
        return self._database.trial(label)

    def environment(self) -> Mapping[str, str]:
        return self._database.environment()

    def _run(self, sql: str, params: Params) -> CursorResult[Any]:
        try:
            values = {name: self._bound(value) for name, value in params.items()}
        except NoPlace as error:
            raise StepError(f"cannot bind a parameter of {cutting.on_one_line(sql, 120)!r}: {error}") from error
        return self._connection.exec_driver_sql(bind(sql, self.dialect), values)

    def _bound(self, value: Value) -> object:
        if self._spell is not None and isinstance(value, str):
            return self._spell(value)
        if isinstance(value, dict) or (isinstance(value, list) and self.dialect is Dialect.SQLITE):
            return json.dumps(readable(value))
        return for_sqlite(value) if self.dialect is Dialect.SQLITE else value
