"""Asks checks: runs probes, evaluates expressions, and combines the answers. Only a pass opens a gate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from runner.common import evidence
from runner.playbook.model import Check
from runner.playbook.scope import Scope, misnamed
from runner.trail.events import CheckAnswered, NotDue
from steps.contract import Answer, DatabaseFault, Look, NoText, StepError, Unknown, Value, cutting
from steps.contract.values import bounded, plain
from steps.expressions.evaluate import BadOperand, Evaluation, Expression, UnknownName, evaluate, explain

Role = Literal["precondition", "condition", "criterion", "guard", "requirement", "preflight"]
Looker = Callable[[], AbstractContextManager[Look]]
More = Callable[[Mapping[str, Value]], Mapping[str, Value]]
_WORST = (Answer.ERROR, Answer.FAIL, Answer.UNKNOWN, Answer.PASS)
_CONFLICTS = frozenset({"40001", "40P01"})  # a read cancelled by a standby's recovery says nothing about the criterion
TRIES = 3
SHOWN = 200  # maximum length of the result shown for a check that decides nothing
AGAIN_S = 0.1  # pause before a retry, times the number of attempts so far


@dataclass(frozen=True)
class _Asking:
    """The context of a group of checks: step, role, and the names for their expressions."""

    step: str
    role: Role
    scope: Scope
    own: Mapping[str, Value]
    more: More | None

    def event(self, check: Check, answer: Answer, text: str, **rest: Any) -> CheckAnswered:
        return CheckAnswered(
            step=self.step,
            role=self.role,
            id=check.id,
            probe=check.probe.kind if check.probe is not None else "own result",
            answer=answer,
            text=text,
            that=check.that.text if check.that is not None else "",
            records_only=bool(check.record_only),
            **rest,
        )


def ask(
    checks: Iterable[Check],
    *,
    step: str,
    role: Role,
    look: Looker,
    scope: Mapping[str, Value],
    own: Mapping[str, Value] | None = None,
    more: More | None = None,
) -> list[CheckAnswered | NotDue]:
    """Answer checks, in order. Consecutive ones share a snapshot if they can, so that their figures are consistent.

    look: opens a snapshot. own: figures of the step's own result. more: derives further names from a check's result,
    for its own expressions.
    """
    asking = _Asking(step, role, Scope.of(scope), own or {}, more)
    answered: list[CheckAnswered | NotDue] = []
    waiting = list(checks)
    while waiting:
        group = _group(waiting)
        waiting = waiting[len(group) :]
        if group[0].due:
            answered.append(NotDue(step=step, id=group[0].id, due=group[0].due))
            continue
        if group[0].probe is None:
            answered.append(_answer(group[0], None, asking))
        else:
            results = _together(group, look, asking)
            waiting = group[len(results) :] + waiting  # after an error the rest continues in a new snapshot
            answered += results
    return answered


def _group(checks: list[Check]) -> list[Check]:
    """The longest prefix of checks that can share a snapshot."""
    first = checks[0]
    if first.due or first.probe is None or first.probe.alone:
        return [first]
    group = []
    for check in checks:
        if check.due or check.probe is None or check.probe.alone:
            break
        group.append(check)
    return group


def _together(group: list[Check], look: Looker, asking: _Asking) -> list[CheckAnswered]:
    """Ask a group in one snapshot, up to the first error; start over after a conflict or a lost connection.

    Raises DatabaseFault if the database stays unreachable, because then the criteria are undecided. For a guard that is
    an answer (error) like any other.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return _snapshot(group, look, asking, last=attempt == TRIES)
        except DatabaseFault as fault:
            if attempt == TRIES and fault.lost and asking.role != "guard":
                raise
            error = fault
        time.sleep(AGAIN_S * attempt)
    return [asking.event(group[0], Answer.ERROR, f"cannot look: {error}")]


def _snapshot(group: list[Check], look: Looker, asking: _Asking, *, last: bool) -> list[CheckAnswered]:
    results: list[CheckAnswered] = []
    with look() as eyes:
        for check in group:
            answer = _answer(check, eyes, asking, last=last)
            results.append(answer)
            if answer.answer is Answer.ERROR:
                break
    return results


