"""The report's tables of checks (question, operands, answer), approvals and evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runner.common.markdown import code, escaped, table
from runner.playbook.check_text import cut, question
from runner.playbook.model import Check, Playbook
from runner.report.timeline import clock
from runner.trail import events
from runner.trail.events import CheckAnswered, NotDue, Record
from runner.trail.status import RunStatus
from steps.contract import Answer

CELL = 160  # maximum length of a value in a cell; the trail has all of it
FOUND = 600  # maximum length of the findings of a check that did not pass
_ROLES = {"requirement": "required", "preflight": "preflight"}


@dataclass
class _Asked:
    """A check that was asked; for a guard, all of its samples."""

    at: str
    event: CheckAnswered | NotDue
    times: int = 1
    broken: int = 0
    earlier: tuple[int, int] = (0, 0)  # times and broken before the step was resumed

    def count(self, event: CheckAnswered) -> None:
        """Count a guard's samples. Not every sample is recorded; a record has the counts since its step started."""
        if not event.sampled:
            self.times, self.broken = self.times + 1, self.broken + (event.answer is not Answer.PASS)
            return
        if event.sampled <= self.times - self.earlier[0]:
            self.earlier = (self.times, self.broken)
        self.times, self.broken = self.earlier[0] + event.sampled, self.earlier[1] + event.broke


def checks(records: Iterable[Record], playbook: Playbook) -> list[str]:
    """A Markdown table of all checks, in the order in which they were asked, followed by those never asked."""
    known = {check.id: check for check in all_checks(playbook)}
    asked = _asked(records)
    rows = [_row(one, known.get(one.event.id), playbook) for one in asked]
    seen = {one.event.id for one in asked}
    rows += [
        ["", "", code(check.id), _question(check), "", "*never asked*"]
        for check in known.values()
        if check.id not in seen
    ]
    return table(["asked at (UTC)", "where", "check", "asked", "operands", "answer"], rows)


def unasked(status: RunStatus, playbook: Playbook) -> int:
    """The number of checks never asked, without guards: a short step may end before any is sampled."""
    seen = {one.id for one in status.checks} | {one.id for one in status.not_due}
    guards = {guard.check.id for entry in playbook.entries for guard in entry.guards}
    return sum(check.id not in seen | guards for check in all_checks(playbook))


def all_checks(playbook: Playbook) -> Iterator[Check]:
    """All checks in the order of the playbook, including guards."""
    yield from playbook.preconditions
    for entry in playbook.entries:
        if entry.when is not None:
            yield entry.when
        yield from entry.preconditions
        yield from (guard.check for guard in entry.guards)
        yield from entry.success_criteria
    yield from playbook.success_criteria


def _asked(records: Iterable[Record]) -> list[_Asked]:
    """The checks asked. A guard is sampled often, so it has one row: its last answer that did not pass, else its last."""
    found: list[_Asked] = []
    guards: dict[tuple[str, str], _Asked] = {}
    for record in records:
        event = record.event
        if not isinstance(event, CheckAnswered | NotDue):
            continue
        if isinstance(event, NotDue) or event.role != "guard":
            found.append(_Asked(record.at, event))
            continue
        bad = int(event.answer is not Answer.PASS)
        row = guards.get((event.step, event.id))
        if row is None:
            row = guards[event.step, event.id] = _Asked(record.at, event, times=0)
            found.append(row)
        row.count(event)
        if bad or not row.broken:
            row.at, row.event = record.at, event
    return found


def _row(asked: _Asked, check: Check | None, playbook: Playbook) -> list[str]:
    event = asked.event
    question = _question(check) if check is not None else ""
    if isinstance(event, NotDue):
        answer = f"*not due here*: decided by {code(event.due)}"
        return [clock(asked.at), _where(event, playbook), code(event.id), question, "", answer]
    operands = ", ".join(f"{name} = {_brief(value)}" for name, value in event.operands.items())
    return [
        clock(asked.at),
        _where(event, playbook),
        code(event.id),
        question or code(event.probe),
        escaped(operands),
        _answer(event, asked, check),
    ]


