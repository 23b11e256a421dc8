"""A step's condition (`when:`): asked once, when it is the step's turn; the recorded answer decides from then on."""

from __future__ import annotations

import time

from runner.common.errors import CriteriaNotMet, Interrupted
from runner.plan import ask
from runner.playbook.model import Check, Entry
from runner.run.session import RunSession
from runner.run.step_run import StepRun
from runner.trail.events import CheckAnswered, StepOutcome
from steps.contract import Answer


def skips(step: StepRun) -> bool:
    """Whether the step is left out; its end is then recorded. Raises CriteriaNotMet if the condition can't be answered."""
    session, entry = step.session, step.entry
    if entry.when is None:
        return False
    began, known = time.monotonic(), session.status.step(entry.id)
    answer = session.status.conditions.get(entry.id)
    if answer is None and (known.outcome is not None or known.open):
        return False  # it has begun: of a run that was recovered from the ledger the answers are lost
    if answer is None:
        answer = _asked(session, entry, entry.when)
    if answer.answer is Answer.PASS:
        return False
    session.scope.skip(entry.id)
    step.end(StepOutcome.SKIPPED, began=began, error=f"its condition does not hold: {answer.text}")
    return True


def _asked(session: RunSession, entry: Entry, condition: Check) -> CheckAnswered:
    """Ask the condition and record its answer, which is then kept, whatever the database comes to say."""
    found = ask.ask([condition], step=entry.id, role="condition", look=session.database.look, scope=session.scope)
    answer = next(one for one in found if isinstance(one, CheckAnswered))
    session.emit(answer)
    session.learn(answer.id, answer.result)
    if answer.answer in {Answer.PASS, Answer.FAIL}:
        return answer
    if session.control.interrupted:
        raise Interrupted("cancelled while it looked", why=answer.text)
    raise CriteriaNotMet(
        f"cannot tell whether step {entry.id} ({entry.mark}) is to run: its condition answered {answer.answer}",
        why=answer.text,
        state="nothing was sent by this step",
    )
