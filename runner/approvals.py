"""What people bring to a gate: approvals, evidence, and the right time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self

from runner import window
from runner.status import RunStatus
from steps.base import ApprovalNeed, EvidenceNeed, GateNeeds

_WHEN = "%Y-%m-%d %H:%M %Z"


class OpenNeed(str):  # noqa: SLOT000 - a few of them live at a time
    """What a gate still waits for, in words; and apart, for whoever makes a command of it.

    roles: those that are missing, all of them where `every`, else one of them. evidence: its name. opens: it waits for a
    time, and nobody can bring that.
    """

    roles: tuple[str, ...]
    every: bool
    by: str
    evidence: str
    opens: bool

    def __new__(
        cls,
        words: str,
        *,
        roles: Sequence[str] = (),
        every: bool = False,
        by: str = "",
        evidence: str = "",
        opens: bool = False,
    ) -> Self:
        self = super().__new__(cls, words)
        self.roles, self.every, self.by, self.evidence, self.opens = tuple(roles), every, by, evidence, opens
        return self


def open_needs(needs: GateNeeds, status: RunStatus, *, step: str, now: datetime) -> list[str]:
    """What the gate still waits for, each in words that say what to do; [] opens it."""
    found = []
    if needs.approval is not None:
        found += _approval(needs.approval, status, step=step, now=now)
    for evidence in needs.evidence:
        found += _evidence(evidence, status, step=step, now=now)
    return found + [OpenNeed(words, opens=True) for words in _window(needs, now)]


def _approval(need: ApprovalNeed, status: RunStatus, *, step: str, now: datetime) -> list[str]:
    operator = status.started.process.operator if status.started else ""
    valid: dict[str, list[str]] = {}
    for one in status.approvals:
        fits = one.step == step and one.approval_digest == status.approval_digest and not _past(one.expires, now)
        fits = fits and not (need.not_operator and one.name == operator) and need.by in {"", one.name}
        if fits and (not need.roles or one.role in need.roles):
            valid.setdefault(one.name, []).append(one.role)
    # as many people as roles: each role must be one of them, or two of the same kind would do for both
    absent = _unfilled(need.roles, valid) if need.need >= len(need.roles) else []
    missing = max(need.need - len(valid), len(absent))
    if missing <= 0:
        return []
    who = f" by {need.by}" if need.by else ""
    who += f" as {' and '.join(absent) if absent else ' or '.join(need.roles)}" if need.roles else ""
    other = f", not by the operator ({operator})" if need.not_operator else ""
    plural = "s" if missing > 1 else ""
    given = f" ({', '.join(f'{name} as {roles[-1]}' for name, roles in valid.items())} given)" if valid else ""
    words = f"{missing} approval{plural}{who}{other}{given}"
    return [OpenNeed(words, roles=absent or need.roles, every=bool(absent), by=need.by)]


def _unfilled(roles: Sequence[str], people: Mapping[str, Sequence[str]]) -> list[str]:
    """The fewest roles that stay open when each person speaks in one role only."""
    if not roles:
        return []
    first, rest = roles[0], roles[1:]
    ways = [[first, *_unfilled(rest, people)]]
    for name, theirs in people.items():
        if first in theirs:
            ways.append(_unfilled(rest, {other: people[other] for other in people if other != name}))
    return min(ways, key=len)


def _evidence(need: EvidenceNeed, status: RunStatus, *, step: str, now: datetime) -> list[str]:
    given = [
        one for one in status.evidence if one.step == step and one.name == need.name and not _past(one.expires, now)
    ]
    return [] if given or need.optional else [OpenNeed(f"evidence {need.name!r}", evidence=need.name)]


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
    """When an approval or a piece of evidence ends: the shorter of what was asked and what the playbook allows."""
    spans = [span for span in (given_s, need.valid_for if need else None) if span is not None]
    return (now + timedelta(seconds=min(spans))).isoformat(timespec="seconds") if spans else ""
