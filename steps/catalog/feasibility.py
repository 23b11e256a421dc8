"""Whether a valid definition can be applied to what exists: the kind of table, its rows, and the target of a foreign key.

What can be known beforehand is tried on temporary tables that are rolled back. What only the rows can tell comes to light
when the statement runs, and `refusal_explained` turns that fault into a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from steps.catalog import catalog, scratch
from steps.catalog.definitions import IndexInfo
from steps.contract import DatabaseFault, Look, Row, StepError, Work
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote

_VALUES = {"22", "23", "P0"}  # SQLSTATE classes: refused because of a value, by a constraint, or by a PL/pgSQL function
_OF_THE_TABLE = {"42P16", "42830", "42804", "42809", "0A000"}  # SQLSTATEs: the definition doesn't fit this table
_ROW = "runbook_row"
_TARGET = "runbook_target"
_OTHER_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "c": "a composite type"}


# ─── columns ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def no_place_for(look: Look, table: str, column: str) -> list[str]:
    """Why no column of this name can be added to the table, whatever its type; [] on SQLite."""
    if look.dialect is Dialect.SQLITE:
        return []
    row = _kind(look, table, column)
    parent, of_type, child = row["parent"], row["of_type"], row["child"]
    reasons = (
        (row.text("kind") in _OTHER_KINDS, _other_kind(row, table)),
        (parent, f"{table} is a partition of {parent}; add it there, and every partition gets it"),
        (of_type, f"{table} is a table of the type {of_type}; ALTER TYPE {of_type} ADD ATTRIBUTE … CASCADE"),
        (row.flag("system"), f"each table has a system column {column}; choose another name"),
        (child, f"{child} inherits from it and has a column {column} of its own, which would become the same one"),
    )
    return [why for holds, why in reasons if holds]


def not_to_be_changed(look: Look, table: str, column: str, kind: str) -> list[str]:
    """Why the column's type can't be changed, whatever its values (PostgreSQL only). kind: the wanted type."""
    row = _kind(look, table, column)
    of_type, parent, user = row["of_type"], row["from_whom"], row["user"]
    reasons = (
        (row.text("kind") in _OTHER_KINDS, _other_kind(row, table)),
        (of_type, f"{table} is a table of the type {of_type}; ALTER TYPE {of_type} ALTER ATTRIBUTE … CASCADE"),
        (parent, f"it is inherited from {parent}; change it there, and it changes here too"),
        (row.flag("partitions"), "the table is partitioned by it, and PostgreSQL changes no type of that"),
        (user, f"{user} holds rows of this table, and PostgreSQL doesn't rewrite those"),
    )
    return [why for holds, why in reasons if holds] or _keys_in_the_way(look, table, column, kind)


def not_to_be_renamed(look: Look, table: str, column: str, to: str) -> list[str]:
    """Why the column can't be renamed to `to`."""
    if look.dialect is Dialect.SQLITE:
        return _not_renamed_in_memory(look, table, column, to)
    row, wanted = _kind(look, table, column), _kind(look, table, to)
    of_type, parent, child = row["of_type"], row["from_whom"], wanted["child"]
    reasons = (
        (of_type, f"{table} is a table of the type {of_type}; ALTER TYPE {of_type} RENAME ATTRIBUTE … CASCADE"),
        (parent, f"it is inherited from {parent}; rename it there, and it is renamed here too"),
        (wanted.flag("system"), f"each table has a system column {to}; choose another name"),
        (child, f"{child} inherits from it and has a column {to} of its own"),
    )
    return [why for holds, why in reasons if holds]


