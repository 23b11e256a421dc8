"""The contract between what can be done (steps, probes) and how a run goes (the engine)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict

from steps.needs import GateNeeds
from steps.shapes import Trace
from steps.values import Value
from steps.words import Model

if TYPE_CHECKING:
    from steps.sqltext import Dialect

Params: TypeAlias = Mapping[str, Value]
NOTHING: Params = {}
Question: TypeAlias = tuple[str, Params]  # SQL with :name parameters, and their values


# ─── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Answer(StrEnum):
    """What a check says; only PASS opens a gate."""

    PASS = "pass"  # evaluated, and it held
    FAIL = "fail"  # evaluated, and it did not hold
    ERROR = "error"  # could not be evaluated: the probe itself failed
    UNKNOWN = "unknown"  # evaluated, but what was seen can't decide (NULL, missing privilege, noise)


class State(StrEnum):
    """What the database says of a step's change."""

    DONE = "done"
    NOT_DONE = "not_done"
    PARTLY = "partly"
    UNKNOWN = "unknown"  # the step can't tell from the database: a person must


class Effect(NamedTuple):
    """The answer of `verify`, with what it was read from."""

    state: State
    evidence: str


class Verdict(NamedTuple):
    """A probe's own decision from its typed fields (`has`, `lacks`, `rows` …), before any `that:`."""

    answer: Answer
    why: str


@dataclass(frozen=True)
class Statement:
    """One statement of a step, as preview, lint, lock table and `apply` all see it.

    lock: the strongest lock in PostgreSQL's words ("ACCESS EXCLUSIVE"), or "" for none worth naming.
    length: how long that lock is held, in kind: "instant", "one scan", "one rewrite".
    """

    sql: str
    params: Params = field(default_factory=dict)
    lock: str = ""
    length: str = ""
    table: str = ""
    transactional: bool = True
    note: str = ""


class Progress(NamedTuple):
    """How far a step has come at a safe point."""

    done: int
    total: int | None
    unit: str  # "rows", "statements", …
    note: str = ""
    figures: Mapping[str, Value] | None = None  # what guards may read: visited, written, dead_pct, visited_per_second …


class Tuning(NamedTuple):
    """What an operator or a guard asks of a running step, read at every safe point; None: as the playbook says."""

    batch_seconds: float | None = None
    workers: int | None = None
    max_rows: int | None = None
    rest: float | None = None  # beside others at work: after a batch, so many times as long as it took
    hold: float = 0.0  # how long a transaction may keep its locks; 0: no bound


class Change(NamedTuple):
    """One transaction of those that are sent together: a statement that gives one row, and the ledger's label for it.

    Nobody looks at the row before COMMIT: the statement itself must fail where it must not be committed. It casts its parameters.
    """

    label: str
    sql: str
    params: Params


class Place(NamedTuple):
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
    def place(self) -> Place | None:
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
    """Gives connections and keeps them for cancelling; implemented by runner.database, which alone opens them."""

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


class Context(Protocol):
    """What the engine lends to a step while it changes something."""

    @property
    def db(self) -> Database: ...
    def pulse(self, progress: Progress) -> Tuning:
        """A safe point between transactions: reports, may hold, may raise Stopped; says what tuning is wanted now."""

    def remember(self, before: BaseModel) -> None:
        """What revert will need: commits with the next `commit` (alone before `outside`); the first one stays."""

    def patiently(self, label: str, act: Callable[[Work], None], *, off: Sequence[str] = ()) -> None:
        """`act` in one commit under the playbook's lock policy.

        A short lock_timeout, tried again with full jitter within the total budget, each wait reported with those who
        block; also again on deadlock and serialization failure. A label already committed is not done again.
        """

    def patiently_outside(self, label: str, act: Callable[[Work], None], *, bounded: bool) -> None:
        """`act` outside of a transaction; bounded: under the lock policy like `patiently`, so it must be fit to be sent again."""


# ─── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class StepResult(Model):
    """What a step found or did; its fields are the names that the step's own criteria may use."""


class TakenBack(StepResult):
    """What taking a step back came to: rows set back, and rows left alone because somebody changed them since."""

    restored: int = 0
    refused: int = 0


class RunTakenBack(TakenBack):
    """What taking back another run came to. standing: its steps of which something still stands."""

    run: str = ""
    steps: int = 0
    standing: tuple[str, ...] = ()


class Step(Model):
    """A change. The fields of a subclass are its keys in YAML; common keys (id, why, checks …) belong to the engine."""

    kind: ClassVar[str]  # the word behind `type:`
    summary: ClassVar[str]  # one line for `runbook steps`
    changes: ClassVar[bool] = True  # False only for a step that is nothing but a gate
    lasting: ClassVar[bool] = True  # False: maintenance (VACUUM, ANALYZE, REINDEX) that leaves nothing to take back
    only: ClassVar[str] = ""  # the one dialect where this exists ("postgresql"), "" for both
    Result: ClassVar[type[StepResult]] = StepResult

    def describe(self) -> str:
        """One line with the user's own names, the same in plan, trail and report."""
        raise NotImplementedError

    def verify(self, look: Look) -> Effect:
        """Ask the database whether the change is there: before, after, in doubt, and in `doctor`."""
        raise NotImplementedError

    def apply(self, ctx: Context) -> StepResult:
        """Make the change; may be called again after a kill and must go on where the ledger says it stood."""
        raise NotImplementedError


@runtime_checkable
class Declared(Protocol):
    """The change is SQL that can be shown beforehand: preview, lint, locks and apply are one list."""

    def statements(self, look: Look) -> list[Statement]: ...


