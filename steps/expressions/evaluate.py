"""Evaluates the `that:` language: comparisons of a probe's figures, parsed strictly at load and computed by simpleeval."""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal

from steps.contract import Value
from steps.contract.values import exact, why_unknown
from steps.expressions.grammar import Tree, ValueKind, dotted, number, read, read_typed

SHOWN = 80  # characters of a text in explain()


class UnknownName(Exception):
    """The expression uses a name that the scope lacks; near: similar names that it has."""

    def __init__(self, name: str, near: tuple[str, ...]) -> None:
        hint = f", did you mean {' or '.join(map(repr, near))}" if near else ""
        super().__init__(f"unknown name {name!r}{hint}")
        self.name, self.near = name, near


class BadOperand(Exception):
    """Two values can't be compared, or the result is neither true nor false."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Expression:
    """A validated expression, and the dotted names in it in order of appearance."""

    text: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """The answer (None: unknown), the operands it was computed from, and the reason where it isn't true."""

    value: bool | None
    operands: tuple[tuple[str, Value], ...]
    reason: str


def parse(text: str) -> Expression:
    """Parse and validate an expression without evaluating it; raises BadExpression."""
    return Expression(text, read(text).names)


def evaluate(expression: Expression, scope: Mapping[str, Value]) -> Evaluation:
    """Evaluate the expression in a flat scope of dotted names; raises UnknownName and BadOperand.

    All names are resolved and all parts evaluated: there is no short circuit, which could hide a fault.
    """
    tree = read(expression.text)
    for name in tree.names:
        if name not in scope:
            raise UnknownName(name, _near(name, scope))
    operands = tuple((name, scope[name]) for name in tree.names)
    missing = [f"{name} {why}" for name, value in operands if (why := why_unknown(value))]
    if missing:
        return Evaluation(None, operands, ", ".join(missing))
    failed = _failed_parts(tree, {name: exact(value) for name, value in operands})
    return Evaluation(not failed, operands, ", ".join(f"{part} is false" for part in failed))


def check_names(expression: Expression, known: Collection[str]) -> list[tuple[str, tuple[str, ...]]]:
    """The unknown names, each with similar known ones; a known 'baseline.*' covers all names that begin with 'baseline.'."""
    prefixes = tuple(name[:-1] for name in known if name.endswith(".*"))
    return [
        (name, _near(name, known)) for name in expression.names if name not in known and not name.startswith(prefixes)
    ]


def check_kinds(expression: Expression, kinds: Mapping[str, ValueKind]) -> None:
    """Raises BadExpression where two parts can never be compared, given the kinds of some names."""
    read_typed(expression.text, kinds)


def explain(evaluation: Evaluation) -> str:
    """The operands on one line, such as `total=100000, covered=0`."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in evaluation.operands)


# --- deciding ----------------------------------------------------------------------------------------------------


def _near(name: str, known: Iterable[str]) -> tuple[str, ...]:
    import difflib

    return tuple(difflib.get_close_matches(name, list(known), n=3))


def _failed_parts(tree: Tree, scope: Mapping[str, Value]) -> list[str]:
    decide = _evaluator(tree, scope)
    return [str(ast.get_source_segment(tree.source, part)) for part in tree.parts if not _truth(decide(part))]


def _evaluator(tree: Tree, scope: Mapping[str, Value]) -> Callable[[ast.expr], Value]:
    """A function that evaluates a node: simpleeval, restricted to this language's nodes, operators, functions and names."""
    from simpleeval import SimpleEval

    machine = SimpleEval(operators=_OPERATORS, functions=_FUNCTIONS, names={})

    def decide(node: ast.expr) -> Value:
        answer: Value = machine.eval(tree.source, node)
        return answer

    def named(node: ast.expr) -> Value:
        return scope[str(dotted(node))]

    def joined(node: ast.BoolOp) -> bool:
        answers = [_truth(decide(part)) for part in node.values]  # no short circuit, which could hide a fault
        return all(answers) if isinstance(node.op, ast.And) else any(answers)

    machine.nodes = {
        ast.UnaryOp: machine.nodes[ast.UnaryOp],
        ast.Compare: machine.nodes[ast.Compare],
        ast.Call: machine.nodes[ast.Call],
        ast.Constant: lambda node: node.value if (value := number(tree.source, node)) is None else value,
        ast.List: lambda node: [decide(item) for item in node.elts],
        ast.BoolOp: joined,
        ast.Name: named,
        ast.Attribute: named,
    }
    return decide


