"""The order in which a backfill visits its table, the ranges it is divided into, and the window of the next batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from steps.catalog import catalog
from steps.contract import Look, Model, Params, StepError
from steps.contract.dialect import Dialect
from steps.sql.unreadable import tried
from steps.types.backfill.reading import in_table
from steps.types.backfill.sql import ROWID, Named, Shape, Window, as_text, counting, json_of, keys, pages
from steps.types.backfill.tables import TypedColumns, has_row_numbers

PARTS = 8  # minimum number of ranges of a heap: a running pass can be tuned up to this many workers
REST = 0.3  # fraction of a batch: where no more is left of a range, the batch takes it too, and no tiny batch follows
SMALLEST_PART = 16  # pages; fewer are not worth a range of their own
HEAP = "coalesce(CAST(pg_relation_filenode(CAST(:name AS regclass)) AS bigint), 0)"


class Range(Model):
    """A part of the table, fixed when the pass begins; each is worked on by one worker at a time.

    kind: "pages" of the heap, "keys" in order, or "nulls": rows whose ordering column is NULL.
    lo, hi: TIDs for pages, else JSON arrays. heap: the file (relfilenode) that the pages are in.
    """

    kind: Literal["pages", "keys", "nulls"]
    lo: str
    hi: str
    heap: int = 0


class Start(Model):
    """What is fixed when a pass begins.

    rows: in range at that moment. heap: the table's file, by which a rewrite (VACUUM FULL) is detected.
    oid, key: by these another table of the same name is detected. start_xid: the next transaction id then: a row version with
    this xmin or a later one was created since. rows_per_page: the average at that moment.
    """

    ranges: tuple[Range, ...]
    rows: int
    bytes: int
    oid: int = 0
    key: tuple[str, ...] = ()
    start_xid: str = ""
    heap: int = 0
    rows_per_page: float = 1.0

    def stands(self, part: Range) -> bool:
        """Whether the range is still valid: VACUUM FULL writes a new file, in which all rows have other TIDs."""
        return part.kind != "pages" or part.heap == self.heap


class Route(Model):
    """The order of the pass, with the reason for it. columns: what it is ordered by; () for pages."""

    kind: Literal["heap", "key", "column"]
    columns: tuple[Named, ...]
    why: str


# ─── choosing ───────────────────────────────────────────────────────────────────────────────────────────────────────
def choose(look: Look, table: str, shape: Shape, *, wish: str) -> Route:
    """Choose the route. wish: "auto", "heap", "key" or a column; raises StepError where it isn't possible."""
    if wish == "key":
        return Route(kind="key", columns=shape.key, why="the playbook asks for the key's order")
    if wish not in ("auto", "heap"):
        return _by_column(look, table, shape, wish=wish)
    hindrance = _why_not_heap(look, table, shape)
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
    return Route(kind="key", columns=shape.key, why=hindrance)


def _why_not_heap(look: Look, table: str, shape: Shape) -> str:
    if look.dialect is Dialect.SQLITE:
        return "" if has_row_numbers(look, table) else "the table has no row ids"
    if look.version < (14,):
        return "ranges of the heap need PostgreSQL 14"
    return "its rows lie in several heaps" if shape.many else ""


def _by_column(look: Look, table: str, shape: Shape, *, wish: str) -> Route:
    if wish not in catalog.columns(look, table):
        raise StepError(
            f"cannot order by {wish!r}: {table} has no such column; write auto, key, heap or an indexed column"
        )
    leading = [one for one in catalog.indexes(look, table) if one.usable and one.plain and not one.predicate]
    if not any(one.columns[:1] == (wish,) and one.method == "btree" for one in leading):
        raise StepError(
            f"cannot order by {wish!r}: no index of {table} begins with it, so each batch would sort the table"
        )
    if shape.key[0].name == wish:
        return Route(kind="key", columns=shape.key, why="the playbook names the key's own column")
    ordered = TypedColumns(look, shape.oid, table)(wish)
    columns = (ordered, *(one for one in shape.key if one.name != wish))
    return Route(kind="column", columns=columns, why="the playbook names an indexed column")


# The size of table :name with indexes and TOAST, including partitions and children: a partitioned table itself has no storage.
TREE_BYTES = """(WITH RECURSIVE tree (oid) AS (
               SELECT CAST(CAST(:name AS regclass) AS oid)
               UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON tree.oid = i.inhparent)
             SELECT CAST(sum(pg_total_relation_size(oid)) AS bigint) FROM tree)"""


