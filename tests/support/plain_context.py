"""A small but real context for trying a step by itself: real connections, real transactions, the real ledger."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
from databases import Database as TestDatabase
from pydantic import BaseModel

from steps.catalog import catalog
from steps.catalog.definitions import TableShape
from steps.contract import (
    NOTHING,
    AlreadyCommitted,
    Change,
    DatabaseFault,
    Effect,
    Look,
    Params,
    Preflighted,
    Progress,
    Row,
    RunPosition,
    State,
    StaticallyChecked,
    Step,
    StepError,
    StepResult,
    Tuning,
    Work,
)
from steps.contract.dialect import Dialect
from steps.ledger import step_commits, tables
from steps.sql.dialect import bind

SQLITE_STATES = {"SQLITE_CONSTRAINT_UNIQUE": "23505", "SQLITE_BUSY": "55P03", "SQLITE_LOCKED": "55P03"}
_runs = itertools.count(1)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise DatabaseFault(
            str(error), sqlstate=error.sqlstate or "", detail=error.diag.message_detail or ""
        ) from error
    except sqlite3.Error as error:
        state = SQLITE_STATES.get(getattr(error, "sqlite_errorname", ""), "")
        raise DatabaseFault(str(error), sqlstate=state) from error


@dataclass
class PlainWork:
    """A look or a work, as its transaction allows."""

    connection: Any
    dialect: Dialect
    schema: str
    version: tuple[int, ...]
    place: RunPosition | None
    trials: Callable[[str], contextlib.AbstractContextManager[Work]]

    def rows(self, sql: str, params: Params = NOTHING) -> list[Row]:
        with _translated():
            cursor = self.connection.execute(bind(sql, self.dialect), dict(params))
            if cursor.description is None:  # a savepoint
                return []
            names = [column[0] for column in cursor.description]
            return [Row(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def row(self, sql: str, params: Params = NOTHING) -> Row:
        rows = self.rows(sql, params)
        if len(rows) != 1:
            raise StepError(f"cannot read one row: there are {len(rows)}")
        return rows[0]

    def columns(self, sql: str, params: Params = NOTHING) -> list[str]:
        with _translated():
            cursor = self.connection.execute(
                bind(f"SELECT * FROM ({sql}) AS described LIMIT 0", self.dialect), dict(params)
            )
            return [column[0] for column in cursor.description or ()]

    def trial(self, label: str) -> contextlib.AbstractContextManager[Work]:
        return self.trials(label)

    @property
    def assumed(self) -> tuple[()]:
        return ()

    def environment(self) -> Mapping[str, str]:
        return {}

    def execute(self, sql: str, params: Params = NOTHING) -> int:
        with _translated():
            return self.connection.execute(bind(sql, self.dialect), dict(params)).rowcount


@dataclass
class PlainDatabase:
    """Takes a session for each look, commit and outside, and gives it back at once."""

    target: TestDatabase
    place: RunPosition
    lock_timeout: str = "2s"
    before: list[BaseModel] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    crash_before: str = ""  # the label at which the process "dies"
    together: list[int] = field(default_factory=list)  # how many transactions were asked for at once, each time

    @property
    def dialect(self) -> Dialect:
        return Dialect(self.target.dialect)

    @property
    def schema(self) -> str:
        return "main" if self.dialect is Dialect.SQLITE else "public"

    @property
    def version(self) -> tuple[int, ...]:
        return (self.target.major, 0) if self.target.server else sqlite3.sqlite_version_info

    @contextlib.contextmanager
    def _connected(self, *begin: str) -> Iterator[PlainWork]:
        with self.target.session() as connection:
            for statement in begin:
                connection.execute(statement)
            yield PlainWork(connection, self.dialect, self.schema, self.version, self.place, self.trial)

    @contextlib.contextmanager
    def look(self) -> Iterator[Look]:
        begin = ["BEGIN"] if self.dialect is Dialect.SQLITE else ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"]
        with self._connected(*begin) as look:
            yield look

    @contextlib.contextmanager
    def trial(self, label: str) -> Iterator[Work]:
        with self._connected("BEGIN") as work:
            yield work
            work.connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def commit(self, label: str, *, durable: bool = True, off: Sequence[str] = ()) -> Iterator[Work]:
        if label == self.crash_before:
            raise KeyboardInterrupt(label)
        if label in self.committed():
            raise AlreadyCommitted(label)
        if self.dialect is Dialect.SQLITE:
            begin = [f"PRAGMA {one} = OFF" for one in off] + ["PRAGMA busy_timeout = 2000", "BEGIN IMMEDIATE"]
        else:
            begin = ["BEGIN", f"SET LOCAL lock_timeout = '{self.lock_timeout}'", "SET LOCAL statement_timeout = '60s'"]
        with self._connected(*begin) as work:
            yield work
            self._record(work, label)
            with _translated():
                work.connection.execute("COMMIT")

    def commit_all(self, changes: Sequence[Change], *, durable: bool = True, off: Sequence[str] = ()) -> list[Row]:
        self.together.append(len(changes))
        found = []
        for one in changes:
            with self.commit(one.label, durable=durable, off=off) as work:
                found.append(work.row(one.sql, one.params))
        return found

    @contextlib.contextmanager
    def outside(self, label: str, *, bounded: bool = False) -> Iterator[Work]:
        if label == self.crash_before:
            raise KeyboardInterrupt(label)
        if self.before and f"before {label}" not in self.committed():
            with self._connected("BEGIN") as work:
                self._record(work, f"before {label}")
                work.connection.execute("COMMIT")
        with self._connected() as work:
            yield work

    def release(self) -> None:
        """Each transaction has a connection of its own."""

    def committed(self) -> list[str]:
        with self.look() as look:
            return step_commits.committed_labels(look, self.place)

    def _record(self, work: Work, label: str) -> None:
        before = self.before[0].model_dump_json() if self.before else None
        work.execute(*step_commits.record_commit(work.dialect, self.place, label=label, epoch=1, before=before))


@dataclass
class PlainContext:
    """What the engine lends to a step, without the engine."""

    db: PlainDatabase
    folder: Path | None = field(default=None, kw_only=True)

    def pulse(self, progress: Progress) -> Tuning:
        return Tuning()

    def remember(self, before: BaseModel) -> None:
        if not self.db.before:
            self.db.before.append(before)

    def patiently_outside(self, label: str, act: Callable[[Work], None], *, bounded: bool) -> None:
        with self.db.outside(label, bounded=bounded) as work:
            act(work)

    def patiently(self, label: str, act: Callable[[Work], None], *, off: Sequence[str] = ()) -> None:
        with contextlib.suppress(AlreadyCommitted), self.db.commit(label, off=off) as work:
            act(work)


@dataclass
class Trial:
    """One step on one database: apply, verify and revert, each asked of the database itself."""

    target: TestDatabase
    step: Step
    run: str = field(default_factory=lambda: f"run_{next(_runs)}")
    crash_before: str = ""
    lock_timeout: str = "2s"

    def __post_init__(self) -> None:
        with self.database("apply")._connected() as work:
            tables.create(work)

    def database(self, action: str) -> PlainDatabase:
        place = RunPosition(self.run, "step", action)
        return PlainDatabase(self.target, place, lock_timeout=self.lock_timeout, crash_before=self.crash_before)

    def look(self, action: str = "apply") -> contextlib.AbstractContextManager[Look]:
        return self.database(action).look()

    def verify(self, action: str = "apply") -> Effect:
        with self.look(action) as look:
            return self.step.verify(look)

    def state(self, action: str = "apply") -> State:
        return self.verify(action).state

    def apply(self) -> StepResult:
        return self.step.apply(PlainContext(self.database("apply")))

    def revert(self, context: PlainContext | None = None) -> None:
        with self.look() as look:
            kept = step_commits.remembered(look, run=self.run, step="step")
        assert kept is not None, "apply remembered nothing"
        before = self.step.recall(kept)
        self.step.revert(context or PlainContext(self.database("revert")), before)  # type: ignore[attr-defined]

    def preflight(self) -> list[str]:
        with self.look() as look:
            return [*(self.step.misfits(look.dialect) if isinstance(self.step, StaticallyChecked) else []),
                    *(self.step.preflight(look) if isinstance(self.step, Preflighted) else [])]  # fmt: skip

    def statements(self) -> list[str]:
        with self.look() as look:
            return [one.sql for one in self.step.statements(look)]  # type: ignore[attr-defined]

    def shape(self, table: str) -> TableShape:
        with self.look() as look:
            return catalog.snapshot(look, table)

    def whole_life(self, table: str) -> Trial:
        """Verify, apply, verify, revert, catalogue as before, apply again; returns the trial of the second run."""
        before = self.shape(table)
        assert self.state() is State.NOT_DONE
        assert self.preflight() == []
        self.apply()
        assert self.state() is State.DONE, self.verify()
        assert self.shape(table) != before
        self.revert()
        assert self.state("revert") is State.NOT_DONE, self.verify("revert")
        assert self.shape(table) == before
        second = self.again()
        second.apply()
        assert second.state() is State.DONE
        assert second.preflight() == []
        return second

    def again(self) -> Trial:
        """The same step in a new run."""
        return replace(self, run=f"run_{next(_runs)}")

    def dying_before(self, label: str) -> Trial:
        """The same run, in a process that dies before this label commits."""
        return replace(self, crash_before=label)
