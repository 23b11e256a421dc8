"""The database as a step or a probe sees it: read-only snapshots, writing transactions, and typed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from steps.contract.values import Value

if TYPE_CHECKING:
    from steps.contract.dialect import Dialect


Params: TypeAlias = Mapping[str, Value]


NOTHING: Params = {}


Question: TypeAlias = tuple[str, Params]  # SQL with :name parameters, and their values


class Change(NamedTuple):
    """One transaction of a pipelined group: a statement that returns one row, and the transaction's label in the ledger.

    The row is not inspected before COMMIT, so the statement itself must fail whenever it must not be committed. It must
    cast its parameters, because the server sees no types for them.
    """

    label: str
    sql: str
    params: Params


class RunPosition(NamedTuple):
    """The run, step and action that a connection works for; part of the key of the ledger's rows."""

    run: str
    step: str
    action: str  # "apply" or "revert"


# ─── the database ───────────────────────────────────────────────────────────────────────────────────────────────────
class Row(dict[str, Value]):
    """A result row: a mapping of column name to value, with typed getters so that no caller needs a cast."""

    def integer(self, name: str) -> int:
        """The column as an integer; TypeError where it is NULL, has a fraction, or is no number."""
        value = self[name]
        if isinstance(value, int):
            return int(value)
        if isinstance(value, Decimal | float | str) and (isinstance(value, str) or value == int(value)):
            return int(value)
        raise TypeError(f"cannot read {name!r} as an integer: it is {value!r}")

    def maybe_integer(self, name: str) -> int | None:
        return None if self[name] is None else self.integer(name)

    def number(self, name: str) -> float:
        """The column as a float; TypeError where it is NULL."""
        value = self[name]
        if isinstance(value, int | float | Decimal | str):
            return float(value)
        raise TypeError(f"cannot read {name!r} as a number: it is {value!r}")

    def text(self, name: str) -> str:
        value = self[name]
        if isinstance(value, bytes):
            return value.decode()
        return str(value)

    def maybe_text(self, name: str) -> str | None:
        return None if self[name] is None else self.text(name)

    def flag(self, name: str) -> bool:
        return bool(self[name])

    def texts(self, name: str) -> list[str]:
        value = self[name]
        return [str(one) for one in value] if isinstance(value, list) else []


class Look(Protocol):
    """A read-only connection to the database with timeouts, all reads in one snapshot; the database enforces read-only.

    Each call runs one statement. SQL uses `:name` parameters, and values are always bound; `%` needs no doubling.
    Every method raises DatabaseFault where the database refuses or is lost.
    """

    @property
    def dialect(self) -> Dialect: ...
    @property
    def schema(self) -> str:
        """The playbook's schema ("main" on SQLite)."""

    @property
    def version(self) -> tuple[int, ...]: ...  # of the server: (18, 6) or (3, 40, 1)
    @property
    def place(self) -> RunPosition | None:
        """The run, step and action that this connection serves; None while planning or in a preflight."""

    @property
    def assumed(self) -> tuple[Trace, ...]:
        """What earlier steps of the plan will have created by then; steps.catalog includes it. () while a step runs."""

    def rows(self, sql: str, params: Params = NOTHING) -> list[Row]: ...
    def row(self, sql: str, params: Params = NOTHING) -> Row:
        """Exactly one row; StepError with the number of rows otherwise."""

    def columns(self, sql: str, params: Params = NOTHING) -> list[str]:
        """The names of a query's result columns; its rows are not fetched."""

    def trial(self, label: str) -> AbstractContextManager[Work]:
        """A writing transaction on a separate connection that is always rolled back."""

    def environment(self) -> Mapping[str, str]:
        """Environment variables for a child process: libpq's PG*, and RUNBOOK_URL without its password.

        The environment is used because argv is visible to every user of the host.
        """


class Work(Look, Protocol):
    """A writing connection: inside one transaction of the engine, or in autocommit where it comes from `outside`."""

    def execute(self, sql: str, params: Params = NOTHING) -> int:
        """Run one statement and return the number of affected rows (-1 where the driver can't say)."""


class Database(Protocol):
    """Opens connections and transactions, and can cancel what runs on them; implemented by runner.target.database."""

    @property
    def dialect(self) -> Dialect: ...
    def look(self) -> AbstractContextManager[Look]:
        """A read-only REPEATABLE READ transaction with timeouts."""

    def commit(self, label: str, *, durable: bool = True, off: Sequence[str] = ()) -> AbstractContextManager[Work]:
        """One transaction: fenced by the run's lease, with SET LOCAL timeouts; it ends with the ledger's row and COMMIT.

        label: unique within (run, step, action); one that the ledger already has raises AlreadyCommitted before the body runs.
        durable: False for an asynchronous COMMIT (no wait for the disk, only for synchronous standbys): a crash of the server
            may lose the last such commits, each together with its ledger row.
        off: planner methods that PostgreSQL must not use ("seqscan" …), or what SQLite must not enforce ("foreign_keys").

        An exception in the body rolls everything back. Where the connection is lost during COMMIT, the ledger is asked whether
        it took effect before this returns or raises.
        """

    def commit_all(self, changes: Sequence[Change], *, durable: bool = True, off: Sequence[str] = ()) -> list[Row]:
        """Several transactions like those of `commit`, pipelined in one message; returns the row of each.

        No lock is held during a network round trip. A DatabaseFault is that of the first transaction that failed: those
        before it are committed, it and those after it are not, and the ledger's labels tell which is which.
        durable: the last COMMIT waits for the disk.
        """

    def release(self) -> None:
        """Close the calling thread's writing connection."""

    def outside(self, label: str, *, bounded: bool = False) -> AbstractContextManager[Work]:
        """A connection in autocommit, for CONCURRENTLY and VACUUM. It is not fenced. bounded: with lock_timeout."""

    def committed(self) -> list[str]:
        """The labels that this step has committed so far, in order: from these a resumed step knows where to continue."""


class Trace(NamedTuple):
    """An object that a step will create or drop: later steps are planned against it as well as against today's catalogue.

    kind: "column", "index", "constraint", "trigger", "table", "rows" where only values change; "gone" for a column that is dropped,
    "dropped" for anything else (a table under its own name); "kept" for a table or index that a step puts aside, which is no change of
    any other step's tables. was: the column's old name, where it is renamed or changes its type.
    type: the column's type as the playbook writes it.
    """

    kind: str
    table: str
    name: str = ""
    was: str = ""
    type: str = ""
