"""Rollback: undoes steps in reverse order, from what each has saved, and verifies each of them."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from runner.common.errors import Aborted, InDoubt, RollbackFailed, RunbookError, RunRefused
from runner.plan import plan
from runner.plan.ask import fields as fields_of
from runner.playbook.model import Entry, Playbook
from runner.run import balance
from runner.run.balance import Balance
from runner.run.context import StepContext
from runner.run.session import RunSession
from runner.trail.events import LeftStanding, StepEnded, StepOutcome, StepStarted, StepVerified
from steps.catalog import touched_tables
from steps.contract import (
    DatabaseFault,
    Doubtful,
    Effect,
    Lingering,
    Look,
    NoText,
    Paused,
    Reversible,
    RunPosition,
    State,
    StepError,
    Stopped,
    TakenBack,
    Value,
)
from steps.contract.values import bounded
from steps.ledger import step_commits, tables

_T = TypeVar("_T")
BY_THE_LIST = "the playbook's rollback list leaves it out"
AS_ASKED = "kept, as --to asked"


@dataclass(frozen=True)
class Choice:
    """What to keep. after: this step and those before it; left: step → why it is left in place.

    before: those of `left` that were recorded earlier in this rollback.
    """

    after: str = ""
    left: Mapping[str, str] = field(default_factory=dict)
    before: Collection[str] = ()


@dataclass
class Reverser:
    """Undoes the steps of a run; recorded in the run's own trail, or in that of the run that undoes it."""

    session: RunSession
    run: str
    playbook: Playbook
    prefix: str = ""  # prefix of step ids in the trail, if the steps belong to another run
    _context: StepContext | None = None
    choice: Choice = field(default_factory=Choice)

    # ─── what is to be taken back ───────────────────────────────────────────────────────────────────────────────────
    def order(self, only: Collection[str] = ()) -> list[Entry]:
        """The steps to undo, or some of them, last first; raises RunRefused if one of them can't be undone."""
        self._refuse()
        names = self.playbook.rollback_steps or tuple(reversed(self.playbook.ids))
        kept, stands = self._kept(), self._standing()
        entries = [self.playbook.entry(name) for name in names if name not in kept and name in stands]
        entries = [entry for entry in entries if not only or entry.id in only]
        stuck = [(entry, reason) for entry in entries if (reason := plan.one_way(entry))]
        if stuck:
            entry, reason = stuck[0]
            raise RunRefused(
                f"cannot take back run {self.run}: step {entry.id} ({entry.mark}) is one way",
                why=reason,
                state="nothing was taken back",
                then=self._without([one for one, _ in stuck], entries),
            )
        return [entry for entry in entries if entry.step.changes and entry.step.lasting]

    def _without(self, stuck: Sequence[Entry], entries: Sequence[Entry]) -> str:
        """Commands that undo the rest although some steps can't be. entries: all, in the order of the rollback."""
        rest = [one for one in entries if one not in stuck and one.step.changes and one.step.lasting]
        if not rest:
            return f"runbook report {self.run}"
        leave = " ".join(f"--leave {shlex.quote(one.id)}" for one in stuck)
        whole = f"runbook rollback {self.run} {leave} --reason '…'"
        if entries[0] in stuck:
            return f"{whole}\n(takes back all else)"
        after = f"runbook rollback {self.run} --to {shlex.quote(stuck[0].id)}"
        return f"{whole}\n{after}\n(one of the two: the first takes back all else, the second what came after {stuck[0].id})"

    def _kept(self) -> dict[str, str]:
        """The steps to keep → the reason."""
        ids, listed, after = self.playbook.ids, self.playbook.rollback_steps, self.choice.after
        kept = {name: BY_THE_LIST for name in ids if listed and name not in listed}
        kept |= dict.fromkeys(ids[: ids.index(after) + 1] if after else (), AS_ASKED)
        return kept | dict(self.choice.left)

    def kept(self) -> tuple[str, ...]:
        """The kept steps that have something in place."""
        return tuple(name for name in self.standing() if name in self._kept())

    def rest(self) -> list[str]:
        """The steps that have something in place and are not to be kept."""
        kept = self._kept()
        return [name for name in self.standing() if name not in kept]

    def _refuse(self) -> None:
        for option, name in (("--to", self.choice.after), *(("--leave", one) for one in self.choice.left)):
            if name and name not in self.playbook.ids:
                raise RunRefused(
                    f"cannot keep {name!r}: {self.playbook.name} has no such step",
                    why=f"its steps: {', '.join(self.playbook.ids)}",
                    state="nothing was taken back",
                    then=f"runbook rollback {self.run} {option} STEP, with one of these"
                    + (" and --reason '…'" if option == "--leave" else ""),
                )
        told, stands = self.session.status.steps, self._standing()
        stands |= {
            name for name in self.choice.left if name in told and told[name].standing
        }  # the ledger may have lost its rows
        gone = [name for name in self.choice.left if name not in stands and name not in self.choice.before]
        if gone:
            raise RunRefused(
                f"cannot leave {', '.join(gone)} standing: nothing of it stands",
                why="it committed nothing, or is taken back already",
                state="nothing was taken back",
                then=f"runbook status {self.run}",
            )
        if self.playbook.rollback == "none":
            raise RunRefused(
                f"cannot take back run {self.run}: {self.playbook.name} says that there is no way back",
                why=self.playbook.rollback_reason,
                state="nothing was taken back",
                then=f"runbook status {self.run}",
            )

    def standing(self) -> list[str]:
        """The steps that have something in place, in the playbook's order."""
        stands = self._standing()
        return [entry.id for entry in self.playbook.entries if entry.id in stands and entry.step.lasting]

    def _standing(self) -> set[str]:
        """The steps with commits that are not undone yet, according to the ledger (not the trail)."""
        with self.session.database.look() as look:
            return step_commits.standing(look, self.run) if tables.exists(look) else set()

    def balance(self, only: Collection[str] = ()) -> Balance:
        """The result of the rollback so far, of all steps or of some."""
        kept = self._kept()
        standing = {name: kept.get(name, "it is not taken back") for name in self.standing()}
        with self.session.database.look() as look:
            return balance.read(look, self.run, standing=standing, only=only)

    # ─── the way back ───────────────────────────────────────────────────────────────────────────────────────────────
    def revert(self, entries: list[Entry]) -> None:
        """Undo these steps in this order; stops at the first that fails and says what is still in place."""
        with self._under_its_name():
            for entry in entries:
                self._obey(entry)
                self._one(entry)

    def leave(self, by: str) -> None:
        """Record in trail and ledger which steps a person leaves in place."""
        with self._under_its_name():
            for name, reason in self.choice.left.items():
                if name in self.choice.before:
                    continue
                self.session.emit(LeftStanding(step=self.prefix + name, by=by, reason=reason))
                mask = self.session.trail.mask
                results: dict[str, Value] = {"by": mask(by), "reason": mask(reason)}
                self.session.anchor(
                    RunPosition(self.run, name, "revert"), outcome=StepOutcome.LEFT_STANDING, results=results
                )

    def refuse_at_work(self, entries: list[Entry]) -> None:
        """Raise RunRefused if something that a step started is still running."""
        with self._under_its_name():
            for entry in entries:
                at_work = self._asked(entry, entry.step.at_work) if isinstance(entry.step, Lingering) else ""
                if at_work:
                    raise RunRefused(
                        f"cannot take back run {self.run}: step {entry.id} ({entry.mark}) is still at work",
                        why=at_work,
                        state="nothing was taken back",
                        then=f"once that has ended: {self._again()}",
                    )

    @contextlib.contextmanager
    def _under_its_name(self) -> Iterator[None]:
        """While the block runs, queries and commits count as those of the run to be undone."""
        connected = self.session.database.session
        own, connected.run = connected.run, self.run
        try:
            yield
        finally:
            connected.run = own

    def _asked(self, entry: Entry, question: Callable[[Look], _T]) -> _T:
        self.session.database.at(entry.id, "revert", what=entry.step)
        with self.session.database.look() as look:
            return question(look)

    def _obey(self, entry: Entry) -> None:
        if self.session.control.stop_by:
            raise self._stopped(f"before {entry.id}", self.session.control.stop_reason)

    def _stopped(self, where: str, reason: str) -> Aborted:
        return Aborted(
            f"taking back was stopped {where}",
            why=reason,
            state="what is taken back stays so; the rest still stands",
            then=self._again(),
        )

    def _again(self) -> str:
        """The command that continues this rollback."""
        return f"runbook resume {self.session.status.run}" if self.prefix else f"runbook rollback {self.run}"

    def _one(self, entry: Entry) -> None:
        session, name = self.session, self.prefix + entry.id
        session.database.at(entry.id, "revert", what=entry.step)
        session.database.policy(lock=entry.lock, timeout=entry.timeout)
        began = time.monotonic()
        try:
            if self._gone_by_word(entry, name):
                self._end(entry, None, began, told="settled by a person: not done")
                return
            session.emit(
                StepStarted(
                    step=name, type=entry.step.kind, action="revert", describe=f"take back: {entry.step.describe()}"
                )
            )
            result = self._revert(entry)
            self._verify(entry, name)
        except Stopped as stop:
            seconds = round(time.monotonic() - began, 3)
            session.emit(
                StepEnded(
                    step=name,
                    action="revert",
                    outcome=StepOutcome.STOPPED,
                    seconds=seconds,
                    error=str(stop),
                    results=self._far(),
                )
            )
            raise self._stopped(f"in {entry.id}", str(stop)) from stop
        except (StepError, NoText, Paused, ValidationError) as error:
            self._failed(entry, name, error, began)
        else:
            self._end(entry, result, began)

    def _end(self, entry: Entry, result: TakenBack | None, began: float, *, told: str = "") -> None:
        results = bounded(fields_of(result))
        seconds = round(time.monotonic() - began, 3)
        self.session.emit(
            StepEnded(
                step=self.prefix + entry.id,
                action="revert",
                outcome=StepOutcome.REVERTED,
                seconds=seconds,
                results=results,
                error=told,
            )
        )
        self.session.anchor(RunPosition(self.run, entry.id, "revert"), outcome=StepOutcome.REVERTED, results=results)

    def _gone_by_word(self, entry: Entry, name: str) -> bool:
        """Whether a person has settled, in this rollback, that the step left nothing; raises InDoubt if that must be settled."""
        known = self.session.status.steps.get(name)
        word = known.settled if known is not None else None
        step = entry.step
        why = self._asked(entry, step.doubt) if word is None and isinstance(step, Doubtful) else ""
        if word is None and (replaced := self._replaced(entry)):
            why = (
                f"{'; '.join(replaced)}; what {entry.id} did went with the old one, and its way back would change this one "
                "(settled as done: it is sent all the same)"
            )
        if why:
            self.session.emit(StepVerified(step=name, when="in_doubt", state=State.UNKNOWN, evidence=why))
            raise self._in_doubt(entry, name, why)
        if word is not False:
            return False
        effect = self._effect(entry, name)
        if effect.state in {State.DONE, State.PARTLY}:
            raise StepError(f"it was settled as not done, but the database says {effect.state}: {effect.evidence}")
        return True

    def _replaced(self, entry: Entry) -> list[str]:
        """The tables that the step changed and that have been replaced since."""
        place = RunPosition(self.run, entry.id, "revert")
        return self._asked(entry, lambda look: touched_tables.replaced(look, place, entry.step))

    def _in_doubt(self, entry: Entry, name: str, why: str) -> InDoubt:
        run = self.session.status.run
        leave = "" if self.prefix else f"; or {self._again()} --leave {entry.id} --reason '…'"
        return InDoubt(
            f"cannot take back step {entry.id} ({entry.mark}) without a person's word",
            why=why,
            state=f"steps after {entry.id} are taken back; {entry.id} and those before it are not",
            then=f"runbook settle {run} {name} done|not-done --reason '…' (done: all of it stands, not-done: nothing of it does), "
            f"then {self._again()}{leave}",
        )

    def _revert(self, entry: Entry) -> TakenBack | None:
        step = entry.step
        if not isinstance(step, Reversible):
            raise StepError(f"{step.kind} has no way back")
        with self.session.database.look() as look:
            text = step_commits.remembered(look, run=self.run, step=entry.id)
        before = step.recall(text or "{}")
        unguarded = entry.model_copy(update={"guards": ()})  # these must not stop the rollback
        context = self._context = self.session.context(unguarded, forward=False)
        return step.revert(context, before)

    def _far(self) -> dict[str, Value]:
        """The progress of the current step's undo."""
        told = self._context.reported if self._context is not None else None
        return {"done": told.done, "total": told.total} if told is not None else {}

    def _effect(self, entry: Entry, name: str) -> Effect:
        with self.session.database.look() as look:
            effect = entry.step.verify(look)
        self.session.emit(StepVerified(step=name, when="after_revert", state=effect.state, evidence=effect.evidence))
        return effect

    def _verify(self, entry: Entry, name: str) -> None:
        """Verify the undo: it is done if the database says so; raises InDoubt if the database can't tell."""
        effect = self._effect(entry, name)
        if effect.state is State.UNKNOWN:
            raise self._in_doubt(entry, name, f"it was taken back, but verify can't tell: {effect.evidence}")
        if effect.state is not State.NOT_DONE:
            raise StepError(f"it was taken back, but verify says {effect.state}: {effect.evidence}")

    def _failed(self, entry: Entry, name: str, error: Exception, began: float) -> None:
        seconds = round(time.monotonic() - began, 3)
        sqlstate = error.sqlstate if isinstance(error, DatabaseFault) else ""
        self.session.emit(
            StepEnded(
                step=name,
                action="revert",
                outcome=StepOutcome.FAILED,
                seconds=seconds,
                error=str(error),
                sqlstate=sqlstate,
            )
        )
        leave = "" if self.prefix else f", or leave it: {self._again()} --leave {entry.id} --reason '…'"
        raise RollbackFailed(
            f"cannot take back step {entry.id} ({entry.mark}): {entry.step.describe()}",
            why=f"{error}" + (f" [{sqlstate}]" if sqlstate else ""),
            state=f"steps after {entry.id} are taken back; {entry.id} and those before it still stand",
            then=f"mend the cause, then {self._again()}{leave}",
        ) from error


def joined(first: RunbookError, second: RunbookError) -> ExceptionGroup:
    """Both errors, so that a failing rollback doesn't hide why it was started."""
    return ExceptionGroup("the run failed, and taking it back failed too", [first, second])
