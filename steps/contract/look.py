"""What a step or a probe sees and uses of a database: looks, work, transactions."""

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
    """One transaction of those that are sent together: a statement that gives one row, and the ledger's label for it.

    Nobody looks at the row before COMMIT: the statement itself must fail where it must not be committed. It casts its parameters.
    """

    label: str
    sql: str
    params: Params


class RunPosition(NamedTuple):
    """Where in a run a connection works: the ledger's rows carry it."""

    run: str
    step: str
    action: str  # "apply" or "revert"


# ─── the database ───────────────────────────────────────────────────────────────────────────────────────────────────
class Row(dict[str, Value]):
    """One row by column name, with typed readers so that no caller needs a cast."""

    def integer(self, name: str) -> int:
        value = self[name]
        if isinstance(value, int):
            return int(value)
        if isinstance(value, Decimal | float | str) and (isinstance(value, str) or value == int(value)):
            return int(value)
        raise TypeError(f"cannot read {name!r} as an integer: it is {value!r}")

    def maybe_integer(self, name: str) -> int | None:
        return None if self[name] is None else self.integer(name)

    def number(self, name: str) -> float:
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
    """A read-only view of the database: one snapshot, one statement a call, timeouts; enforced by the database.

    SQL is written with `:name` parameters; values are always bound. `%` needs no doubling.
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
        """Where in a run this is; None in a plan or a preflight."""

    @property
    def assumed(self) -> tuple[Trace, ...]:
        """What earlier steps will have left by then: the catalogue's answers take it in. () wherever a step runs."""

    def rows(self, sql: str, params: Params = NOTHING) -> list[Row]: ...
    def row(self, sql: str, params: Params = NOTHING) -> Row:
        """Exactly one row, else a StepError that says how many."""

    def columns(self, sql: str, params: Params = NOTHING) -> list[str]:
        """The names of a query's result columns, without running it to its end."""

    def trial(self, label: str) -> AbstractContextManager[Work]:
        """A writing transaction on a connection of its own that is always rolled back."""

    def environment(self) -> Mapping[str, str]:
        """For child processes: libpq's variables and RUNBOOK_URL (without password), so that no secret enters argv."""


class Work(Look, Protocol):
    """A writing view: inside one transaction of the engine's, or (from `outside`) each statement on its own."""

    def execute(self, sql: str, params: Params = NOTHING) -> int:
        """Run one statement; the number of rows it touched (-1 where the driver can't say)."""


class Database(Protocol):
    """Gives connections and keeps them for cancelling; implemented by runner.target.database, which alone opens them."""

    @property
    def dialect(self) -> Dialect: ...
    def look(self) -> AbstractContextManager[Look]:
        """Read-only, REPEATABLE READ, with timeouts."""

    def commit(self, label: str, *, durable: bool = True, off: Sequence[str] = ()) -> AbstractContextManager[Work]:
        """One transaction, fenced by the run's epoch, with SET LOCAL timeouts; ends with the ledger's row and COMMIT.

        The label is unique within (run, step, action): one that is in the ledger raises AlreadyCommitted before the body
        runs. A lost answer to COMMIT is settled inside. An exception in the body rolls all of it back. durable False: COMMIT
        waits for no disk (only for synchronous standbys), so a crash may take back the last such commits with their rows;
        off: what PostgreSQL's planner must not use ("seqscan" …), or what SQLite must not do ("foreign_keys").
        """

    def commit_all(self, changes: Sequence[Change], *, durable: bool = True, off: Sequence[str] = ()) -> list[Row]:
        """Several transactions like those of `commit`, in one message: no lock is held while the server waits for us.

        The row of each. A DatabaseFault is that of the first one that failed: all before it are committed, it and all after
        it are not, and the ledger's labels say which those are. durable: the last COMMIT waits for the disk.
        """

    def release(self) -> None:
        """This thread is done: its writing connection is closed."""

    def outside(self, label: str, *, bounded: bool = False) -> AbstractContextManager[Work]:
        """Autocommit, for CONCURRENTLY and VACUUM: each statement on its own, not fenced; bounded: with lock_timeout."""

    def committed(self) -> list[str]:
        """The labels that this step has committed so far, in order: where a resume goes on."""


class Trace(NamedTuple):
    """Something that a step will leave behind: what later steps are planned against, beside what stands today.

    kind: "column", "index", "constraint", "table", or "rows" for values alone. was: a column's old name, where it is
    renamed or gets another type. type: a column's, as the playbook writes it.
    """

    kind: str
    table: str
    name: str = ""
    was: str = ""
    type: str = ""
