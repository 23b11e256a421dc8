"""Judgements: a person's answers to checks that could not decide, if the playbook allows it (`judge:`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from runner.playbook.model import Check, Playbook
from runner.trail.events import CheckAnswered, Judged, NotDue
from runner.trail.status import RunStatus
from steps.contract import Answer


def judged(
    answers: Iterable[CheckAnswered | NotDue], checks: Iterable[Check], status: RunStatus
) -> list[CheckAnswered | NotDue]:
    """The answers, with unknown ones replaced by valid judgements."""
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
    """The latest valid judgement of a check: by one of its roles, and for the current approval digest."""
    fits = [
        one
        for one in status.judgements
        if (one.step, one.id) == (step, check.id)
        and one.role in check.judge
        and one.approval_digest == status.approval_digest
    ]
    return fits[-1] if fits else None


def awaited(unmet: Sequence[CheckAnswered], checks: Iterable[Check]) -> tuple[str, ...]:
    """The judgements that would open the gate, for people; () if anything else keeps it closed, too."""
    roles = {check.id: check.judge for check in checks}
    if not unmet or any(one.answer is not Answer.UNKNOWN or not roles.get(one.id) for one in unmet):
        return ()
    return tuple(f"a judgement of {one.id} by {' or '.join(roles[one.id])} ({one.text})" for one in unmet)


def open_ones(playbook: Playbook, status: RunStatus) -> Mapping[str, tuple[str, ...]]:
    """Checks that wait for a judgement → the roles that may give it."""
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
    """All preconditions and success criteria, each with its step ("" for the playbook's own)."""
    found = [("", check) for check in (*playbook.preconditions, *playbook.success_criteria)]
    for entry in playbook.entries:
        found += [(entry.id, check) for check in (*entry.preconditions, *entry.success_criteria)]
    return found
