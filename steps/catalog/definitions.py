"""Value types for catalogue objects: tables, columns, indexes, constraints, triggers and their dependencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Relation(NamedTuple):
    """A table, view or index.

    kind: "table", "partition", "partitioned table", "view", "materialized view", "foreign table", "virtual table" …
    estimated_rows: from the last VACUUM or ANALYZE, None where there was none.
    bytes: size with indexes and TOAST, None on SQLite. owned: whether this role may alter it.
    grants: "SELECT=role", "UPDATE*=role" with grant option, "SELECT=" to PUBLIC.
    """

    oid: int | None
    schema: str
    name: str
    kind: str
    estimated_rows: int | None
    bytes: int | None
    owned: bool
    owner: str
    replica_identity: str
    comment: str
    grants: tuple[str, ...]


class ColumnInfo(NamedTuple):
    """A column. settings: the ALTER COLUMN clauses that restore its statistics target, options, storage and compression."""

    name: str
    type: str
    not_null: bool
    default: str | None
    generated: str | None
    identity: str
    position: int
    comment: str
    collation: str
    settings: tuple[str, ...]
    grants: tuple[str, ...]


class IndexInfo(NamedTuple):
    """An index.

    plain: ascending, with default operator classes and its columns' collations, without INCLUDE.
    predicate: the condition of a partial index, else "".
    body: the definition without name and table, as PostgreSQL prints it; "" on SQLite.
    valid, ready: see `usable`; always True on SQLite.
    """

    oid: int | None
    schema: str
    name: str
    table: str
    columns: tuple[str, ...]
    method: str
    unique: bool
    primary: bool
    valid: bool
    ready: bool
    plain: bool
    partitioned: bool
    replica_identity: bool
    predicate: str
    definition: str
    body: str
    constraint: str
    comment: str
    bytes: int | None

    @property
    def usable(self) -> bool:
        """Whether queries use the index (valid) and writes maintain it (ready).

        CREATE INDEX CONCURRENTLY sets ready first and valid last, in transactions of their own: an interrupted one leaves an
        index that lacks one or both.
        """
        return self.valid and self.ready


class ConstraintInfo(NamedTuple):
    """A constraint. kind: "check", "foreign key", "primary key", "unique", "exclusion".

    references: the (schema, table) that a foreign key refers to, else None. special: DEFERRABLE, MATCH FULL, NO INHERIT …
    """

    name: str
    kind: str
    definition: str
    validated: bool
    columns: tuple[str, ...]
    expression: str
    references: tuple[str, str] | None
    foreign_columns: tuple[str, ...]
    on_delete: str
    on_update: str
    special: str
    comment: str


class Reference(NamedTuple):
    """A foreign key seen from the table that it refers to: the referring table and its columns, and those referred to.

    keeps: a row that is referred to can't be deleted, and nothing else happens: no CASCADE, no SET NULL.
    """

    schema: str
    table: str
    columns: tuple[str, ...]
    foreign_columns: tuple[str, ...]
    keeps: bool


class TriggerInfo(NamedTuple):
    """A user-defined trigger, not an internal one of a foreign key. body: its function's source, or SQLite's own text."""

    name: str
    definition: str
    enabled: bool
    function: str
    body: str


class Tie(StrEnum):
    """How an object depends on a column."""

    TRACKED = "tracked"  # the catalogue knows it: a rename adapts it, and dropping the column is refused
    TEXT = "text"  # only its source text names the column: after a rename it fails the next time it runs
    OWN = "own"  # an index or constraint of the table itself: it follows a rename and is dropped with the column


class Dependant(NamedTuple):
    """An object that uses a column. kind: "view", "function", "generated column", "policy", "foreign key" …"""

    kind: str
    name: str
    how: Tie

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Publication(NamedTuple):
    """A publication that includes this table, and the changes that it publishes."""

    name: str
    inserts: bool
    updates: bool
    deletes: bool


class RowSecurity(NamedTuple):
    """Row-level security of a table. applies: whether it filters rows for the current role."""

    enabled: bool
    forced: bool
    applies: bool
    policies: tuple[str, ...]


class Partitioning(NamedTuple):
    """A table's partitioning: the definition of its key, and the partitions' qualified names."""

    key: str
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class TableShape:
    """A table's whole definition. Equal shapes mean that the catalogue is unchanged; oids and order are not compared."""

    kind: str
    comment: str
    grants: tuple[str, ...]
    columns: Mapping[str, tuple[object, ...]]
    indexes: Mapping[str, tuple[object, ...]]
    constraints: Mapping[str, tuple[object, ...]]
    triggers: Mapping[str, tuple[object, ...]]
    publications: tuple[Publication, ...]
    row_security: RowSecurity
    oids: Mapping[str, int | None] = field(compare=False)
    order: tuple[str, ...] = field(compare=False)