def not_to_be_dropped(look: Look, table: str, column: str) -> list[str]:
    """Why the column can't be dropped, whatever depends on it; [] on SQLite, which is tried instead."""
    if look.dialect is Dialect.SQLITE:
        return []
    row = _kind(look, table, column)
    of_type, parent = row["of_type"], row["from_whom"]
    reasons = (
        (row.text("kind") in _OTHER_KINDS, _other_kind(row, table)),
        (of_type, f"{table} is a table of the type {of_type}; ALTER TYPE {of_type} DROP ATTRIBUTE … CASCADE"),
        (parent, f"it is inherited from {parent}; drop it there, and it is dropped here too"),
        (row.flag("partitions"), "the table is partitioned by it"),
    )
    return [why for holds, why in reasons if holds]


def _not_renamed_in_memory(look: Look, table: str, column: str, to: str) -> list[str]:
    """Try the rename in memory: SQLite re-parses all views and triggers then, and refuses where one of them is broken."""
    with scratch.memory(look) as memory:
        if column not in catalog.columns(memory, table):
            return []  # the table couldn't be created in memory, for instance because its module isn't loaded
        try:
            name = catalog.sql_name(look, table)
            memory.execute(f"ALTER TABLE {name} RENAME COLUMN {quote(column)} TO {quote(to)}")
        except DatabaseFault as fault:
            return [f"{scratch.fault_text(fault)}; mend or drop that first"]
    return []


def _other_kind(row: Row, table: str) -> str:
    return f"{table} is {_OTHER_KINDS.get(row.text('kind'))}; name the table that holds the rows"


def _kind(look: Look, table: str, column: str) -> Row:
    """What restricts changes of a column: the table's kind, type, inheritance, partition key, and users of its row type."""
    sql = """SELECT c.relkind::text AS kind,
                    CASE WHEN c.relispartition THEN (SELECT CAST(inhparent::regclass AS text) FROM pg_catalog.pg_inherits
                                                     WHERE inhrelid = c.oid LIMIT 1) END AS parent,
                    CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END AS of_type,
                    EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attnum < 0 AND a.attname = :column) AS system,
                    (SELECT CAST(i.inhrelid::regclass AS text) FROM pg_catalog.pg_inherits i
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.inhrelid AND a.attname = :column AND NOT a.attisdropped
                     WHERE i.inhparent = c.oid ORDER BY 1 LIMIT 1) AS child,
                    (SELECT CAST(i.inhparent::regclass AS text) FROM pg_catalog.pg_inherits i
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :column AND a.attinhcount > 0
                     JOIN pg_catalog.pg_attribute b ON b.attrelid = i.inhparent AND b.attname = :column
                     WHERE i.inhrelid = c.oid ORDER BY 1 LIMIT 1) AS from_whom,
                    EXISTS (SELECT 1 FROM pg_catalog.pg_partitioned_table p
                            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :column
                            WHERE p.partrelid = c.oid AND a.attnum = ANY (p.partattrs::int2[])) AS partitions,
                    (SELECT CAST(u.oid::regclass AS text) || '.' || quote_ident(a.attname) FROM pg_catalog.pg_attribute a
                     JOIN pg_catalog.pg_class u ON u.oid = a.attrelid AND u.relkind IN ('r', 'p', 'm')
                     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                     WHERE c.reltype <> 0 AND c.reltype IN (t.oid, t.typelem) AND NOT a.attisdropped
                     ORDER BY 1 LIMIT 1) AS "user"
             FROM pg_catalog.pg_class c WHERE c.oid = CAST(:table AS regclass)"""
    return look.row(sql, {"table": catalog.sql_name(look, table), "column": column})


def refuse_unless_rows_take(look: Look, column: str, clauses: str, *, without_check: str) -> None:
    """Raises Unusable where existing rows can't get the column. clauses: type and constraints, as written behind the name.

    An empty table accepts any default, so this is tried on a table with one row and no columns of the real one. A CHECK on
    other columns can't be tried there: on SQLite `without_check` is used instead.
    """
    if look.dialect is Dialect.SQLITE:
        _refuse_on_sqlite(column, clauses, without_check)
        return
    with look.trial("row") as work:
        work.execute(f"CREATE TEMPORARY TABLE {_ROW} AS SELECT 1 AS runbook_one")
        with scratch.understood("give it to the rows that are there"):
            work.execute(f"ALTER TABLE pg_temp.{_ROW} ADD COLUMN {quote(column)} {clauses}")


