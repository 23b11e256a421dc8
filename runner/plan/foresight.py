"""Predicts for each step, before a run, its statements, rows and obstacles: on the target as earlier steps will leave it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from runner.plan import ask
from runner.playbook.model import Check, Entry, Playbook
from runner.playbook.scope import Scope
from runner.trail.events import CheckAnswered
from steps.contract import (
    LOCK_NOT_AVAILABLE,
    UNDEFINED,
    Answer,
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
    Value,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace

T = TypeVar("T")


class Looks(Protocol):
    """Opens snapshots, one after the other; an error in one doesn't affect the next."""

    def __call__(self, *, assumed: tuple[Trace, ...] = ()) -> AbstractContextManager[Look]: ...


class Expected(NamedTuple):
    """What a step's condition says now. runs: whether the step would run; None if that can't be known yet."""

    runs: bool | None
    words: str


@dataclass
class Foreseen:
    """The prediction for one step. later: what can't be known before earlier steps have run; it is asked again then."""

    statements: tuple[Statement, ...] = ()
    rows: int | None = None
    state: Effect | None = None
    faults: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    condition: str | None = None  # of its undo; None if the target could not be asked
    expected: Expected | None = None  # None: it has no `when:`


@dataclass
class Foresight:
    """Goes through a playbook's steps in order and tracks what each will leave behind.

    A fault counts only if it will still be one when it is the step's turn. After a step with unpredictable effects (SQL,
    a program), and for objects that an earlier step changes, it is reported as *not knowable before*.
    """

    looks: Looks
    dialect: Dialect
    names: Mapping[str, Value] = field(default_factory=dict)  # limits and inputs, for conditions
    traces: tuple[Trace, ...] = ()
    opaque: str = ""  # the first step with unpredictable effects
    _stops: set[str] = field(
        default_factory=set
    )  # faults of conditions: with them the run stops even if the step would not

    def of(self, entry: Entry) -> Foreseen:
        """Everything that the plan shows of a step."""
        step, found, shown = entry.step, Foreseen(), Foreseen()
        if isinstance(step, Declared):
            found.statements = self._asked(entry, shown, lambda look: tuple(step.statements(look)), ())
        if isinstance(step, Estimable):
            found.rows = self._asked(entry, shown, step.rows, None)
        if isinstance(step, Conditional):
            found.condition = self._asked(entry, shown, step.back_if, None)
        self._obstacles(entry, found)
        # exec doesn't ask for these before it starts, so they are no reason for it to refuse.
        unseen = [f"can't be shown beforehand: {fault}" for fault in shown.faults if fault not in found.faults]
        found.later = list(dict.fromkeys([*shown.later, *found.later, *unseen]))
        return found

    def faults(self, playbook: Playbook, *, until: str = "") -> Iterator[tuple[Entry, list[str]]]:
        """The steps that can't work on this target, as far as that is known now, with the reasons. until: a checkpoint."""
        for entry in playbook.entries:
            if entry.id == until:
                return
            found = Foreseen()
            self._obstacles(entry, found, certain=True)
            if found.faults:
                yield entry, found.faults

    # ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _obstacles(self, entry: Entry, found: Foreseen, *, certain: bool = False) -> None:
        """The step's state and obstacles. certain: ask only what can be known now."""
        step = entry.step
        found.expected = self._expected(entry, found) if entry.when is not None else None
        if isinstance(step, StaticallyChecked):
            found.faults += _written(step, self.dialect)
        if not certain or not self.opaque or step.only:
            told = Foreseen() if _elsewhere(entry, self.dialect) else found  # there `in_the_way` says it in words
            found.state = self._asked(entry, told, step.verify, None)
            self._judge(entry, found)
            self._sort(entry, found, self._asked(entry, found, lambda look: in_the_way(entry, look), []))
        if found.expected is not None and not found.expected.runs:
            found.later += [f"only if it runs: {fault}" for fault in found.faults if fault not in self._stops]
            found.faults = [fault for fault in found.faults if fault in self._stops]
        found.faults = list(dict.fromkeys(found.faults))
        found.later = [one for one in dict.fromkeys(found.later) if one not in found.faults]
        self._leave(entry, found)

    def _expected(self, entry: Entry, found: Foreseen) -> Expected:
        """What the step's condition says now. One that can't be answered is an obstacle, unless earlier steps may change that."""
        condition = entry.when
        if condition is None:
            return Expected(True, "")
        later = sorted(self._of_a_run(condition))
        if later:
            return Expected(None, f"not knowable before the run has found {', '.join(later)}")
        if self.opaque:
            return Expected(None, f"not knowable before {self.opaque}")
        look = functools.partial(self.looks, assumed=self.traces)
        answers = ask.ask([condition], step=entry.id, role="condition", look=look, scope=Scope(self.names))
        answer = next(one for one in answers if isinstance(one, CheckAnswered))
        if answer.answer in {Answer.PASS, Answer.FAIL}:
            runs = answer.answer is Answer.PASS
            return Expected(runs, f"now it would {'run' if runs else 'be skipped'}: {answer.text}")
        told = f"its condition answers {answer.answer}: {answer.text}"
        if self.traces:
            return Expected(None, f"not knowable before {self._makers()} is there; now {told}")
        found.faults.append(told)
        self._stops.add(told)
        return Expected(None, told)

    def _of_a_run(self, condition: Check) -> set[str]:
        """The figures of earlier checks and steps that a condition compares."""
        names = set(condition.that.names) if condition.that is not None else set()
        return {name for name in names if "." in name and name not in self.names}

    def _judge(self, entry: Entry, found: Foreseen) -> None:
        """An unknown state is an obstacle: the step would stop when its turn comes."""
        if found.state is not None and found.state.state is State.UNKNOWN and not _elsewhere(entry, self.dialect):
            self._sort(entry, found, [f"it can't begin: {found.state.evidence}"])

    def _asked(self, entry: Entry, found: Foreseen, act: Callable[[Look], T], otherwise: T) -> T:
        try:
            with self.looks(assumed=self.traces) as look:
                return act(look)
        except (StepError, NoText) as error:
            if isinstance(error, DatabaseFault) and error.lost:
                raise
            if isinstance(error, DatabaseFault) and error.sqlstate == LOCK_NOT_AVAILABLE:
                found.later.append(f"can't be seen now, since others hold a lock: {error}")
                return otherwise
            absent = isinstance(error, DatabaseFault) and error.sqlstate in UNDEFINED and bool(self.traces)
            self._sort(entry, found, [str(error)], absent=absent)
            return otherwise

    def _sort(self, entry: Entry, found: Foreseen, faults: list[str], *, absent: bool = False) -> None:
        nowhere = _elsewhere(entry, self.dialect)  # no earlier step can provide what this database lacks
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
        """What an earlier step changes in this step's tables, apart from columns, which the assumed catalogue includes."""
        tables = {one.table for one in self._traces_of(entry)}
        return next(
            (
                one.name or f"the rows of {one.table}"
                for one in self.traces
                if one.kind not in {"column", "kept"} and one.table in tables
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
        if found.expected is not None and not found.expected.runs:
            unsettled = found.expected.runs is None or self.traces  # earlier changes may turn its answer
            self.opaque = self.opaque or (entry.id if unsettled else "")
            return
        if isinstance(step, Foretold):
            self.traces += self._traces_of(entry)
        elif not self.opaque:
            self.opaque = entry.id


def in_the_way(entry: Entry, look: Look) -> list[str]:
    """Reasons why a step would fail or do harm on this target as it is now."""
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
