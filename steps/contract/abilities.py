"""What a step can do beside the contract that all keep: each ability is a protocol that the engine asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from steps.contract.gate import GateNeeds
from steps.contract.look import Look, Trace
from steps.contract.values import Value

if TYPE_CHECKING:
    from steps.contract.dialect import Dialect
from steps.contract.step import Before, Context, Statement, Step, StepResult, TakenBack


@runtime_checkable
class Declared(Protocol):
    """The change is SQL that can be shown beforehand: preview, lint, locks and apply are one list."""

    def statements(self, look: Look) -> list[Statement]: ...


@runtime_checkable
class Reversible(Protocol[Before]):
    """The change can be taken back from what `remember` kept; a `Step[Before]` with a `revert` is."""

    def recall(self, text: str) -> Before: ...

    def revert(self, ctx: Context, before: Before) -> TakenBack | None:
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


@dataclass(frozen=True)
class RunningFigures:
    """The figures that a step type tells while it runs, by name, and what they are to those who read them.

    names: what its guards' expressions may name, all of them numbers, in the order in which people read them.
    counted: a result that has all of these has gone over a table; the report gives it a column of its own.
    set_aside: the one that counts the rows that the step gave up; `runbook report --rows` lists them by this name.
    batch_ms: the one that is the length of the last batch in milliseconds; "" where there are no batches.
    """

    names: tuple[str, ...] = ()
    counted: tuple[str, ...] = ()
    set_aside: str = ""
    batch_ms: str = ""


@runtime_checkable
class TellsFigures(Protocol):
    """Tells figures while it runs. Declared by the type, because a guard is read before there is a step."""

    running_figures: ClassVar[RunningFigures]


def running_figures(step: Step | type[Step]) -> RunningFigures:
    """What a step, or a step type, tells while it runs; of most there is nothing."""
    declared: object = step  # of a class, mypy believes that it never is what a protocol describes
    return declared.running_figures if isinstance(declared, TellsFigures) else RunningFigures()


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
