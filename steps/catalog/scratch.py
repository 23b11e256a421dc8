"""Tries a playbook's definition on the database itself, in a place where nothing persists.

On PostgreSQL that is a temporary table with the same columns, in a transaction that is rolled back; on SQLite an in-memory
database with the same schema and no rows. So types, expressions and definitions are parsed by the server alone, which
prints them back in canonical form.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from steps.catalog import catalog
from steps.contract import (
    INSUFFICIENT_PRIVILEGE,
    NOTHING,
    DatabaseFault,
    Look,
    Params,
    Row,
    RunPosition,
    StepError,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import bind, quote
from steps.sql.scanner import TokenKind, scan

TWIN = "runbook_twin"
READ_ONLY = "25006"
_NOT_THE_DEFINITION = {"08", "40", "53", "55", "57", "58", "XX"}  # SQLSTATE classes that say nothing about a definition


class Unusable(StepError):
    """The server rejects a definition, or can't be asked about it; never raised for a lost connection."""


def one_piece(text: str, dialect: Dialect) -> str:
    """The text, checked for use inside a statement of ours: balanced parentheses, no semicolon, parameter or line comment.

    A guard against mistakes: what passes can't end the expression or the statement that surrounds it. Raises Unusable.
    """
    depth = 0
    for token in scan(text, dialect):
        depth += {"(": 1, ")": -1}.get(token.sign, 0)
        if depth < 0 or token.sign == ";" or token.kind is TokenKind.PARAMETER or token.text.startswith("--"):
            raise Unusable(f"cannot use {text!r}: {token.text!r} has no place in it")
    if depth or not text.strip():
        raise Unusable(f"cannot use {text!r}: {'a parenthesis stays open' if depth else 'it is empty'}")
    return text


# ─── PostgreSQL ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Twin:
    """A temporary table with the same columns, types, collations and NOT NULL as a real one, and no rows."""

    work: Work
    table: str  # schema.name, for steps.catalog
    name: str  # quoted, for statements

    def file(self) -> int:
        """The number of the table's file (relfilenode): it changes with a statement that rewrites the table."""
        sql = "SELECT pg_relation_filenode(CAST(:name AS regclass))::bigint AS number"
        return self.work.row(sql, {"name": self.name}).integer("number")


@contextlib.contextmanager
def twin(look: Look, table: str, *, like: str = "") -> Iterator[Twin]:
    """Create the table's twin, and roll it back at the end; like: LIKE options such as "INCLUDING INDEXES". Raises Unusable."""
    with look.trial("definition") as work:
        with understood(f"ask PostgreSQL what a definition for {table} means"):
            work.execute(f"CREATE TEMPORARY TABLE {TWIN} (LIKE {catalog.sql_name(look, table)} {like})")
        sql = "SELECT nspname::text AS name FROM pg_catalog.pg_namespace WHERE oid = pg_my_temp_schema()"
        schema = work.row(sql).text("name")
        found = Twin(work, f"{schema}.{TWIN}", f"{quote(schema)}.{TWIN}")
        _foresee(look, work, table, twin=found.table)
        yield found


def _foresee(look: Look, work: Work, table: str, *, twin: str) -> None:
    """Apply to the twin what earlier steps of the plan will do to the table's columns."""
    there, name = set(catalog.columns(work, twin)), catalog.sql_name(work, twin)
    for one in look.assumed:
        if one.kind != "column" or catalog.named(look, one.table) != catalog.named(look, table):
            continue
        column = quote(one.name)
        if one.was in there and one.was != one.name:
            work.execute(f"ALTER TABLE {name} RENAME COLUMN {quote(one.was)} TO {column}")
        elif one.name not in there:
            work.execute(f"ALTER TABLE {name} ADD COLUMN {column} {one.type}")
        # USING NULL: the twin has no rows, and the cast that the earlier step will write isn't known here
        if one.was and one.type and look.dialect is Dialect.POSTGRESQL:
            work.execute(f"ALTER TABLE {name} ALTER COLUMN {column} TYPE {one.type} USING CAST(NULL AS {one.type})")
        there = there - {one.was} | {one.name}


@contextlib.contextmanager
def understood(what: str) -> Iterator[None]:
    """Turn the server's refusal of a definition into Unusable; other faults pass. what: completes "cannot …"."""
    try:
        yield
    except DatabaseFault as fault:
        if fault.lost or fault.sqlstate[:2] in _NOT_THE_DEFINITION:
            raise
        if fault.sqlstate == INSUFFICIENT_PRIVILEGE:
            why = "this role may make no temporary table here, or not read the table: GRANT TEMPORARY ON DATABASE, and SELECT"
        else:
            why = "the server or this role only reads" if fault.sqlstate == READ_ONLY else fault_text(fault)
        raise Unusable(f"cannot {what}: {why}") from fault


