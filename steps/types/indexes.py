"""Builds, drops and rebuilds indexes while the table stays in use; on PostgreSQL always CONCURRENTLY."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from steps.catalog import catalog, compare, feasibility, scratch, touched_tables
from steps.catalog.definitions import IndexInfo
from steps.contract import (
    LONGEST_NAME,
    Context,
    DatabaseFault,
    Effect,
    Identifier,
    Identifiers,
    Look,
    Model,
    Refused,
    Row,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Text,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.shared import absence, concurrent_index
from steps.types.shared.maintenance import Maintenance

SHOWN_KEYS = 5
# Transient names of REINDEX CONCURRENTLY; an invalid index with such a name is left over from an interrupted one.
_LEFT_BY_REINDEX = re.compile(r"_cc(new|old)\d*$")


class CreatedIndex(Model):
    """The index to drop in the undo."""

    name: str
    table: str


class CreateIndexResult(StepResult):
    """The index that was built; bytes: its size, None on SQLite."""

    name: str
    bytes: int | None = None


class CreateIndex(Step[CreatedIndex]):
    """Builds an index while reads and writes go on; repairs what an interrupted build left.

    descending: those of the columns that are sorted in descending order.
    """

    kind: ClassVar[str] = "create_index"
    summary: ClassVar[str] = "build an index while the table stays in use; repairs an interrupted build"
    Result: ClassVar[type[StepResult]] = CreateIndexResult

    table: Identifier
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=32)]
    name: Identifier | None = None
    unique: bool = False
    where: Text | None = None
    method: Annotated[str, Field(pattern=r"^[a-z_]+$")] = "btree"
    collation: Mapping[Identifier, str] = {}
    operator_class: Mapping[Identifier, str] = {}
    descending: Identifiers = ()

    @model_validator(mode="after")
    def _of_its_columns(self) -> CreateIndex:
        if odd := [one for one in (*self.collation, *self.operator_class, *self.descending) if one not in self.columns]:
            raise ValueError(f"cannot say how {odd[0]!r} is compared: it is none of the index's columns")
        return self

    @property
    def index(self) -> str:
        """The index's name: as given, or derived from table and columns, with a hash where that is too long."""
        return self.name or _default_name(self.table.rpartition(".")[2], self.columns)

    def describe(self) -> str:
        part = " where …" if self.where else ""
        method = "" if self.method == "btree" else f" using {self.method}"
        keys = (
            f"{one}{f' collate {self.collation[one]}' if one in self.collation else ''}"
            f"{f' {self.operator_class[one]}' if one in self.operator_class else ''}{self._order(one)}"
            for one in self.columns
        )
        on = f"{self.table}{method} ({', '.join(keys)}){part}"
        return f"create {'unique ' * self.unique}index {self.index} on {on}"

    def back_if(self, look: Look | None) -> str:
        del look
        return "unless a foreign key refers to it by then" if self.unique else ""

    def verify(self, look: Look) -> Effect:
        try:
            return self._verify(look)
        except (Refused, scratch.Unusable) as fault:  # without a valid definition there is nothing to compare with
            return Effect(State.UNKNOWN, str(fault))

    def _verify(self, look: Look) -> Effect:
        found = catalog.index(look, self._qualified(look)) or self._same_under_another_name(look)
        if found is None:
            return Effect(State.NOT_DONE, f"no index {self.index} on {self.table}")
        if difference := self._differs(look, found):
            return Effect(State.PARTLY, f"index {found.name} is there, but {difference}")
        if not found.usable:
            return Effect(State.PARTLY, f"index {found.name} is INVALID: an interrupted build left it")
        return Effect(State.DONE, f"index {found.name} on {self.table} ({', '.join(found.columns)}) is valid and ready")

    def statements(self, look: Look) -> list[Statement]:
        return concurrent_index.statements(look, self._build(look))

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("index", self.table, self.index),)

    def preflight(self, look: Look) -> list[str]:
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        faults = catalog.not_owned(look, self.table)
        known = catalog.columns(look, self.table)  # SQLite takes an unknown "name" for a string, and would index that
        faults += [
            f"cannot index {self.table}.{name}: there is no such column"
            for name in self.columns
            if known and name not in known
        ]
        if look.dialect is Dialect.SQLITE and self.method != "btree":
            faults.append(f"cannot use method {self.method!r}: SQLite has btree only")
        if look.dialect is Dialect.SQLITE and self.operator_class:
            faults.append("cannot use operator_class: SQLite has none")
        if cut := catalog.partitioned(look, self.table):
            faults.append(
                f"cannot build an index on {self.table} concurrently: it is partitioned; build it on each partition "
                f"({', '.join(cut.partitions) or 'none yet'}), then CREATE INDEX ON ONLY {self.table} and ATTACH them"
            )
        return faults or self._in_its_way(look, state, evidence)

    def _in_its_way(self, look: Look, state: State, evidence: str) -> list[str]:
        """Faults where the name is taken, or where the server refuses the definition on a copy of the table without rows."""
        if not catalog.columns(look, self.table):
            return [f"cannot index {self.table}: there is no such table"]
        if why := feasibility.no_index_on(look, self.table, self._qualified(look)):
            return [f"cannot create index {self.index}: {one}" for one in why]
        try:
            if state is not State.UNKNOWN:
                concurrent_index.refuse_unless_free(look, self._build(look))
                compare.index_body(look, self._wanted(look))
        except (Refused, scratch.Unusable) as fault:
            return [str(fault)]
        return [f"cannot create index {self.index}: {evidence}"] if state is State.UNKNOWN else []

    def apply(self, ctx: Context) -> CreateIndexResult:
        with ctx.db.look() as look:
            build, faults = self._build(look), self.preflight(look)
            if faults:
                raise Refused("; ".join(faults))
            concurrent_index.refuse_unless_free(look, build)
        ctx.remember(CreatedIndex(name=build.name, table=self.table))
        try:
            concurrent_index.create(ctx, build, label="build")
        except DatabaseFault as fault:
            if fault.sqlstate != concurrent_index.UNIQUE_VIOLATION:
                raise
            raise StepError(self._named_duplicates(ctx)) from fault
        with ctx.db.look() as look:
            return self.result(look)

    def result(self, look: Look) -> CreateIndexResult:
        """The index's name and size, from the catalogue."""
        found = catalog.index(look, self._qualified(look)) or self._same_under_another_name(look)
        return CreateIndexResult(name=found.name if found else self.index, bytes=found.bytes if found else None)

    def revert(self, ctx: Context, before: CreatedIndex) -> None:
        """Drop the index that was built."""
        concurrent_index.remove(ctx, before.name, table=before.table, label="drop")

    def _qualified(self, look: Look) -> str:
        return f"{catalog.named(look, self.table)[0]}.{self.index}"

    def _build(self, look: Look) -> concurrent_index.Build:
        name, pg = self._qualified(look), look.dialect is Dialect.POSTGRESQL
        table = catalog.sql_name(look, self.table) if pg else quote(catalog.named(look, self.table)[1])
        made = quote(self.index) if pg else catalog.sql_name(look, name)  # on SQLite the index's name has the schema
        sql = self._wanted(look).made(made, table, pg=pg)
        return concurrent_index.Build(name, self.table, concurrent_index.concurrent(sql) if pg else sql, self._differs)

    def _wanted(self, look: Look) -> compare.WantedIndex:
        where = self.where.text(look.dialect) if self.where else ""
        keys = ", ".join(f"{self._compared(look, one)}{self._class(one)}{self._order(one)}" for one in self.columns)
        return compare.WantedIndex(self.table, keys, self.method, self.unique, where)

    def _compared(self, look: Look, column: str) -> str:
        """The column as SQL, with the collation under which the index compares it."""
        named = self.collation.get(column)
        return f"{quote(column)} COLLATE {catalog.collation(look, named)}" if named else quote(column)

    def _order(self, column: str) -> str:
        return " DESC" if column in self.descending else ""

    def _class(self, column: str) -> str:
        named = self.operator_class.get(column, "")
        return "".join([" ", ".".join(quote(one) for one in named.split("."))]) if named else ""

    def _same_under_another_name(self, look: Look) -> IndexInfo | None:
        if self.name:
            return None
        known = catalog.indexes(look, self.table)
        near = [
            one for one in known if one.usable and one.columns == self.columns and not self._simply_differs(look, one)
        ]
        wanted = compare.index_body(look, self._wanted(look)) if near else ()
        return next((one for one in near if compare.body_of(look, one) == wanted), None)

    def _differs(self, look: Look, found: IndexInfo) -> str:
        """How an existing index differs from the wanted one, by the whole definition in the server's form; "" if it doesn't."""
        if simple := self._simply_differs(look, found):
            return simple
        same = compare.body_of(look, found) == compare.index_body(look, self._wanted(look))
        return "" if same else f"it is {found.definition or found.columns!r}"

    def _simply_differs(self, look: Look, found: IndexInfo) -> str:
        checks = (
            (found.table == catalog.named(look, self.table)[1], f"it is on {found.table}"),
            (found.columns == self.columns, f"it is on ({', '.join(found.columns)})"),
            (found.unique == self.unique, f"it is {'' if found.unique else 'not '}unique"),
            (found.method == self.method, f"its method is {found.method}"),
        )
        return next((words for good, words in checks if not good), "")

    def _named_duplicates(self, ctx: Context) -> str:
        with ctx.db.look() as look:
            keys = ", ".join(quote(one) for one in self.columns)
            equal = ", ".join(self._compared(look, one) for one in self.columns)
            shown = ", ".join(f"min({quote(one)}) AS {quote(one)}" for one in self.columns) if self.collation else keys
            present = " AND ".join(f"{quote(one)} IS NOT NULL" for one in self.columns)
            where = f" AND ({self.where.text(look.dialect)})" if self.where else ""
            rows = look.rows(
                f"SELECT {shown}, count(*) AS times FROM {catalog.sql_name(look, self.table)} WHERE {present}{where} "
                f"GROUP BY {equal} HAVING count(*) > 1 ORDER BY times DESC LIMIT {SHOWN_KEYS}"
            )
        named = "; ".join(_key(row, self.columns) for row in rows)
        return (
            f"cannot build the unique index {self.index}: {self.table} has duplicates, the first {len(rows)}: {named}; "
            "nothing is left of the build: make the keys unique, then resume"
        )


