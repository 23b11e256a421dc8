"""What can be said of each step before a run: against the target as it is, and what earlier steps will make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from runner.playbook.model import Entry, Playbook
from steps.contract import (
    UNDEFINED,
    Conditional,
    DatabaseFault,
    Declared,
    Effect,
    Estimable,
    Foretold,
    Look,
    NoText,
    Preflighted,
    State,
    Statement,
    StaticallyChecked,
    Step,
    StepError,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace

T = TypeVar("T")


class Looks(Protocol):
    """Gives one snapshot after the other; each has no part in what went wrong in another."""

    def __call__(self, *, assumed: tuple[Trace, ...] = ()) -> AbstractContextManager[Look]: ...


@dataclass
class Foreseen:
    """One step before the run. later: what can't be known before earlier steps have run, and is asked again then."""

    statements: tuple[Statement, ...] = ()
    rows: int | None = None
    state: Effect | None = None
    faults: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    condition: str | None = None  # of taking it back; None where nobody could be asked


@dataclass
class Foresight:
    """Goes over a playbook's steps in order, and keeps in mind what each will leave behind.

    A fault counts only where it will still be one when the step's turn comes: after a step whose effect nobody can tell
    beforehand (SQL, a program), and for what an earlier step changes, it is *not knowable before*.
    """

    looks: Looks
    dialect: Dialect
    traces: tuple[Trace, ...] = ()
    opaque: str = ""  # the first step after which nobody knows what stands

    def of(self, entry: Entry) -> Foreseen:
        """All that a card shows."""
        step, found, shown = entry.step, Foreseen(), Foreseen()
        if isinstance(step, Declared):
            found.statements = self._asked(entry, shown, lambda look: tuple(step.statements(look)), ())
        if isinstance(step, Estimable):
            found.rows = self._asked(entry, shown, step.rows, None)
        if isinstance(step, Conditional):
            found.condition = self._asked(entry, shown, step.back_if, None)
        self._obstacles(entry, found)
        # exec doesn't ask for these before it begins, so they are no reason for which it would not
        unseen = [f"can't be shown beforehand: {fault}" for fault in shown.faults if fault not in found.faults]
        found.later = list(dict.fromkeys([*shown.later, *found.later, *unseen]))
        return found

    def faults(self, playbook: Playbook, *, until: str = "") -> Iterator[tuple[Entry, list[str]]]:
        """The steps that could never work on this target, as far as that can be known now."""
        for entry in playbook.entries:
            if entry.id == until:
                return
            found = Foreseen()
            self._obstacles(entry, found, certain=True)
            if found.faults:
                yield entry, found.faults

    # ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _obstacles(self, entry: Entry, found: Foreseen, *, certain: bool = False) -> None:
        """How the step stands and what is in its way. certain: no more is asked than what can be known now."""
        step = entry.step
        if isinstance(step, StaticallyChecked):
            found.faults += _written(step, self.dialect)
        if not certain or not self.opaque or step.only:
            told = Foreseen() if _elsewhere(entry, self.dialect) else found  # there `in_the_way` says it in words
            found.state = self._asked(entry, told, step.verify, None)
            self._judge(entry, found)
            self._sort(entry, found, self._asked(entry, found, lambda look: in_the_way(entry, look), []))
        found.faults = list(dict.fromkeys(found.faults))
        found.later = [one for one in dict.fromkeys(found.later) if one not in found.faults]
        self._leave(entry, found)

    def _judge(self, entry: Entry, found: Foreseen) -> None:
        """A state that the step can't make sense of stops it at its turn."""
        if found.state is not None and found.state.state is State.UNKNOWN and not _elsewhere(entry, self.dialect):
            self._sort(entry, found, [f"it can't begin: {found.state.evidence}"])

    def _asked(self, entry: Entry, found: Foreseen, act: Callable[[Look], T], otherwise: T) -> T:
        try:
            with self.looks(assumed=self.traces) as look:
                return act(look)
        except (StepError, NoText) as error:
            if isinstance(error, DatabaseFault) and error.lost:
                raise
            absent = isinstance(error, DatabaseFault) and error.sqlstate in UNDEFINED and bool(self.traces)
            self._sort(entry, found, [str(error)], absent=absent)
            return otherwise

    def _sort(self, entry: Entry, found: Foreseen, faults: list[str], *, absent: bool = False) -> None:
        nowhere = _elsewhere(entry, self.dialect)  # no earlier step brings what this database doesn't have
        before = "" if nowhere else self.opaque or self._changed_before(entry)
        if before:
            found.later += [f"not knowable before {before}, so now it would be: {fault}" for fault in faults]
        elif absent and not nowhere:
            found.later.append(f"not knowable before {self._makers()} is there: how its statements will be planned")
        else:
            found.faults += faults

    def _makers(self) -> str:
        return ", ".join(dict.fromkeys(f"{one.table}.{one.name}" if one.name else one.table for one in self.traces))

    def _changed_before(self, entry: Entry) -> str:
        """What an earlier step changes of this step's tables beside columns, which the catalogue takes in."""
        tables = {one.table for one in self._traces_of(entry)}
        return next(
            (
                one.name or f"the rows of {one.table}"
                for one in self.traces
                if one.kind != "column" and one.table in tables
            ),
            "",
        )

    def _traces_of(self, entry: Entry) -> tuple[Trace, ...]:
        step = entry.step
        if not isinstance(step, Foretold):
            return ()
        try:
            with self.looks(assumed=self.traces) as look:
                return step.leaves(look)
        except (StepError, NoText):
            return ()

    def _leave(self, entry: Entry, found: Foreseen) -> None:
        step = entry.step
        if not step.changes or not step.lasting or (found.state is not None and found.state.state is State.DONE):
            return
        if isinstance(step, Foretold):
            self.traces += self._traces_of(entry)
        elif not self.opaque:
            self.opaque = entry.id


def in_the_way(entry: Entry, look: Look) -> list[str]:
    """What would make a step fail or hurt on this target as it is now."""
    step = entry.step
    if _elsewhere(entry, look.dialect):
        return _only_there(step, look)
    found = _written(step, look.dialect) if isinstance(step, StaticallyChecked) else []
    return [*found, *(step.preflight(look) if isinstance(step, Preflighted) else [])]


def _only_there(step: Step, look: Look) -> list[str]:
    """A step that this kind of database doesn't have passes only where all that it would do is done already."""
    try:
        effect = step.verify(look)
    except DatabaseFault as fault:
        if fault.lost:
            raise
        return [f"{step.kind} exists on {step.only} only, and can't see here whether it is already applied: {fault}"]
    if effect.state is State.DONE:
        return []
    return [f"{step.kind} exists on {step.only} only, and it is not already applied: {effect.evidence}"]


def _elsewhere(entry: Entry, dialect: Dialect) -> bool:
    return bool(entry.step.only) and entry.step.only != dialect


def _written(step: StaticallyChecked, dialect: Dialect) -> list[str]:
    try:
        return step.misfits(dialect)
    except NoText as error:
        return [str(error)]
