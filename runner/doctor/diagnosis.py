"""The doctor's answer: what it asked of the target, what the target said, and what to do next. It only reads."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runner.doctor.subject import Subject
from runner.plan import advice, open_runs
from runner.plan.foresight import Foreseen, Foresight
from runner.playbook.model import Entry, Playbook
from runner.target.workplace import Connected
from runner.trail.events import StepOutcome
from runner.trail.status import RunStatus
from steps.catalog import leftovers, must_hold, shape_compare
from steps.catalog.leftovers import Leftover
from steps.catalog.must_hold import MustHoldAnswer
from steps.catalog.shape import DeclaredShape, ResolvedShape, ShapeState
from steps.catalog.shape_compare import Comparison
from steps.contract import INSUFFICIENT_PRIVILEGE, DatabaseFault, NoText, State
from steps.ledger import runs, tables
from steps.ledger.runs import RunRow
from steps.sql.unreadable import attempt


@dataclass(frozen=True)
class Examined:
    """A shape compared with the target. data: what the target's rows say to its `must_hold`."""

    comparison: Comparison
    data: tuple[MustHoldAnswer, ...] = ()

    @property
    def whole(self) -> bool:
        return self.comparison.state is ShapeState.WHOLE


@dataclass(frozen=True)
class StepSeen:
    """A step, and what its own `verify` and preflight say of the target."""

    id: str
    what: str
    state: str
    evidence: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All answers. unasked: what could not be asked, with the reason."""

    target: str
    name: str
    shapes: tuple[Examined, ...] = ()
    steps: tuple[StepSeen, ...] = ()
    run: str = ""  # the run in words
    leftovers: tuple[Leftover, ...] = ()
    open_runs: tuple[str, ...] = ()
    unasked: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    well: bool = field(default=False)


def diagnose(target: Connected, subject: Subject) -> Diagnosis:
    """Ask the target; each kind of question in a snapshot of its own, so that one that fails spoils no other."""
    unasked: list[str] = []
    shapes = tuple(_shapes(target, subject, unasked))
    left = _leftovers(target, subject, [one.comparison.shape for one in shapes if one.whole])
    ledger = tuple(_open_runs(target, unasked))
    status = subject.run.status if subject.run is not None else None
    run = advice.state_word(status, living=advice.alive(status)) if status is not None else ""
    steps = tuple(_steps(target, subject.playbook, status)) if subject.playbook is not None else ()
    return Diagnosis(
        target=target.name,
        name=subject.name,
        shapes=shapes,
        steps=steps,
        run=run,
        leftovers=left,
        open_runs=ledger,
        unasked=tuple(unasked),
        next=tuple(dict.fromkeys(_next(target, subject, shapes, left))),
        well=_well(subject, shapes, steps, unasked) and not ledger and all(one.harmless for one in left),
    )


def _well(subject: Subject, shapes: Sequence[Examined], steps: Sequence[StepSeen], unasked: Sequence[str]) -> bool:
    """Whether all is as declared. Of several shapes one must be whole; the data counts for those that aren't."""
    if unasked or any(one.comparison.changers for one in shapes):
        return False
    fine = not shapes or (all if subject.one else any)(one.whole for one in shapes)
    data = all(answered.holds for one in shapes for answered in one.data)
    return fine and data and not any(one.state in {State.PARTLY, State.UNKNOWN} or one.faults for one in steps)


# ─── shapes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _shapes(target: Connected, subject: Subject, unasked: list[str]) -> Iterator[Examined]:
    for declared in subject.shapes.values():
        try:
            shape = declared.on(target.database.dialect)
        except NoText as why:
            unasked.append(str(why))
            continue
        with target.database.look() as look:
            comparison = shape_compare.compare(look, shape)
        if comparison.hidden:
            unasked.append(comparison.hidden)
        yield Examined(comparison, tuple(_data(target, shape, comparison)))


def _data(target: Connected, shape: ResolvedShape, comparison: Comparison) -> Iterator[MustHoldAnswer]:
    """Where the migration has yet to run, and nobody holds a lock behind which the question would wait."""
    if comparison.state not in {ShapeState.ABSENT, ShapeState.HALF}:
        return
    for name, rule in shape.must_hold.items():
        with target.database.look() as look:
            yield must_hold.ask(look, name, rule)


# ─── a playbook, a run ──────────────────────────────────────────────────────────────────────────────────────────────
def _steps(target: Connected, playbook: Playbook, status: RunStatus | None) -> Iterator[StepSeen]:
    """What the database says of each step. status: of the run that is asked about, whose changes must still be there."""
    foresight = Foresight(target.database.look, target.database.dialect)
    for entry in playbook.entries:
        seen = foresight.of(entry)
        if not entry.step.changes:
            continue
        state, evidence = (seen.state.state, seen.state.evidence) if seen.state is not None else (_unseen(seen), "")
        faults = [] if state == State.DONE else seen.faults
        if _did(status, entry) and state in {State.NOT_DONE, State.PARTLY}:
            faults = ["the run did it and has not taken it back, but it is not there any more", *faults]
        yield StepSeen(entry.id, entry.step.describe(), str(state), evidence, tuple(faults))


