"""The rows of a declared shape: rows that must have certain values, and how many rows have a value in a column."""

from __future__ import annotations

from typing import cast

from steps.catalog import catalog
from steps.catalog.shape import FillSpec, RowSpec
from steps.contract import Look, StepError, Value
from steps.sql.dialect import quote
from steps.sql.queries import require_all_rows, text_of


def row(look: Look, wants: RowSpec) -> list[str] | None:
    """How the row differs from the declared one; None where there is no such row."""
    names = list(wants.where)
    params = {f"w{n}": cast("Value", wants.where[name]) for n, name in enumerate(names)}
    where = " AND ".join(f"{quote(name)} = :w{n}" for n, name in enumerate(names))
    columns = ", ".join(quote(name) for name in wants.has)
    sql = f"SELECT {columns} FROM {catalog.sql_name(look, wants.table)} WHERE {where} LIMIT 2"
    require_all_rows(look, sql, params)
    found = look.rows(sql, params)
    if not found:
        return None
    if len(found) > 1:
        return ["there are several such rows"]
    return [
        f"{name} is {found[0][name]!r}, declared {value!r}"
        for name, value in wants.has.items()
        if found[0][name] != value and _words(found[0][name]) != _words(value)
    ]


def _words(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def fill(look: Look, table: str, column: str, wants: FillSpec) -> list[str]:
    """How the number of filled rows differs from the declared one."""
    if wants.query is not None:
        return _outside(_counted(look, wants), None, wants)
    name, filled = catalog.sql_name(look, table), quote(column)
    some = f"SELECT 1 AS one FROM {name} WHERE {filled} IS NOT NULL LIMIT 1"
    require_all_rows(look, some)
    if wants == FillSpec(at_least=1) and look.rows(some):
        return []
    counts = look.row(f"SELECT count(*) AS total, count({filled}) AS filled FROM {name}")
    return _outside(counts.integer("filled"), counts.integer("total"), wants)


def _counted(look: Look, wants: FillSpec) -> int:
    if wants.query is None:
        raise TypeError("a fill without a query counts a column")
    sql = text_of(wants.query, look)
    require_all_rows(look, sql)
    found = look.row(sql)
    if len(found) != 1:
        raise StepError(f"cannot count by this query: it has {len(found)} columns, and a count is one")
    return found.integer(next(iter(found)))


def _outside(filled: int, total: int | None, wants: FillSpec) -> list[str]:
    seen = f"{filled:,}" if total is None else f"{filled:,} of {total:,} rows have a value"
    wrong = [
        f"declared {word}"
        for word, held in (
            (f"at least {wants.at_least:,}", filled >= wants.at_least),
            (f"at most {wants.at_most or 0:,}", wants.at_most is None or filled <= wants.at_most),
            ("all", not wants.all or (filled == total and filled > 0)),
        )
        if not held
    ]
    return [", ".join([seen, *wrong])] if wrong else []
