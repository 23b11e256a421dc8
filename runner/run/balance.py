"""What a way back came to, by the ledger: rows set back, rows refused, steps that still stand, and the words for it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from runner.common.errors import RolledBack, RolledBackInPart, RunbookError
from runner.trail.events import RunState, StepOutcome
from steps.contract import Look, TakenBack
from steps.ledger import step_commits


@dataclass(frozen=True)
class Balance:
    """Of one run. standing: its steps of which something still stands, each with the reason."""

    run: str
    restored: int = 0
    refused: int = 0
    standing: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether all of the run is gone."""
        return not (self.refused or self.standing)

    @property
    def state(self) -> RunState:
        return RunState.ROLLED_BACK if self.whole else RunState.ROLLED_BACK_IN_PART

    def words(self) -> str:
        """The figures in a clause: '883 rows restored, 117 refused (changed since, left as they are); keep_b still stands'."""
        parts = [f"{self.restored:,} rows restored, {self.refused:,} refused"] if self.restored or self.refused else []
        if self.refused:
            parts[0] += " (changed since the run: left as they are)"
        return "; ".join([*parts, *(f"{step} still stands: {why}" for step, why in self.standing.items())])

    def end(self, what: str = "", why: str = "") -> RunbookError:
        """How the run ends: rolled back, or in part. what, why: the failure that was the reason, where there was one."""
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
    """The sums over the run's steps (or some of them), as the ledger has them: also of ways back that were cut short."""
    rows = [
        row for row in step_commits.step_rows(look, run) if row.action == "revert" and row.state == StepOutcome.REVERTED
    ]
    rows = [row for row in rows if not only or row.step in only]
    found = [TakenBack.model_validate(_counted(row.results)) for row in rows]
    return Balance(run, sum(one.restored for one in found), sum(one.refused for one in found), dict(standing))


def _counted(results: str) -> dict[str, object]:
    """Of what was recorded at a step's end on the way back, what every step that goes by rows declares."""
    document = json.loads(results)
    return {name: document[name] for name in TakenBack.model_fields if name in document}