def _where(event: CheckAnswered | NotDue, playbook: Playbook) -> str:
    role = event.role if isinstance(event, CheckAnswered) else "criterion"
    if role in _ROLES:
        return _ROLES[role]
    if not event.step:
        return "before the run" if role == "precondition" else "the whole"
    if any(check.id == event.id for check in playbook.entry(event.step).preconditions):
        role = "precondition"
    return f"{ {'precondition': 'before', 'condition': 'condition of', 'guard': 'guard of'}.get(role, 'after') } {code(event.step)}"


def _answer(event: CheckAnswered, asked: _Asked, check: Check | None) -> str:
    text = (
        escaped(cut(event.text, CELL if event.answer is Answer.PASS else FOUND))
        if event.text and (not event.operands or event.answer is not Answer.PASS)
        else ""
    )
    word = event.answer.value if event.answer is Answer.PASS else f"**{event.answer.value}**"
    if event.judged_by:
        word = f"*judged* {word}"
    if event.records_only:
        reason = f" ({escaped(check.record_only)})" if check is not None and check.record_only else ""
        word = f"*recorded only*{reason}, {event.answer.value}"
    word += " **(warn)**" if event.warned else ""
    if asked.times > 1:
        word += f" (asked {asked.times} times, {asked.broken} of them no pass)"
    return f"{word}: {text}" if text else word


# ─── what a check asks ──────────────────────────────────────────────────────────────────────────────────────────────
def _question(check: Check) -> str:
    return "<br>".join(part for part in (code(question(check)), f"*{escaped(check.why)}*" if check.why else "") if part)


def _brief(value: object) -> str:
    return cut(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value), CELL)


# ─── people's word ──────────────────────────────────────────────────────────────────────────────────────────────────
def approvals(records: Iterable[Record], status: RunStatus) -> list[str]:
    """A table of approvals, with what weakens them: unsigned, same OS user as the operator, other digest."""
    rows = [
        [
            clock(record.at),
            code(one.step),
            escaped(one.name),
            escaped(one.role),
            escaped(one.reason),
            ("signed" if one.signed else "**unsigned**: a claim")
            + ("; the target was not asked" if one.trust == "not asked" else ""),
            f"{escaped(one.user)} at {escaped(one.host)}"
            + (" (**same system user as the operator**)" if one.user in status.operator_users else ""),
            clock(one.expires) or "never",
            "this version" if one.approval_digest == status.approval_digest else "**another version**",
        ]
        for record in records
        if isinstance(one := record.event, events.Approved)
    ]
    return table(
        ["given (UTC)", "gate", "name", "role", "reason", "signature", "system's user", "expires", "bound to"], rows
    )


def evidence(records: Iterable[Record]) -> list[str]:
    """A table of the evidence given; files are identified by their SHA-256."""
    rows = [
        [
            clock(record.at),
            code(one.step),
            code(one.name),
            escaped(one.by),
            escaped(one.reason),
            code(one.file),
            code(one.sha256),
            clock(one.expires) or "never",
        ]
        for record in records
        if isinstance(one := record.event, events.EvidenceGiven)
    ]
    return table(["given (UTC)", "gate", "evidence", "by", "reason", "file", "SHA-256", "expires"], rows)


def tally(found: Sequence[CheckAnswered]) -> str:
    """Count the last answers of all checks: '9 checks passed, 1 failed, 2 recorded only'."""
    last = {(one.step, one.role, one.id): one for one in found if one.role != "condition"}.values()
    counts = {word: sum(one.answer is word and not one.records_only for one in last) for word in Answer}
    words = [f"{counts[Answer.PASS]} check{'' if counts[Answer.PASS] == 1 else 's'} passed"]
    names = {Answer.FAIL: "failed", Answer.ERROR: "could not be evaluated", Answer.UNKNOWN: "answered unknown"}
    words += [f"{counts[answer]} {name}" for answer, name in names.items() if counts[answer]]
    recorded = sum(one.records_only for one in last)
    return ", ".join(words + ([f"{recorded} recorded only"] if recorded else []))
