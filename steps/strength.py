"""Whether a changed `that:` became stronger or weaker, for reviewers: certain for `name op number` joined by and."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from steps.grammar import Tree, dotted, number, read

Strength: TypeAlias = Literal["same", "stronger", "weaker", "different"]

_Bound: TypeAlias = tuple[Decimal, int]
"""A limit and its side: (5, 0) includes 5, (5, 1) begins just above it, (5, -1) ends just below it."""

_Sign: TypeAlias = type[ast.cmpop]

_MIRRORED: dict[_Sign, _Sign] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}


def compare_strength(old: str, new: str) -> Strength:
    """How `new` decides beside `old`: stronger passes less, weaker passes more, different where unsure.

    Any part that isn't `name op number` counts as one opaque demand, of which only the presence is compared.
    Numbers are compared as reals: `x >= 5` is stronger than `x > 4`. Raises BadExpression.
    """
    before, after = _demands(read(old)), _demands(read(new))
    if before == after:
        return "same"
    if before.impossible or after.impossible:
        return "different"
    if after.within(before):
        return "same" if before.within(after) else "stronger"
    return "weaker" if before.within(after) else "different"


@dataclass(frozen=True)
class _Range:
    """The numbers that a name may have: between two bounds, without some points."""

    low: _Bound = (Decimal("-Infinity"), 0)
    high: _Bound = (Decimal("Infinity"), 0)
    without: frozenset[Decimal] = frozenset()

    def narrowed(self, sign: _Sign, limit: Decimal) -> _Range:
        low, high, without = self.low, self.high, self.without
        if sign in (ast.Gt, ast.GtE, ast.Eq):
            low = max(low, (limit, int(sign is ast.Gt)))
        if sign in (ast.Lt, ast.LtE, ast.Eq):
            high = min(high, (limit, -int(sign is ast.Lt)))
        if sign is ast.NotEq:
            without |= {limit}
        return _Range(low, high, without).tidied()

    def tidied(self) -> _Range:
        """The one way to write this range: a missing end point opens the end, a missing point outside is dropped."""
        low = (self.low[0], 1) if self.low[0] in self.without else self.low
        high = (self.high[0], -1) if self.high[0] in self.without else self.high
        return _Range(low, high, frozenset(point for point in self.without if low < (point, 0) < high))

    def has(self, point: Decimal) -> bool:
        return self.low <= (point, 0) <= self.high and point not in self.without

    def within(self, other: _Range) -> bool:
        inside = self.low >= other.low and self.high <= other.high
        return inside and not any(self.has(point) for point in other.without)


@dataclass(frozen=True)
class _Demands:
    """What an expression asks for: a range for each name, and the parts that aren't understood."""

    ranges: dict[str, _Range]
    opaque: frozenset[str]

    @property
    def impossible(self) -> bool:
        return any(one.low > one.high for one in self.ranges.values())

    def within(self, other: _Demands) -> bool:
        """Whether all that passes here passes there; a name without a range may be NULL, so it is within nothing."""
        narrower = all(name in self.ranges and self.ranges[name].within(one) for name, one in other.ranges.items())
        return narrower and other.opaque <= self.opaque


def _demands(tree: Tree) -> _Demands:
    ranges: dict[str, _Range] = {}
    opaque: set[str] = set()
    for part in tree.parts:
        limits = _limits(tree, part)
        if not limits:
            opaque.add(ast.dump(part))
        for name, sign, limit in limits:
            ranges[name] = ranges.get(name, _Range()).narrowed(sign, limit)
    return _Demands(ranges, frozenset(opaque))


def _limits(tree: Tree, part: ast.expr) -> list[tuple[str, _Sign, Decimal]]:
    """The `name op number` pairs of a part; none where anything else is in it."""
    if not isinstance(part, ast.Compare):
        return []
    pairs = list(_pairs(tree, part))
    return [pair for pair in pairs if pair] if all(pairs) else []


def _pairs(tree: Tree, part: ast.Compare) -> Iterator[tuple[str, _Sign, Decimal] | None]:
    sides = [part.left, *part.comparators]
    for left, sign, right in zip(sides, part.ops, sides[1:], strict=False):
        (first, low), (second, high) = (_side(tree, left), _side(tree, right))
        if first and high is not None and type(sign) in _MIRRORED:
            yield first, type(sign), high
        elif second and low is not None and type(sign) in _MIRRORED:
            yield second, _MIRRORED[type(sign)], low
        else:
            yield None


def _side(tree: Tree, node: ast.expr) -> tuple[str | None, Decimal | None]:
    value = number(tree.source, node)
    return dotted(node), None if value is None else Decimal(value)
