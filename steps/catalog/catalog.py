"""Reads tables, columns, indexes, constraints and their dependants from the catalogue, the same way on both databases.

The SQL is in queries.sql. It reads pg_catalog (information_schema hides what the role has no privilege on) or SQLite's
pragmas. Every query names its schema explicitly: that of the look, or the one in `schema.table`; search_path plays no part.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping, Sequence

from steps.catalog.definitions import (
    ColumnInfo,
    ConstraintInfo,
    Dependant,
    IndexInfo,
    Partitioning,
    Publication,
    Reference,
    Relation,
    RowSecurity,
    TableShape,
    Tie,
    TriggerInfo,
)
from steps.contract import ColumnRef, Look, Params, Refused, Row
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import qualified, quote
from steps.sql.scanner import TokenKind, scan


# ─── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def named(look: Look, table: str) -> tuple[str, str]:
    """Split a table's or index's name from the playbook, `schema.table` or `table`, into (schema, name)."""
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else (look.schema, table)


def sql_name(look: Look, table: str) -> str:
    """The table's or index's qualified and quoted name."""
    schema, name = named(look, table)
    return qualified(schema, name, look.dialect)


def not_owned(look: Look, table: str) -> list[str]:
    """A fault where this role doesn't own the table and so can't alter it; [] otherwise."""
    found = relation(look, table)
    if found is None or found.owned:
        return []
    return [f"cannot change {table}: it belongs to {found.owner!r}; connect as a member of that role, or GRANT it"]


def no_place_in(look: Look, schema: str) -> list[str]:
    """A fault where this role can't create tables in a schema, or there is no such schema; [] otherwise."""
    if not on_postgresql(look):
        return []
    row = look.row(
        """SELECT to_regnamespace(quote_ident(CAST(:schema AS text))) IS NOT NULL AS there, current_user::text AS role,
                  coalesce(has_schema_privilege(to_regnamespace(quote_ident(CAST(:schema AS text)))::oid, 'CREATE'), true) AS may""",
        {"schema": schema},
    )
    if not row.flag("there"):
        return [f"cannot create a table in schema {schema}: there is no such schema"]
    if row.flag("may"):
        return []
    role = row.text("role")
    return [f"cannot create a table in schema {schema}: {role} may not; GRANT CREATE ON SCHEMA {schema} TO {role}"]


def may_maintain(look: Look, table: str) -> bool:
    """Whether this role may vacuum, analyze and reindex the table; True where there is no such table."""
    found = relation(look, table)
    if found is None or found.owned or not on_postgresql(look):
        return True
    rows = answers(look, "maintain" if look.version >= (17,) else "maintain_before_17", _table(look, table))
    return rows[0].flag("allowed")


# ─── tables and what belongs to them ────────────────────────────────────────────────────────────────────────────────
def relation(look: Look, table: str) -> Relation | None:
    """The table, view or index of this name; None where there is none."""
    rows = answers(look, "relation", _table(look, table))
    if not rows:
        return None
    row = rows[0]
    return Relation(
        oid=row.maybe_integer("oid"),
        schema=row.text("schema"),
        name=row.text("name"),
        kind=row.text("kind"),
        estimated_rows=row.maybe_integer("estimated_rows") if on_postgresql(look) else _estimate(look, table),
        bytes=row.maybe_integer("bytes"),
        owned=row.flag("owned"),
        owner=row.text("owner"),
        replica_identity=row.text("replica_identity"),
        comment=row.maybe_text("comment") or "",
        grants=_texts(row, "grants"),
    )


def columns(look: Look, table: str) -> dict[str, ColumnInfo]:
    """The table's columns by name, in order, with those that earlier steps of the plan will add; {} without such a table."""
    found = {row.text("name"): _column(row) for row in answers(look, "columns", _table(look, table))}
    for trace in look.assumed:
        if trace.kind in ("column", "gone") and found and named(look, trace.table) == named(look, table):
            _foresee(found, trace)
    return found


