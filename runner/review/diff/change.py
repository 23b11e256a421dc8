"""A change between two versions of playbooks: its direction, what it is about, and which checks it reaches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import JsonValue

from runner.playbook.yaml_reader import Mark


class Direction(StrEnum):
    """What a change does to the safety of a run. What can't be decided changes the effect."""

    WEAKENS = "weakens"
    CHANGES = "changes effect"
    STRENGTHENS = "strengthens"
    NEUTRAL = "neutral"

    @property
    def order(self) -> int:
        return list(Direction).index(self)

    @property
    def turned(self) -> Direction:
        """For what stops or alerts where it holds."""
        turned = {Direction.WEAKENS: Direction.STRENGTHENS, Direction.STRENGTHENS: Direction.WEAKENS}
        return turned.get(self, self)

    @property
    def undecided(self) -> Direction:
        """For what decides whether a step is carried out: neither more nor less of it is harmless."""
        return self if self is Direction.NEUTRAL else Direction.CHANGES

    @property
    def counts(self) -> bool:
        """Whether it makes `diff` exit with 15."""
        return self in {Direction.WEAKENS, Direction.CHANGES}


def worst(directions: Iterable[Direction]) -> Direction:
    """The one that a reviewer must see; NEUTRAL for none."""
    return min(directions, key=lambda one: one.order, default=Direction.NEUTRAL)


@dataclass(frozen=True)
class Reach:
    """A check, step or playbook that a change reaches, and what the change does there."""

    playbook: str
    where: str  # "step fill, guard errors"; "" for the playbook itself
    direction: Direction

    def __str__(self) -> str:
        return f"{self.playbook}{f': {self.where}' if self.where else ''}"


@dataclass(frozen=True)
class PlaybookChange:
    """One change, told once. subject: what it is about ("limit errors_pct"); old, new: "" where there is none.

    lines: a diff of texts too long for one line. mark: where it stands, in the new version if it is there.
    """

    direction: Direction
    subject: str
    old: str
    new: str
    mark: Mark | None
    reaches: tuple[Reach, ...]
    why: str = ""
    lines: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """Old and new value in one line."""
        if self.lines:
            return self.subject
        if not self.old:
            return f"{self.subject}: {self.new} (new)" if self.new else self.subject
        return f"{self.subject}: {self.old} → {self.new}" if self.new else f"{self.subject}: {self.old} (gone)"

    def document(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {
            "direction": str(self.direction),
            "subject": self.subject,
            "old": self.old,
            "new": self.new,
            "why": self.why,
            "diff": list(self.lines),
            "file": self.mark.file if self.mark else "",
            "line": self.mark.line if self.mark else 0,
            "column": self.mark.column if self.mark else 0,
            "reaches": [
                {"playbook": one.playbook, "where": one.where, "direction": str(one.direction)} for one in self.reaches
            ],
        }


def together(changes: Iterable[PlaybookChange]) -> tuple[PlaybookChange, ...]:
    """The same change in several places told once with all that it reaches; the weakest first."""
    found: dict[tuple[str, str, str, tuple[str, ...], str], PlaybookChange] = {}
    for one in changes:
        key = (one.subject, one.old, one.new, one.lines, one.why)
        known = found.get(key)
        if known is None:
            found[key] = one
        else:
            reaches = tuple(dict.fromkeys((*known.reaches, *one.reaches)))
            found[key] = replace(known, reaches=reaches, direction=worst((known.direction, one.direction)))
    return tuple(sorted(found.values(), key=lambda one: one.direction.order))