def _answer(check: Check, eyes: Look | None, asking: _Asking, *, last: bool = True) -> CheckAnswered:
    began = time.monotonic()
    try:
        result = asking.own if eyes is None or check.probe is None else _observe(check, eyes)
    except Unknown as error:
        return asking.event(check, Answer.UNKNOWN, str(error), seconds=_since(began))
    except (StepError, NoText, KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, DatabaseFault) and (error.lost or (error.sqlstate in _CONFLICTS and not last)):
            raise
        return asking.event(check, Answer.ERROR, _words(error), seconds=_since(began))
    seconds = _since(began)
    values = fields(result) if isinstance(result, BaseModel) else dict(result)
    wrong = misnamed(values)
    if wrong:
        return asking.event(check, Answer.ERROR, wrong, seconds=seconds)
    kept = bounded(values)  # later expressions see exactly what is recorded
    asking.scope.learn(check.id, kept)
    names = asking.scope.names({**(asking.more(values) if asking.more is not None else {}), **values})
    answer, text, operands, warned = _decide(check, result, values, names, asking.scope)
    return asking.event(check, answer, text, seconds=seconds, operands=bounded(operands), result=kept, warned=warned)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def _observe(check: Check, eyes: Look) -> BaseModel:
    if check.probe is None:
        raise ValueError("a check about a step's own result has nothing to observe")
    if check.probe.only and check.probe.only != eyes.dialect:
        raise Unknown(f"{check.probe.kind} can look at {check.probe.only} only")
    return check.probe.observe(eyes)


def _decide(
    check: Check,
    result: BaseModel | Mapping[str, Value],
    values: Mapping[str, Value],
    names: Mapping[str, Value],
    scope: Scope,
) -> tuple[Answer, str, dict[str, Value], bool]:
    """Combine the probe's own verdict and `that:`: the worst answer counts. `warn:` only marks a pass."""
    parts: list[tuple[Answer, str]] = []
    verdict = check.probe.verdict(result) if check.probe is not None and isinstance(result, BaseModel) else None
    if verdict is not None:
        parts.append((verdict.answer, verdict.why))
    operands: dict[str, Value] = {}
    if check.that is not None:
        answer, text, evaluation = _evaluate(check, names, scope)
        parts.append((answer, text))
        operands = dict(evaluation.operands) if evaluation is not None else {}
    if not parts:
        text = _brief(values)
        return Answer.PASS, _with_evidence(text, values) if check.record_only else text, operands, False
    answer = min((answer for answer, _ in parts), key=_WORST.index)
    text = "; ".join(text for one, text in parts if text and (one is answer or answer is Answer.PASS))
    if answer is not Answer.PASS or check.record_only:
        text = _with_evidence(text, values)
    if answer is not Answer.PASS and check.why:
        text = f"{text} ({check.why})" if text else check.why
    return answer, text, operands, answer is Answer.PASS and _warned(check, names)


def _with_evidence(text: str, values: Mapping[str, Value]) -> str:
    """The text with a summary of what its numbers count."""
    return "; ".join(part for part in (text, evidence.named(values, text)) if part)


def _evaluate(check: Check, names: Mapping[str, Value], scope: Scope) -> tuple[Answer, str, Evaluation | None]:
    if check.that is None:
        return Answer.ERROR, "nothing to evaluate", None
    try:
        found = evaluate(check.that, names)
    except UnknownName as error:
        skipped = scope.why_absent(error.name)
        return (Answer.UNKNOWN, skipped, None) if skipped else (Answer.ERROR, str(error), None)
    except BadOperand as error:
        return Answer.ERROR, str(error), None
    if found.value is None:
        return Answer.UNKNOWN, found.reason, found
    return (Answer.PASS if found.value else Answer.FAIL), explain(found), found


def holds(expression: Expression | None, names: Mapping[str, Value]) -> bool | None:
    """Whether an expression is true for these names; None if it can't be decided, or there is none."""
    if expression is None:
        return None
    try:
        return evaluate(expression, names).value
    except (UnknownName, BadOperand):
        return None


def _warned(check: Check, names: Mapping[str, Value]) -> bool:
    return check.warn is not None and holds(check.warn, names) is not True


def fields(result: BaseModel | None) -> dict[str, Value]:
    """A result's figures by name; nested models and tuples become dicts and lists."""
    return {} if result is None else {name: plain(value) for name, value in result}


def _brief(values: Mapping[str, Value]) -> str:
    shown = [f"{name}={value}" for name, value in values.items() if not isinstance(value, list | dict | tuple | bytes)]
    return cutting.shortened(", ".join(shown), SHOWN)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, StepError | NoText) else f"{type(error).__name__}: {error}"


def unmet(answers: Iterable[CheckAnswered | NotDue]) -> list[CheckAnswered]:
    """The answers that keep a gate shut: only passes open it; what is only recorded, or not due here, gates nothing."""
    return [
        one
        for one in answers
        if isinstance(one, CheckAnswered) and not one.records_only and one.answer is not Answer.PASS
    ]
