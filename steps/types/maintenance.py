"""What maintenance steps share: the catalogue doesn't show their work, so a mark in the ledger says that it ran."""

from __future__ import annotations

from typing import ClassVar

from steps.contract import Context, Effect, Look, Refused, State, Statement, Step, StepResult
from steps.contract.dialect import Dialect
from steps.ledger import step_commits
from steps.types import concurrent_index

DONE = "done"


class Maintenance(Step):
    """Runs each time; `statements` is all that it does."""

    lasting: ClassVar[bool] = False

    def statements(self, look: Look) -> list[Statement]:
        """What runs, each statement on its own."""
        raise NotImplementedError

    def preflight(self, look: Look) -> list[str]:
        """What would make it fail, or do nothing without saying so."""
        raise NotImplementedError

    def left_over(self, look: Look) -> str:
        """What a run that was interrupted left behind, in words."""
        del look
        return ""

    def verify(self, look: Look) -> Effect:
        """Done when this run's mark is in the ledger: nothing else shows that maintenance ran."""
        if left := self.left_over(look):
            return Effect(State.PARTLY, left)
        if DONE in step_commits.committed_labels(look, look.place):
            return Effect(State.DONE, "it ran, by this run's ledger")
        return Effect(State.NOT_DONE, "runs each time: nothing in the catalogue shows it")

    def apply(self, ctx: Context) -> StepResult:
        """Run the statements, then leave the mark; after a kill they run again."""
        with ctx.db.look() as look:
            faults, needed = self.preflight(look), self.statements(look)
        if faults:
            raise Refused("; ".join(faults))
        if ctx.db.dialect is Dialect.SQLITE:
            ctx.patiently(DONE, lambda work: concurrent_index.execute(work, needed))
        elif DONE not in ctx.db.committed():
            concurrent_index.run(ctx, needed, label=self.kind)
            with ctx.db.commit(DONE):
                pass  # the mark is the ledger's own row
        return StepResult()
