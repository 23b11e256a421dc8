"""In which order a backfill goes over its table, from where to where, and which rows the next batch looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from steps import catalog
from steps.backfill_sql import ROWID, Named, Shape, Window, as_text, counting, json_of, keys, pages
from steps.base import Look, Params, StepError
from steps.dialect import Dialect
from steps.words import Model

HEAP = "coalesce(CAST(pg_relation_filenode(CAST(:name AS regclass)) AS bigint), 0)"


class Range(Model):
    """A part of the table, fixed when the pass begins. kind: pages of the heap, keys in order, NULLs of the order."""

    kind: Literal["pages", "keys", "nulls"]
    lo: str
    hi: str


class Start(Model):
    """What is fixed when a pass begins. rows: in range then; heap: the file it is in, so that a rewrite is seen."""

    ranges: tuple[Range, ...]
    rows: int
    bytes: int
    start_xid: str = ""
    heap: int = 0
    rows_per_page: float = 1.0


class Route(Model):
    """The order of the pass, and why. columns: what it is ordered by; () for pages."""

    kind: Literal["heap", "key", "column"]
    columns: tuple[Named, ...]
    why: str


# ─── choosing ───────────────────────────────────────────────────────────────────────────────────────────────────────
def choose(look: Look, table: str, *, wish: str, key: tuple[Named, ...]) -> Route:
    """The route over the table; raises StepError where the wish can't be had."""
    if wish == "key":
        return Route(kind="key", columns=key, why="the playbook asks for the key's order")
    if wish not in ("auto", "heap"):
        return _by_column(look, table, wish=wish, key=key)
    hindrance = _why_not_heap(look, table)
    if not hindrance:
        why = (
            "each page of the table is read and written once"
            if wish == "auto"
            else "the playbook asks for the heap's order"
        )
        columns = () if look.dialect is Dialect.POSTGRESQL else (Named(ROWID, ROWID),)
        return Route(kind="heap", columns=columns, why=why)
    if wish == "heap":
        raise StepError(f"cannot go over {table} in the heap's order: {hindrance}; write order: key")
    return Route(kind="key", columns=key, why=hindrance)


def _why_not_heap(look: Look, table: str) -> str:
    if look.dialect is Dialect.SQLITE:
        schema, name = catalog.named(look, table)
        sql = "SELECT wr FROM pragma_table_list WHERE schema = :schema AND name = :name"
        rows = look.rows(sql, {"schema": schema, "name": name})
        hidden = ROWID in {column.lower() for column in catalog.columns(look, table)}
        return "the table has no row ids" if hidden or not rows or rows[0].flag("wr") else ""
    found = catalog.relation(look, table)
    if look.version < (14,):
        return "ranges of the heap need PostgreSQL 14"
    if found is not None and (found.kind == "partitioned table" or many_heaps(look, table)):
        return "its rows lie in several heaps"
    return ""


def many_heaps(look: Look, table: str) -> bool:
    """Whether other tables inherit from this one, as partitions do."""
    found = catalog.relation(look, table)
    if look.dialect is Dialect.SQLITE or found is None:
        return False
    sql = "SELECT count(*) AS n FROM pg_catalog.pg_inherits WHERE inhparent = CAST(:oid AS oid)"
    return look.row(sql, {"oid": found.oid}).integer("n") > 0


def _by_column(look: Look, table: str, *, wish: str, key: tuple[Named, ...]) -> Route:
    column = catalog.columns(look, table).get(wish)
    if column is None:
        raise StepError(
            f"cannot order by {wish!r}: {table} has no such column; write auto, key, heap or an indexed column"
        )
    leading = [one for one in catalog.indexes(look, table) if one.usable and one.plain and not one.predicate]
    if not any(one.columns[:1] == (wish,) and one.method == "btree" for one in leading):
        raise StepError(
            f"cannot order by {wish!r}: no index of {table} begins with it, so each batch would sort the table"
        )
    ordered = Named(wish, column.type)
    columns = (ordered, *(one for one in key if one.name != wish))
    return Route(kind="column", columns=columns, why="the playbook names an indexed column")


# ─── the start ──────────────────────────────────────────────────────────────────────────────────────────────────────
def begin(look: Look, shape: Shape, route: Route) -> Start:
    """The bounds of the pass and how much lies in them, of one moment."""
    ranges = tuple(_ranges(look, shape, route))
    if not shape.pg:
        size = look.row("SELECT page_count * page_size AS n FROM pragma_page_count, pragma_page_size").integer("n")
        return Start(ranges=ranges, rows=_count(look, shape, ranges, route), bytes=size)
    xid = "CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS numeric) % 4294967296"
    sql = f"""SELECT CAST({xid} AS text) AS xid,
             pg_total_relation_size(CAST(:name AS regclass)) AS bytes, {HEAP} AS heap"""
    row = look.row(sql, {"name": shape.table})
    rows = _count(look, shape, ranges, route)
    blocks = sum(_page(one.hi) for one in ranges if one.kind == "pages")
    per = max(rows / blocks, 0.01) if blocks else 1.0
    return Start(
        ranges=ranges,
        rows=rows,
        bytes=row.integer("bytes"),
        start_xid=row.text("xid"),
        heap=row.integer("heap"),
        rows_per_page=per,
    )


