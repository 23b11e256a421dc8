"""The parts of a column type change: the record of the old column, the statements under the lock, and the undo.

A column that holds no value is replaced: DROP COLUMN and ADD COLUMN are instant, where ALTER TYPE would rewrite the table.
That it is empty must be proven under ACCESS EXCLUSIVE, since anybody could write a value before the lock is taken; everybody
waits meanwhile, so the proof has a short timeout. Where it holds values that mean nothing, it isn't dropped yet, but renamed:
they are kept while others go on working, and then it is dropped.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from steps.catalog import catalog
from steps.catalog.definitions import IndexInfo
from steps.contract import QUERY_CANCELED, ColumnRef, Context, DatabaseFault, Look, Model, Refused, Work
from steps.sql.dialect import literal, quote
from steps.types.shared import concurrent_index, kept_values

PROOF = "3s"  # timeout of the proof that the column is empty, while everybody waits for the lock
_ANY_TYPE = {"btree", "hash", "brin"}  # methods with a default operator class for nearly every type; not gin and gist
# An explicit CAST to varchar(10) truncates. So the cast is to the type without its length; the assignment then refuses.
_UNBOUNDED = {
    "character varying": "character varying",
    "character": "bpchar",
    "bit": "bit varying",
    "bit varying": "bit varying",
}


class Converted(Model):
    """The old column: definition, indexes, and, where the conversion loses information, its values.

    new_default, new_collation: after the change. replaced: by DROP and ADD COLUMN. kept: of the dictionary of lost values.
    aside: the name under which a replaced column stands until its values are kept.
    values: instead of it in what earlier versions kept: (old value, new value, key …) for each row, as text.
    grants, settings: see ColumnInfo.
    """

    column: ColumnRef
    type: str
    new_type: str
    collation: str
    default: str | None
    comment: str
    settings: tuple[str, ...]
    grants: tuple[str, ...]
    indexes: tuple[concurrent_index.KeptIndex, ...] = ()
    replaced: bool = False
    new_default: str | None = None
    new_collation: str = ""
    key: tuple[str, ...] = ()
    key_types: tuple[str, ...] = ()
    values: tuple[tuple[str | None, ...], ...] = ()
    kept: kept_values.KeptValues | None = None
    aside: str = ""


FILLED = (
    "cannot replace {}: it holds values; name those that mean nothing with treat_as_null, or use while_all_null: rewrite, "
    "which keeps them (and rewrites the table)"
)


# ─── under the lock ─────────────────────────────────────────────────────────────────────────────────────────────────
def lock(look: Look, column: ColumnRef) -> str:
    return f"LOCK TABLE {catalog.sql_name(look, column.table)} IN ACCESS EXCLUSIVE MODE"


def filled(look: Look, column: ColumnRef, *, nothing: str = "") -> str:
    """The SELECT that tells whether any row holds a value. nothing: SQL that is true for values that mean nothing."""
    table, value = catalog.sql_name(look, column.table), f"{quote(column.column)} IS NOT NULL"
    return f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {value}{f' AND NOT ({nothing})' * bool(nothing)}) AS filled"


def is_filled(work: Work, column: ColumnRef, *, nothing: str = "") -> bool:
    """Whether any row has a value, looked up in an index where there is one; Refused where that takes too long."""
    whole = [one for one in indexes(work, column) if one.usable and one.method == "btree" and not one.predicate]
    indexed = any(one.columns[:1] == (column.column,) for one in whole)
    try:
        with _setting(work, "statement_timeout", PROOF), _setting(work, "enable_seqscan", "off" if indexed else "on"):
            return work.row(filled(work, column, nothing=nothing)).flag("filled")
    except DatabaseFault as fault:
        if fault.sqlstate != QUERY_CANCELED:
            raise
        why = f"to prove it empty takes longer than {PROOF} under the lock"
        raise Refused(f"cannot replace {column}: {why}; index it first, or use while_all_null: rewrite") from fault


@contextlib.contextmanager
def _setting(work: Work, name: str, value: str) -> Iterator[None]:
    was = work.row("SELECT current_setting(:name) AS was", {"name": name}).text("was")
    work.row("SELECT set_config(:name, :value, true) AS now", {"name": name, "value": value})
    yield
    work.row("SELECT set_config(:name, :value, true) AS now", {"name": name, "value": was})


def replaced(look: Look, before: Converted, *, back: bool = False, everywhere: str | None = None) -> list[str]:
    """Statements that drop the column and add it with the other type, default, settings, grants and comment.

    back: with the old type and all that belonged to it. The column moves to the end of the table.
    everywhere: the value in all rows that are there; as the default of ADD COLUMN it costs no write.
    """
    table, name = catalog.sql_name(look, before.column.table), quote(before.column.column)
    wanted = before.type if back else before.new_type
    collation = before.collation if back else before.new_collation
    default = before.default if back else before.new_default
    # a storage setting may not fit the new type; only the old type gets it back
    settings = [one for one in before.settings if back or not one.startswith(("SET STORAGE", "SET COMPRESSION"))]
    comment = [f"COMMENT ON COLUMN {table}.{name} IS {literal(before.comment)}"] if before.comment else []
    gone = _set_aside(look, before) if before.aside and not back else [f"ALTER TABLE {table} DROP COLUMN {name}"]
    value = "" if everywhere is None else f" DEFAULT CAST({literal(everywhere)} AS {wanted})"
    return [
        *gone,
        f"ALTER TABLE {table} ADD COLUMN {name} {wanted}{f' COLLATE {collation}' if collation else ''}{value}",
        *([f"ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"] if value else []),
        *(
            f"ALTER TABLE {table} ALTER COLUMN {name} {one}"
            for one in [*([f"SET DEFAULT {default}"] if default is not None else []), *settings]
        ),
        *(grant(table, name, one) for one in before.grants),
        *comment,
    ]


def _set_aside(look: Look, before: Converted) -> list[str]:
    """Statements that free the column's name and those of its indexes; rows that come from now on have NULL in it."""
    table, aside = catalog.sql_name(look, before.column.table), quote(before.aside)
    return [
        *(f"DROP INDEX {catalog.sql_name(look, one.name)}" for one in before.indexes),
        f"ALTER TABLE {table} RENAME COLUMN {quote(before.column.column)} TO {aside}",
        *([f"ALTER TABLE {table} ALTER COLUMN {aside} DROP DEFAULT"] if before.default is not None else []),
    ]


