"""The contract between what can be done (steps, probes) and how a run goes (the engine)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, NamedTuple, Protocol

from pydantic import BaseModel

from steps.contract.fields import Model
from steps.contract.look import Database, Look, Params, Work
from steps.contract.values import Value


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
        """Ask the database whether the change is there: before, after, in doubt, and in a plan."""
        raise NotImplementedError

    def apply(self, ctx: Context) -> StepResult:
        """Make the change; may be called again after a kill and must go on where the ledger says it stood."""
        raise NotImplementedError