@runtime_checkable
class Reversible(Protocol):
    """The change can be taken back from what `remember` kept."""

    Before: ClassVar[type[BaseModel]]

    def revert(self, ctx: Context, before: BaseModel) -> TakenBack | None:
        """Take the change back; rows that it restored and refused are counted, where it goes by rows."""


@runtime_checkable
class Oneway(Protocol):
    """A type that is Reversible in general, but not this step: says why in words, or "" when it can be reverted."""

    def one_way(self) -> str: ...


@runtime_checkable
class HalfDone(Protocol):
    """Can end half done, in a state from which its own way back does not lead."""

    def half_way_back(self) -> str:
        """Why it could not be taken back then, with the remedy; "" where it always can."""


@runtime_checkable
class Doubtful(Protocol):
    """Can come to a state from which taking it back needs a person's word."""

    def doubt(self, look: Look) -> str:
        """Why, in words; "" where it can be taken back. Settled as done: all of it stands, and `revert` is called."""


@runtime_checkable
class Mendable(Protocol):
    """Its way back is written in the playbook, where it may be mended after the step has run."""

    def only_way_back_differs(self, before: Step) -> bool:
        """Whether `before` is the same change with another way back."""


@runtime_checkable
class Lingering(Protocol):
    """What it began may outlive the process that ran it."""

    def at_work(self, look: Look) -> str:
        """Who still works for it, with what to do; "" where nobody is seen."""


@runtime_checkable
class Conditional(Protocol):
    """Reversible on a condition that shows only when it is taken back: plan says it beforehand."""

    def back_if(self, look: Look | None) -> str:
        """The condition, in words that go on after "yes, " ("unless …", "while …"); "" where there is none."""


@runtime_checkable
class Recounted(Protocol):
    """Its result can be read from the ledger again, after a kill between the last commit and the trail's record of it."""

    def result(self, look: Look) -> StepResult: ...


@runtime_checkable
class Requeueable(Protocol):
    """Sets aside what it can't change, and can try that again."""

    def aside(self, look: Look) -> int:
        """How many rows that is now: those that it gave up, and those to which it still meant to return."""

    def reopen(self, ctx: Context) -> None:
        """From here on the step is unfinished, and `apply` returns to those rows."""


@runtime_checkable
class UndoesRun(Protocol):
    """Takes back the latest run of another playbook on this target; the engine does it with that run's own steps."""

    def undoes(self) -> str:
        """The playbook's name."""

    def only_steps(self) -> tuple[str, ...]:
        """The ids of the steps to take back; () for all of them."""


@runtime_checkable
class Estimable(Protocol):
    """Can say beforehand how many rows it will touch."""

    def rows(self, look: Look) -> int | None: ...


@runtime_checkable
class Connecting(Protocol):
    """Writes through more than one connection at once, and says through how many."""

    def connections(self) -> int: ...


@runtime_checkable
class Preflighted(Protocol):
    """Looks for what would make it fail (or hurt) before the run starts; each text is a fault that stops the run."""

    def preflight(self, look: Look) -> list[str]: ...


@runtime_checkable
class StaticallyChecked(Protocol):
    """Has faults that its text alone shows: no database and no earlier step can mend them."""

    def misfits(self, dialect: Dialect) -> list[str]: ...


@runtime_checkable
class UsesFigures(Protocol):
    """Binds what earlier steps and checks of its run found."""

    def figures(self) -> tuple[str, ...]:
        """Their names, such as "count.rows"."""

    def with_figures(self, values: Mapping[str, Value]) -> Step:
        """The step as it is sent: each figure is the value of its name."""


@runtime_checkable
class Resting(Protocol):
    """Rests while others work, also on the way back."""

    def rests(self) -> float:
        """How many times as long as it works, at most."""


@runtime_checkable
class Foretold(Protocol):
    """Says beforehand what it will leave behind. After a step that can't, nobody knows what later steps will find."""

    def leaves(self, look: Look) -> tuple[Trace, ...]: ...


@runtime_checkable
class Gate(Protocol):
    """A step that waits for people or for time instead of changing something."""

    def needs(self) -> GateNeeds: ...


# ─── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Probe(Model):
    """Something that can be looked at. The fields of a subclass are its keys in YAML beside id, that, warn, why."""

    kind: ClassVar[str]  # the word behind `check:`
    summary: ClassVar[str]
    enforced: ClassVar[bool] = True  # read-only by the database itself; False: shown as such in the plan
    runs_programs: ClassVar[bool] = False  # of the playbook's author: a plan leaves it out unless asked
    alone: ClassVar[bool] = False  # wants a look of its own (long or repeated measurement), not the group's snapshot
    only: ClassVar[str] = ""
    Result: ClassVar[type[BaseModel]]  # its fields are the names for `that:`
    open_names: ClassVar[bool] = False  # further names come from the query at hand

    def observe(self, look: Look) -> BaseModel:
        """Look, and return the figures; raises Unknown where what could be seen can't decide."""
        raise NotImplementedError

    def verdict(self, result: BaseModel) -> Verdict | None:
        """What the typed fields say of it; None where only `that:` decides."""
        del result
        return None

    def decides(self) -> bool:
        """Whether the typed fields alone make this a check, so that `that:` may be absent."""
        return False


class Unknown(Exception):
    """What could be seen can't decide; the text names the missing grant, statistic or host."""


class Figures(Model):
    """A probe's result whose names come from the query: {name: value}."""

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)
