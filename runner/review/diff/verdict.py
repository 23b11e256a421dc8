"""The verdict on two versions of playbooks: all changes, each told once, and what they mean for open runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from runner.plan.open_runs import ENDED
from runner.playbook.model import Playbook
from runner.review.diff.change import Direction, PlaybookChange, Reach, together, worst
from runner.review.diff.compare import changes
from runner.review.diff.sides import Side
from runner.target.runs import all_runs
from runner.trail.status import RunStatus


@dataclass(frozen=True)
class VoidedApprovals:
    """An open run whose approvals the new version voids."""

    run: str
    playbook: str
    approvals: tuple[str, ...]


@dataclass(frozen=True)
class DiffVerdict:
    """All that differs between two sides, each change told once."""

    old: Side
    new: Side
    changes: tuple[PlaybookChange, ...]
    voided: tuple[VoidedApprovals, ...] = ()

    @property
    def direction(self) -> Direction:
        return worst(one.direction for one in self.changes)

    def of(self, direction: Direction) -> list[PlaybookChange]:
        return [one for one in self.changes if one.direction is direction]

    @property
    def words(self) -> str:
        """The verdict in one line."""
        counts = {one: len(self.of(one)) for one in Direction}
        told = [f"{count} {_COUNTED[one]}" for one, count in counts.items() if count]
        return ", ".join(told) or "no change of meaning"

    def document(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {
            "format": 1,
            "old": self.old.label,
            "new": self.new.label,
            "verdict": str(self.direction),
            "changes": [one.document() for one in self.changes],
            "voided": [
                {"run": one.run, "playbook": one.playbook, "approvals": list(one.approvals)} for one in self.voided
            ],
        }


_COUNTED: Mapping[Direction, str] = {
    Direction.WEAKENS: "weakening",
    Direction.CHANGES: "changing the effect",
    Direction.STRENGTHENS: "strengthening",
    Direction.NEUTRAL: "neutral",
}


def judge(old: Side, new: Side) -> DiffVerdict:
    """Compare two sides, playbook by playbook, matched by their names."""
    found: list[PlaybookChange] = []
    if len(old.playbooks) == len(new.playbooks) == 1:  # two files: one playbook, whatever it is called now
        found += changes(next(iter(old.playbooks.values())), next(iter(new.playbooks.values())))
        return _verdict(old, new, found)
    for name in dict.fromkeys((*old.playbooks, *new.playbooks)):
        before, after = old.playbooks.get(name), new.playbooks.get(name)
        if before is None and after is not None:  # perhaps a second file of the same name: either may be run
            before = old.playbooks.get(after.name)
        if before is not None and after is not None:
            found += changes(before, after)
        elif after is not None:
            found.append(_whole(after, Direction.NEUTRAL, old="", new=after.title))
        elif before is not None:
            found.append(_whole(before, Direction.CHANGES, old=before.title, new=""))
    return _verdict(old, new, found)


def _verdict(old: Side, new: Side, found: list[PlaybookChange]) -> DiffVerdict:
    return DiffVerdict(
        old, new, tuple(replace(one, mark=new.shown(one.mark) if one.mark else None) for one in together(found))
    )


def _whole(playbook: Playbook, direction: Direction, *, old: str, new: str) -> PlaybookChange:
    return PlaybookChange(
        direction, f"playbook {playbook.name}", old, new, None, (Reach(playbook.name, "", direction),)
    )


def with_runs(verdict: DiffVerdict, runs: Path) -> DiffVerdict:
    """Add the open runs in this directory whose approvals the new version voids, once it is accepted there."""
    found, _broken = all_runs(runs)
    return replace(verdict, voided=tuple(one for run in found if (one := _voided(verdict, run.status)) is not None))


def _voided(verdict: DiffVerdict, run: RunStatus) -> VoidedApprovals | None:
    started = run.started
    playbook = verdict.new.playbooks.get(started.playbook) if started is not None else None
    if started is None or playbook is None or run.state in ENDED or run.digest == playbook.digest:
        return None
    given = tuple(dict.fromkeys(f"{one.step} by {one.name} as {one.role}" for one in run.approvals))
    return VoidedApprovals(run.run, playbook.name, given) if given else None