def _ranges(look: Look, shape: Shape, route: Route) -> list[Range]:
    if route.kind == "heap" and shape.pg:
        sql = (
            """SELECT pg_relation_size(CAST(:name AS regclass)) / CAST(current_setting('block_size') AS bigint) AS n"""
        )
        blocks = look.row(sql, {"name": shape.table}).integer("n")
        return [Range(kind="pages", lo="(0,0)", hi=f"({blocks},0)")] if blocks else []
    found = [("keys", route.columns, "")]
    if route.kind == "column":
        leading = f"target.{route.columns[0].sql}"
        found = [("keys", route.columns, f"{leading} IS NOT NULL"), ("nulls", route.columns[1:], f"{leading} IS NULL")]
    ends = [(kind, last_position(look, shape, columns, condition=condition)) for kind, columns, condition in found]
    return [Range.model_validate({"kind": kind, "lo": "", "hi": hi}) for kind, hi in ends if hi]


def last_position(
    look: Look, shape: Shape, columns: Sequence[Named], *, condition: str = "", descending: bool = True
) -> str:
    """The greatest (or the first) position now, as the database orders it; "" where there is no row."""
    place = json_of(shape, [as_text(shape, f"target.{column.sql}") for column in columns])
    order = ", ".join(f"target.{column.sql}{' DESC' if descending else ''}" for column in columns)
    where = f" WHERE {condition}" if condition else ""
    rows = look.rows(f"SELECT {place} AS place FROM {shape.table} AS target{where} ORDER BY {order} LIMIT 1")
    return rows[0].text("place") if rows else ""


def _count(look: Look, shape: Shape, ranges: Sequence[Range], route: Route) -> int:
    start = Start(ranges=(), rows=0, bytes=0, start_xid="0")
    every = [window(shape, route, one, lo=one.lo, start=start, rows=None) for one in ranges]
    return sum(look.row(counting(shape, one), _used(counting(shape, one), one.params)).integer("n") for one in every)


def _used(sql: str, params: Params) -> Params:
    return {name: value for name, value in params.items() if f":{name}" in sql}


# ─── going on ───────────────────────────────────────────────────────────────────────────────────────────────────────
def window(
    shape: Shape, route: Route, part: Range, *, lo: str, start: Start, rows: int | None, exact: bool = False
) -> Window:
    """The next rows of a range after `lo`; rows None: all the rest. exact: no row more than that, also by pages."""
    if part.kind != "pages":
        columns, extra = (
            (route.columns, "")
            if part.kind == "keys"
            else (route.columns[1:], f"target.{route.columns[0].sql} IS NULL")
        )
        return keys(shape, columns, lo=lo, hi=part.hi, limit=rows, extra=extra)
    if rows is None:
        return pages(lo, part.hi, start_xid=start.start_xid)
    end = min(_page(part.hi), _page(lo) + max(1, int(rows / start.rows_per_page)))
    hi = part.hi if end == _page(part.hi) else f"({end},0)"
    return pages(lo, hi, start_xid=start.start_xid, limit=rows if exact else None)


def whole(shape: Shape, route: Route, start: Start) -> Window:
    """All rows that could lie in range, wherever they are now: a key or row id has a bound that no row leaves."""
    if route.kind != "column" and [one.kind for one in start.ranges] == ["keys"]:
        return keys(shape, route.columns, lo="", hi=start.ranges[0].hi, limit=None)
    return Window("true", {})


def first_of(shape: Shape, within: Window) -> str:
    """The SELECT of the key and the position of a window's first row."""
    names = [f"target.{column.sql}" for column in within.order]
    place = as_text(shape, names[0]) if within.pages else json_of(shape, [as_text(shape, name) for name in names])
    key = json_of(shape, [as_text(shape, f"target.{column.sql}") for column in shape.key])
    return f"""SELECT {key} AS key, {place} AS place FROM {shape.table} AS target
               WHERE {within.condition} ORDER BY {", ".join(names)} LIMIT :rb_rows"""


def again(look: Look, shape: Shape, start: Start) -> Start:
    """The start with one more range over the heap's new file, where VACUUM FULL or CLUSTER gave rows new places."""
    fresh = _ranges(look, shape, Route(kind="heap", columns=(), why=""))
    return start.model_copy(update={"ranges": (*start.ranges, *fresh), "heap": heap_of(look, shape)})


def heap_of(look: Look, shape: Shape) -> int:
    """The file that the heap is in now, 0 where there is none."""
    if not shape.pg:
        return 0
    return look.row(f"SELECT {HEAP} AS heap", {"name": shape.table}).integer("heap")


def _page(tid: str) -> int:
    return int(tid.strip("()").split(",")[0])
