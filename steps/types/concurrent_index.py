"""Indexes built and dropped while their table stays in use, with the repair of what an interrupted build left.

On PostgreSQL no transaction of ours is open while CONCURRENTLY runs: it would wait for its own engine for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from steps.catalog import catalog
from steps.catalog.definitions import IndexInfo
from steps.contract import DEADLOCK, LOCK_NOT_AVAILABLE, Context, DatabaseFault, Look, Model, Refused, Statement, Work
from steps.contract.dialect import Dialect
from steps.sql.dialect import literal
from steps.sql.statements import waits_in_the_way

UNIQUE_VIOLATION = "23505"
TRIES = 3  # of a build that lost a deadlock; each one scans the table again
WRITES_GO_ON = "builds, writes go on"


@dataclass(frozen=True)
class Build:
    """An index to be there. same: what makes an index of this name another one, in words; "" when it is the one."""

    name: str  # as the catalogue is asked: `schema.index`
    table: str
    sql: str
    differs: Callable[[Look, IndexInfo], str]
    comment: str = ""


def concurrent(definition: str) -> str:
    """A CREATE INDEX of the catalogue's as one that lets writes go on."""
    return re.sub(r"\bINDEX\b", "INDEX CONCURRENTLY", definition, count=1)


class KeptIndex(Model):
    """An index as the catalogue had it, to be built again."""

    name: str  # schema.index
    table: str
    definition: str
    comment: str

    @classmethod
    def of(cls, index: IndexInfo) -> KeptIndex:
        name, table = f"{index.schema}.{index.name}", f"{index.schema}.{index.table}"
        return cls(name=name, table=table, definition=index.definition, comment=index.comment)

    def build(self, dialect: Dialect) -> Build:
        """The build that brings it back."""
        sql = concurrent(self.definition) if dialect is Dialect.POSTGRESQL else self.definition
        return Build(self.name, self.table, sql, self._differs, self.comment)

    def _differs(self, _look: Look, found: IndexInfo) -> str:
        return "" if found.definition == self.definition else f"it is {found.definition!r}"


def statements(look: Look, build: Build) -> list[Statement]:
    """What has to run so that the index is there and valid: nothing, a build, or a repair."""
    found = catalog.index(look, build.name)
    if found is not None and found.usable:
        return []
    if look.dialect is Dialect.SQLITE:
        return [Statement(build.sql, lock="EXCLUSIVE", length="one scan", table=build.table)]
    make = Statement(
        build.sql, table=build.table, lock="SHARE UPDATE EXCLUSIVE", length=WRITES_GO_ON, transactional=False
    )
    if found is None:
        return [make]
    return [drop_statement(look, build.name, table=build.table, note="an interrupted build left it"), make]


def drop_statement(look: Look, name: str, *, table: str, note: str = "") -> Statement:
    """DROP INDEX, which on PostgreSQL waits for its readers without keeping others from the table."""
    if look.dialect is Dialect.SQLITE:
        return Statement(f"DROP INDEX {catalog.sql_name(look, name)}", lock="EXCLUSIVE", length="instant", table=table)
    return Statement(
        f"DROP INDEX CONCURRENTLY {catalog.sql_name(look, name)}",
        lock="SHARE UPDATE EXCLUSIVE",
        length="instant",
        table=table,
        transactional=False,
        note=note,
    )


def refuse_unless_free(look: Look, build: Build) -> None:
    """Raise Refused where the name belongs to another index, or somebody is building on the table right now."""
    found = catalog.index(look, build.name)
    if found is None:
        return
    if difference := build.differs(look, found):
        raise Refused(
            f"cannot build {build.name}: an index of this name is there, but {difference}; choose another name"
        )
    if not found.usable and (pids := catalog.builders(look, build.table)):
        raise Refused(f"cannot build {build.name}: backend {pids[0]} is building it now; wait for its end, or end it")


def create(ctx: Context, build: Build, *, label: str) -> None:
    """Build the index unless it is there and valid; an invalid one of the same definition is dropped and built again.

    Raises DatabaseFault with UNIQUE_VIOLATION where rows are in its way, after dropping what the build left.
    """
    for attempt in range(1, TRIES + 1):
        try:
            run(ctx, _needed(ctx, build), label=label if attempt == 1 else f"{label}, try {attempt}")
            break
        except DatabaseFault as fault:
            if fault.sqlstate == UNIQUE_VIOLATION:
                remove(ctx, build.name, table=build.table, label=f"{label}: clean up")
            elif fault.sqlstate in {DEADLOCK, LOCK_NOT_AVAILABLE} and attempt < TRIES:
                continue
            raise
    if build.comment:
        ctx.patiently(f"{label}: comment", lambda work: _comment(work, build))


def remove(ctx: Context, name: str, *, table: str, label: str) -> None:
    """Drop the index if it is there."""
    with ctx.db.look() as look:
        needed = [drop_statement(look, name, table=table)] if catalog.index(look, name) else []
    run(ctx, needed, label=label)


def run(ctx: Context, needed: list[Statement], *, label: str) -> None:
    """Run statements that may not share a transaction: each on its own on PostgreSQL, all in one on SQLite."""
    if not needed:
        return
    if ctx.db.dialect is Dialect.SQLITE:
        ctx.patiently(label, lambda work: execute(work, needed))
        return
    bounded = any(waits_in_the_way(one.lock) for one in needed)
    ctx.patiently_outside(label, lambda work: execute(work, needed), bounded=bounded)


def execute(work: Work, needed: list[Statement]) -> None:
    """Run declared statements in their order."""
    for one in needed:
        work.execute(one.sql, one.params)


def _needed(ctx: Context, build: Build) -> list[Statement]:
    with ctx.db.look() as look:
        refuse_unless_free(look, build)
        return statements(look, build)


def _comment(work: Work, build: Build) -> None:
    if work.dialect is Dialect.POSTGRESQL:
        work.execute(f"COMMENT ON INDEX {catalog.sql_name(work, build.name)} IS {literal(build.comment)}")