class DroppedIndex(concurrent_index.KeptIndex):
    """The index to build again in the undo."""

    gone: str = ""


class DropIndex(Step[DroppedIndex]):
    """Drops an index while its readers go on; its definition is kept for the undo."""

    kind: ClassVar[str] = "drop_index"
    summary: ClassVar[str] = "drop an index while the table stays in use; revert builds it again"

    index: Identifier
    absent: absence.Absent = "refused"

    def describe(self) -> str:
        return f"drop index {self.index}{' (absent: fine)' if self.absent == 'fine' else ''}"

    def back_if(self, look: Look | None) -> str:
        found = catalog.index(look, self.index) if look is not None else None
        if found is not None and not found.unique:
            return ""
        return f"unless {'' if found else 'it is unique and '}duplicates are written meanwhile"

    def verify(self, look: Look) -> Effect:
        found = catalog.index(look, self.index)
        if found is None:
            return absence.effect(look, self._what(look), absent=self.absent)
        if found.usable:
            return Effect(State.NOT_DONE, f"index {found.name} on {found.table} is valid")
        return Effect(State.PARTLY, f"index {found.name} on {found.table} is there, but INVALID")

    def statements(self, look: Look) -> list[Statement]:
        found = catalog.index(look, self.index)
        return [concurrent_index.drop_statement(look, self.index, table=found.table)] if found else []

    def touches(self, look: Look) -> tuple[str, ...]:
        found = catalog.index(look, self.index)
        return (f"{found.schema}.{found.table}",) if found else ()

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        found = catalog.index(look, self.index)
        return (Trace("dropped", found.table if found else "", self.index),)

    def preflight(self, look: Look) -> list[str]:
        found = catalog.index(look, self.index)
        if found is None:
            return []
        reasons = (
            (found.constraint, f"the constraint {found.constraint} on {found.table} stands on it: drop that instead"),
            (found.replica_identity, f"it is the replica identity of {found.table}: choose another first"),
            (found.partitioned, "it belongs to a partitioned table, where CONCURRENTLY doesn't exist"),
        )
        faults = [f"cannot drop index {self.index}: {why}" for applies, why in reasons if applies]
        return faults + catalog.not_owned(look, f"{found.schema}.{found.table}")

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            faults, found = self.preflight(look), catalog.index(look, self.index)
        if faults:
            raise Refused("; ".join(faults))
        if found is not None:
            kept = concurrent_index.KeptIndex.of(found)
            ctx.remember(DroppedIndex(**dict(kept), gone=f"index {kept.name}"))
            concurrent_index.remove(ctx, self.index, table=kept.table, label="drop")
        return StepResult()

    def revert(self, ctx: Context, before: DroppedIndex) -> None:
        """Build the index again with its old definition."""
        concurrent_index.create(ctx, before.build(ctx.db.dialect), label="build")

    def _what(self, look: Look) -> str:
        return f"index {'.'.join(catalog.named(look, self.index))}"


