"""Takes back another playbook's run: what its steps remembered, in reverse order."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from steps import ledger
from steps.base import Context, Effect, Look, Refused, State, Step, StepResult
from steps.ledger import RunRow


class Undo(Step):
    """Takes back the latest run of a playbook on this target, or some of its steps; what was taken back is skipped."""

    kind: ClassVar[str] = "undo"
    summary: ClassVar[str] = "takes back another playbook's latest run on this target"

    of: Annotated[str, Field(min_length=1)]
    steps: tuple[str, ...] = ()
    expect_run: bool = True  # a playbook that never ran here: a mistyped name, or (false) nothing to take back

    def describe(self) -> str:
        part = f"{', '.join(self.steps)} of " if self.steps else ""
        return f"take back {part}the latest run of {self.of}"

    def undoes(self) -> str:
        return self.of

    def only_steps(self) -> tuple[str, ...]:
        return self.steps

    def verify(self, look: Look) -> Effect:
        runs = ledger.latest_runs(look, playbook=self.of) if ledger.exists(look) else []
        if not runs:
            state = State.NOT_DONE if self.expect_run else State.DONE
            return Effect(state, f"no run of {self.of} on this target")
        standing = ledger.latest_standing(look, self.of)
        if standing is None:
            return Effect(State.DONE, f"nothing of {self.of} stands: run {runs[0].run} {_ended(runs[0])}")
        wanted, back = set(self.steps), ledger.acted(look, run=standing.run, action="revert")
        if wanted and wanted <= back:
            return Effect(State.DONE, f"{', '.join(self.steps)} of run {standing.run} taken back")
        state = State.PARTLY if back else State.NOT_DONE
        return Effect(state, f"run {standing.run} of {self.of} ({standing.state}) stands")

    def apply(self, ctx: Context) -> StepResult:
        del ctx
        raise Refused(
            f"cannot take back {self.of} by itself: only the engine can, because it knows that playbook's steps"
        )


def _ended(run: RunRow) -> str:
    return "was taken back" if run.rolled_back else "changed nothing"