def _refuse_on_sqlite(column: str, clauses: str, without_check: str) -> None:
    with scratch.nothing() as memory:
        for sql in ("PRAGMA foreign_keys = ON", f"CREATE TABLE {_ROW} (runbook_one)", f"INSERT INTO {_ROW} VALUES (1)"):
            memory.execute(sql)
        try:
            memory.execute(f"ALTER TABLE {_ROW} ADD COLUMN {quote(column)} {clauses}")
        except DatabaseFault as fault:
            if "no such column" in str(fault) and without_check != clauses:
                _refuse_on_sqlite(column, without_check, without_check)
                return
            raise scratch.Unusable(
                f"cannot give it to the rows that are there: {scratch.fault_text(fault)}; the step rebuild_table can"
            ) from fault


_DOMAIN = "FROM pg_catalog.pg_type WHERE oid = CAST(:kind AS regtype) AND typtype = 'd'"


def domain_default_of(work: Work, kind: str) -> str:
    """The default of a domain, as SQL; "" where it has none, or `kind` is no domain."""
    rows = work.rows(
        f"SELECT CAST(pg_catalog.pg_get_expr(typdefaultbin, 0) AS text) AS brings {_DOMAIN}", {"kind": _alone(kind)}
    )
    return (rows[0].maybe_text("brings") or "") if rows else ""


def without_domain(work: Work, kind: str) -> str:
    """The base type of a domain, through nested domains; any other type unchanged."""
    sql = f"SELECT pg_catalog.format_type(typbasetype, typtypmod) AS base {_DOMAIN}"
    while rows := work.rows(sql, {"kind": _alone(kind)}):
        kind = rows[0].text("base")
    return kind


def _alone(kind: str) -> str:
    """A type name without its modifier, which a cast to regtype refuses before PostgreSQL 16; domains have none."""
    return kind if kind.startswith('"') or "." in kind else kind.partition("(")[0]


# ─── foreign keys ───────────────────────────────────────────────────────────────────────────────────────────────────────
def refuse_unless_it_refers(
    look: Look,
    table: str,
    columns: tuple[str, ...],
    target: str,
    targets: tuple[str, ...],
    *,
    adds: str = "",
    acts: str = "",
) -> None:
    """Raises Unusable where a foreign key from `columns` to `targets` is impossible.

    adds: the type of a column that will be added with the key, else "". acts: ON DELETE …, ON UPDATE ….
    Tried between two temporary tables with the same columns and indexes.
    """
    there = catalog.columns(look, target)
    if not there:
        raise scratch.Unusable(f"there is no table {target} to refer to")
    if missing := [one for one in targets if one not in there]:
        raise scratch.Unusable(f"{target} has no column {', '.join(missing)}")
    if any(
        one.kind != "column" and catalog.named(look, one.table) == catalog.named(look, target) for one in look.assumed
    ):
        return  # an earlier step of the plan creates an index, constraint or the table itself: it can't be tried yet
    sql = """SELECT has_table_privilege(CAST(:name AS regclass), 'REFERENCES') AS refers,
                    has_table_privilege(CAST(:name AS regclass), 'SELECT') AS reads,
                    (SELECT relpersistence <> 'p' FROM pg_catalog.pg_class WHERE oid = CAST(:name AS regclass))
                    AND (SELECT relpersistence = 'p' FROM pg_catalog.pg_class WHERE oid = CAST(:ours AS regclass)) AS unlogged"""
    may = look.row(sql, {"name": catalog.sql_name(look, target), "ours": catalog.sql_name(look, table)})
    if may.flag("unlogged"):
        raise scratch.Unusable(f"{target} is unlogged, and {table} isn't: ALTER TABLE {target} SET LOGGED")
    if not may.flag("refers"):
        raise scratch.Unusable(f"this role may not refer to {target}: GRANT REFERENCES ON it")
    if may.flag("reads"):
        _try_key(look, table, columns, target, targets, adds=adds, acts=acts)


