"""From a playbook's words to a backfill's shape: table, key, columns and source, as this database has them."""

from __future__ import annotations

from dataclasses import dataclass

from steps import catalog
from steps.backfill_sql import Named, Shape
from steps.base import Look, StepError
from steps.dialect import Dialect, qualified
from steps.matching import read_match
from steps.words import Query, Text


@dataclass(frozen=True)
class Words:
    """What a playbook says of a backfill. key: () for the primary key; undo: whether it can be taken back."""

    table: str
    key: tuple[str, ...]
    source: Query
    match: Text
    fill: tuple[str, ...]
    where: Text | None = None
    undo: bool = True


def read_shape(look: Look, words: Words) -> Shape:
    """What the SQL is made of; raises StepError where a table or column isn't there."""
    table = words.table
    found = catalog.relation(look, table)
    if found is None:
        raise StepError(f"cannot find the table {table}: look at its name and schema")
    columns = catalog.columns(look, table)
    names = words.key or catalog.primary_key(look, table)
    if not names:
        raise StepError(f"cannot tell the rows of {table} apart: it has no primary key; name a unique one with key")
    return Shape(
        dialect=look.dialect,
        table=qualified(*catalog.named(look, table), look.dialect),
        key=tuple(_named(columns, table, name) for name in names),
        fill=tuple(_named(columns, table, name) for name in words.fill),
        source=words.source.text(look.dialect).strip().rstrip(";").rstrip(),
        pairs=read_match(words.match.text(look.dialect), look.dialect),
        where=words.where.text(look.dialect) if words.where else "",
        many=found.kind == "partitioned table" or _has_heirs(look, found.oid),
        undo=words.undo,
        restated=catalog.restated(look, found.oid, words.fill),
    )


def _has_heirs(look: Look, oid: int | None) -> bool:
    """Whether other tables inherit from this one."""
    if look.dialect is Dialect.SQLITE:
        return False
    sql = "SELECT count(*) AS n FROM pg_catalog.pg_inherits WHERE inhparent = CAST(:oid AS oid)"
    return look.row(sql, {"oid": oid}).integer("n") > 0


def _named(columns: dict[str, catalog.ColumnInfo], table: str, name: str) -> Named:
    column = columns.get(name)
    if column is None:
        raise StepError(f"cannot find the column {name!r} of {table}: it has {', '.join(columns) or 'none'}")
    return Named(name, column.type)