def _foresee(found: dict[str, ColumnInfo], trace: Trace) -> None:
    """Apply to `found` what an earlier step will do: add a column, rename it, change its type, or drop it."""
    if trace.kind == "gone":
        found.pop(trace.name, None)
        return
    before = found.pop(trace.was, None) if trace.was else None
    if before is None:
        before = ColumnInfo(trace.name, trace.type, False, None, None, "", len(found) + 1, "", "", (), ())
    found[trace.name] = before._replace(name=trace.name, type=trace.type or before.type)


def indexes(look: Look, table: str) -> list[IndexInfo]:
    """The table's indexes by name, invalid ones included."""
    return [_index(row) for row in answers(look, "indexes", {**_table(look, table), "index": ""})]


def index(look: Look, name: str) -> IndexInfo | None:
    """The index of this name (`schema.index`, or in the look's schema)."""
    schema, bare = named(look, name)
    rows = answers(look, "indexes", {"schema": schema, "table": "", "index": bare})
    return _index(rows[0]) if rows else None


def constraints(look: Look, table: str) -> list[ConstraintInfo]:
    """The table's constraints by name, without NOT NULL (see ColumnInfo). SQLite's foreign keys are named fk_0, fk_1 …"""
    return [_constraint(row) for row in answers(look, "constraints", _table(look, table))]


def referencing(look: Look, table: str) -> list[Reference]:
    """The foreign keys that refer to the table."""
    return [
        Reference(r.text("schema"), r.text("name"), _texts(r, "columns"), _texts(r, "foreign_columns"), r.flag("keeps"))
        for r in answers(look, "referencing", _table(look, table))
    ]


def triggers(look: Look, table: str) -> list[TriggerInfo]:
    """The table's triggers by name."""
    return [
        TriggerInfo(r.text("name"), r.text("definition"), r.flag("enabled"), r.text("function"), r.text("body"))
        for r in answers(look, "triggers", _table(look, table))
    ]


def dependants(look: Look, column: ColumnRef) -> list[Dependant]:
    """Everything that uses a column: dependencies that the catalogue tracks, and code that only names it in its source.

    Code counts where it names both the column and the table, or belongs to a trigger of the table (which says NEW.column).
    """
    params = {**_table(look, column.table), "column": column.column}
    found = {
        Dependant(row.text("kind"), row.text("name"), _tie(row.text("kind"))): None
        for row in answers(look, "tracked", params)
    }
    generated = [] if on_postgresql(look) else _generated_from(look, column)
    bodies = [
        Dependant(row.text("kind"), row.text("name"), Tie.TEXT if on_postgresql(look) else Tie.TRACKED)
        for row in answers(look, "bodies", params)
        if _mentions(row.text("body"), column.column)
        and (row.flag("on_table") or _mentions(row.text("body"), named(look, column.table)[1]))
    ]
    return [*found, *generated, *bodies]


def collation(look: Look, name: str) -> str:
    """A collation's quoted name, given as `C` or `pg_catalog.C`; raises Refused where the database has no such collation."""
    if not on_postgresql(look):
        return quote(name)
    rows = answers(look, "collation", {"name": name})
    if not rows:
        raise Refused(f"cannot find the collation {name!r}")
    return rows[0].text("name")


def publications(look: Look, table: str) -> list[Publication]:
    """The publications that send this table's changes; [] on SQLite."""
    if not on_postgresql(look):
        return []
    return [
        Publication(r.text("name"), r.flag("inserts"), r.flag("updates"), r.flag("deletes"))
        for r in answers(look, "publications", _table(look, table))
    ]


def row_security(look: Look, table: str) -> RowSecurity:
    """The table's row level security; all off on SQLite, or where there is no such table."""
    rows = answers(look, "row_security", _table(look, table)) if on_postgresql(look) else []
    if not rows:
        return RowSecurity(enabled=False, forced=False, applies=False, policies=())
    row = rows[0]
    return RowSecurity(row.flag("enabled"), row.flag("forced"), row.flag("applies"), _texts(row, "policies"))


