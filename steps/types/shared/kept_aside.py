"""What a drop keeps for its way back: a table or a column's values aside, and the definitions of all that went with it.

Kept tables stand in a schema of their own (runbook_kept), where neither their names nor those of their indexes are in anybody's
way; on SQLite, which has no schemas, they have a prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from steps.catalog import catalog, dropping
from steps.contract import LONGEST_NAME, Context, DatabaseFault, Look, StepError, Work
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.ledger import tables as ledger
from steps.sql.dialect import quote
from steps.types.shared import concurrent_index

SCHEMA = ledger.KEPT


def name_of_column(look: Look, table: str, column: str) -> str:
    """`schema.table` under which a column's values are kept; the table's schema is part of it where it isn't the usual one."""
    schema, bare = catalog.named(look, table)
    return name(look, *([] if schema == look.schema else [schema]), bare, column)


def name(look: Look, *parts: str) -> str:
    """`schema.table` under which something is kept."""
    whole = "_".join([SCHEMA, *parts] if look.dialect is Dialect.SQLITE else parts)
    if len(whole.encode()) > LONGEST_NAME:
        cut = whole.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
        whole = f"{cut}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    return f"{look.schema if look.dialect is Dialect.SQLITE else SCHEMA}.{whole}"


def no_room(look: Look, kept: str, relations: Sequence[str] = ()) -> list[str]:
    """Why nothing can be kept under this name. relations: further names that come along, such as those of indexes."""
    names = _names(kept, relations)
    taken = [one for one in names if catalog.relation(look, one)]
    faults = [f"{taken[0]} is still there from an earlier run; {cleared(look, kept)}"] if taken else []
    soon = [one.table for one in look.assumed if one.kind in {"kept", "table"} and one.table in names]
    if soon and not taken:
        faults.append(
            f"an earlier step of the playbook keeps something as {soon[0]}: do it in another run, once that is dropped"
        )
    if look.dialect is Dialect.SQLITE:
        return faults
    sql = """SELECT has_database_privilege(current_database(), 'CREATE') AS may_make, n.oid IS NOT NULL AS there,
                    coalesce(pg_has_role(n.nspowner, 'USAGE') OR r.rolsuper OR n.nspowner = d.datdba, true) AS trusted,
                    coalesce(has_schema_privilege(n.oid, 'CREATE'), true) AS may_use, pg_get_userbyid(n.nspowner)::text AS owner
             FROM pg_catalog.pg_database d LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = :name
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE d.datname = current_database()"""
    row = look.row(sql, {"name": SCHEMA})
    if not row.flag("there"):
        why = f"this role may not make the schema {SCHEMA}: let a DBA make it, and GRANT CREATE ON it"
        return faults + [why] * (not row.flag("may_make"))
    if not row.flag("trusted"):
        faults.append(f"the schema {SCHEMA} belongs to {row.text('owner')!r}, who could drop what is kept there")
    return faults + [f"this role may not create in the schema {SCHEMA}: GRANT CREATE ON it"] * (not row.flag("may_use"))


def cleared(look: Look, kept: str) -> str:
    """How to make room under a name at which something is kept, in words with the command."""
    found = catalog.relation(look, kept)
    if found is None or found.kind != "table":
        return "rename or drop it"
    return f"if nobody needs it any more: DROP TABLE {catalog.sql_name(look, kept)}"


def traces(kept: str, relations: Sequence[str] = ()) -> tuple[Trace, ...]:
    """The names that are taken once something is kept, for the steps that follow in a plan."""
    return tuple(Trace("kept", one) for one in _names(kept, relations))


def _names(kept: str, relations: Sequence[str]) -> tuple[str, ...]:
    return (kept, *(f"{SCHEMA}.{other}" for other in relations))


def schema_made(look: Look) -> list[str]:
    """The statement that makes the schema for kept tables, where it is needed."""
    if look.dialect is Dialect.SQLITE:
        return []
    there = look.row("SELECT to_regnamespace(:name) IS NOT NULL AS there", {"name": SCHEMA}).flag("there")
    return [] if there else [f"CREATE SCHEMA {SCHEMA}"]


def put_back(ctx: Context, taken: Sequence[dropping.TakenAlong], *, first: tuple[str, ...] = ()) -> None:
    """Restore the definitions of what went along: indexes without blocking anybody, constraints first NOT VALID, then validated.

    first: kinds that were restored already, together with the table or the column.
    """
    left = [one for one in taken if one.kind not in first]
    for one in reversed(left):
        if one.index_definition:
            kept = concurrent_index.KeptIndex(
                name=f"{one.schema_name}.{one.index_name}",
                table=f"{one.schema_name}.{one.table}",
                definition=one.index_definition,
                comment=one.index_comment,
            )
            concurrent_index.create(ctx, kept.build(ctx.db.dialect), label=f"index {kept.name}")
    if left:
        ctx.patiently("parts", lambda work: dropping.put_back(work, left))
    for one in reversed(left):
        if one.finish:
            _validate(ctx, one)


def _validate(ctx: Context, one: dropping.TakenAlong) -> None:
    def act(work: Work) -> None:
        work.execute("SET LOCAL statement_timeout = 0")  # a scan of the whole table, which blocks nobody
        work.execute(one.finish)

    try:
        ctx.patiently(f"validate {one.table}.{one.name}", act)
    except DatabaseFault as fault:
        if fault.sqlstate[:2] != "23":
            raise
        raise StepError(
            f"cannot validate the {one} as it was: {fault.detail or fault}; it stands again and guards new rows: mend the rows, "
            "then roll back again"
        ) from fault


def oid(look: Look, table: str) -> int:
    """The table's oid, by which it is known again; 0 on SQLite."""
    found = catalog.relation(look, table)
    return (found.oid or 0) if found else 0


def quoted(kept: str) -> str:
    """The kept table's name as SQL."""
    schema, _, table = kept.partition(".")
    return f"{quote(schema)}.{quote(table)}"
