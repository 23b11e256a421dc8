"""What the database itself makes of a definition that a playbook writes, asked where nothing is kept.

On PostgreSQL in a temporary table of the same columns, inside a transaction that is rolled back; on SQLite in a database in
memory that has the same schema and no rows. No type, expression or definition is read by us: the server parses it, and prints
it back in its own words.
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
_READ_ONLY = "25006"
_NOT_THE_DEFINITION = {"08", "40", "53", "55", "57", "58", "XX"}  # classes of SQLSTATE: the server's own troubles


class Unusable(StepError):
    """A definition that means nothing to the server, or that it can't be asked about; a lost connection is no such thing."""


def one_piece(text: str, dialect: Dialect) -> str:
    """The text, which is put into a statement of ours as it is: it closes no parenthesis that it didn't open, and ends nothing."""
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
    """A temporary table of the same columns, types, collations and NOT NULL, without rows."""

    work: Work
    table: str  # as the catalogue is asked: schema.name
    name: str  # quoted, for statements

    def file(self) -> int:
        """The number of its file: another one after a statement that rewrote it."""
        sql = "SELECT pg_relation_filenode(CAST(:name AS regclass))::bigint AS number"
        return self.work.row(sql, {"name": self.name}).integer("number")


@contextlib.contextmanager
def twin(look: Look, table: str, *, like: str = "") -> Iterator[Twin]:
    """The table's twin, rolled back at the end; like: what it has besides ("INCLUDING INDEXES"). Raises Unusable."""
    with look.trial("definition") as work:
        with understood(f"ask PostgreSQL what a definition for {table} means"):
            work.execute(f"CREATE TEMPORARY TABLE {TWIN} (LIKE {catalog.sql_name(look, table)} {like})")
        sql = "SELECT nspname::text AS name FROM pg_catalog.pg_namespace WHERE oid = pg_my_temp_schema()"
        schema = work.row(sql).text("name")
        found = Twin(work, f"{schema}.{TWIN}", f"{quote(schema)}.{TWIN}")
        _foresee(look, work, table, twin=found.table)
        yield found


def _foresee(look: Look, work: Work, table: str, *, twin: str) -> None:
    """What earlier steps of a plan will have made of the table's columns, before it is asked what comes after."""
    there, name = set(catalog.columns(work, twin)), catalog.sql_name(work, twin)
    for one in look.assumed:
        if one.kind != "column" or catalog.named(look, one.table) != catalog.named(look, table):
            continue
        column = quote(one.name)
        if one.was in there and one.was != one.name:
            work.execute(f"ALTER TABLE {name} RENAME COLUMN {quote(one.was)} TO {column}")
        elif one.name not in there:
            work.execute(f"ALTER TABLE {name} ADD COLUMN {column} {one.type}")
        if one.was and one.type and look.dialect is Dialect.POSTGRESQL:
            work.execute(f"ALTER TABLE {name} ALTER COLUMN {column} TYPE {one.type} USING CAST(NULL AS {one.type})")
        there = there - {one.was} | {one.name}


@contextlib.contextmanager
def understood(what: str) -> Iterator[None]:
    """The server's refusal of a definition as Unusable: what it was asked, and its own words."""
    try:
        yield
    except DatabaseFault as fault:
        if fault.lost or fault.sqlstate[:2] in _NOT_THE_DEFINITION:
            raise
        if fault.sqlstate == INSUFFICIENT_PRIVILEGE:
            why = "this role may make no temporary table here, or not read the table: GRANT TEMPORARY ON DATABASE, and SELECT"
        else:
            why = "the server or this role only reads" if fault.sqlstate == _READ_ONLY else fault_text(fault)
        raise Unusable(f"cannot {what}: {why}") from fault


@dataclass(frozen=True)
class Type:
    """A type as PostgreSQL reads it. collation: its own one's oid, 0 where it has none; category: as in pg_type."""

    oid: int
    modifier: int
    name: str
    collation: int
    category: str


def types(look: Look, *texts: str) -> list[Type]:
    """What these types are to the server; raises Unusable where one is no type, or is more than a type."""
    with look.trial("type") as work:
        return [type_of(work, text) for text in texts]


def type_of(work: Work, text: str) -> Type:
    """The same, inside a trial."""
    one_piece(text, Dialect.POSTGRESQL)
    with understood(f"read {text!r} as a type"):
        # the grammar of a type and nothing else: COLLATE, NOT NULL, serial … are no types
        work.rows(f"SELECT CAST(NULL AS {text}) AS wanted WHERE false")
        work.execute(f"CREATE TEMPORARY TABLE runbook_type (wanted {text})")
    row = catalog.answers(work, "type_of_column", {})[0]
    work.execute("DROP TABLE pg_temp.runbook_type")
    return Type(
        row.integer("oid"), row.integer("modifier"), row.text("name"), row.integer("collation"), row.text("category")
    )


def fault_text(fault: DatabaseFault) -> str:
    """The server's words, without our statement behind them."""
    return str(fault).partition(" (in: ")[0].splitlines()[0]


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class ScratchDatabase:
    """A database in memory with the same schema and no rows: a Work that touches nobody's file."""

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
        """There is nothing to roll back: all of it is a trial."""
        del label
        return contextlib.nullcontext(self)

    def environment(self) -> Mapping[str, str]:
        return {}


@contextlib.contextmanager
def nothing() -> Iterator[ScratchDatabase]:
    """An empty database in memory."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)) as connection:
        yield ScratchDatabase(connection)


@contextlib.contextmanager
def memory(look: Look) -> Iterator[ScratchDatabase]:
    """The schema of the file at hand, in memory. What can't be made there (a module that isn't loaded) is left out."""
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
    """The collation by which a column is compared, which SQLite tells of an index only."""
    name = catalog.named(memory, table)[1]
    memory.execute(f"CREATE INDEX runbook_collation ON {quote(name)} ({quote(column)})")
    keys = catalog.answers(memory, "index_keys", {"schema": memory.schema, "index": "runbook_collation"})
    memory.execute("DROP INDEX runbook_collation")
    return keys[0].text("coll")


def affinity(look: Look, declared: str) -> str:
    """The affinity that SQLite gives to a declared type; raises Unusable where it is no type, or more than a type."""
    if not declared.strip():
        return "blob"  # a column without a type
    one_piece(declared, Dialect.SQLITE)
    with understood(f"read {declared!r} as a type"):
        row = look.row(f"SELECT typeof(CAST(1.5 AS {declared})) AS broken, typeof(CAST(1 AS {declared})) AS whole")
    broken, whole = row.text("broken"), row.text("whole")
    return broken if broken == whole else "numeric"
