"""The rows of a PostgreSQL table at which an expression fails, found by halving ranges of its pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steps.catalog import catalog
from steps.contract import QUERY_CANCELED, ColumnRef, DatabaseFault, Look
from steps.sql.dialect import quote
from steps.sql.unreadable import UnreadableRow, attempt, caused_by_a_row, sift


def failing(look: Look, column: ColumnRef, expression: str) -> list[UnreadableRow]:
    """The rows at which it fails, by primary key (by ctid without one); [] where a scan takes too long, or in partitions."""
    if catalog.partitioned(look, column.table) is not None:
        return []
    name = catalog.sql_name(look, column.table)
    try:
        with attempt(look):
            look.rows(f"SELECT count({expression}) AS n FROM {name}")
    except DatabaseFault as fault:
        if fault.sqlstate == QUERY_CANCELED:
            return []
        if not caused_by_a_row(fault, look.dialect):
            raise
        return _found(look, column, expression)
    return []


def _found(look: Look, column: ColumnRef, expression: str) -> list[UnreadableRow]:
    name = catalog.sql_name(look, column.table)

    def pages(some: Sequence[str]) -> object:
        bounds = {"lo": f"({some[0]},0)", "hi": f"({int(some[-1]) + 1},0)"}
        where = "ctid >= CAST(:lo AS tid) AND ctid < CAST(:hi AS tid)"
        return look.rows(f"SELECT count({expression}) AS n FROM {name} WHERE {where}", bounds)

    def rows(some: Sequence[str]) -> object:
        where = "ctid = ANY (CAST(:tids AS tid[]))"
        return look.rows(f"SELECT count({expression}) AS n FROM {name} WHERE {where}", {"tids": list(some)})

    sql = "SELECT pg_relation_size(CAST(:name AS regclass)) / CAST(current_setting('block_size') AS bigint) AS n"
    numbers = [str(n) for n in range(look.row(sql, {"name": name}).integer("n"))]
    return [
        replace(one, key=keys[one.key])
        for page in sift(look, numbers, pages)
        for keys in [_keys(look, column.table, page.key)]
        for one in sift(look, list(keys), rows)
    ]


def _keys(look: Look, table: str, page: str) -> dict[str, str]:
    """The rows of a page: ctid → key."""
    each = ", ".join(f"CAST({quote(one)} AS text)" for one in catalog.primary_key(look, table))
    key = f"CAST(json_build_array({each}) AS text)" if each else "CAST(ctid AS text)"
    sql = f"""SELECT CAST(ctid AS text) AS tid, {key} AS key FROM {catalog.sql_name(look, table)}
              WHERE ctid >= CAST(:lo AS tid) AND ctid < CAST(:hi AS tid)"""
    found = look.rows(sql, {"lo": f"({page},0)", "hi": f"({int(page) + 1},0)"})
    return {row.text("tid"): row.text("key") for row in found}
