"""The tables that store a backfill's rows (partitions, inheritance children), and whether its key identifies rows in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steps.catalog import catalog
from steps.contract import Look, StepError
from steps.contract.dialect import Dialect
from steps.types.backfill.sql import ROWID, Named

TABLEOID = Named("tableoid", "oid")  # completes a key that is unique within each table, but not across them
_HOLDS_ROWS = ("r", "f")


@dataclass(frozen=True)
class Member:
    """One of the tables behind a name. kind: pg_class.relkind; unique: it has a unique index on the key; ruled: it has a rule
    on UPDATE; triggers: those that fire on UPDATE."""

    oid: int
    name: str
    kind: str
    unique: bool
    nullable: bool
    ruled: bool
    triggers: tuple[str, ...]


def members(look: Look, oid: int | None, key: Sequence[str]) -> tuple[Member, ...]:
    """The table itself and everything that inherits from it, partitions included; () on SQLite."""
    if look.dialect is Dialect.SQLITE or oid is None:
        return ()
    return tuple(
        Member(
            row.integer("oid"),
            row.text("name"),
            row.text("kind"),
            row.flag("is_unique"),
            row.flag("nullable"),
            row.flag("ruled"),
            tuple(row.texts("triggers")),
        )
        for row in catalog.answers(look, "members", {"oid": oid, "keys": list(key)})
    )


def needs_table(found: Sequence[Member]) -> bool:
    """Whether rows in different tables may have the same key: unlike partitions, inheritance children share no index."""
    partitioned = bool(found) and found[0].kind == "p" and found[0].unique
    return len(found) > 1 and not partitioned


def not_identified(found: Sequence[Member]) -> list[Member]:
    """The tables in which the key doesn't identify rows, or may be NULL."""
    if not needs_table(found):
        return [one for one in found[:1] if not one.unique]
    return [one for one in found if one.kind in _HOLDS_ROWS and (not one.unique or one.nullable)]


# ─── columns ────────────────────────────────────────────────────────────────────────────────────────────────────────


class TypedColumns:
    """A table's columns, each with a type name that is valid in a cast; StepError for an unknown column."""

    def __init__(self, look: Look, oid: int | None, table: str) -> None:
        self._table = table
        # catalog.columns also has those that earlier steps of the plan will add
        self._all = {one.name: Named(one.name, one.type) for one in catalog.columns(look, table).values()}
        if look.dialect is Dialect.POSTGRESQL:
            rows = catalog.answers(look, "plain_types", {"oid": oid})
            known = {r.text("name"): Named(r.text("name"), r.text("type"), r.flag("is_row")) for r in rows}
            self._all |= {name: one for name, one in known.items() if name in self._all}

    def __call__(self, name: str) -> Named:
        column = self._all.get(name)
        if column is None:
            raise StepError(
                f"cannot find the column {name!r} of {self._table}: it has {', '.join(self._all) or 'none'}"
            )
        return column


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def without_rowid(look: Look, table: str) -> bool:
    """Whether the table is a WITHOUT ROWID table of SQLite."""
    if look.dialect is not Dialect.SQLITE:
        return False
    schema, name = catalog.named(look, table)
    sql = "SELECT wr FROM pragma_table_list WHERE schema = :schema COLLATE NOCASE AND name = :name COLLATE NOCASE"
    rows = look.rows(sql, {"schema": schema, "name": name})
    return bool(rows) and rows[0].flag("wr")


def is_rowid(look: Look, table: str, names: tuple[str, ...]) -> bool:
    """Whether the key is SQLite's rowid: an INTEGER PRIMARY KEY, which needs no index and is never NULL."""
    if look.dialect is not Dialect.SQLITE or names != catalog.primary_key(look, table) or without_rowid(look, table):
        return False
    if len(names) != 1 or catalog.columns(look, table)[names[0]].type.upper() != "INTEGER":
        return False
    # INTEGER PRIMARY KEY DESC is no rowid alias, by a documented quirk of SQLite: such a key has an index of its own.
    return not any(one.primary for one in catalog.indexes(look, table))


def has_row_numbers(look: Look, table: str) -> bool:
    """Whether SQLite's rows can be visited in rowid order: no column may hide that name."""
    hidden = ROWID in {column.lower() for column in catalog.columns(look, table)}
    return not hidden and not without_rowid(look, table)
