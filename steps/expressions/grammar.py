"""The grammar of `that:` expressions: parsed with Python's ast, and validated at load without evaluating anything."""

from __future__ import annotations

import ast
import functools
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from steps.contract import cutting

MAX_LENGTH = 500  # characters: readable at a glance, and a bound on the work of parsing
MAX_DEPTH = 12  # nested parentheses and calls
MAX_DIGITS = 12  # in round(x, digits)


class BadExpression(Exception):
    """The text is not a valid expression; column: in characters, counted from 1."""

    def __init__(self, text: str, column: int, reason: str) -> None:
        super().__init__(f"cannot read expression {cutting.shortened(text, 80)!r} at column {column}: {reason}")
        self.text, self.column, self.reason = text, column, reason


_WORDS = {
    "and": "write 'and' in lower case",
    "or": "write 'or' in lower case",
    "not": "write 'not' in lower case",
    "in": "write 'in' in lower case",
    "true": "write True",
    "false": "write False",
}
_RIGHT = {"and", "or", "not", "in", "True", "False"}
_NULL = "NULL is never compared (a NULL operand answers unknown by itself): count what is missing in the query"

_MISTAKES = (
    (r"['\"]", "the quote isn't closed"),
    (
        r"(?<=[\x01\x02])[ \t\n]*\x01",
        "two texts side by side: a comma is missing, or a quote is doubled as in SQL",
    ),
    (r"[^\x00-\x7f]", "outside quotes stands plain ASCII only, as in >= and '...'"),
    (r"\b[A-Za-z]{1,2}\x01", "a text has no prefix: write it in plain quotes"),
    (r"#", "a comment isn't part of an expression: write it beside the key in the YAML"),
    (r"\{\{|\{%", "an expression is no template: write the name alone, without braces"),
    (r":=", "an expression can't assign: write == to compare"),
    (r":[ \t]*[A-Za-z]", "an expression is no SQL: write the name without a colon"),
    (r"&&?", "write 'and'"),
    (r"\|\|?", "write 'or'"),
    (r"<>", "write !="),
    (r"=<", "write <="),
    (r"=>", "write >="),
    (r"===+", "write =="),
    (r"(?<![=!<>])=(?!=)", "write == to compare"),
    (r"!(?!=)", "write 'not'"),
    (r"%", "write the number without %: the unit stands in the name, as in coverage_pct >= 95"),
    (r"(?i)\bis[ \t\n]+(not[ \t\n]+)?null\b", _NULL),
    (r"(?i)\b(null|none)\b", _NULL),
    (r"(?i)\bis\b", "write == or != instead of 'is'"),
    (r"(?i)\bbetween\b", "write low <= name <= high"),
    (r"(?i)\bi?like\b", "there is no pattern match: decide it in the query"),
    (
        r"\b[A-Za-z]\w*-\w",
        "a hyphen reads as a subtraction: ids have underscores, and 'as:' names a playbook",
    ),
    (
        r"\b\d[\d_.]*(?![eE][+-]?\d)[A-Za-z]\w*",
        "a number carries no unit: the unit stands in the name, as in age_s < 300",
    ),
)

_REFUSED: dict[type[ast.AST], str] = {
    ast.BinOp: "arithmetic isn't part of this language: compute it in the query",
    ast.Subscript: "square brackets only write a list after 'in': let the query return the single value",
    ast.List: "a list stands only after 'in'",
    ast.Tuple: "a comma is no thousands separator (write 1000 or 1_000), and a list has square brackets",
    ast.Set: "a list has square brackets",
    ast.IfExp: "there is no condition in an expression: write two checks",
    ast.Lambda: "there are no functions to define here",
    ast.NamedExpr: "an expression can't assign: write == to compare",
}
_LANGUAGE = "only comparisons joined by and/or/not, names, numbers, texts and abs, len, max, min, round are allowed"
_CHAINED = "'in' can't be part of a chain: join two comparisons by and"
_ORDERING = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARGUMENTS = {"abs": (1, 1), "len": (1, 1), "max": (2, 9), "min": (2, 9), "round": (1, 2)}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FOREIGN = re.compile(r"[\\\x00-\x08\x0b-\x1f\x7f]")
_LITERAL = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")


class ValueKind(StrEnum):
    """The type of a part, as far as its text tells."""

    TRUTH = "true or false"
    NUMBER = "a number"
    TEXT = "text"
    LIST = "a list"
    TIME = "a time"  # a date, a time or an interval
    ANY = "any"  # a name: its value decides


@dataclass(frozen=True)
class Tree:
    """A validated expression: its text, syntax tree, and dotted names in order of appearance."""

    source: str
    body: ast.expr
    names: tuple[str, ...]

    @property
    def parts(self) -> list[ast.expr]:
        """The operands of the outermost `and`; the whole expression where there is none."""
        if isinstance(self.body, ast.BoolOp) and isinstance(self.body.op, ast.And):
            return self.body.values
        return [self.body]


