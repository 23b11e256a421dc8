"""What an expression says of single figures: the interval of values for which it holds, with limits filled in."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from steps.contract import Value
from steps.expressions.grammar import dotted, number, read


@dataclass(frozen=True)
class Interval:
    """Values between two bounds; None is no bound. low_open: the bound itself doesn't belong to it."""

    low: Decimal | None = None
    high: Decimal | None = None
    low_open: bool = False
    high_open: bool = False

    def meet(self, other: Interval) -> Interval:
        """The values that are in both."""
        low, low_open = max(_lower(self), _lower(other), key=lambda one: _low_key(*one))
        high, high_open = min(_upper(self), _upper(other), key=lambda one: _high_key(*one))
        return Interval(low, high, low_open, high_open)

    @property
    def empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def inside(self, other: Interval) -> bool:
        """Whether all of its values belong to the other."""
        return self.meet(other) == self


def _lower(one: Interval) -> tuple[Decimal | None, bool]:
    return one.low, one.low_open


def _upper(one: Interval) -> tuple[Decimal | None, bool]:
    return one.high, one.high_open


def _low_key(bound: Decimal | None, is_open: bool) -> tuple[bool, Decimal, bool]:  # noqa: FBT001 - a part of a bound
    return bound is not None, bound or Decimal(0), is_open


def _high_key(bound: Decimal | None, is_open: bool) -> tuple[bool, Decimal, bool]:  # noqa: FBT001 - a part of a bound
    return bound is None, bound or Decimal(0), not is_open


Intervals = Mapping[str, Interval]
"""Figure → the values for which an expression holds; figures that are compared with others are not in it."""


def intervals(text: str, known: Mapping[str, Value]) -> Intervals | None:
    """The interval of each figure, where the expression is comparisons joined by `and`; None where it is anything else.

    known: values of limits and inputs by their dotted names.
    """
    found: dict[str, Interval] = {}
    tree = read(text)
    for part in tree.parts:
        if not isinstance(part, ast.Compare):
            return None
        for name, interval in _compared(part, known, tree.source):
            if interval is None:
                return None
            found[name] = found.get(name, Interval()).meet(interval)
    return found


def _compared(node: ast.Compare, known: Mapping[str, Value], source: str) -> Iterator[tuple[str, Interval | None]]:
    sides = [node.left, *node.comparators]
    for left, sign, right in zip(sides, node.ops, sides[1:], strict=False):
        value, name = _value(right, known, source), dotted(left)
        if value is not None and name and name not in known:
            yield name, _interval(sign, value)
            continue
        value, name = _value(left, known, source), dotted(right)
        if value is not None and name and name not in known:
            yield name, _interval(_MIRRORED.get(type(sign), type(sign))(), value)
            continue
        yield "", None


def _value(node: ast.expr, known: Mapping[str, Value], source: str) -> Decimal | None:
    name = dotted(node)
    value: object = known.get(name) if name else number(source, node)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    return Decimal(str(value))


_MIRRORED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}


def _interval(sign: ast.cmpop, value: Decimal) -> Interval | None:
    match sign:
        case ast.Lt():
            return Interval(high=value, high_open=True)
        case ast.LtE():
            return Interval(high=value)
        case ast.Gt():
            return Interval(low=value, low_open=True)
        case ast.GtE():
            return Interval(low=value)
        case ast.Eq():
            return Interval(low=value, high=value)
        case _:
            return None
