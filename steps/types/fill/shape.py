"""Resolves a fill's fields from the playbook (table, key, columns, source) against the database, into a FillShape."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steps.catalog import catalog
from steps.contract import Look, Query, RunPosition, StepError
from steps.contract.dialect import Dialect
from steps.ledger import tables as ledger
from steps.sql.dialect import quote
from steps.sql.queries import text_of
from steps.types.backfill.sql import Named
from steps.types.backfill.tables import TypedColumns

_TEXT = "S"  # pg_type.typcategory of text, varchar, char, name


@dataclass(frozen=True)
class FillFields:
    """A fill's fields from the playbook. key: () for the primary key."""

    table: str
    source: Query
    columns: tuple[str, ...]
    key: tuple[str, ...]
    skip: bool


@dataclass(frozen=True)
class FillColumn:
    """A column to fill, from the source's column of the same name.

    parsed: the source has text where the table has another type, so that each row's value is read as one of that type.
    alike: both are of one category of types, so that values of source and table compare as they are.
    """

    column: Named
    parsed: bool = False
    alike: bool = True

    @property
    def sql(self) -> str:
        return self.column.sql


@dataclass(frozen=True)
class FillShape:
    """The parts of a fill's SQL, resolved against this database.

    table: qualified and quoted. key: the columns that tell rows apart, in source and table. whole: the columns by which it is told
    whether a row is as it was written: all but generated ones. skip: rows whose key the table has already are left out, not an
    error. triggers: what was written may differ from the source's row. oid: 0 on SQLite.
    """

    dialect: Dialect
    table: str
    columns: tuple[FillColumn, ...]
    key: tuple[FillColumn, ...]
    source: str
    whole: tuple[str, ...]
    skip: bool = True
    triggers: bool = False
    refers_to_itself: bool = False
    oid: int = 0

    @property
    def pg(self) -> bool:
        return self.dialect is Dialect.POSTGRESQL

    def number(self, column: FillColumn) -> int:
        return self.columns.index(column)

    @property
    def key_columns(self) -> tuple[Named, ...]:
        return tuple(one.column for one in self.key)


def read_shape(look: Look, fields: FillFields) -> FillShape:
    """Build the shape; raises StepError where the table, a column or a key is missing."""
    table = fields.table
    found = catalog.relation(look, table)
    if found is None:
        raise StepError(f"cannot find the table {table}: look at its name and schema")
    names = fields.key or catalog.primary_key(look, table)
    if not names:
        raise StepError(f"cannot tell the rows of {table} apart: it has no primary key; name unique columns with key")
    missing = [name for name in names if name not in fields.columns]
    if missing:
        raise StepError(
            f"cannot tell which rows {table} has already: its key {', '.join(missing)} isn't among the columns; add it, or "
            "name other unique columns with key"
        )
    named, source = TypedColumns(look, found.oid, table), text_of(fields.source, look)
    own = catalog.sql_name(look, table)
    kinds = _categories(look, own, source, [named(name) for name in fields.columns])
    columns = {name: _column(named(name), *kinds.get(name, ("", ""))) for name in fields.columns}
    schema, bare = catalog.named(look, table)
    return FillShape(
        dialect=look.dialect,
        table=own,
        columns=tuple(columns.values()),
        key=tuple(columns[name] for name in names),
        source=source,
        whole=tuple(one.name for one in catalog.columns(look, table).values() if one.generated is None),
        skip=fields.skip,
        triggers=any(one.enabled for one in catalog.triggers(look, table)),
        refers_to_itself=any(
            (one.schema, one.table.lower()) == (schema, bare.lower()) for one in catalog.referencing(look, table)
        ),
        oid=found.oid or 0,
    )


def _column(column: Named, given: str, wanted: str) -> FillColumn:
    return FillColumn(column, parsed=given == _TEXT != wanted, alike=given == wanted)


def _categories(look: Look, table: str, source: str, columns: Sequence[Named]) -> Mapping[str, tuple[str, str]]:
    """Column → the categories of its types in source and table; {} on SQLite, whose values have types of their own."""
    if look.dialect is Dialect.SQLITE:
        return {}
    there = set(look.columns(source))
    missing = [one.name for one in columns if one.name not in there]
    if missing:
        raise StepError(
            f"cannot find {', '.join(missing)} among the source's columns ({', '.join(sorted(there))}): use AS"
        )

    def category(alias: str, one: Named) -> str:
        return f"(SELECT t.typcategory FROM pg_catalog.pg_type AS t WHERE t.oid = pg_typeof({alias}.{one.sql}))"

    asked = [f"{category('source', one)} AS s{n}, {category('target', one)} AS t{n}" for n, one in enumerate(columns)]
    row = look.row(
        f"""SELECT {", ".join(asked)} FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM ({source}) AS s LIMIT 0) AS source
            ON true LEFT JOIN (SELECT * FROM {table} LIMIT 0) AS target ON true"""
    )
    return {one.name: (row.text(f"s{n}"), row.text(f"t{n}")) for n, one in enumerate(columns)}


def work_table(dialect: Dialect, place: RunPosition | None) -> str:
    """The table that holds the source's rows for as long as the step runs, beside the ledger's tables."""
    words = f"{place.run} {place.step}" if place else ""
    name = f"fill_{hashlib.sha256(words.encode()).hexdigest()[:16]}" if place else "fill_of_this_run"
    if dialect is Dialect.SQLITE:
        return quote(f"{ledger.SCHEMA}_{name}")
    return f"{ledger.SCHEMA}.{quote(name)}"