@functools.lru_cache(maxsize=1024)
def read(text: str) -> Tree:
    """Parse and validate an expression without evaluating it; raises BadExpression."""
    if len(text) > MAX_LENGTH:
        raise BadExpression(text, MAX_LENGTH, f"longer than {MAX_LENGTH} characters: write several checks")
    if not text.strip():
        raise BadExpression(text, 1, "it is empty")
    _refuse_mistakes(text)
    source = text.replace("\n", " ").rstrip()
    shift = len(source) - len(source.lstrip())
    source = source[shift:]
    try:
        body = ast.parse(source, mode="eval").body
    except SyntaxError as exc:
        column = shift + (exc.offset or len(source) + 1)
        raise BadExpression(text, column, f"it isn't an expression ({exc.msg})") from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        raise BadExpression(text, 1, "it isn't an expression") from exc
    reader = _Reader(text, source, shift)
    reader.truth(body, depth=0)
    return Tree(source, body, tuple(reader.names))


def read_typed(text: str, kinds: Mapping[str, ValueKind]) -> None:
    """Validate an expression again, given the kinds of some names; raises BadExpression."""
    tree = read(text)
    shift = len(text) - len(text.lstrip())
    _Reader(text, tree.source, shift, kinds=kinds).truth(tree.body, depth=0)


@functools.cache  # compiled at first use: loading a playbook's types must stay fast
def _mistakes() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), reason) for pattern, reason in _MISTAKES)


def _refuse_mistakes(text: str) -> None:
    if found := _FOREIGN.search(text):
        raise BadExpression(text, found.start() + 1, "backslashes and control characters aren't part of this language")
    # string literals are masked, so that 'a && b' inside one isn't taken for an operator
    masked = _LITERAL.sub(lambda found: "\x01" + "\x02" * (len(found[0]) - 1), text)
    for pattern, reason in _mistakes():
        if found := pattern.search(masked):
            raise BadExpression(text, found.start() + 1, reason)
    for found in re.finditer(r"(?<![.\w])[A-Za-z]+(?![.\w])", masked):
        if found[0] not in _RIGHT and found[0].lower() in _WORDS:
            raise BadExpression(text, found.start() + 1, _WORDS[found[0].lower()])


