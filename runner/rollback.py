"""The one way back: revert of steps in reverse order, from what each remembered, verified like steps."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from runner import plan
from runner.context import StepContext
from runner.engine import Engine
from runner.errors import Aborted, RollbackFailed, RunbookError, RunRefused
from runner.events import Outcome, StepEnded, StepStarted, StepVerified, jsonable
from runner.model import Entry, Playbook
from steps import ledger
from steps.base import (
    AlreadyCommitted,
    DatabaseFault,
    Paused,
    Place,
    Reversible,
    State,
    StepError,
    StepResult,
    Stopped,
    UndoesRun,
)
from steps.words import NoText

Loader = Callable[[str], Playbook]
"""A playbook from the source texts (JSON) that a run keeps in the ledger."""


class Undone(StepResult):
    """What taking back a run came to."""

    run: str
    steps: int
    restored: int = 0
    refused: int = 0


@dataclass
class Reverser:
    """Takes back one run's steps; the trail may be that run's own or that of a rollback playbook."""

    engine: Engine
    run: str
    playbook: Playbook
    prefix: str = ""  # before the step ids in the trail, when the steps are another run's

    def order(self, *, after: str = "") -> list[Entry]:
        """The steps to take back, the last first; raises RunRefused before the first is touched where one is one-way."""
        self._refuse(after)
        names = self.playbook.rollback_steps or tuple(reversed(self.playbook.ids))
        kept = self.playbook.ids[: self.playbook.ids.index(after) + 1] if after else ()
        stands = self._standing()
        entries = [self.playbook.entry(name) for name in names if name not in kept and name in stands]
        stuck = [(entry, reason) for entry in entries if (reason := plan.one_way(entry))]
        if stuck:
            entry, reason = stuck[0]
            raise RunRefused(
                f"cannot take back run {self.run}: step {entry.id} ({entry.mark}) is one way",
                why=reason,
                state="nothing was taken back",
                then=f"runbook rollback {self.run} --to {entry.id} takes back what came after it",
            )
        return [entry for entry in entries if entry.step.changes and entry.step.lasting]

    def _refuse(self, after: str) -> None:
        if after and after not in self.playbook.ids:
            raise RunRefused(
                f"cannot keep {after!r} and what came before it: {self.playbook.name} has no such step",
                why=f"its steps: {', '.join(self.playbook.ids)}",
                state="nothing was taken back",
                then="--to STEP",
            )
        if self.playbook.rollback == "none":
            raise RunRefused(
                f"cannot take back run {self.run}: {self.playbook.name} says that there is no way back",
                why=self.playbook.rollback_reason,
                state="nothing was taken back",
            )

    def standing(self) -> list[str]:
        """The steps of which something stands now, in the playbook's order."""
        stands = self._standing()
        return [entry.id for entry in self.playbook.entries if entry.id in stands and entry.step.lasting]

    def revert(self, entries: list[Entry]) -> Undone:
        """Take back these steps in this order; the first that fails ends it and says what still stands."""
        restored = refused = 0
        own = self.engine.database.session.run
        self.engine.database.session.run = self.run
        try:
            for entry in entries:
                self._obey(entry)
                result = dict(self._one(entry) or {})
                restored += _count(result.get("restored"))
                refused += _count(result.get("refused"))
        finally:
            self.engine.database.session.run = own
        return Undone(run=self.run, steps=len(entries), restored=restored, refused=refused)

    def _obey(self, entry: Entry) -> None:
        if self.engine.control.stop_by:
            raise self._stopped(f"before {entry.id}", self.engine.control.stop_reason)

    def _stopped(self, where: str, reason: str) -> Aborted:
        return Aborted(
            f"taking back was stopped {where}",
            why=reason,
            state="what is taken back stays so; the rest still stands",
            then=f"runbook rollback {self.run}",
        )

    def _standing(self) -> set[str]:
        """The steps that committed anything and are not taken back already: by the ledger, not the trail."""
        with self.engine.database.look() as look:
            if not ledger.exists(look):
                return set()
            acted = ledger.acted(look, run=self.run, action="apply")
            rows = ledger.step_rows(look, self.run)
        return acted - {row.step for row in rows if row.action == "revert" and row.state == Outcome.REVERTED}

    def _one(self, entry: Entry) -> StepResult | None:
        engine, name = self.engine, self.prefix + entry.id
        engine.database.at(entry.id, "revert")
        engine.database.policy(lock=entry.lock, timeout=entry.timeout)
        engine.emit(
            StepStarted(
                step=name, type=entry.step.kind, action="revert", describe=f"take back: {entry.step.describe()}"
            )
        )
        began = time.monotonic()
        try:
            result = self._revert(entry)
            self._verify(entry, name)
        except Stopped as stop:
            seconds = round(time.monotonic() - began, 3)
            engine.emit(
                StepEnded(step=name, action="revert", outcome=Outcome.STOPPED, seconds=seconds, error=str(stop))
            )
            raise self._stopped(f"in {entry.id}", str(stop)) from stop
        except (StepError, NoText, Paused, ValidationError) as error:
            self._failed(entry, name, error, began)
        results = jsonable(dict(result)) if result is not None else {}
        seconds = round(time.monotonic() - began, 3)
        engine.emit(StepEnded(step=name, action="revert", outcome=Outcome.REVERTED, seconds=seconds, results=results))
        engine.anchor(Place(self.run, entry.id, "revert"), outcome=Outcome.REVERTED, results=results)
        return result

    def _revert(self, entry: Entry) -> StepResult | None:
        step = entry.step
        if not isinstance(step, Reversible):
            raise StepError(f"{step.kind} has no way back")
        with self.engine.database.look() as look:
            text = ledger.remembered(look, run=self.run, step=entry.id)
        before: BaseModel = step.Before.model_validate_json(text or "{}")
        engine = self.engine
        unguarded = entry.model_copy(update={"guards": ()})  # what broke on the way there must not stop the way back
        context = StepContext(
            db=engine.database, entry=unguarded, run=engine.status.run, emit=engine.emit, control=engine.control,
            watcher=engine.watcher, scope=engine.scope, lock=entry.lock, steered=engine.recorded,
        )  # fmt: skip
        return step.revert(context, before)

    def _verify(self, entry: Entry, name: str) -> None:
        with self.engine.database.look() as look:
            effect = entry.step.verify(look)
        self.engine.emit(StepVerified(step=name, when="after_revert", state=effect.state, evidence=effect.evidence))
        if effect.state is State.DONE:
            raise StepError(f"it was taken back, but verify says that it still stands: {effect.evidence}")

    def _failed(self, entry: Entry, name: str, error: Exception, began: float) -> None:
        seconds = round(time.monotonic() - began, 3)
        sqlstate = error.sqlstate if isinstance(error, DatabaseFault) else ""
        self.engine.emit(
            StepEnded(
                step=name, action="revert", outcome=Outcome.FAILED, seconds=seconds, error=str(error), sqlstate=sqlstate
            )
        )
        raise RollbackFailed(
            f"cannot take back step {entry.id} ({entry.mark}): {entry.step.describe()}",
            why=f"{error}" + (f" [{sqlstate}]" if sqlstate else ""),
            state=f"steps after {entry.id} are taken back; {entry.id} and those before it still stand",
            then=f"mend the cause, then runbook rollback {self.run}",
        ) from error


