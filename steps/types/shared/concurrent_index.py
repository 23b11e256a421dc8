"""Builds and drops indexes while their table stays in use, and repairs what an interrupted build left behind.

CREATE INDEX CONCURRENTLY commits several times: it creates the index as invalid, waits until all transactions that may write
without it have ended, scans the table, scans it again for rows added meanwhile, waits for older snapshots, and marks it valid.
Three things follow from that:

- It can't run in a transaction, so no ledger row can commit with it. Whether it succeeded is asked of the catalogue (indisvalid,
  indisready), both after a crash and on every retry.
- No transaction of ours may be open meanwhile: the build would wait for it, and it for the build, for ever.
- If it fails or is killed, an INVALID index stays, which writes maintain and no query uses. It can't be completed: it is dropped
  and built again. It must not be mistaken for a build that another session still runs (pg_stat_progress_create_index).

DROP INDEX CONCURRENTLY likewise first invalidates the index, in a transaction of its own, then waits for its readers.
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
from steps.types.shared import declared

UNIQUE_VIOLATION = "23505"
TRIES = 3  # attempts at a build that lost a deadlock or a lock; each of them scans the table again
WRITES_GO_ON = "builds, writes go on"


@dataclass(frozen=True)
class Build:
    """An index to build. differs: says how an existing index of this name differs from it, "" where it is the same."""

    name: str  # `schema.index`
    table: str
    sql: str
    differs: Callable[[Look, IndexInfo], str]
    comment: str = ""


def concurrent(definition: str) -> str:
    """A CREATE INDEX statement with CONCURRENTLY inserted, so that writes go on during the build."""
    return re.sub(r"\bINDEX\b", "INDEX CONCURRENTLY", definition, count=1)


class KeptIndex(Model):
    """The definition of an existing index, kept so that it can be built again."""

    name: str  # schema.index
    table: str
    definition: str
    comment: str

    @classmethod
    def of(cls, index: IndexInfo) -> KeptIndex:
        name, table = f"{index.schema}.{index.name}", f"{index.schema}.{index.table}"
        return cls(name=name, table=table, definition=index.definition, comment=index.comment)

    def build(self, dialect: Dialect) -> Build:
        """The build that restores it."""
        sql = concurrent(self.definition) if dialect is Dialect.POSTGRESQL else self.definition
        return Build(self.name, self.table, sql, self._differs, self.comment)

    def _differs(self, _look: Look, found: IndexInfo) -> str:
        return "" if found.definition == self.definition else f"it is {found.definition!r}"


def statements(look: Look, build: Build) -> list[Statement]:
    """The statements that make the index exist and be valid: none, a build, or a drop of its invalid remains and a build."""
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
    """DROP INDEX; on PostgreSQL CONCURRENTLY, which waits for the index's readers without blocking anybody."""
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
    """Raises Refused where another index has the name, or where its invalid index is still being built by another session."""
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
    """Build the index unless it exists and is valid; an invalid one of the same definition is dropped and built again.

    Each attempt reads the catalogue anew, since the failed one has left an invalid index. Raises DatabaseFault with
    UNIQUE_VIOLATION where duplicates prevent the build, after dropping its remains: an invalid unique index would already
    reject new duplicates.
    """
    for attempt in range(1, TRIES + 1):
        try:
            declared.execute_outside(
                ctx, _needed(ctx, build), label=label if attempt == 1 else f"{label}, try {attempt}"
            )
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
    """Drop the index if it exists."""
    with ctx.db.look() as look:
        needed = [drop_statement(look, name, table=table)] if catalog.index(look, name) else []
    declared.execute_outside(ctx, needed, label=label)


def _needed(ctx: Context, build: Build) -> list[Statement]:
    with ctx.db.look() as look:
        refuse_unless_free(look, build)
        return statements(look, build)


def _comment(work: Work, build: Build) -> None:
    if work.dialect is Dialect.POSTGRESQL:
        work.execute(f"COMMENT ON INDEX {catalog.sql_name(work, build.name)} IS {literal(build.comment)}")