@dataclass
class _Reader:
    """Walks a syntax tree, infers types, refuses what is not part of the language, and collects the names."""

    text: str
    source: str
    shift: int
    names: dict[str, None] = field(default_factory=dict)
    kinds: Mapping[str, ValueKind] = field(default_factory=dict)  # of the names whose kind is known

    def fault(self, node: ast.expr, reason: str) -> BadExpression:
        before = self.source.encode()[: node.col_offset].decode()  # ast counts bytes
        return BadExpression(self.text, self.shift + len(before) + 1, reason)

    def truth(self, node: ast.expr, *, depth: int) -> ValueKind:
        kind = self.kind(node, depth=depth)
        if kind not in (ValueKind.TRUTH, ValueKind.ANY):
            raise self.fault(node, f"this is {kind}, and must be true or false: compare it with something")
        return kind

    def kind(self, node: ast.expr, *, depth: int) -> ValueKind:
        if depth > MAX_DEPTH:
            raise self.fault(node, f"nested deeper than {MAX_DEPTH}: write several checks")
        match node:
            case ast.BoolOp() | ast.UnaryOp() | ast.Compare() | ast.Call():
                return self.combined(node, depth=depth + 1)
            case ast.Name() | ast.Attribute():
                name = self.name(node)
                self.names[name] = None
                return self.kinds.get(name, ValueKind.ANY)
            case ast.Constant():
                return self.constant(node)
            case _:
                raise self.fault(node, _REFUSED.get(type(node), _LANGUAGE))

    def combined(self, node: ast.BoolOp | ast.UnaryOp | ast.Compare | ast.Call, *, depth: int) -> ValueKind:
        match node:
            case ast.BoolOp():
                for part in node.values:
                    self.truth(part, depth=depth)
                return ValueKind.TRUTH
            case ast.UnaryOp():
                return self.unary(node, depth=depth)
            case ast.Compare(ops=[ast.In() | ast.NotIn(), *_]):
                return self.membership(node, depth=depth)
            case ast.Compare():
                return self.comparison(node, depth=depth)
            case ast.Call():
                return self.call(node, depth=depth)

    def unary(self, node: ast.UnaryOp, *, depth: int) -> ValueKind:
        if isinstance(node.op, ast.Not):
            return self.truth(node.operand, depth=depth)
        if number(self.source, node) is None:
            raise self.fault(node, "only a number can have a sign, and only a minus")
        return self.kind(node.operand, depth=depth)

    def comparison(self, node: ast.Compare, *, depth: int) -> ValueKind:
        for sign, part in zip(node.ops, node.comparators, strict=True):
            if isinstance(sign, ast.In | ast.NotIn):
                raise self.fault(part, _CHAINED)
        parts = [node.left, *node.comparators]
        kinds = [self.kind(part, depth=depth) for part in parts]
        for sign, pair, left, right in zip(node.ops, itertools.pairwise(parts), kinds, kinds[1:], strict=False):
            named = any(isinstance(part, ast.Name | ast.Attribute) for part in pair)
            if reason := _why_incomparable({left, right}, ordering=isinstance(sign, _ORDERING), named=named):
                raise self.fault(pair[1], reason)
        return ValueKind.TRUTH

    def membership(self, node: ast.Compare, *, depth: int) -> ValueKind:
        allowed = node.comparators[0]
        if len(node.ops) > 1:
            raise self.fault(node.comparators[1], _CHAINED)
        if isinstance(allowed, ast.Name | ast.Attribute):
            if self.kind(allowed, depth=depth) not in (ValueKind.LIST, ValueKind.ANY):
                raise self.fault(allowed, f"after 'in' stands a list, and this is {self.kind(allowed, depth=depth)}")
            self.kind(node.left, depth=depth)
            return ValueKind.TRUTH
        if not isinstance(allowed, ast.List) or not allowed.elts:
            raise self.fault(
                allowed, "after 'in' stands a list, or a name that is one, as in status in ['open', 'held']"
            )
        if not all(isinstance(item, ast.Constant | ast.UnaryOp) for item in allowed.elts):
            raise self.fault(allowed, "a list has only numbers or texts")
        kinds = {self.kind(item, depth=depth) for item in allowed.elts}
        if len(kinds) > 1 or not kinds <= {ValueKind.NUMBER, ValueKind.TEXT}:
            raise self.fault(allowed, "a list has only numbers or only texts")
        if not {self.kind(node.left, depth=depth)} <= kinds | {ValueKind.ANY}:
            raise self.fault(node.left, "it can't be in this list: the kinds differ")
        return ValueKind.TRUTH

    def call(self, node: ast.Call, *, depth: int) -> ValueKind:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _ARGUMENTS:
            raise self.fault(node, f"no such function: there are {', '.join(_ARGUMENTS)}")
        low, high = _ARGUMENTS[name]
        if node.keywords or not low <= len(node.args) <= high:
            raise self.fault(node, f"{name} takes {low if low == high else f'{low} to {high}'} values")
        if name == "round" and len(node.args) == 2 and not _is_digits(node.args[1]):
            raise self.fault(node.args[1], f"round takes 0 to {MAX_DIGITS} digits, as a plain number")
        wanted = {ValueKind.ANY, ValueKind.TEXT, ValueKind.LIST} if name == "len" else {ValueKind.ANY, ValueKind.NUMBER}
        wanted |= {ValueKind.TIME} if name in ("min", "max") else set()
        kinds = {self.kind(part, depth=depth) for part in node.args}
        if not kinds <= wanted:
            raise self.fault(node, f"{name} takes {'text or a list' if name == 'len' else 'numbers'}")
        return ValueKind.ANY if name in ("min", "max") and not kinds & {ValueKind.NUMBER} else ValueKind.NUMBER

    def name(self, node: ast.expr) -> str:
        text = dotted(node)
        if text is None or not all(_NAME.fullmatch(part) for part in text.split(".")):
            raise self.fault(
                node, "a name is letters, digits and underscores, begins with a letter, and is joined by dots"
            )
        return text

    def constant(self, node: ast.Constant) -> ValueKind:
        match node.value:
            case bool():
                return ValueKind.TRUTH
            case str():
                return ValueKind.TEXT
            case int():
                return ValueKind.NUMBER
            case float() if math.isfinite(node.value):  # 1e999 would be a number of a million digits
                return ValueKind.NUMBER
            case _:
                raise self.fault(node, _LANGUAGE)


def dotted(node: ast.expr) -> str | None:
    """The dotted name that a node represents; None for any other node."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            before = dotted(node.value)
            return before and f"{before}.{node.attr}"
        case _:
            return None


def _is_digits(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value <= MAX_DIGITS


def _why_incomparable(kinds: set[ValueKind], *, ordering: bool, named: bool) -> str:
    if ordering and ValueKind.TEXT in kinds:
        return "text is never ordered: compare numbers, with their unit in the name"
    if ordering and ValueKind.TRUTH in kinds:
        return "true and false have no order"
    if ordering and ValueKind.LIST in kinds:
        return "a list has no order: compare its len(), or two lists by =="
    if named and kinds == {ValueKind.TRUTH, ValueKind.NUMBER}:
        return ""  # SQLite's booleans are 0 and 1: the value decides
    if kinds == {ValueKind.TEXT} and not named:
        return "two fixed texts are compared: one side must be a name"
    if len(kinds - {ValueKind.ANY}) > 1:
        return f"{' and '.join(sorted(kinds - {ValueKind.ANY}))} are never equal"
    return ""


def number(source: str, node: ast.expr) -> int | Decimal | None:
    """The exact number that a node represents; None for any other node.

    A fraction is read from the source text and not from the float, so that 0.1 means exactly one tenth.
    """
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant()):
            value = number(source, node.operand)
            return value.copy_negate() if isinstance(value, Decimal) else value and -value
        case ast.Constant(value=float()):
            return Decimal(str(ast.get_source_segment(source, node)))
        case ast.Constant(value=int(value)) if not isinstance(node.value, bool):
            return value
        case _:
            return None
