"""Which change of a field makes a check, gate or guard weaker; declared once, at the field, for `runbook diff`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
TIGHTENED_IF_GIVEN = Weaker("tightened", absent="strictest")
NO_EFFECT = Weaker("nothing")


def ladder(*values: str) -> Weaker:
    """Values from the strictest to the weakest."""
    return Weaker("later", ladder=values)
