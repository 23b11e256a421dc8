"""What a gate still waits for: approvals, evidence, and the right time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from runner.common import person_names
from runner.plan import window
from runner.trail.events import Approved, EvidenceGiven
from runner.trail.status import Given, RunStatus
from steps.contract import ApprovalNeed, EvidenceNeed, GateNeeds

AHEAD = -timedelta(minutes=5)  # tolerance for times in the future; validity can't be counted from beyond that
_WHEN = "%Y-%m-%d %H:%M %Z"


class OpenNeed(str):  # noqa: SLOT000 - a few of them live at a time
    """One open need of a gate: the text for people, and its parts for building a command.

    roles: missing roles, all of them if `every`, else any one. evidence: its name. opens: it waits for a time, which
    nobody can provide.
    """

    roles: tuple[str, ...]
    every: bool
    by: tuple[str, ...]
    evidence: str
    opens: bool

    def __new__(
        cls,
        words: str,
        *,
        roles: Sequence[str] = (),
        every: bool = False,
        by: Sequence[str] = (),
        evidence: str = "",
        opens: bool = False,
    ) -> Self:
        self = super().__new__(cls, words)
        self.roles, self.every, self.by, self.evidence, self.opens = tuple(roles), every, tuple(by), evidence, opens
        return self


def open_needs(
    needs: GateNeeds, status: RunStatus, *, step: str, now: datetime, operators: Collection[str] | None = None
) -> list[str]:
    """The open needs of a gate; [] if it is open.

    operators: who counts as operator, if not everybody who has operated the run so far.
    """
    found = []
    who = status.operators if operators is None else operators
    if needs.approval is not None:
        found += _approval(needs.approval, status, step=step, now=now, operators=who)
    for evidence in needs.evidence:
        found += _evidence(evidence, status, step=step, now=now)
    return found + [OpenNeed(words, opens=True) for words in _window(needs, now)]


def all_open(needs: Iterable[GateNeeds], status: RunStatus, *, step: str, now: datetime) -> list[str]:
    """The open needs of a gate that has several definitions: the current one, and that of when the run started."""
    return list(dict.fromkeys(word for one in needs for word in open_needs(one, status, step=step, now=now)))


def lapsed(needs: GateNeeds, status: RunStatus, *, step: str, now: datetime) -> list[str]:
    """What a passed gate needs again, because what it was passed for has changed, or an approval has expired."""
    passed = status.step(step).passed
    if passed is None:
        return []
    # An approver may later operate the run, as long as it is still the run that was approved.
    operators = passed.operators if passed.digest == status.approval_digest else None
    began = needs.model_copy(update={"not_before": needs.not_before if needs.not_after else ""})
    if passed.earlier and operators is not None:
        began = began.model_copy(update={"approval": None, "evidence": ()})
    return open_needs(began, status, step=step, now=now, operators=operators)


def _approval(
    need: ApprovalNeed, status: RunStatus, *, step: str, now: datetime, operators: Collection[str]
) -> list[str]:
    barred = {person_names.key(name) for name in operators} if need.not_operator else set()
    valid: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for given in status.given:
        one, who = given.event, person_names.key(given.event.name)
        if not isinstance(one, Approved) or not _holds(given, need, status, step=step, now=now):
            continue
        fits = who and who not in barred and may(need, one.name)
        if fits and (not need.roles or one.role in need.roles):
            valid.setdefault(who, []).append(one.role)
            names.setdefault(who, one.name)
    # With as many people as roles, each role must be among them; else two people with one role would do.
    absent = _unfilled(need.roles, valid) if need.need >= len(need.roles) else []
    missing = max(need.need - len(valid), len(absent))
    if missing <= 0:
        return []
    who = f" by {' or '.join(need.by)}" if need.by else ""
    who += f" as {' and '.join(absent) if absent else ' or '.join(need.roles)}" if need.roles else ""
    other = f", not by the operator ({', '.join(operators)})" if need.not_operator else ""
    plural = "s" if missing > 1 else ""
    given_by = f" ({', '.join(f'{names[one]} as {roles[-1]}' for one, roles in valid.items())} given)" if valid else ""
    words = f"{missing} approval{plural}{who}{other}{given_by}"
    return [OpenNeed(words, roles=absent or need.roles, every=bool(absent), by=need.by)]


def may(need: ApprovalNeed, name: str) -> bool:
    """Whether this person may approve; if the playbook names approvers, only those may."""
    return not need.by or any(person_names.same(name, one) for one in need.by)


def _holds(given: Given, need: ApprovalNeed | EvidenceNeed, status: RunStatus, *, step: str, now: datetime) -> bool:
    """Whether it is valid: for this gate, for the current approval digest, and not expired (also by the playbook's rule)."""
    if given.event.step != step or given.digest != status.approval_digest or _past(given.event.expires, now):
        return False
    return need.valid_for is None or AHEAD <= now - given.at <= timedelta(seconds=need.valid_for)


def until(status: RunStatus, *, step: str, now: datetime) -> str:
    """When the first approval or evidence given at a gate expires (ISO 8601); "" if none does."""
    digest = status.approval_digest
    given = [one.event.expires for one in status.given if one.event.step == step and one.digest == digest]
    return min((expires for expires in given if expires and not _past(expires, now)), default="")


def _unfilled(roles: Sequence[str], people: Mapping[str, Sequence[str]]) -> list[str]:
    """The roles that remain unfilled in the best assignment of each person to one role."""
    if not roles:
        return []
    first, rest = roles[0], roles[1:]
    ways = [[first, *_unfilled(rest, people)]]
    for name, theirs in people.items():
        if first in theirs:
            ways.append(_unfilled(rest, {other: people[other] for other in people if other != name}))
    return min(ways, key=len)


def _evidence(need: EvidenceNeed, status: RunStatus, *, step: str, now: datetime) -> list[str]:
    there = any(
        isinstance(one.event, EvidenceGiven)
        and one.event.name == need.name
        and _holds(one, need, status, step=step, now=now)
        for one in status.given
    )
    return [] if there or need.optional else [OpenNeed(f"evidence {need.name!r}", evidence=need.name)]


def _window(needs: GateNeeds, now: datetime) -> list[str]:
    opens = window.moment(needs.not_before, now, needs.zone) if needs.not_before else now
    closes = window.moment(needs.not_after, now, needs.zone) if needs.not_after else now
    if window.is_daily(needs.not_before) and window.is_daily(needs.not_after) and opens > closes:  # over midnight
        return [f"the window opens at {opens:{_WHEN}}"] if closes < now < opens else []
    if now < opens:
        return [f"the window opens at {opens:{_WHEN}}"]
    if now <= closes:
        return []
    again = f"; it opens again at {needs.not_before or '00:00'}" if window.is_daily(needs.not_after) else ""
    return [f"the window closed at {closes:{_WHEN}}{again}"]


def _past(expires: str, now: datetime) -> bool:
    return bool(expires) and datetime.fromisoformat(expires) < now


def expiry(need: ApprovalNeed | EvidenceNeed | None, *, given_s: float | None, now: datetime) -> str:
    """When an approval or evidence expires: after the shorter of the requested and the allowed time; "" if never."""
    spans = [span for span in (given_s, need.valid_for if need else None) if span is not None]
    return (now + timedelta(seconds=min(spans))).isoformat(timespec="seconds") if spans else ""