def undoer(engine: Engine, load: Loader) -> Callable[[UndoesRun, Entry], StepResult]:
    """How the engine carries out a step that undoes another playbook's run."""

    def undo(step: UndoesRun, entry: Entry) -> StepResult:
        with engine.database.look() as look:
            row = ledger.latest_standing(look, step.undoes())
        if row is None:
            raise StepError(f"no run of {step.undoes()} stands on this target")
        reverser = Reverser(engine, row.run, load(row.source), prefix=f"{entry.id}:")
        only = step.only_steps()
        result = reverser.revert([one for one in reverser.order() if not only or one.id in only])
        engine.database.at(entry.id)
        with contextlib.suppress(AlreadyCommitted), engine.database.commit("undone") as work:
            if not reverser.order():
                ledger.end_run(
                    work, run=row.run, state="rolled_back", figures=row.figures, head=row.trail_head, length=row.trail_length
                )  # fmt: skip
        return result

    return undo


def joined(first: RunbookError, second: RunbookError) -> ExceptionGroup:
    """A failing way back never hides why it was taken."""
    return ExceptionGroup("the run failed, and taking it back failed too", [first, second])


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def sources(text: str) -> dict[str, str]:
    """The source texts of a run as the ledger keeps them."""
    found = json.loads(text)
    return {str(name): str(body) for name, body in found.items()} if isinstance(found, dict) else {}
