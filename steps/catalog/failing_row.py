"""Names the row at which a query fails: asked of fewer and fewer rows of each table that it names, until one is left.

A query is asked of part of a table by a common table expression of the table's name, which stands before the table.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from steps.catalog import catalog
from steps.contract import DatabaseFault, Look
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote
from steps.sql.scanner import TokenKind, scan
from steps.sql.unreadable import attempt, caused_by_a_row, tried

LONGEST_S = 10.0  # how long it is looked for: who waits for the check's answer waits for this, too


@contextlib.contextmanager
def named(look: Look, sql: str) -> Iterator[None]:
    """Within: the query is asked. Where a row makes it fail, the fault names that row, too."""
    try:
        with attempt(look):
            yield
    except DatabaseFault as fault:
        if not caused_by_a_row(fault, look.dialect):
            raise
        row = next(filter(None, (_of(look, sql, table) for table in _tables(look, sql))), "")
        if not row:
            raise
        raise DatabaseFault(f"{fault}, first at {row}", sqlstate=fault.sqlstate, detail=fault.detail) from fault


@dataclass(frozen=True)
class _Part:
    """A query asked of some rows of one table, until a time. used: SQL that has each of its columns computed."""

    look: Look
    sql: str
    table: str
    used: str
    until: float

    def fails(self, where: str) -> bool:
        rows = f"SELECT * FROM {catalog.sql_name(self.look, self.table)} WHERE {where}"
        query = f"WITH {quote(self.table)} AS ({rows}) SELECT {self.used} AS n FROM (\n{self.sql}\n) AS the_query"
        return tried(self.look, lambda: self.look.row(query)) is None


def _tables(look: Look, sql: str) -> list[str]:
    """Tables that the query may name without their schema."""
    kinds = (TokenKind.WORD, TokenKind.QUOTED)
    names = dict.fromkeys(one.name for one in scan(sql, look.dialect) if one.kind in kinds)
    return [
        name for name in names if "." not in name and (there := catalog.relation(look, name)) and there.kind == "table"
    ]


def _of(look: Look, sql: str, table: str) -> str:
    """The first row of this table at which the query fails; "" where it is no row of this table's."""
    with contextlib.suppress(DatabaseFault), attempt(look):  # such as a table without rowid
        used = " + ".join(f"count(the_query.{quote(name)})" for name in look.columns(sql))
        part = _Part(look, sql, table, used, time.monotonic() + LONGEST_S)
        return _on_sqlite(part) if look.dialect is Dialect.SQLITE else _on_postgresql(part)
    return ""


def _first(lo: int, hi: int, where: Callable[[int, int], str], part: _Part) -> int | None:
    """The first place from `lo`, before `hi`, at which it fails; None where it fails without rows, or with all of them together."""
    if part.fails("1 = 0") or not part.fails(where(lo, hi)):
        return None
    while hi - lo > 1:
        if time.monotonic() > part.until:
            return None
        middle = (lo + hi) // 2
        if part.fails(where(lo, middle)):
            hi = middle
        else:
            lo = middle
    return lo if part.fails(where(lo, hi)) else None


def _on_postgresql(part: _Part) -> str:
    look, name = part.look, catalog.sql_name(part.look, part.table)
    sql = "SELECT pg_relation_size(CAST(:name AS regclass)) / CAST(current_setting('block_size') AS bigint) AS n"
    pages = look.row(sql, {"name": name}).integer("n")
    page = _first(0, pages, lambda lo, hi: f"ctid >= '({lo},0)' AND ctid < '({hi},0)'", part)
    if page is None:
        return ""
    places = [row.text("place") for row in look.rows(f"""SELECT CAST(ctid AS text) AS place FROM {name}
        WHERE ctid >= '({page},0)' AND ctid < '({page + 1},0)' ORDER BY ctid""")]  # fmt: skip
    at = _first(0, len(places), lambda lo, hi: f"ctid = ANY ('{{{', '.join(map(_quoted, places[lo:hi]))}}}')", part)
    return "" if at is None else _shown(part, f"ctid = '{places[at]}'", "ctid")


def _quoted(place: str) -> str:
    return f'"{place}"'


def _on_sqlite(part: _Part) -> str:
    name = catalog.sql_name(part.look, part.table)
    ends = part.look.row(f"SELECT coalesce(min(rowid), 0) AS lo, coalesce(max(rowid), 0) + 1 AS hi FROM {name}")
    lo, hi = ends.integer("lo"), ends.integer("hi")
    at = _first(lo, hi, lambda lo, hi: f"rowid >= {lo} AND rowid < {hi}", part)
    return "" if at is None else _shown(part, f"rowid = {at}", "rowid")


def _shown(part: _Part, where: str, place: str) -> str:
    """The row by its primary key."""
    key = catalog.primary_key(part.look, part.table) or (place,)
    texts = ", ".join(f"CAST({quote(one)} AS text) AS {quote(f'k{n}')}" for n, one in enumerate(key))
    row = part.look.row(f"SELECT {texts} FROM {catalog.sql_name(part.look, part.table)} WHERE {where}")
    values = ", ".join(f"{name} = {row[f'k{n}']}" for n, name in enumerate(key))
    return f"the row {values} of {part.table}"