def _did(status: RunStatus | None, entry: Entry) -> bool:
    """Whether the run's record says that the step's change is in the database."""
    told = status.steps.get(entry.id) if status is not None else None
    return told is not None and told.outcome is StepOutcome.DONE and told.reverted is None and entry.step.lasting


def _unseen(seen: Foreseen) -> str:
    """Not knowable before earlier steps have run, or the database could not be asked."""
    return "later" if seen.later and not seen.faults else str(State.UNKNOWN)


# ─── what was left behind ───────────────────────────────────────────────────────────────────────────────────────────
def _leftovers(target: Connected, subject: Subject, whole: Sequence[ResolvedShape]) -> tuple[Leftover, ...]:
    dialect = target.database.dialect
    known: list[DeclaredShape] = [*subject.known]
    shapes = [one.on(dialect) for one in known if str(dialect) in one.shapes]
    with target.database.look() as look:
        return tuple(leftovers.leftovers(look, shapes, whole))


def _open_runs(target: Connected, unasked: list[str]) -> Iterator[str]:
    with target.database.look() as look:
        if not tables.exists(look):
            return
        try:
            with attempt(look):
                rows = runs.all_runs(look)
        except DatabaseFault as fault:
            if fault.sqlstate != INSUFFICIENT_PRIVILEGE:
                raise
            unasked.append("which runs never ended: this role may not read the ledger (runbook target init --print)")
            return
    yield from (_told(row) for row in rows if open_runs.may_be_open(row))


def _told(row: RunRow) -> str:
    state = "being rolled back" if row.going_back else row.state
    return f"run {row.run}: {state}, last seen {row.age_s:.0f} s ago by {row.operator or 'somebody'} (ledger)"


def _standing_bases(target: Connected, subject: Subject, shapes: Sequence[Examined]) -> dict[str, str]:
    """Half shapes from which a later one is declared that is there → that one: what the base lacks was changed on purpose."""
    asked = [one.comparison for one in shapes]
    half = [one.shape.name for one in asked if one.state is ShapeState.HALF]
    for declared in subject.later:
        with contextlib.suppress(NoText), target.database.look() as look:
            asked.append(shape_compare.compare(look, declared.on(target.database.dialect)))
    there = [one.shape for one in asked if one.state in {ShapeState.WHOLE, ShapeState.MORE} and one.shape.base]
    return {one.base: one.name for one in there if one.base in half}


# ─── next ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _next(target: Connected, subject: Subject, shapes: Sequence[Examined], left: Sequence[Leftover]) -> Iterator[str]:
    on = shlex.quote(target.name)
    changers = [who for one in shapes for who in one.comparison.changers]
    if changers:
        yield "wait until it has ended, then ask again: " + f"runbook doctor {shlex.quote(subject.name)} -t {on}"
        yield from (
            f"or end it, if nobody needs it: SELECT pg_terminate_backend({one.pid})" for one in changers if one.pid
        )
        return
    whole = any(one.whole for one in shapes)
    after = _standing_bases(target, subject, shapes)
    yield from (f"runbook doctor {shlex.quote(name)} -t {on}, which comes after {base}" for base, name in after.items())
    shapes = [one for one in shapes if one.comparison.shape.name not in after]
    seen = [(one.comparison.state, one.comparison.shape.next) for one in shapes]
    first = [then[state] for state, then in seen if state is ShapeState.HALF and state in then and not whole]
    yield from (f"runbook plan {playbook} -t {on}" for playbook in first)
    yield from _about_data([answered for one in shapes for answered in one.data])
    later = [then[state] for state, then in seen if state in then and (state is ShapeState.ABSENT or not whole)]
    yield from (f"runbook plan {playbook} -t {on}" for playbook in later)
    if any(state is ShapeState.UNKNOWN for state, _ in seen):
        yield "let this role see what it can't (GRANT SELECT …), and ask again"
    if subject.run is not None:
        yield f"runbook status {shlex.quote(subject.run.status.run)}"
    if first:  # before it the playbook would be refused, and with it goes what else is left
        return
    if subject.run is None and subject.playbook is not None:
        yield f"runbook plan {shlex.quote(subject.playbook.file)} -t {on}"
    yield from (one.mend for one in left if one.mend and not one.harmless)


def _about_data(data: Sequence[MustHoldAnswer]) -> Iterator[str]:
    if any(answered.rows or answered.unreadable for answered in data):
        yield "mend the rows that are named above, or change the migration: it would fail on them"
    if unknown := dict.fromkeys(answered.name for answered in data if answered.unknown):
        yield f"let {', '.join(unknown)} be asked: a grant, or a must_hold that fits these tables; then ask again"
