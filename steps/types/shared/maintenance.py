"""Base class of maintenance steps. The catalogue doesn't show that they ran, so a commit label in the ledger does."""

from __future__ import annotations

from typing import ClassVar

from steps.contract import Context, Effect, Look, Refused, State, Statement, Step, StepResult
from steps.contract.dialect import Dialect
from steps.ledger import step_commits
from steps.types.shared import declared

DONE = "done"


class Maintenance(Step):
    """A step that runs every time; `statements` is all that it does."""

    lasting: ClassVar[bool] = False

    def statements(self, look: Look) -> list[Statement]:
        """The statements to run, each on its own."""
        raise NotImplementedError

    def preflight(self, look: Look) -> list[str]:
        """Faults that would make it fail, or silently do nothing."""
        raise NotImplementedError

    def left_over(self, look: Look) -> str:
        """What an interrupted run left behind, in words; "" for nothing."""
        del look
        return ""

    def verify(self, look: Look) -> Effect:
        """DONE if this run's label is in the ledger: nothing else shows that maintenance ran."""
        if left := self.left_over(look):
            return Effect(State.PARTLY, left)
        if DONE in step_commits.committed_labels(look, look.place):
            return Effect(State.DONE, "it ran, by this run's ledger")
        return Effect(State.NOT_DONE, "runs each time: nothing in the catalogue shows it")

    def apply(self, ctx: Context) -> StepResult:
        """Run the statements, then commit the label; after a crash in between they run again, which does no harm."""
        with ctx.db.look() as look:
            faults, needed = self.preflight(look), self.statements(look)
        if faults:
            raise Refused("; ".join(faults))
        if ctx.db.dialect is Dialect.SQLITE:
            ctx.patiently(DONE, lambda work: declared.execute(work, needed))
        elif DONE not in ctx.db.committed():
            declared.execute_outside(ctx, needed, label=self.kind)
            with ctx.db.commit(DONE):
                pass  # the ledger's row is all that this commit writes
        return StepResult()
