"""The result of a rollback, or of an undo step, according to the ledger: rows restored, rows refused, steps left in place."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from runner.common.errors import CriteriaNotMet, RolledBack, RolledBackInPart, RunbookError
from runner.playbook.model import Entry
from runner.trail.events import RunState, StepOutcome
from steps.contract import Look, RunTakenBack, StepResult, TakenBack
from steps.ledger import step_commits


@dataclass(frozen=True)
class Balance:
    """The result for one run. standing: steps that left something in place → the reason."""

    run: str
    restored: int = 0
    refused: int = 0
    standing: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everything was undone."""
        return not (self.refused or self.standing)

    @property
    def state(self) -> RunState:
        return RunState.ROLLED_BACK if self.whole else RunState.ROLLED_BACK_IN_PART

    def words(self) -> str:
        """The result in words: '883 rows restored, 117 refused (changed since, left as they are); keep_b still stands'."""
        parts = [f"{self.restored:,} rows restored, {self.refused:,} refused"] if self.restored or self.refused else []
        if self.refused:
            parts[0] += " (changed since the run: left as they are)"
        return "; ".join([*parts, *(f"{step} still stands: {why}" for step, why in self.standing.items())])

    def end(self, what: str = "", why: str = "") -> RunbookError:
        """The exception that ends the run: rolled back, or in part. what, why: the failure that caused the rollback, if any."""
        told = self.words()
        if self.whole:
            back = RolledBack(
                what or told or "nothing of it stands any more",
                why=f"{why}; taken back: {told}" if why and told else why or (told if what else ""),
                state="every step that had changed something is taken back",
                then=f"runbook report {self.run}",
            )
            back.as_asked = not what
            return back
        return RolledBackInPart(
            f"{what}; and {self.run} is taken back in part: {told}" if what else told,
            why=why,
            state=f"of the run's changes still stand: {self._what_stands()}",
            then=f"runbook report {self.run}{' --rows refused' if self.refused else ''}",
        )

    def _what_stands(self) -> str:
        rows = [f"{self.refused:,} rows"] if self.refused else []
        return ", ".join([*rows, *self.standing])


def read(look: Look, run: str, *, standing: Mapping[str, str], only: Collection[str] = ()) -> Balance:
    """Sum up the steps (or some) of a run from the ledger; this includes earlier rollbacks that were interrupted."""
    rows = [
        row for row in step_commits.step_rows(look, run) if row.action == "revert" and row.state == StepOutcome.REVERTED
    ]
    rows = [row for row in rows if not only or row.step in only]
    found = [TakenBack.model_validate(_counted(row.results)) for row in rows]
    return Balance(run, sum(one.restored for one in found), sum(one.refused for one in found), dict(standing))


def _counted(results: str) -> dict[str, object]:
    """The row counts among the results recorded at the end of a step's undo."""
    document = json.loads(results)
    return {name: document[name] for name in TakenBack.model_fields if name in document}


def refuse_part(entry: Entry, result: StepResult) -> None:
    """Raise CriteriaNotMet if an undo step had to refuse rows or leave steps in place."""
    if not isinstance(result, TakenBack):
        return
    standing = result.standing if isinstance(result, RunTakenBack) else ()
    if not (result.refused or standing):
        return
    told = f"{result.restored:,} rows restored, {result.refused:,} refused (changed since: left as they are)"
    run = result.run if isinstance(result, RunTakenBack) else ""
    raise CriteriaNotMet(
        f"step {entry.id} ({entry.mark}) took back a part: {told}"
        + (f"; {', '.join(standing)} still stand" if standing else ""),
        why="rows that somebody changed since are never overwritten"
        if result.refused
        else "the playbook's way back leaves them out",
        state="what was taken back stays so",
        then=f"runbook report {run}{' --rows refused' if result.refused else ''}",
    )
