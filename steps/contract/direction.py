"""Which change of a field makes a check, gate or guard weaker; declared once, at the field, for `runbook diff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self, runtime_checkable

Sense = Literal[
    "higher",  # a larger number
    "lower",  # a smaller number
    "more",  # further entries
    "fewer",  # missing entries
    "on",  # true
    "off",  # false
    "set",  # given at all, whatever it is
    "unset",  # not given; another value is another effect
    "later",  # further down the ladder
    "loosened",  # an expression that more values satisfy
    "tightened",  # an expression that fewer values satisfy
    "nothing",  # no value: it is for people, or for the program itself
    "other",  # not declared: another value, or none, is another effect
]


@dataclass(frozen=True)
class Weaker:
    """The sense in which a field's value makes things weaker.

    absent: what no value means (None, "", an empty list). unbounded: the number that means no bound at all. ladder: values from
    the strictest to the weakest.
    """

    sense: Sense
    absent: Literal["weakest", "strictest"] = "weakest"
    ladder: tuple[str, ...] = ()
    unbounded: float | None = None


HIGHER, LOWER = Weaker("higher"), Weaker("lower")
HIGHER_OR_0 = Weaker("higher", unbounded=0.0)
HIGHER_IF_GIVEN = Weaker("higher", absent="strictest")
FEWER, MORE = Weaker("fewer"), Weaker("more", absent="strictest")
MORE_OR_NONE = Weaker("more")
ON, OFF = Weaker("on"), Weaker("off")
SET, UNSET = Weaker("set"), Weaker("unset")
LOOSENED, TIGHTENED = Weaker("loosened"), Weaker("tightened")
LOWER_IF_GIVEN = Weaker("lower", absent="strictest")
OTHER = Weaker("other")
NO_EFFECT = Weaker("nothing")


def ladder(*values: str) -> Weaker:
    """Values from the strictest to the weakest."""
    return Weaker("later", ladder=values)


@runtime_checkable
class Bound(Protocol):
    """Fields that only together say what is let pass, such as the two ends of a window: they are compared as a whole."""

    def covers(self, other: Self, /) -> bool:
        """Whether it lets everything pass that the other one lets pass."""
        ...
