"""Resolves a backfill's fields from the playbook (table, key, columns, source) against the database, into a Shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steps.catalog import catalog
from steps.contract import Look, Query, StepError, Text
from steps.contract.dialect import Dialect
from steps.sql.dialect import qualified
from steps.types.backfill.match import read_match
from steps.types.backfill.sql import Shape
from steps.types.backfill.tables import TABLEOID, Member, TypedColumns, is_rowid, members, needs_table


@dataclass(frozen=True)
class BackfillFields:
    """A backfill's fields from the playbook. key: () for the primary key; undo: whether to keep undo payloads.

    source, match: None where the columns are emptied.
    """

    table: str
    key: tuple[str, ...]
    source: Query | None
    match: Text | None
    fill: tuple[str, ...]
    where: Text | None = None
    undo: bool = True


def read_shape(look: Look, fields: BackfillFields) -> Shape:
    """Build the Shape; raises StepError where the table, a column or a key is missing."""
    table = fields.table
    found = catalog.relation(look, table)
    if found is None:
        raise StepError(f"cannot find the table {table}: look at its name and schema")
    names = fields.key or catalog.primary_key(look, table)
    if not names:
        raise StepError(f"cannot tell the rows of {table} apart: it has no primary key; name a unique one with key")
    found_in, named = members(look, found.oid, names), TypedColumns(look, found.oid, table)
    key = tuple(named(name) for name in names)
    return Shape(
        dialect=look.dialect,
        table=qualified(*catalog.named(look, table), look.dialect),
        key=(*key, TABLEOID) if needs_table(found_in) else key,
        fill=tuple(named(name) for name in fields.fill),
        source=fields.source.text(look.dialect).strip().rstrip(";").rstrip() if fields.source else "",
        pairs=read_match(fields.match.text(look.dialect), look.dialect) if fields.match else (),
        clears=fields.source is None,
        where=fields.where.text(look.dialect) if fields.where else "",
        many=found.kind == "partitioned table" or len(found_in) > 1,
        undo=fields.undo,
        touched_columns=catalog.touched_columns(look, found.oid, fields.fill),
        oid=found.oid or 0,
        triggers=_may_change(look, table, names, found_in),
    )


def _may_change(look: Look, table: str, key: tuple[str, ...], found: Sequence[Member]) -> bool:
    """Whether a row may end up different from what the UPDATE set: by a trigger, or on SQLite because its key is NULL."""
    if look.dialect is Dialect.POSTGRESQL:
        return any(one.triggers for one in found)
    columns = catalog.columns(look, table)
    nullable = any(not columns[name].not_null for name in key) and not is_rowid(look, table, key)
    return nullable or bool(catalog.triggers(look, table))