@dataclass(frozen=True)
class Type:
    """A type as PostgreSQL resolves it. collation: the oid of its default collation, 0 for none; category: pg_type.typcategory."""

    oid: int
    modifier: int
    name: str
    collation: int
    category: str


def types(look: Look, *texts: str) -> list[Type]:
    """Resolve type names on the server; raises Unusable where a text is no type, or more than a type."""
    with look.trial("type") as work:
        return [type_of(work, text) for text in texts]


def type_of(work: Work, text: str) -> Type:
    """Resolve one type name inside an open trial; raises Unusable like `types`."""
    one_piece(text, Dialect.POSTGRESQL)
    with understood(f"read {text!r} as a type"):
        # CAST accepts a type and nothing more; CREATE TABLE alone would also take COLLATE, NOT NULL, serial …
        work.rows(f"SELECT CAST(NULL AS {text}) AS wanted WHERE false")
        work.execute(f"CREATE TEMPORARY TABLE runbook_type (wanted {text})")
    row = catalog.answers(work, "type_of_column", {})[0]
    work.execute("DROP TABLE pg_temp.runbook_type")
    return Type(
        row.integer("oid"), row.integer("modifier"), row.text("name"), row.integer("collation"), row.text("category")
    )


def fault_text(fault: DatabaseFault) -> str:
    """The first line of the server's message, without the statement that we append to it."""
    return str(fault).partition(" (in: ")[0].splitlines()[0]


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class ScratchDatabase:
    """An in-memory SQLite database as a Work: whatever runs on it touches no file."""

    connection: sqlite3.Connection
    dialect: Dialect = Dialect.SQLITE
    schema: str = "main"
    version: tuple[int, ...] = sqlite3.sqlite_version_info
    place: RunPosition | None = None
    assumed: tuple[Trace, ...] = ()

    def rows(self, sql: str, params: Params = NOTHING) -> list[Row]:
        with _translated():
            cursor = self.connection.execute(bind(sql, self.dialect), dict(params))
            names = [column[0] for column in cursor.description or ()]
            return [Row(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def row(self, sql: str, params: Params = NOTHING) -> Row:
        [found] = self.rows(sql, params)
        return found

    def columns(self, sql: str, params: Params = NOTHING) -> list[str]:
        with _translated():
            cursor = self.connection.execute(f"SELECT * FROM ({sql}) AS described LIMIT 0", dict(params))
            return [column[0] for column in cursor.description]

    def execute(self, sql: str, params: Params = NOTHING) -> int:
        with _translated():
            return self.connection.execute(bind(sql, self.dialect), dict(params)).rowcount

    def trial(self, label: str) -> AbstractContextManager[Work]:
        """The database itself: nothing in it needs to be rolled back."""
        del label
        return contextlib.nullcontext(self)

    def environment(self) -> Mapping[str, str]:
        return {}


@contextlib.contextmanager
def nothing() -> Iterator[ScratchDatabase]:
    """An empty in-memory database."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)) as connection:
        yield ScratchDatabase(connection)


@contextlib.contextmanager
def memory(look: Look) -> Iterator[ScratchDatabase]:
    """An in-memory database with the file's schema; objects that can't be created there (a module not loaded) are left out."""
    with nothing() as found:
        for row in catalog.answers(look, "whole_schema", {}):
            with contextlib.suppress(sqlite3.Error):
                found.connection.execute(row.text("sql"))
        for table in dict.fromkeys(one.table for one in look.assumed if one.kind == "column"):
            with contextlib.suppress(DatabaseFault):
                _foresee(look, found, table, twin=table)
        yield found


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise DatabaseFault(str(error), sqlstate="HY000") from error


def collation(memory: ScratchDatabase, table: str, column: str) -> str:
    """The collation by which a column is compared; SQLite reports it only for an index, so one is created."""
    name = catalog.named(memory, table)[1]
    memory.execute(f"CREATE INDEX runbook_collation ON {quote(name)} ({quote(column)})")
    keys = catalog.answers(memory, "index_keys", {"schema": memory.schema, "index": "runbook_collation"})
    memory.execute("DROP INDEX runbook_collation")
    return keys[0].text("coll")


def affinity(look: Look, declared: str) -> str:
    """The affinity that SQLite derives from a declared type; raises Unusable where it is no type, or more than a type."""
    if not declared.strip():
        return "blob"  # a column without a type has BLOB affinity
    one_piece(declared, Dialect.SQLITE)
    with understood(f"read {declared!r} as a type"):
        row = look.row(f"SELECT typeof(CAST(1.5 AS {declared})) AS broken, typeof(CAST(1 AS {declared})) AS whole")
    # NUMERIC is the one affinity whose casts of 1.5 and of 1 have different storage classes (real, integer)
    broken, whole = row.text("broken"), row.text("whole")
    return broken if broken == whole else "numeric"