def _keys_in_the_way(look: Look, table: str, column: str, kind: str) -> list[str]:
    """Foreign keys on the column, or referring to it, that would lack an equality operator for the new type."""
    sql = """SELECT k.conname::text AS name, CAST(k.conrelid::regclass AS text) AS of_table, k.confrelid = c.oid AS refers_here,
                    pg_catalog.format_type(o.atttypid, o.atttypmod) AS other
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = :column
             JOIN pg_catalog.pg_constraint k ON k.contype = 'f' AND k.conparentid = 0 AND c.oid IN (k.conrelid, k.confrelid)
             CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS pair (ours, theirs)
             JOIN pg_catalog.pg_attribute o
               ON (c.oid = k.conrelid AND a.attnum = pair.ours AND o.attrelid = k.confrelid AND o.attnum = pair.theirs)
               OR (c.oid = k.confrelid AND a.attnum = pair.theirs AND o.attrelid = k.conrelid AND o.attnum = pair.ours)
             WHERE c.oid = CAST(:table AS regclass) ORDER BY 1"""
    found = []
    for row in look.rows(sql, {"table": catalog.sql_name(look, table), "column": column}):
        ours, theirs = (row.text("other"), kind) if row.flag("refers_here") else (kind, row.text("other"))
        try:
            _try_types(look, ours, theirs)
        except scratch.Unusable:
            found.append(
                f"the foreign key {row.text('name')} of {row.text('of_table')} would compare {ours} with {theirs}; "
                "drop it first, and add it again when both sides are changed"
            )
    return found


def _try_types(look: Look, ours: str, theirs: str) -> None:
    with look.trial("key") as work, scratch.understood("refer"):
        work.execute(f"CREATE TEMPORARY TABLE {_TARGET} (x {theirs} PRIMARY KEY)")
        work.execute(f"CREATE TEMPORARY TABLE {_ROW} (x {ours} REFERENCES pg_temp.{_TARGET} (x))")


def refuse_unless_there(look: Look, target: str, column: str, value: str) -> None:
    """Raises Unusable where the referenced table has no row with this value. value: SQL."""
    sql = f"SELECT {value} IS NULL OR EXISTS (SELECT 1 FROM {catalog.sql_name(look, target)} WHERE {quote(column)} = {value}) AS ok"
    if not look.row(sql).flag("ok"):
        raise scratch.Unusable(f"its default refers to a row that {target} doesn't have")


def _try_key(
    look: Look,
    table: str,
    columns: tuple[str, ...],
    target: str,
    targets: tuple[str, ...],
    *,
    adds: str,
    acts: str,
) -> None:
    ours, theirs = (", ".join(map(quote, names)) for names in (columns, targets))
    like, what = "" if adds else "INCLUDING GENERATED", f"refer to {target} ({', '.join(targets)})"
    with scratch.twin(look, table, like=like) as twin, _of_any_state(what), scratch.understood(what):
        if adds:
            twin.work.execute(f"ALTER TABLE {twin.name} ADD COLUMN IF NOT EXISTS {ours} {adds}")
        twin.work.execute(f"CREATE TEMPORARY TABLE {_TARGET} (LIKE {catalog.sql_name(look, target)} INCLUDING INDEXES)")
        key = f"FOREIGN KEY ({ours}) REFERENCES pg_temp.{_TARGET} ({theirs}) {acts}"
        twin.work.execute(f"ALTER TABLE {twin.name} ADD CONSTRAINT runbook_key {key}")


