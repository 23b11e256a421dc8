"""The contract of a step: what the engine calls, what it lends to a running step, and the values between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from steps.contract.fields import Model
from steps.contract.look import Database, Look, Params, Work
from steps.contract.values import Value

Before = TypeVar("Before", bound=BaseModel, default=Any)


class State(StrEnum):
    """The state of a step's change according to the database."""

    DONE = "done"
    NOT_DONE = "not_done"
    PARTLY = "partly"
    UNKNOWN = "unknown"  # the database can't tell: a person must


class Effect(NamedTuple):
    """The answer of `verify`, with the evidence for it."""

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
    """The progress of a step at a safe point."""

    done: int
    total: int | None
    unit: str  # "rows", "statements", …
    note: str = ""
    figures: Mapping[str, Value] | None = None  # what guards may read: visited, written, dead_pct, visited_per_second …


class Tuning(NamedTuple):
    """Settings of a running step that operators and guards can change, read at every safe point; None: as in the playbook."""

    batch_seconds: float | None = None
    workers: int | None = None
    max_rows: int | None = None
    rest: float | None = None  # while others work: pause after a batch, as a multiple of its duration
    hold: float = 0.0  # how long a transaction may keep its locks, in seconds; 0: no limit


class Context(Protocol):
    """The engine's interface to a running step."""

    @property
    def db(self) -> Database: ...
    @property
    def folder(self) -> Path | None:
        """The run's folder, for files that a person reads; None where there is none."""

    def pulse(self, progress: Progress) -> Tuning:
        """A safe point between transactions: reports progress, may block while the run is on hold, returns the current tuning.

        Raises Stopped where the run shall stop.
        """

    def remember(self, before: BaseModel) -> None:
        """Keep what `revert` will need. It is written with the next `commit` (before `outside`, in a commit of its own).

        Before that commit only the first call counts; `revert` gets the first that was committed.
        """

    def patiently(self, label: str, act: Callable[[Work], None], *, off: Sequence[str] = ()) -> None:
        """Run `act` in one commit under the playbook's lock policy: short lock_timeout, retries with full-jitter backoff.

        Retries until the policy's total budget is spent, also on deadlock and serialization failure; each wait is reported with
        its blockers. So `act` may be called several times. A label that is already committed is not run again.
        """

    def patiently_outside(self, label: str, act: Callable[[Work], None], *, bounded: bool) -> None:
        """Run `act` in autocommit. bounded: under the lock policy, as in `patiently`; `act` must then be safe to repeat."""


# ─── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class StepResult(Model):
    """The result of a step; its fields are the names that the step's criteria can use."""


class TakenBack(StepResult):
    """The result of an undo: rows restored, and rows left alone because somebody changed them since."""

    leaving: ClassVar[tuple[str, ...]] = ("refused",)  # figures that tell that something was not undone

    restored: int = 0
    refused: int = 0

    @classmethod
    def left_something(cls, results: Mapping[str, Value]) -> bool:
        """Whether recorded results say that something was not undone."""
        return any(results.get(name) for name in cls.leaving)


class RunTakenBack(TakenBack):
    """The result of undoing another run. standing: its steps whose change stands, wholly or in part."""

    leaving: ClassVar[tuple[str, ...]] = ("refused", "standing")

    run: str = ""
    steps: int = 0
    standing: tuple[str, ...] = ()


class Step(Model, Generic[Before]):
    """A change. The fields of a subclass are its keys in YAML; the common keys (id, why, checks …) belong to the engine.

    Before: what `apply` remembers for `revert`. A type that can be undone is a `Step[OldComment]`; one that can't is a `Step`.
    """

    kind: ClassVar[str]  # the word behind `type:`
    summary: ClassVar[str]  # one line for `runbook steps`
    changes: ClassVar[bool] = True  # False for a pure gate
    lasting: ClassVar[bool] = True  # False: maintenance (VACUUM, ANALYZE, REINDEX), which leaves nothing to undo
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
        """One line with the user's own names, used identically in plan, trail and report."""
        raise NotImplementedError

    def verify(self, look: Look) -> Effect:
        """Ask the database whether the change is there: before, after, in doubt, and in a plan."""
        raise NotImplementedError

    def apply(self, ctx: Context) -> StepResult:
        """Make the change. May be called again after a crash, and must continue from where the ledger says it stopped."""
        raise NotImplementedError


def _before(kind: type[Step]) -> type[BaseModel] | None:
    """The model in the brackets of the `Step[…]` from which a type descends; None where it has none."""
    generics = (base.__pydantic_generic_metadata__ for base in kind.__mro__ if issubclass(base, Step))
    return next((one["args"][0] for one in generics if one["origin"] is Step), None)
