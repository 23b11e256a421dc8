"""Optional abilities of a step, beyond the contract of all steps: protocols that the engine checks with isinstance."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeGuard, TypeVar, runtime_checkable

from steps.contract.gate import GateNeeds
from steps.contract.look import Look, Trace
from steps.contract.step import Before, Context, Statement, Step, StepResult, TakenBack
from steps.contract.values import Value

if TYPE_CHECKING:
    from steps.contract.dialect import Dialect

A = TypeVar("A")


def able(step: object, ability: type[A]) -> TypeGuard[A]:
    """Whether a step or probe has an ability; as isinstance, which takes long for protocols, asked once a type."""
    kinds: tuple[type, type] = (type(step), ability)
    if kinds not in _ABLE:
        _ABLE[kinds] = issubclass(*kinds)
    return _ABLE[kinds]


_ABLE: dict[tuple[type, type], bool] = {}


@runtime_checkable
class Declared(Protocol):
    """The change is SQL that can be shown in advance: preview, lint, lock table and apply use the same list."""

    def statements(self, look: Look) -> list[Statement]: ...


@runtime_checkable
class Reversible(Protocol[Before]):
    """The change can be undone from what `Context.remember` kept: a `Step[Before]` with a `revert`."""

    def recall(self, text: str) -> Before: ...

    def revert(self, ctx: Context, before: Before) -> TakenBack | None:
        """Undo the change; counts the rows restored and those left alone, where it works by rows."""


@runtime_checkable
class Oneway(Protocol):
    """A Reversible type whose single steps may not be: says why this one isn't, "" where it is."""

    def one_way(self) -> str: ...


@runtime_checkable
class HalfDone(Protocol):
    """Can fail half done, in a state that its own undo can't handle."""

    def half_way_back(self) -> str:
        """Why it couldn't be undone then, with the remedy; "" where it always can."""


@runtime_checkable
class Doubtful(Protocol):
    """Can reach a state in which a person must decide before it is undone."""

    def doubt(self, look: Look) -> str:
        """Why a person must decide, "" where nobody must. Settled as done means that all of it stands: `revert` is called."""


@runtime_checkable
class Mendable(Protocol):
    """Its undo is written in the playbook, and may be corrected there after the step has run."""

    def only_way_back_differs(self, before: Step) -> bool:
        """Whether `before` is the same change with a different undo."""


@runtime_checkable
class Lingering(Protocol):
    """What it started may outlive the process that ran it."""

    def at_work(self, look: Look) -> str:
        """What is still running for it, with what to do about it; "" where nothing is known to run."""


@runtime_checkable
class Conditional(Protocol):
    """Reversible on a condition that is known only at the time of the undo; the plan states it."""

    def back_if(self, look: Look | None) -> str:
        """The condition, in words that continue "yes, " ("unless …", "while …"); "" where there is none."""


@runtime_checkable
class Recounted(Protocol):
    """Its result can be computed again from the ledger, after a crash between its last commit and the trail's record of it."""

    def result(self, look: Look) -> StepResult: ...


@runtime_checkable
class Requeueable(Protocol):
    """Skips rows that it can't change, and can retry them."""

    def aside(self, look: Look) -> int:
        """The number of skipped rows at present: dead ones, and deferred ones not retried yet."""

    def reopen(self, ctx: Context) -> None:
        """Make the step unfinished again, so that `apply` retries those rows."""


@runtime_checkable
class UndoesRun(Protocol):
    """Undoes the latest run of another playbook on this target; the engine does it, with that run's own steps."""

    def undoes(self) -> str:
        """The playbook's name."""

    def only_steps(self) -> tuple[str, ...]:
        """The ids of the steps to undo; () for all of them."""


@runtime_checkable
class Estimable(Protocol):
    """Can estimate how many rows it will touch."""

    def rows(self, look: Look) -> int | None: ...


@dataclass(frozen=True)
class RunningFigures:
    """The figures that a step type reports while it runs, by name and by how guards and the report use them.

    names: those that guards' expressions can use, all numbers, in display order.
    counted: a result with all of these visited a table's rows; the report gives such steps columns of their own.
    set_aside: the figure that counts dead rows; `runbook report --rows` lists these rows under this name.
    batch_ms: the figure with the duration of the last batch in milliseconds; "" where there are no batches.
    """

    names: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    set_aside: str = ""
    batch_ms: str = ""


@runtime_checkable
class TellsFigures(Protocol):
    """Reports figures while it runs. Declared on the class, because guards are validated before there is a step."""

    running_figures: ClassVar[RunningFigures]


def running_figures(step: Step | type[Step]) -> RunningFigures:
    """The figures that a step or a step type reports while it runs; empty for most."""
    return _declared_figures(step if isinstance(step, type) else type(step))


@functools.cache
def _declared_figures(kind: object) -> RunningFigures:  # as a type, mypy would never believe it to be the protocol's
    return kind.running_figures if isinstance(kind, TellsFigures) else RunningFigures()


@runtime_checkable
class Connecting(Protocol):
    """Uses several connections at once, and says how many."""

    def connections(self) -> int: ...


@runtime_checkable
class Preflighted(Protocol):
    """Checks, before the run starts, for what would make it fail or harm others; each text is a fault that stops the run."""

    def preflight(self, look: Look) -> list[str]: ...


@runtime_checkable
class StaticallyChecked(Protocol):
    """Can have faults that its text alone shows, and that no database state or earlier step could remedy."""

    def misfits(self, dialect: Dialect) -> list[str]: ...


@runtime_checkable
class UsesFigures(Protocol):
    """Binds figures of earlier steps and checks of its run as parameters."""

    def figures(self) -> tuple[str, ...]:
        """Their names, such as "count.rows"."""

    def with_figures(self, values: Mapping[str, Value]) -> Step:
        """A copy of the step with the figures bound to these values."""


@runtime_checkable
class Resting(Protocol):
    """Rests while others work, also during its undo."""

    def rests(self) -> float:
        """The longest rest, as a multiple of the time worked."""


@runtime_checkable
class Foretold(Protocol):
    """Can say in advance what it will create. After a step that can't, later steps can't be fully planned."""

    def leaves(self, look: Look) -> tuple[Trace, ...]: ...


@runtime_checkable
class Gate(Protocol):
    """A step that waits for people or for time instead of changing something."""

    def needs(self) -> GateNeeds: ...