def partitioned(look: Look, table: str) -> Partitioning | None:
    """How the table is partitioned, None where it isn't."""
    rows = answers(look, "partitioning", _table(look, table)) if on_postgresql(look) else []
    return Partitioning(rows[0].text("key"), _texts(rows[0], "partitions")) if rows else None


def primary_key(look: Look, table: str) -> tuple[str, ...]:
    """The primary key's columns in their order, () where there is none."""
    return tuple(row.text("name") for row in answers(look, "primary_key", _table(look, table)))


def touched_columns(look: Look, oid: int | None, filled: Sequence[str]) -> tuple[str, ...]:
    """Further columns of table `oid` for a mass UPDATE of `filled` to set to themselves; () on SQLite.

    An index whose columns an UPDATE doesn't name is told that its value is unchanged, and before it splits a page it searches
    for dead versions to delete (nbtree's README: bottom-up deletion). In a mass update there are none to find yet, and the
    search took a quarter of the time. Naming one column of each such index avoids it.
    """
    if oid is None:
        return ()
    rows = answers(look, "touched_columns", {"oid": oid, "fill": list(filled)})
    return tuple(dict.fromkeys(row.text("name") for row in rows))


def definition(look: Look, table: str) -> str:
    """The CREATE statement of a table or view, which only SQLite keeps; "" on PostgreSQL."""
    rows = [] if on_postgresql(look) else answers(look, "definition", _table(look, table))
    return rows[0].text("sql") if rows else ""


def builders(look: Look, table: str) -> list[int]:
    """The pids of backends that are building an index on this table: such an index is invalid, but not abandoned."""
    return [row.integer("pid") for row in answers(look, "builders", _table(look, table))] if on_postgresql(look) else []


def snapshot(look: Look, table: str) -> TableShape:
    """The table's whole definition, for comparison with a later one; LookupError where there is no such table.

    Tests compare the table before a step and after its undo by it, and a rehearsal on a copy is to do the same. Nothing else
    needs publications() and row_security().
    """
    found, by_name = relation(look, table), columns(look, table)
    known, bound = indexes(look, table), constraints(look, table)
    if found is None:
        raise LookupError(f"cannot find {table}")
    return TableShape(
        kind=found.kind,
        comment=found.comment,
        grants=found.grants,
        columns={
            c.name: (
                c.type,
                c.not_null,
                c.default,
                c.generated,
                c.identity,
                c.comment,
                c.collation,
                c.settings,
                c.grants,
            )
            for c in by_name.values()
        },
        indexes={i.name: (i.definition, i.columns, i.valid, i.ready, i.constraint, i.comment) for i in known},
        constraints={k.name: (k.kind, k.definition, k.columns, k.references, k.validated, k.comment) for k in bound},
        triggers={t.name: (t.definition, t.enabled) for t in triggers(look, table)},
        publications=tuple(publications(look, table)),
        row_security=row_security(look, table),
        oids={found.name: found.oid} | {i.name: i.oid for i in known},
        order=tuple(by_name),
    )


# ─── queries and rows ───────────────────────────────────────────────────────────────────────────────────────────────
@functools.cache
def _queries() -> Mapping[str, str]:
    text = importlib.resources.files("steps.catalog").joinpath("queries.sql").read_text("utf-8")
    pieces = re.split(r"^-- ([a-z_0-9]+\.(?:postgresql|sqlite)) --$", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], (piece.strip() for piece in pieces[2::2]), strict=True))


def answers(look: Look, name: str, params: Params) -> list[Row]:
    """Run the query `name` of queries.sql in the look's dialect; parameters that its text doesn't use are dropped."""
    sql = _queries()[f"{name}.{look.dialect}"].replace("{schema}", quote(str(params.get("schema", look.schema))))
    return look.rows(sql, {key: value for key, value in params.items() if f":{key}" in sql})


def on_postgresql(look: Look) -> bool:
    """Whether the database is PostgreSQL (else it is SQLite)."""
    return look.dialect is Dialect.POSTGRESQL


def _table(look: Look, table: str) -> dict[str, str]:
    schema, name = named(look, table)
    return {"schema": schema, "table": name}