def drop_aside(look: Look, before: Converted) -> str:
    return f"ALTER TABLE {catalog.sql_name(look, before.column.table)} DROP COLUMN {quote(before.aside)}"


def keep_aside(ctx: Context, before: Converted) -> None:
    """Keep the values of a column that was set aside, while others work, and drop it; nothing where that is done."""
    if before.kept is None or not before.aside:
        return
    with ctx.db.look() as look:
        if before.aside not in catalog.columns(look, before.column.table):
            return
        kept = kept_values.is_kept(look)
    if not kept:
        aside = ColumnRef(table=before.column.table, column=before.aside)
        change, rows = kept_values.ValueChange(aside, "NULL", "NULL"), before.kept
        ctx.patiently("values", lambda work: kept_values.keep(work, change, rows))

    def drop(work: Work) -> None:
        work.execute(drop_aside(work, before))

    ctx.patiently("aside", drop)


def grant(table: str, name: str, given: str) -> str:
    """The GRANT of one privilege on a column; given: as in ColumnInfo.grants, name: quoted."""
    privilege, _, role = given.partition("=")
    to = quote(role) if role else "PUBLIC"
    option = " WITH GRANT OPTION" if privilege.endswith("*") else ""
    return f"GRANT {privilege.rstrip('*')} ({name}) ON {table} TO {to}{option}"


