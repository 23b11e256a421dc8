"""The values in which the catalogue answers: a table and all that belongs to it, by definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Relation(NamedTuple):
    """A table, view or index.

    kind: "table", "partition", "partitioned table", "view", "materialized view", "foreign table", "virtual table" …
    estimated_rows: from the last VACUUM or ANALYZE, None where there was none.
    bytes: with indexes and TOAST, None on SQLite. owned: whether this role may change its definition.
    grants: "SELECT=role", "UPDATE*=role" with grant option, "SELECT=" to everybody.
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
    """A column by definition. settings: what ALTER COLUMN says to restore statistics target, options and storage."""

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
    """An index. plain: ascending, default operator classes, its columns' collations, no INCLUDE; predicate: of a partial index.

    body: its definition without name and table, as PostgreSQL prints it; "" on SQLite.
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
        """Whether queries use it and writes keep it: what an interrupted CONCURRENTLY leaves is neither."""
        return self.valid and self.ready


class ConstraintInfo(NamedTuple):
    """A constraint. kind: "check", "foreign key", "primary key", "unique", "exclusion".

    references: the foreign key's (schema, table), else None. special: DEFERRABLE, MATCH FULL, NO INHERIT … in words.
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


class TriggerInfo(NamedTuple):
    """A trigger that somebody made, not a foreign key's. body: its function's source, or SQLite's text."""

    name: str
    definition: str
    enabled: bool
    function: str
    body: str


class Tie(StrEnum):
    """How something hangs on a column."""

    TRACKED = "tracked"  # the catalogue knows: a rename carries it along, dropping the column is refused
    TEXT = "text"  # only its source names the column: it breaks when it next runs
    OWN = "own"  # an index or constraint of the table itself: it goes where the column goes


class Dependant(NamedTuple):
    """Something that uses a column. kind: "view", "function", "generated column", "policy", "foreign key" …"""

    kind: str
    name: str
    how: Tie

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Publication(NamedTuple):
    """A publication that sends this table's changes."""

    name: str
    inserts: bool
    updates: bool
    deletes: bool


class RowSecurity(NamedTuple):
    """Row level security of a table. applies: whether it hides rows from this very role."""

    enabled: bool
    forced: bool
    applies: bool
    policies: tuple[str, ...]


class Partitioning(NamedTuple):
    """How a partitioned table is cut: the key's definition, and the partitions by qualified name."""

    key: str
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class TableShape:
    """All of a table by definition; equal shapes are equal catalogues. oids and order are not compared."""

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
