"""Checks, before a fill starts, for what would make it fail or harm others; each fault says what to do."""

from __future__ import annotations

from collections.abc import Iterator

from steps.catalog import catalog
from steps.contract import UNDEFINED, DatabaseFault, Look, StepError
from steps.ledger import tables as ledger
from steps.sql.queries import explain
from steps.types.backfill.preflight import TABLES
from steps.types.backfill.tables import is_rowid, members
from steps.types.fill import sql
from steps.types.fill.shape import FillShape


def faults(look: Look, table: str, shape: FillShape, *, triggers_acknowledged: bool) -> list[str]:
    """All faults of a fill. The statement is planned only where table, columns and key have none."""
    found = [
        *_table_faults(look, table, shape),
        *_column_faults(look, table, shape),
        *_key_faults(look, table, shape),
        *([] if triggers_acknowledged else _trigger_faults(look, table)),
        *_no_work_table(look),
    ]
    return found or _plan_faults(look, table, shape)


def _table_faults(look: Look, table: str, shape: FillShape) -> Iterator[str]:
    found = catalog.relation(look, table)
    if found is not None and found.kind not in TABLES:
        yield f"cannot fill {table}: it is a {found.kind}; name the table that holds the rows"
    if catalog.row_security(look, table).applies:
        yield (
            f"cannot fill {table}: row level security hides rows from this role, so it can't be told which are there; "
            "run as the owner or as a role with BYPASSRLS"
        )
    rules = "SELECT rulename::text AS name FROM pg_catalog.pg_rewrite WHERE ev_class = CAST(:oid AS oid) AND ev_type IN ('3', '4')"
    ruled = [row.text("name") for row in look.rows(rules, {"oid": shape.oid})] if shape.pg else []
    if ruled:
        yield (
            f"cannot fill {table}: its rule {', '.join(ruled)} puts something else in the place of INSERT or DELETE; "
            "drop the rule, or make it a trigger"
        )


def _column_faults(look: Look, table: str, shape: FillShape) -> Iterator[str]:
    wanted = {one.column.name for one in shape.columns}
    for name, column in catalog.columns(look, table).items():
        if name in wanted and (column.generated is not None or column.identity == "always"):
            yield f"cannot write {table}.{name}: the database generates it; leave it out of columns"
        given = column.default is not None or column.generated is not None or column.identity
        if name not in wanted and column.not_null and not given and not is_rowid(look, table, (name,)):
            yield f"cannot leave {table}.{name} out: it is NOT NULL and has no default; add it to columns and source"


def _key_faults(look: Look, table: str, shape: FillShape) -> Iterator[str]:
    names = tuple(one.column.name for one in shape.key)
    if shape.pg:
        found = members(look, shape.oid, ())
        unique = any(
            set(one.columns) == set(names) and one.unique and one.usable and not one.predicate
            for one in catalog.indexes(look, table)
        )
        if len(found) > 1 and found[0].kind != "p":
            yield f"cannot fill {table}: other tables inherit from it, and its key {', '.join(names)} doesn't hold in them"
        if shape.skip and (late := _deferrable(look, shape, names)):
            yield (
                f"cannot skip the rows that {table} has: its key {late} is deferrable, and ON CONFLICT can't use it; "
                "write on_conflict: refuse, or make the constraint NOT DEFERRABLE"
            )
    else:
        wanted = {name.lower() for name in names}
        own = {name.lower() for name in catalog.primary_key(look, table)}  # WITHOUT ROWID, no index stands for it
        unique = wanted == own or any(
            {name.lower() for name in one.columns} == wanted and one.unique and not one.predicate
            for one in catalog.indexes(look, table)
        )
    if not unique:
        yield (
            f"cannot tell which rows {table} has already: no unique index is on exactly {', '.join(names)}; "
            "create one, or name other columns with key"
        )


def _deferrable(look: Look, shape: FillShape, names: tuple[str, ...]) -> str:
    """The constraint on exactly these columns that is checked only later; "" where each is checked at once."""
    sql = """SELECT o.conname::text AS name, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
               WHERE a.attrelid = o.conrelid AND a.attnum = ANY(o.conkey)) AS columns
             FROM pg_catalog.pg_constraint o WHERE o.conrelid = CAST(:oid AS oid) AND o.contype IN ('p', 'u') AND o.condeferrable"""
    found = look.rows(sql, {"oid": shape.oid})
    return next((row.text("name") for row in found if set(row.texts("columns")) == set(names)), "")


def _trigger_faults(look: Look, table: str) -> Iterator[str]:
    active = [one.name for one in catalog.triggers(look, table) if one.enabled]
    if active:
        yield (
            f"cannot fill {table} unasked: its triggers {', '.join(active)} may fire for each written row; "
            "read what they do, then write triggers: acknowledged"
        )


def _no_work_table(look: Look) -> list[str]:
    """Faults of the place for the work table; a ledger that isn't there yet will be this role's own."""
    return catalog.no_place_in(look, ledger.SCHEMA) if ledger.exists(look) else []


def _plan_faults(look: Look, table: str, shape: FillShape) -> list[str]:
    """Plan the statements without running them: finds wrong types, names and privileges."""
    try:
        there = set(look.columns(shape.source))
        missing = [one.column.name for one in shape.columns if one.column.name not in there]
        if missing:
            return [f"cannot find {', '.join(missing)} among the source's columns ({', '.join(sorted(there))}): use AS"]
        explain(look, sql.numbered(shape))
        if shape.pg:  # on SQLite a reading connection may not even plan to write
            look.rows(f"EXPLAIN {sql.insert(shape, f'({sql.numbered(shape)})')}")
    except (DatabaseFault, StepError) as fault:
        if isinstance(fault, DatabaseFault) and fault.sqlstate in UNDEFINED and look.assumed:
            raise  # an earlier step of the plan will create it: not a fault of this step
        return [f"cannot fill {table}: {fault}"]
    return []