def go_back_empty(work: Work, before: Converted) -> None:
    """Undo a replacement by a replacement; Refused where the column has values by now, or can't be proven empty in time."""
    if before.kept is not None:
        kept_values.unpack(work, before.kept)
    work.execute(lock(work, before.column))
    if is_filled(work, before.column):
        raise Refused(FILLED.format(before.column))
    if before.kept is None:
        _replace_back(work, before)
        return
    key, common = before.kept.key, kept_values.commonest(work, before.column)
    _replace_back(work, before, everywhere=common)
    if common is not None:
        kept_values.blank_others(work, before.column, key, value=common)
    kept_values.put_back(work, before.column, key, kind=before.type, ours="NULL")


def _replace_back(work: Work, before: Converted, *, everywhere: str | None = None) -> None:
    for sql in replaced(work, before, back=True, everywhere=everywhere):
        work.execute(sql)


def go_back_filled(work: Work, before: Converted) -> None:
    """Undo by ALTER TYPE, then restore the kept values where nobody changed them since."""
    if before.kept is not None:
        kept_values.unpack(work, before.kept)
    elif before.values:
        _unpack_values(work, before)
    work.execute(lock(work, before.column))
    table, name = catalog.sql_name(work, before.column.table), quote(before.column.column)
    default = f", ALTER COLUMN {name} SET DEFAULT {before.default}" if before.default is not None else ""
    collate = f" COLLATE {before.collation}" if before.collation else ""
    now = catalog.columns(work, before.column.table)[before.column.column]
    drop = f"ALTER COLUMN {name} DROP DEFAULT, " if now.default is not None and not now.generated else ""
    using = "" if now.generated else f" USING {turned_back(name, before.type, new=before.new_type)}"
    work.execute(f"ALTER TABLE {table} {drop}ALTER COLUMN {name} TYPE {before.type}{collate}{using}{default}")
    for one in before.settings:  # ALTER TYPE resets the column's storage settings
        work.execute(f"ALTER TABLE {table} ALTER COLUMN {name} {one}")
    if before.kept is None and not before.values:
        return
    key = before.kept.key if before.kept is not None else before.key
    ours = turned_back(f"CAST(kept.rb_new AS {before.new_type})", before.type, new=before.new_type)
    kept_values.put_back(work, before.column, key, kind=before.type, ours=ours)


def _unpack_values(work: Work, before: Converted) -> None:
    """The kept values of an earlier version, which were in the step's own record."""
    names = ["old", "new", *(f"k{n}" for n in range(len(before.key)))]
    lists = [[None if one is None else literal(one) for one in column] for column in zip(*before.values, strict=True)]
    kinds = ("text", "text", *before.key_types)
    columns = [
        f"unnest(CAST(ARRAY[{', '.join(one or 'NULL' for one in values)}] AS {kind}[])) AS rb_{name}"
        for name, kind, values in zip(names, kinds, lists, strict=True)
    ]
    kept_values.make(work, f"SELECT {', '.join(columns)}")


def turned_back(value: str, old: str, *, new: str) -> str:
    """SQL that converts a value of the new type to the old one; an element becomes an array of one, NULL stays NULL."""
    found = re.fullmatch(r"([a-z ]+)\(\d+\)((?:\[\])*)", old)
    kind = _UNBOUNDED[found[1]] + found[2] if found and found[1] in _UNBOUNDED else old
    if old.endswith("[]") and not new.endswith("[]"):
        return f"CASE WHEN {value} IS NOT NULL THEN CAST(ARRAY[{value}] AS {kind}) END"
    return f"CAST({value} AS {kind})"


# ─── indexes ────────────────────────────────────────────────────────────────────────────────────────────────────────
def indexes(look: Look, column: ColumnRef) -> list[IndexInfo]:
    names = {one.name for one in catalog.dependants(look, column) if one.kind == "index"}
    return [one for one in catalog.indexes(look, column.table) if one.name in names]


def rebuildable(index: IndexInfo, *, column: str) -> bool:
    """Whether the index can be dropped with the column and built again with the same definition on another type.

    Not a unique index, or a replica identity: something could go wrong while it is missing.
    """
    simple = column in index.columns and index.plain and not index.predicate and index.method in _ANY_TYPE
    return simple and not (index.unique or index.partitioned or index.replica_identity)
