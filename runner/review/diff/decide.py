"""Decides whether one `that:` expression holds for more values than another: by trying all values that can matter.

An expression compares names with constants and with each other. Between two neighbouring constants nothing changes, so it
suffices to try each constant, and between, below and above them as many values as names may stand there in different orders.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from runner.review.diff.change import Direction
from steps.contract import Value
from steps.contract.values import exact
from steps.expressions.evaluate import BadOperand, Expression, UnknownName, evaluate
from steps.expressions.grammar import dotted, number, read

MOST = 6_000  # combinations of values that are tried; more are not decided

Scope = Mapping[str, Value]


def compare(old: Expression, new: Expression, *, before: Scope, after: Scope) -> Direction:
    """What it means that `new` stands where `old` stood. before, after: the limits of each version, by their dotted names."""
    if old.text == new.text and all(before.get(name) == after.get(name) for name in new.names):
        return Direction.NEUTRAL
    if _calls(old) or _calls(new):
        return Direction.CHANGES
    candidates = _candidates([(old, before), (new, after)])
    if candidates is None or math.prod(map(len, candidates.values())) > MOST:
        return Direction.CHANGES
    weaker = stricter = False
    for values in itertools.product(*candidates.values()):
        scope = dict(zip(candidates, values, strict=True))
        was, now = _holds(old, {**scope, **before}), _holds(new, {**scope, **after})
        weaker, stricter = weaker or (now and not was), stricter or (was and not now)
        if weaker and stricter:
            return Direction.CHANGES
    return Direction.WEAKENS if weaker else Direction.STRENGTHENS if stricter else Direction.NEUTRAL


def _holds(expression: Expression, scope: Scope) -> bool:
    try:
        return evaluate(expression, scope).value is True
    except (BadOperand, UnknownName):
        return False


def _calls(expression: Expression) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(read(expression.text).body))


# ─── the values to try ──────────────────────────────────────────────────────────────────────────────────────────────
def _candidates(sides: list[tuple[Expression, Scope]]) -> dict[str, list[Value]] | None:
    """For each free name the values that can matter; None where the kinds of the names can't be told."""
    groups = _Groups()
    for expression, limits in sides:
        for parts in _compared(expression):
            groups.join([one for part in parts for one in _operands(expression, part, limits)])
        for name in expression.names:
            if name not in limits:
                groups.join([name])
        for name in _truths(expression):
            groups.constants(name).update({True, False})
    both = set(sides[0][0].names) & set(sides[1][0].names)
    found: dict[str, list[Value]] = {}
    for name in groups.names():
        values = _around(groups.constants(name), groups.size(name))
        if values is None:
            return None
        found[name] = values if name in both else [*values, None]
    return found


class _Constant:
    def __init__(self, value: Value) -> None:
        self.value = value


class _Groups:
    """Names that are compared with each other, with the constants that they are compared with."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[set[str], set[Value]]] = {}

    def join(self, operands: Iterable[str | _Constant]) -> None:
        members = list(operands)
        names: set[str] = {one for one in members if isinstance(one, str)}
        constants: set[Value] = {one.value for one in members if isinstance(one, _Constant)}
        for name in list(names):
            known = self._of.get(name, (set(), set()))
            names |= known[0]
            constants |= known[1]
        for name in names:
            self._of[name] = (names, constants)

    def names(self) -> list[str]:
        return sorted(self._of)

    def constants(self, name: str) -> set[Value]:
        return self._of.setdefault(name, ({name}, set()))[1]

    def size(self, name: str) -> int:
        return len(self._of[name][0])


def _compared(expression: Expression) -> Iterator[list[ast.expr]]:
    for node in ast.walk(read(expression.text).body):
        if isinstance(node, ast.Compare):
            yield [node.left, *node.comparators]


def _truths(expression: Expression) -> Iterator[str]:
    """Names that stand for themselves: `failing`, `not failing`."""
    body = read(expression.text).body
    parts = [body] + [
        part
        for node in ast.walk(body)
        for part in (
            node.values if isinstance(node, ast.BoolOp) else [node.operand] if isinstance(node, ast.UnaryOp) else []
        )
    ]
    yield from (name for part in parts if (name := dotted(part)) is not None)


def _operands(expression: Expression, part: ast.expr, limits: Scope) -> Iterator[str | _Constant]:
    name = dotted(part)
    if name is not None and name in limits:
        value = limits[name]
        yield from (_Constant(exact(one)) for one in (value if isinstance(value, list) else [value]))
    elif name is not None:
        yield name
    elif isinstance(part, ast.List):
        for item in part.elts:
            yield from _operands(expression, item, limits)
    elif (figure := number(read(expression.text).source, part)) is not None:
        yield _Constant(figure)
    elif isinstance(part, ast.Constant):
        yield _Constant(part.value if isinstance(part.value, bool | str) else None)


def _around(constants: set[Value], names: int) -> list[Value] | None:
    """Each constant, and `names` values on either side of it. None where the constants are of several kinds."""
    kinds = {type(one) for one in constants}
    if kinds == {bool}:
        return [True, False]
    if kinds == {str}:
        return [*sorted(map(str, constants)), *(f"another {number}" for number in range(names))]
    numbers = sorted(Decimal(one) for one in constants if isinstance(one, int | Decimal) and not isinstance(one, bool))
    if len(numbers) != len(constants):
        return None
    return list(_between(numbers or [Decimal(0)], names))


def _between(numbers: list[Decimal], count: int) -> Iterator[Value]:
    yield from (numbers[0] - step for step in range(count, 0, -1))
    for low, high in itertools.pairwise(numbers):
        yield low
        yield from (low + (high - low) * step / (count + 1) for step in range(1, count + 1))
    yield numbers[-1]
    yield from (numbers[-1] + step for step in range(1, count + 1))