# ─── the start ──────────────────────────────────────────────────────────────────────────────────────────────────────
def begin(look: Look, shape: Shape, route: Route, *, workers: int = 1, counted: bool = True) -> Start:
    """Fix the bounds of the pass and count what is in them, in the look's one snapshot; at least as many ranges as workers.

    counted: False to skip counting the rows, and to estimate rows_per_page from the statistics.
    """
    if not shape.pg:
        ranges = tuple(_ranges(look, shape, route, workers=1))
        size = look.row("SELECT page_count * page_size AS n FROM pragma_page_count, pragma_page_size").integer("n")
        rows = _count(look, shape, ranges, route) if counted else 0
        return Start(ranges=ranges, rows=rows, bytes=size, key=key_names(shape))
    ranges = tuple(_ranges(look, shape, route, workers=workers))
    # the low 32 bits of the first id not yet assigned: xmin, with which it is compared, has no epoch
    xid = "CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS numeric) % 4294967296"
    sql = f"""SELECT CAST({xid} AS text) AS xid,
             {TREE_BYTES} AS bytes, {HEAP} AS heap,
             (SELECT reltuples FROM pg_catalog.pg_class WHERE oid = CAST(:name AS regclass)) AS estimate"""
    row = look.row(sql, {"name": shape.table})
    rows = _count(look, shape, ranges, route) if counted else 0
    blocks = max((page(one.hi) for one in ranges if one.kind == "pages"), default=0)
    per = max((rows or row.number("estimate")) / blocks, 0.01) if blocks else 1.0
    return Start(
        ranges=ranges,
        rows=rows,
        bytes=row.integer("bytes"),
        oid=shape.oid,
        key=key_names(shape),
        start_xid=row.text("xid"),
        heap=row.integer("heap"),
        rows_per_page=per,
    )


def key_names(shape: Shape) -> tuple[str, ...]:
    """The names of the key's columns."""
    return tuple(one.name for one in shape.key)


def _ranges(look: Look, shape: Shape, route: Route, *, workers: int) -> list[Range]:
    if route.kind == "heap" and shape.pg:
        return _heap_ranges(look, shape, workers=workers)
    found = [("keys", route.columns, "")]
    if route.kind == "column":
        leading = f"target.{route.columns[0].sql}"
        found = [("keys", route.columns, f"{leading} IS NOT NULL"), ("nulls", route.columns[1:], f"{leading} IS NULL")]
    ranges: list[Range] = []
    for kind, columns, condition in found:
        hi = last_position(look, shape, columns, condition=condition)
        inner = _boundaries(look, shape, columns, condition=condition, parts=2 * workers) if workers > 1 and hi else []
        bounds = ["", *(one for one in inner if one != hi), *([hi] if hi else [])]
        ranges += [Range.model_validate({"kind": kind, "lo": lo, "hi": end}) for lo, end in pairwise(bounds)]
    return ranges


