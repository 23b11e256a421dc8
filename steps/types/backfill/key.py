"""Checks that a backfill's key identifies its rows: in all tables, after a round trip through text, and by visible operators."""

from __future__ import annotations

from collections.abc import Iterator

from steps.catalog import catalog
from steps.contract import Look
from steps.sql.dialect import quote
from steps.types.backfill.sql import Shape, unwrap, wrap
from steps.types.backfill.tables import TABLEOID, Member, is_rowid, members, not_identified, without_rowid

_FOREIGN = "f"


def key_faults(look: Look, table: str, shape: Shape) -> Iterator[str]:
    """Faults of the key that would make the pass miss rows or confuse them with each other."""
    names = tuple(one.name for one in shape.key if one != TABLEOID)
    twice = [name for name in names if name in {one.name for one in shape.fill}]
    if twice:
        yield f"cannot fill {', '.join(twice)}: it is part of the key that the pass goes by"
    if shape.pg:
        yield from _on_postgresql(look, table, shape, names)
    else:
        yield from _on_sqlite(look, table, shape, names)


# ─── PostgreSQL ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _on_postgresql(look: Look, table: str, shape: Shape, names: tuple[str, ...]) -> Iterator[str]:
    found, text = members(look, shape.oid, names), ", ".join(names)
    foreign = [one.name for one in found[1:] if one.kind == _FOREIGN]
    if foreign:
        yield (
            f"cannot backfill {table}: rows of it lie in the foreign table {', '.join(foreign)}, where they can't be locked "
            "or told apart; name the tables that hold their rows here, one step for each"
        )
    columns = catalog.columns(look, table)
    nullable = [name for name in names if not columns[name].not_null and name not in catalog.primary_key(look, table)]
    if nullable:
        yield _may_be_null(text, nullable)
    yield from _unidentified(table, text, [one for one in found if one.name not in foreign])
    floats = [one.name for one in shape.key if one.type in ("real", "double precision")]
    if floats and look.row("SELECT CAST(current_setting('extra_float_digits') AS integer) AS n").integer("n") < 1:
        yield (
            f"cannot page by {', '.join(floats)}: extra_float_digits is below 1 here, so its values are written with "
            "fewer digits than they have; set it to 1, or choose another key"
        )


def _unidentified(table: str, text: str, found: list[Member]) -> Iterator[str]:
    bad = not_identified(found)
    if not bad:
        return
    if len(found) == 1:
        yield _not_unique(text)
        return
    yield (
        f"cannot page by {text}: {table} is kept in several tables by inheritance or partitions, and in "
        f"{', '.join(one.name for one in bad)} no unique index has exactly these columns, NOT NULL, in this order; "
        "a key of the parent doesn't hold in its children. Give each of them one"
    )


def _may_be_null(text: str, nullable: list[str]) -> str:
    return (
        f"cannot page by {text}: {', '.join(nullable)} may be NULL, and such rows would never be visited; "
        "choose a key that is NOT NULL"
    )


def _not_unique(text: str) -> str:
    return (
        f"cannot page by {text}: no unique index has exactly these columns in this order, so equal values "
        "would be skipped; choose the primary key or another unique one"
    )


def operator_faults(look: Look, table: str, shape: Shape) -> Iterator[str]:
    """Types in the key or the match whose operators aren't on the search path.

    SQL would silently fall back to an operator of another type (citext compared as text, say) and match other rows.
    """
    if not shape.pg:
        return
    wanted: dict[int, list[str]] = {}
    types = {r.text("name"): r.integer("oid") for r in catalog.answers(look, "plain_types", {"oid": shape.oid})}
    for column in shape.key:
        wanted.setdefault(types.get(column.name, 0), []).append(f"{table}.{column.name}")
    for pair in shape.pairs:
        left = f"(SELECT source.{quote(pair.column)} FROM ({shape.source}\n) AS source LIMIT 0)"
        right = f"(SELECT ({pair.expression}\n) FROM {shape.table} AS target LIMIT 0)"
        for side, name in ((left, f"source.{pair.column}"), (right, pair.expression.strip())):
            sql = f"SELECT CAST(pg_typeof({side}) AS oid)::bigint AS oid"
            wanted.setdefault(look.row(sql).integer("oid"), []).append(name)
    rows = catalog.answers(look, "unseen_operators", {"types": [str(oid) for oid in wanted]})
    for schema, kind, oid in dict.fromkeys((r.text("schema"), r.text("type"), r.integer("type_oid")) for r in rows):
        operators = ", ".join(r.text("operator") for r in rows if r.integer("type_oid") == oid)
        path = look.row("SELECT current_setting('search_path') AS path").text("path")
        yield (
            f"cannot compare {', '.join(dict.fromkeys(wanted[oid]))} as the database does: the operators {operators} of type "
            f"{kind} lie in schema {schema}, which is not on the search path ({path}), so they would be compared as "
            f"another type; put {schema} on the search path"
        )


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _on_sqlite(look: Look, table: str, shape: Shape, names: tuple[str, ...]) -> Iterator[str]:
    text = ", ".join(names)
    if is_rowid(look, table, names):
        return
    if not _is_unique(look, table, names):
        yield _not_unique(text)
        return
    columns, primary, alone = catalog.columns(look, table), catalog.primary_key(look, table), without_rowid(look, table)
    loose = [name for name in names if not columns[name].not_null and not (alone and name in primary)]
    nullable = [name for name in loose if name not in primary]
    if nullable:
        yield _may_be_null(text, nullable)
    yield from _stored(look, shape, [name for name in loose if name in primary])
    if names != primary:
        yield from _equal(look, shape, text)


def _stored(look: Look, shape: Shape, loose: list[str]) -> Iterator[str]:
    """Faults of the stored keys themselves: SQLite allows NULL in most primary keys, and any kind of value in most columns."""
    if loose:
        sql = f"SELECT count(*) AS n FROM {shape.table} WHERE {' OR '.join(f'{quote(name)} IS NULL' for name in loose)}"
        rows = look.row(sql).integer("n")
        if rows:
            yield (
                f"cannot page by {', '.join(loose)}: it is NULL in {rows} rows, which no key names; give them one "
                "(SQLite allows NULL in a PRIMARY KEY that isn't declared NOT NULL), or choose another key"
            )
    for column in shape.key:
        name = column.sql
        sql = f"""SELECT count(*) AS n FROM {shape.table} WHERE typeof({name}) IN ('real', 'blob')
            AND {unwrap(f"({wrap(name)})")} IS NOT {name}"""
        rows = look.row(sql).integer("n")
        if rows:
            yield (
                f"cannot page by {column.name}: in {rows} rows it holds a number that SQLite doesn't read back from its own "
                "text; choose another key"
            )


def _equal(look: Look, shape: Shape, text: str) -> Iterator[str]:
    """Rows that are equal under the column's collation, though distinct under another collation of the unique index."""
    sql = f"SELECT 1 AS one FROM {shape.table} GROUP BY {', '.join(one.sql for one in shape.key)} HAVING count(*) > 1 LIMIT 1"
    if look.rows(sql):
        yield (
            f"cannot page by {text}: there are rows whose keys are equal under the column's collation, though not under that "
            "of its unique index; choose the primary key or another unique one"
        )


def _is_unique(look: Look, table: str, names: tuple[str, ...]) -> bool:
    if without_rowid(look, table) and names == catalog.primary_key(look, table):
        return True
    unique = (
        one for one in catalog.indexes(look, table) if one.unique and one.usable and not one.predicate and one.plain
    )
    return any(one.columns == names for one in unique)
