"""Checks, before a backfill starts, for what would make it fail or harm others; each fault says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from steps.catalog import catalog
from steps.contract import UNDEFINED, DatabaseFault, Look, StepError
from steps.sql.dialect import quote
from steps.types.backfill.key import key_faults, operator_faults
from steps.types.backfill.planner import scans
from steps.types.backfill.ranges import Route, begin, last_position, window
from steps.types.backfill.sql import Shape, Window, judged, looked_at
from steps.types.backfill.tables import members

TABLES = ("table", "partition", "partitioned table")
_PAGES = """SELECT coalesce(max(c.relpages), 0) AS n FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE s.nspname = :schema AND c.relname = :name"""
LARGE = 2_000  # pages; scanning a smaller table costs little compared with a batch


def faults(
    look: Look, table: str, shape: Shape, *, route: Callable[[], Route], triggers_acknowledged: bool
) -> list[str]:
    """All faults of a backfill. The source and the statement are checked only where the table and the key have none."""
    found = [
        *_table_faults(look, table, shape),
        *key_faults(look, table, shape),
        *_fill_faults(look, table, shape),
        *([] if triggers_acknowledged else _trigger_faults(look, table, shape)),
    ]
    if found:
        return found
    try:
        return list(_source_faults(look, table, shape)) or list(_plan_faults(look, shape, route()))
    except (DatabaseFault, StepError) as fault:
        if isinstance(fault, DatabaseFault) and fault.sqlstate in UNDEFINED and look.assumed:
            raise  # an earlier step of the plan will create it: not a fault of this step
        return [f"cannot backfill {table}: {fault}"]


def _table_faults(look: Look, table: str, shape: Shape) -> Iterator[str]:
    found = catalog.relation(look, table)
    if found is not None and found.kind not in TABLES:
        yield f"cannot backfill {table}: it is a {found.kind}; name the table that holds the rows"
    if catalog.row_security(look, table).applies:
        yield (
            f"cannot backfill {table}: row level security hides rows from this role, so they would be missed unseen; "
            "run as the owner or as a role with BYPASSRLS"
        )
    ruled = [one.name for one in members(look, shape.oid, ()) if one.ruled]
    if ruled:
        yield (
            f"cannot backfill {table}: a rule on UPDATE of {', '.join(ruled)} puts something else in its place; "
            "drop the rule, or make it a trigger"
        )
    sent = [one.name for one in catalog.publications(look, table) if one.updates]
    if sent and found is not None and not _has_identity(look, table, found.replica_identity):
        yield (
            f"cannot update {table}: publication {', '.join(sent)} sends its updates and it has no replica identity, "
            "so PostgreSQL refuses them; add a primary key or ALTER TABLE … REPLICA IDENTITY"
        )


def _has_identity(look: Look, table: str, identity: str) -> bool:
    if identity.lower() in ("d", "default"):
        return bool(catalog.primary_key(look, table))
    return identity.lower() not in ("n", "nothing")


def _fill_faults(look: Look, table: str, shape: Shape) -> Iterator[str]:
    columns, parted = catalog.columns(look, table), catalog.partitioned(look, table)
    verb, where = ("empty", "columns") if shape.clears else ("fill", "fill")
    for one in shape.fill:
        column = columns[one.name]
        if column.generated or column.identity.lower() in ("a", "always"):
            yield f"cannot {verb} {table}.{one.name}: the database generates it; leave it out of {where}"
        if column.not_null and shape.clears:
            yield f"cannot empty {table}.{one.name}: it is NOT NULL; leave it out of columns"
        elif column.not_null:
            yield f"cannot fill {table}.{one.name}: it is NOT NULL, so nothing is to be filled; leave it out of fill"
        if parted is not None and _names_word(parted.key, one.name):
            yield f"cannot {verb} {table}.{one.name}: the table is partitioned by it, and its rows would move"


def _names_word(text: str, word: str) -> bool:
    return word in text.replace("(", " ").replace(")", " ").replace(",", " ").replace('"', "").split()


def _trigger_faults(look: Look, table: str, shape: Shape) -> Iterator[str]:
    active = [one.name for one in catalog.triggers(look, table) if one.enabled]
    active += [f"{name} (of {one.name})" for one in members(look, shape.oid, ())[1:] for name in one.triggers]
    if active:
        yield (
            f"cannot backfill {table} unasked: its triggers {', '.join(active)} would fire for each written row; "
            "read what they do, then write triggers: acknowledged"
        )


# ─── the source and the statement ───────────────────────────────────────────────────────────────────────────────────
def _source_faults(look: Look, table: str, shape: Shape) -> Iterator[str]:
    if shape.clears:
        yield from operator_faults(look, table, shape)
        return
    names = set(look.columns(shape.source))
    wanted = [one.name for one in shape.fill] + [one.column for one in shape.pairs]
    missing = [name for name in dict.fromkeys(wanted) if name not in names]
    if missing:
        yield f"cannot find {', '.join(missing)} among the source's columns ({', '.join(sorted(names))}): use AS"
        return
    unseen = list(operator_faults(look, table, shape))
    if unseen:
        yield from unseen
        return
    keys = ", ".join(f"source.{quote(one.column)}" for one in shape.pairs)
    present = " AND ".join(f"source.{quote(one.column)} IS NOT NULL" for one in shape.pairs)
    sql = (
        f"SELECT 1 AS one FROM ({shape.source}\n) AS source WHERE {present} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"
    )
    if look.rows(sql):
        yield (
            f"cannot choose a value: the source has more than one row for a {_compared(shape)}; "
            "make it unique with DISTINCT ON, GROUP BY or a narrower WHERE"
        )


def _plan_faults(look: Look, shape: Shape, route: Route) -> Iterator[str]:
    """Plan one batch without running it: finds wrong types, names and privileges, and a scan of a whole large table."""
    start = begin(look, shape, route, counted=False)
    if not start.ranges:
        return
    part = start.ranges[0]
    lo = part.lo or _middle(look, shape, route)
    one = window(shape, route, part, lo=lo, start=start, rows=1000)
    if not shape.pg:
        yield from _sqlite_plan(look, shape, one)
        return
    for schema, name in scans(look, shape, one):
        if look.row(_PAGES, {"schema": schema, "name": name}).integer("n") > LARGE:
            yield (
                f"cannot backfill in batches: each one would read all of {schema}.{name} (Seq Scan); "
                "index what match or order compares"
            )


def _compared(shape: Shape) -> str:
    return ", ".join(one.column for one in shape.pairs)


def _middle(look: Look, shape: Shape, route: Route) -> str:
    """Any position, so that a later batch with a lower bound is planned, and not the first one."""
    return last_position(look, shape, route.columns, descending=False) if route.columns else ""


def _sqlite_plan(look: Look, shape: Shape, one: Window) -> Iterator[str]:
    sql = judged(shape, looked_at(shape, one))
    details = [row.text("detail") for row in look.rows(f"EXPLAIN QUERY PLAN {sql}", one.all_params())]
    if any(detail.startswith("SCAN target") and "INDEX" not in detail for detail in details):
        yield f"cannot backfill in batches: each would read all of {shape.table} (SCAN); give it an index on its key"
