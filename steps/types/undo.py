"""Undoes another playbook's run: reverts its steps from what they remembered, in reverse order."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from steps.contract import Context, Effect, Look, Refused, RunPosition, RunTakenBack, State, Step, StepError, StepResult
from steps.contract.direction import OFF
from steps.ledger import step_commits, tables
from steps.ledger.runs import RunRow, latest_runs, latest_standing

UNDONE = "undone"  # label of the commit that ends the undo; its row holds the result


class Undo(Step):
    """Undoes the latest run of a playbook on this target, or some of its steps; steps that are already undone are skipped.

    Its criteria fail where rows were left alone, or where a step of that run still stands.
    """

    kind: ClassVar[str] = "undo"
    summary: ClassVar[str] = "takes back another playbook's latest run on this target"
    Result: ClassVar[type[StepResult]] = RunTakenBack

    of: Annotated[str, Field(min_length=1)]
    steps: tuple[str, ...] = ()
    expect_run: Annotated[bool, OFF] = (
        True  # fail where the playbook never ran here (its name may be mistyped); False: nothing to undo
    )

    def describe(self) -> str:
        part = f"{', '.join(self.steps)} of " if self.steps else ""
        return f"take back {part}the latest run of {self.of}"

    def undoes(self) -> str:
        return self.of

    def only_steps(self) -> tuple[str, ...]:
        return self.steps

    def preflight(self, look: Look) -> list[str]:
        if self.expect_run and not tables.exists(look):
            return [
                f"cannot take back {self.of}: this target has no ledger, and that does not prove that nothing stands"
            ]
        return []

    def verify(self, look: Look) -> Effect:
        begun = self._begun(look)
        if begun is not None:
            return begun
        runs = latest_runs(look, playbook=self.of) if tables.exists(look) else []
        if not runs:
            state = State.NOT_DONE if self.expect_run else State.DONE
            return Effect(state, f"no run of {self.of} on this target")
        standing = latest_standing(look, self.of)
        if standing is None:
            return Effect(State.DONE, f"nothing of {self.of} stands: run {runs[0].run} {_ended(runs[0])}")
        back = _taken_back(look, standing.run)
        if self.steps and set(self.steps) <= back:
            return Effect(State.DONE, f"{', '.join(self.steps)} of run {standing.run} taken back")
        state = State.PARTLY if back else State.NOT_DONE
        return Effect(state, f"run {standing.run} of {self.of} ({standing.state}) stands")

    def _begun(self, look: Look) -> Effect | None:
        """The state of the run that this step chose when it began; None before that.

        Once chosen, the run is fixed: after a crash the latest standing run may be another one, since this one is half undone.
        """
        place = look.place
        if place is None or not tables.exists(look):
            return None
        text = step_commits.remembered(look, run=place.run, step=place.step)
        if text is None:
            return None
        run = RunTakenBack.model_validate_json(text).run
        if UNDONE in step_commits.committed_labels(look, RunPosition(place.run, place.step, "apply")):
            return Effect(State.DONE, f"run {run} of {self.of} was taken back")
        return Effect(State.PARTLY, f"taking back run {run} of {self.of} began and did not end")

    def result(self, look: Look) -> RunTakenBack:
        """The result, from the ledger."""
        place = look.place
        text = (
            step_commits.remembered(look, run=place.run, step=place.step, last=True)
            if place and tables.exists(look)
            else None
        )
        if text is None:
            raise StepError(f"no run of {self.of} was taken back by this step")
        return RunTakenBack.model_validate_json(text)

    def apply(self, ctx: Context) -> StepResult:
        del ctx
        raise Refused(
            f"cannot take back {self.of} by itself: only the engine can, because it knows that playbook's steps"
        )


def _taken_back(look: Look, run: str) -> set[str]:
    return {row.step for row in step_commits.step_rows(look, run) if row.action == "revert" and row.state == "reverted"}


def _ended(run: RunRow) -> str:
    if run.state == "rolled_back_in_part":
        return "was taken back in part"
    if run.removed_by:
        return f"lost its effect to run {run.removed_by}"
    return "was taken back" if run.rolled_back else "changed nothing"