def _heap_ranges(look: Look, shape: Shape, *, workers: int) -> list[Range]:
    """Ranges of about the same number of pages, enough of them that a running pass can be given more workers."""
    sql = f"""SELECT pg_relation_size(CAST(:name AS regclass)) / CAST(current_setting('block_size') AS bigint) AS n,
              {HEAP} AS heap"""
    row = look.row(sql, {"name": shape.table})
    blocks, heap = row.integer("n"), row.integer("heap")
    parts = max(1, min(max(PARTS, 2 * workers), blocks // SMALLEST_PART))
    bounds = [blocks * n // parts for n in range(parts + 1)] if blocks else []
    return [Range(kind="pages", lo=f"({lo},0)", hi=f"({hi},0)", heap=heap) for lo, hi in pairwise(bounds)]


def _boundaries(look: Look, shape: Shape, columns: Sequence[Named], *, condition: str, parts: int) -> list[str]:
    """The positions that divide the order into about equal parts; one scan of its index."""
    where = f" WHERE {condition}" if condition else ""
    names = [f"target.{column.sql}" for column in columns]
    inner = ", ".join(f"{name} AS rb_c{n}" for n, name in enumerate(names))
    place = json_of(shape, [as_text(shape, f"rb_n.rb_c{n}") for n in range(len(columns))])
    sql = f"""SELECT {place} AS place FROM (SELECT {inner}, row_number() OVER (ORDER BY {", ".join(names)}) AS rb_at,
              count(*) OVER () AS rb_all FROM {shape.table} AS target{where}) AS rb_n
              WHERE rb_n.rb_at % greatest(rb_n.rb_all / CAST(:parts AS bigint), 1) = 0 ORDER BY rb_n.rb_at"""
    return [row.text("place") for row in look.rows(sql, {"parts": parts})]


def last_position(
    look: Look, shape: Shape, columns: Sequence[Named], *, condition: str = "", descending: bool = True
) -> str:
    """The last position at present (the first, if not descending), as the database orders; "" where there is no row."""
    place = json_of(shape, [as_text(shape, f"target.{column.sql}") for column in columns])
    order = ", ".join(f"target.{column.sql}{' DESC' if descending else ''}" for column in columns)
    where = f" WHERE {condition}" if condition else ""
    rows = look.rows(f"SELECT {place} AS place FROM {shape.table} AS target{where} ORDER BY {order} LIMIT 1")
    return rows[0].text("place") if rows else ""


def _count(look: Look, shape: Shape, ranges: Sequence[Range], route: Route) -> int:
    """The rows in scope; those at which `where` fails count, since the pass will meet them."""
    rows = tried(look, lambda: _counted(look, shape, ranges, route, bad=()))
    if rows is not None:
        return rows
    bad = in_table(look, shape).keys
    return _counted(look, shape, ranges, route, bad=bad) + len(bad)


def _counted(look: Look, shape: Shape, ranges: Sequence[Range], route: Route, *, bad: Sequence[str]) -> int:
    if any(one.kind == "pages" for one in ranges):
        # An index-only scan is fast only where VACUUM has just marked the pages, and the planner trusts old figures of that.
        look.rows("SELECT set_config('enable_indexonlyscan', 'off', true)")
        whole = Window("true", {}).without(bad)
        return look.row(counting(shape, whole), whole.params).integer("n")
    start = Start(ranges=(), rows=0, bytes=0, start_xid="0")
    every = [window(shape, route, one, lo=one.lo, start=start, rows=None).without(bad) for one in ranges]
    return sum(look.row(counting(shape, one), _used(counting(shape, one), one.params)).integer("n") for one in every)


def _used(sql: str, params: Params) -> Params:
    return {name: value for name, value in params.items() if f":{name}" in sql}


# ─── going on ───────────────────────────────────────────────────────────────────────────────────────────────────────
def window(  # noqa: PLR0913 - what a window follows from
    shape: Shape,
    route: Route,
    part: Range,
    *,
    lo: str,
    start: Start,
    rows: int | None,
    exact: bool = False,
    density: float = 0.0,
) -> Window:
    """The window of the next `rows` rows of a range after `lo`; None: all the rest.

    exact: never more rows than that; a range of pages may otherwise hold more.
    density: rows per page in the last batch. The larger of it and the average is used, so that sparse pages don't make the next
    batch too large where denser ones follow.
    """
    if part.kind != "pages":
        columns, extra = (
            (route.columns, "")
            if part.kind == "keys"
            else (route.columns[1:], f"target.{route.columns[0].sql} IS NULL")
        )
        return keys(shape, columns, lo=lo, hi=part.hi, limit=rows, extra=extra)
    if rows is None:
        return pages(lo, part.hi, start_xid=start.start_xid)
    step, last = max(1, int(rows / max(start.rows_per_page, density))), page(part.hi)
    end = page(lo) + step
    hi = part.hi if end >= last or (not exact and last - end < REST * step) else f"({end},0)"
    return pages(lo, hi, start_xid=start.start_xid, limit=rows if exact else None)


def first_of(shape: Shape, within: Window) -> str:
    """The SELECT of a window's first rows (:rb_rows of them): key and position."""
    names = [f"target.{column.sql}" for column in within.order]
    place = as_text(shape, names[0]) if within.pages else json_of(shape, [as_text(shape, name) for name in names])
    key = json_of(shape, [as_text(shape, f"target.{column.sql}") for column in shape.key])
    return f"""SELECT {key} AS key, {place} AS place FROM {shape.table} AS target
               WHERE {within.condition} ORDER BY {", ".join(names)} LIMIT :rb_rows"""


def again(look: Look, shape: Shape, start: Start) -> Start:
    """The start with further ranges over the heap's new file, after VACUUM FULL or CLUSTER gave all rows other TIDs.

    The table is visited from its beginning again; rows that are done already need nothing any more.
    """
    workers = max(1, sum(start.stands(one) for one in start.ranges) // 2)
    fresh = _heap_ranges(look, shape, workers=workers)
    return start.model_copy(update={"ranges": (*start.ranges, *fresh), "heap": heap_of(look, shape)})


def heap_of(look: Look, shape: Shape) -> int:
    """The heap's current file (relfilenode); 0 on SQLite, and for a table without storage."""
    if not shape.pg:
        return 0
    return look.row(f"SELECT {HEAP} AS heap", {"name": shape.table}).integer("heap")


def page(tid: str) -> int:
    """The page number of a TID such as "(12,3)"."""
    return int(tid.strip("()").split(",")[0])