def _texts(row: Row, name: str) -> tuple[str, ...]:
    value = row[name]
    return tuple(str(one) for one in (json.loads(value) if isinstance(value, str) else row.texts(name)))


def _estimate(look: Look, table: str) -> int | None:
    schema, name = named(look, table)
    if not answers(look, "relation", {"schema": schema, "table": "sqlite_stat1"}):
        return None
    rows = answers(look, "estimate", {"schema": schema, "table": name})
    return int(rows[0].text("stat").split()[0]) if rows else None


def _column(row: Row) -> ColumnInfo:
    return ColumnInfo(
        name=row.text("name"),
        type=row.text("type"),
        not_null=row.flag("not_null"),
        default=row.maybe_text("default_value"),
        generated=row.maybe_text("generated"),
        identity=row.text("identity"),
        position=row.integer("position"),
        comment=row.maybe_text("comment") or "",
        collation=row.maybe_text("collation") or "",
        settings=_texts(row, "settings"),
        grants=_texts(row, "grants"),
    )


def _index(row: Row) -> IndexInfo:
    return IndexInfo(
        oid=row.maybe_integer("oid"),
        schema=row.text("schema"),
        name=row.text("name"),
        table=row.text("table_name"),
        columns=_texts(row, "columns"),
        method=row.text("method"),
        unique=row.flag("is_unique"),
        primary=row.flag("is_primary"),
        valid=row.flag("valid"),
        ready=row.flag("ready"),
        plain=row.flag("plain"),
        partitioned=row.flag("partitioned"),
        replica_identity=row.flag("replica_identity"),
        predicate=_predicate(row.maybe_text("predicate") or ""),
        definition=row.text("definition"),
        body=row.text("body"),
        constraint=row.maybe_text("constraint_name") or "",
        comment=row.maybe_text("comment") or "",
        bytes=row.maybe_integer("bytes"),
    )


def _predicate(text: str) -> str:
    """A partial index's condition; SQLite returns the whole CREATE INDEX, which ends with it."""
    found = re.match(r"CREATE\b.*?\)\s*WHERE\b(.*)$", text, flags=re.IGNORECASE | re.DOTALL)
    return found.group(1).strip() if found else text


def _constraint(row: Row) -> ConstraintInfo:
    table = row.maybe_text("foreign_table")
    return ConstraintInfo(
        name=row.text("name"),
        kind=row.text("kind"),
        definition=row.text("definition"),
        validated=row.flag("validated"),
        columns=_texts(row, "columns"),
        expression=row.maybe_text("expression") or "",
        references=None if table is None else (row.text("foreign_schema"), table),
        foreign_columns=_texts(row, "foreign_columns"),
        on_delete=row.text("on_delete"),
        on_update=row.text("on_update"),
        special=row.text("special"),
        comment=row.maybe_text("comment") or "",
    )


def _tie(kind: str) -> Tie:
    return Tie.OWN if kind in {"index", "constraint", "sequence", "partition key"} else Tie.TRACKED


def _mentions(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", text, flags=re.IGNORECASE) is not None


def _generated_from(look: Look, column: ColumnRef) -> list[Dependant]:
    """SQLite's generated columns that use a column: their expressions exist only in the table's CREATE statement."""
    made = {c.name for c in columns(look, column.table).values() if c.generated and c.name != column.column}
    parts = create_parts(definition(look, column.table)) if made else []
    return [
        Dependant("generated column", name, Tie.TRACKED)
        for name in sorted(made)
        if any(part.lstrip('"[` ').startswith(name) and _mentions(part, column.column) for part in parts)
    ]


def create_parts(create: str) -> list[str]:
    """The column and constraint definitions of an SQLite CREATE TABLE: its text between the commas of the outermost
    parentheses, without comments.
    """
    depth, found = 0, [""]
    for token in scan(create, Dialect.SQLITE):
        depth += {"(": 1, ")": -1}.get(token.sign, 0)
        if depth == 1 and token.sign in {"(", ","}:
            found.append("")
        else:
            found[-1] += " " if token.kind is TokenKind.COMMENT else token.text
    return [part.strip() for part in found[1:]]