class Reindex(Maintenance):
    """Rebuilds an index, or all of a table, beside the old one; removes what an interrupted rebuild left."""

    kind: ClassVar[str] = "reindex"
    summary: ClassVar[str] = "rebuild an index, or all of a table's, while the table stays in use"

    index: Identifier | None = None
    table: Identifier | None = None

    @model_validator(mode="after")
    def _one(self) -> Reindex:
        if (self.index is None) == (self.table is None):
            raise ValueError("cannot reindex: write either index or table")
        return self

    def describe(self) -> str:
        return f"reindex {f'index {self.index}' if self.index else self.table}"

    def statements(self, look: Look) -> list[Statement]:
        if look.dialect is Dialect.SQLITE:
            name = catalog.sql_name(look, self.index or self.table or "")
            return [Statement(f"REINDEX {name}", lock="EXCLUSIVE", length="one scan", table=self._table(look))]
        note = "an interrupted rebuild left it"
        drops = [
            concurrent_index.drop_statement(look, _full(one), table=one.table, note=note) for one in self._left(look)
        ]
        if self.index:
            return [*drops, self._again(look, f"INDEX CONCURRENTLY {catalog.sql_name(look, self.index)}")]
        # REINDEX TABLE CONCURRENTLY skips invalid indexes with only a warning, so each is rebuilt by name
        invalid = [one for one in self._known(look) if not one.usable and one not in self._left(look)]
        return [
            *drops,
            self._again(look, f"TABLE CONCURRENTLY {catalog.sql_name(look, self.table or '')}"),
            *(self._again(look, f"INDEX CONCURRENTLY {catalog.sql_name(look, _full(one))}") for one in invalid),
        ]

    def preflight(self, look: Look) -> list[str]:
        if not catalog.may_maintain(look, self._table(look)):
            return [f"cannot reindex {self.index or self.table}: the table isn't this role's"]
        if self.left_over(look) and (pids := catalog.builders(look, self._table(look))):
            return [f"cannot reindex {self._table(look)}: backend {pids[0]} is at it now; wait for its end, or end it"]
        return []

    def left_over(self, look: Look) -> str:
        names = [one.name for one in self._known(look) if not one.usable]
        return f"INVALID: {', '.join(names)}" if names else ""

    def _again(self, look: Look, what: str) -> Statement:
        return Statement(
            f"REINDEX {what}",
            table=self._table(look),
            lock="SHARE UPDATE EXCLUSIVE",
            length=concurrent_index.WRITES_GO_ON,
            transactional=False,
        )

    def _table(self, look: Look) -> str:
        if self.table:
            return self.table
        found = catalog.index(look, self.index or "")
        return f"{found.schema}.{found.table}" if found else ""

    def _known(self, look: Look) -> list[IndexInfo]:
        known = catalog.indexes(look, self._table(look))
        wanted = self.index and catalog.named(look, self.index)[1]
        return [one for one in known if not wanted or _LEFT_BY_REINDEX.sub("", one.name) == wanted]

    def _left(self, look: Look) -> list[IndexInfo]:
        return [one for one in self._known(look) if not one.usable and _LEFT_BY_REINDEX.search(one.name)]


def _full(index: IndexInfo) -> str:
    return f"{index.schema}.{index.name}"


def _key(row: Row, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={row[name]!r}" for name in columns) + f" {row.integer('times')} times"


def _default_name(table: str, columns: tuple[str, ...]) -> str:
    whole = "_".join(("idx", table, *columns))
    if len(whole.encode()) <= LONGEST_NAME:
        return whole
    kept = whole.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