def refuse_unless_it_makes(look: Look, table: str, index: IndexInfo) -> None:
    """Raises Unusable where this unique index can't become a constraint; tried with a copy of the index on an empty twin."""
    what = f"make the index {index.name} a constraint"
    with scratch.twin(look, table) as twin, _of_any_state(what), scratch.understood(what):
        twin.work.execute(f"CREATE UNIQUE INDEX {_ROW} ON {twin.name} {index.body}")
        twin.work.execute(f"ALTER TABLE {twin.name} ADD CONSTRAINT runbook_key UNIQUE USING INDEX {_ROW}")


@contextlib.contextmanager
def _of_any_state(what: str) -> Iterator[None]:
    """Turn SQLSTATE 55000 into Unusable.

    `scratch.understood` takes class 55 for a problem of the server, but here it is one of the definition: a deferrable key, or an
    index that already belongs to a constraint.
    """
    try:
        yield
    except DatabaseFault as fault:
        if fault.sqlstate != "55000":
            raise
        raise scratch.Unusable(f"cannot {what}: {scratch.fault_text(fault)}") from fault


def other_kind(look: Look, table: str) -> list[str]:
    """Why this is not a table that stores rows (a view, a foreign table …); [] where it is, and on SQLite."""
    if look.dialect is Dialect.SQLITE:
        return []
    row = _kind(look, table, "")
    return [_other_kind(row, table)] if row.text("kind") in _OTHER_KINDS else []


def no_index_on(look: Look, table: str, name: str) -> list[str]:
    """Why no index of this name can be created on the table; an existing index of that name is dealt with by the caller."""
    found = catalog.relation(look, name)
    taken = found is not None and catalog.index(look, name) is None
    kind = [one for one in other_kind(look, table) if "materialized" not in one]
    return kind + [f"something else is called {name}; choose another name"] * taken


def no_table_in(look: Look, table: str) -> list[str]:
    """Why this table can't be created in its schema; [] on SQLite."""
    if look.dialect is Dialect.SQLITE:
        return []
    schema, name = catalog.named(look, table)
    sql = """SELECT has_schema_privilege(n.oid, 'CREATE') AS may, EXISTS (SELECT 1 FROM pg_catalog.pg_type t
               WHERE t.typnamespace = n.oid AND t.typname = :name AND t.typcategory <> 'A') AS taken
             FROM pg_catalog.pg_namespace n WHERE n.nspname = :schema"""
    rows = look.rows(sql, {"schema": schema, "name": name})
    if not rows:
        return [f"there is no schema {schema}"]
    if rows[0].flag("taken"):
        return [f"there is a type {schema}.{name}, and a table makes a type of its name"]
    return [] if rows[0].flag("may") else [f"this role may not create in the schema {schema}: GRANT CREATE ON it"]


def refuse_unless_may_refer(look: Look, target: str) -> None:
    """Raises Unusable where there is no such table, or this role may not refer to it."""
    if not catalog.columns(look, target):
        raise scratch.Unusable(f"there is no table {target} to refer to")
    sql = "SELECT has_table_privilege(CAST(:name AS regclass), 'REFERENCES') AS refers"
    if not look.row(sql, {"name": catalog.sql_name(look, target)}).flag("refers"):
        raise scratch.Unusable(f"this role may not refer to {target}: GRANT REFERENCES ON it")


# ─── what only the rows could tell ──────────────────────────────────────────────────────────────────────────────────────
@contextlib.contextmanager
def refusal_explained(what: str, *, then: str = "mend the rows or the playbook, then resume") -> Iterator[None]:
    """Turn a refusal by the table's rows or definition into a StepError that says what to mend; other faults pass.

    For statements in one transaction, which is rolled back by then: the message says that nothing was changed.
    """
    try:
        yield
    except DatabaseFault as fault:
        if fault.lost or (fault.sqlstate[:2] not in _VALUES and fault.sqlstate not in _OF_THE_TABLE):
            raise
        more = f" ({fault.detail})" if fault.detail else ""
        raise StepError(f"cannot {what}: {scratch.fault_text(fault)}{more}; nothing was changed: {then}") from fault