def _truth(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    raise BadOperand(f"the answer must be true or false, and is {_described(value)}: compare it with something")


def _kind(value: Value) -> str:  # noqa: C901, PLR0911 - one flat match over all kinds of values
    match value:
        case bool():
            return "a truth value"
        case int() | Decimal():
            return "a number"
        case str():
            return "text"
        case datetime():
            return "a time without zone" if value.utcoffset() is None else "a time with zone"
        case date():
            return "a date"
        case timedelta():
            return "an interval"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"of type {type(value).__name__}"


_ORDERED = {"a number", "a time with zone", "a date", "an interval"}


def _described(value: Value) -> str:
    return f"{_shown(value)!r} ({_kind(value)})"


def _order(left: Value, right: Value) -> None:
    kinds = {_kind(left), _kind(right)}
    if len(kinds) == 1 and kinds <= _ORDERED:
        return
    why = ": text is never ordered" if "text" in kinds else ""
    raise BadOperand(f"cannot order {_described(left)} and {_described(right)}{why}")


def _ordered(compare: Callable[..., bool]) -> Callable[[Value, Value], bool]:
    def decide(left: Value, right: Value) -> bool:
        _order(left, right)
        return compare(left, right)

    return decide


def _equal(left: Value, right: Value) -> bool:
    match left, right:
        case [list(), list()]:
            return _all_equal(left, right)
        case [dict(), dict()]:
            return left.keys() == right.keys() and _all_equal(list(left.values()), [right[key] for key in left])
        case _:
            return _equal_scalars(left, right)


def _equal_scalars(left: Value, right: Value) -> bool:
    kinds = {_kind(left), _kind(right)}
    # SQLite's booleans are the numbers 0 and 1
    flag = kinds == {"a truth value", "a number"} and left in (0, 1) and right in (0, 1)
    if flag or (len(kinds) == 1 and not isinstance(left, list | dict)):
        return left == right
    raise BadOperand(f"cannot compare {_described(left)} with {_described(right)}: cast one of them in the query")


def _all_equal(left: list[Value], right: list[Value]) -> bool:
    """Whether two lists have the same length and equal entries in order; inside a list, NULL equals NULL."""
    if len(left) != len(right):
        return False
    pairs = zip(left, right, strict=True)
    return all([_equal(a, b) if a is not None and b is not None else a is b for a, b in pairs])  # noqa: C419 - every pair is checked


def _contained(item: Value, allowed: Value) -> bool:
    if not isinstance(allowed, list):
        raise BadOperand(f"after 'in' stands a list, and this is {_described(allowed)}")
    return any([_equal(item, one) for one in allowed if one is not None])  # noqa: C419 - every pair is checked, as in and/or


def _number(value: Value, function: str) -> int | Decimal:
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return value
    raise BadOperand(f"{function} takes a number, not {_described(value)}")


def _abs(value: Value) -> int | Decimal:
    figure = _number(value, "abs")
    return figure.copy_abs() if isinstance(figure, Decimal) else abs(figure)  # abs() would round to 28 digits


def _negated(value: Value) -> int | Decimal:
    figure = _number(value, "a minus")
    return figure.copy_negate() if isinstance(figure, Decimal) else -figure


def _round(value: Value, digits: int = 0) -> int | Decimal:
    """Round half away from zero, like the databases' round() on exact numbers."""
    figure = _number(value, "round")
    if isinstance(figure, int):
        return figure
    _sign, coefficient, exponent = figure.as_tuple()
    if not isinstance(exponent, int) or exponent >= -digits:  # infinite, or nothing to cut
        return figure
    context = Context(prec=len(coefficient) + digits + 1, rounding=ROUND_HALF_UP)
    return figure.quantize(Decimal(1).scaleb(-digits), context=context)


def _extreme(compare: Callable[..., bool]) -> Callable[..., Value]:
    def better(left: Value, right: Value) -> Value:
        _order(left, right)
        return left if compare(left, right) else right

    return lambda *values: functools.reduce(better, values)


def _len(value: Value) -> int:
    if isinstance(value, str | list | tuple | dict | bytes):
        return len(value)
    raise BadOperand(f"len takes text or a list, not {_described(value)}")


_OPERATORS: dict[type[ast.AST], Callable[..., Value]] = {
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: not _equal(left, right),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
    ast.In: _contained,
    ast.NotIn: lambda item, allowed: not _contained(item, allowed),
    ast.Not: lambda value: not _truth(value),
    ast.USub: _negated,
}
_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "abs": _abs,
    "len": _len,
    "max": _extreme(operator.ge),
    "min": _extreme(operator.le),
    "round": _round,
}


def _shown(value: Value) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < SHOWN:
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    text = "".join(char if char.isprintable() else " " for char in str(value))  # a value can't steer a terminal
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
