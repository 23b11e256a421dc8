"""The contract between what can be done (steps, probes) and how a run goes (the engine)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from steps.contract.fields import Model
from steps.contract.look import Database, Look, Params, Work
from steps.contract.values import Value

Before = TypeVar("Before", bound=BaseModel, default=Any)


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

    leaving: ClassVar[tuple[str, ...]] = ("refused",)  # the figures that say that something was left as it is

    restored: int = 0
    refused: int = 0

    @classmethod
    def left_something(cls, results: Mapping[str, Value]) -> bool:
        """Whether a step's results, as the record has them, tell of something that was not taken back."""
        return any(results.get(name) for name in cls.leaving)


class RunTakenBack(TakenBack):
    """What taking back another run came to. standing: its steps of which something still stands."""

    leaving: ClassVar[tuple[str, ...]] = ("refused", "standing")

    run: str = ""
    steps: int = 0
    standing: tuple[str, ...] = ()


class Step(Model, Generic[Before]):
    """A change. The fields of a subclass are its keys in YAML; common keys (id, why, checks …) belong to the engine.

    Before: what `apply` remembers for `revert`. A type with a way back is a `Step[OldComment]`; one without is a `Step`.
    """

    kind: ClassVar[str]  # the word behind `type:`
    summary: ClassVar[str]  # one line for `runbook steps`
    changes: ClassVar[bool] = True  # False only for a step that is nothing but a gate
    lasting: ClassVar[bool] = True  # False: maintenance (VACUUM, ANALYZE, REINDEX) that leaves nothing to take back
    only: ClassVar[str] = ""  # the one dialect where this exists ("postgresql"), "" for both
    Result: ClassVar[type[StepResult]] = StepResult

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "revert" in vars(cls) and _before(cls) is None:  # else it would be seen only when something is taken back
            raise TypeError(f"cannot define {cls.__name__}: it has a revert, so write Step[…] with what it remembers")

    @classmethod
    def recall(cls, text: str) -> Before:
        """What `apply` remembered, from the ledger's JSON; raises ValidationError where that is something else."""
        model = _before(cls)
        if model is None:
            raise TypeError(f"{cls.__name__} remembers nothing")
        return cast("Before", model.model_validate_json(text))

    def describe(self) -> str:
        """One line with the user's own names, the same in plan, trail and report."""
        raise NotImplementedError

    def verify(self, look: Look) -> Effect:
        """Ask the database whether the change is there: before, after, in doubt, and in a plan."""
        raise NotImplementedError

    def apply(self, ctx: Context) -> StepResult:
        """Make the change; may be called again after a kill and must go on where the ledger says it stood."""
        raise NotImplementedError


def _before(kind: type[Step]) -> type[BaseModel] | None:
    """The model in the brackets of the `Step[…]` from which a type descends; None where it has none."""
    generics = (base.__pydantic_generic_metadata__ for base in kind.__mro__ if issubclass(base, Step))
    return next((one["args"][0] for one in generics if one["origin"] is Step), None)
