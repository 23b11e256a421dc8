"""What only a person can decide: a check that answers unknown, where the playbook says who may judge it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from runner.playbook.model import Check, Playbook
from runner.trail.events import CheckAnswered, Judged, NotDue
from runner.trail.status import RunStatus
from steps.contract import Answer


def judged(
    answers: Iterable[CheckAnswered | NotDue], checks: Iterable[Check], status: RunStatus
) -> list[CheckAnswered | NotDue]:
    """The answers, with a person's judgement in the place of each unknown that was judged for these bytes."""
    known = {check.id: check for check in checks}
    return [_judged(one, known[one.id], status) if isinstance(one, CheckAnswered) else one for one in answers]


def _judged(answer: CheckAnswered, check: Check, status: RunStatus) -> CheckAnswered:
    if answer.answer is not Answer.UNKNOWN:
        return answer
    said = judgement(check, answer.step, status)
    if said is None:
        return answer
    told = f"judged by {said.name} as {said.role}: {said.reason} (it answered unknown: {answer.text})"
    return answer.model_copy(update={"answer": said.answer, "text": told, "judged_by": said.name})


def judgement(check: Check, step: str, status: RunStatus) -> Judged | None:
    """The latest judgement of this check that holds: of one of its roles, and given for what is to be executed now."""
    fits = [
        one
        for one in status.judgements
        if (one.step, one.id) == (step, check.id)
        and one.role in check.judge
        and one.approval_digest == status.approval_digest
    ]
    return fits[-1] if fits else None


def awaited(unmet: Sequence[CheckAnswered], checks: Iterable[Check]) -> tuple[str, ...]:
    """What people are asked to judge; () where anything else keeps the gate shut too."""
    roles = {check.id: check.judge for check in checks}
    if not unmet or any(one.answer is not Answer.UNKNOWN or not roles.get(one.id) for one in unmet):
        return ()
    return tuple(f"a judgement of {one.id} by {' or '.join(roles[one.id])} ({one.text})" for one in unmet)


def open_ones(playbook: Playbook, status: RunStatus) -> Mapping[str, tuple[str, ...]]:
    """The checks that wait for a judgement now, each with the roles that may give it."""
    last = {(one.step, one.id): one for one in status.checks if one.role in {"precondition", "criterion"}}
    return {
        check.id: check.judge
        for step, check in every(playbook)
        if (answer := last.get((step, check.id))) is not None
        and answer.answer is Answer.UNKNOWN
        and check.judge
        and judgement(check, step, status) is None
    }


def every(playbook: Playbook) -> list[tuple[str, Check]]:
    """All checks that open something, with the step they belong to ("": the playbook's own)."""
    found = [("", check) for check in (*playbook.preconditions, *playbook.success_criteria)]
    for entry in playbook.entries:
        found += [(entry.id, check) for check in (*entry.preconditions, *entry.success_criteria)]
    return found
