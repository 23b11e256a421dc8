"""Templates in text: names and five filters, for messages, file names and quoted SQL identifiers, and nothing else.

Every template is held against a small grammar before Jinja2 sees it, so that arithmetic, calls, attributes of Python
objects and statements never reach the sandbox. The grammar alone is what loading a playbook needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from runner.common.errors import BadInput
from runner.playbook.yaml_reader import near
from steps.contract.dialect import Dialect
from steps.sql import templates
from steps.sql.dialect import BadIdentifier, quote
from steps.sql.scanner import BadSql
from steps.sql.templates import NAME, has_template

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE = 10_000  # characters
MAX_OUTPUT = 10_000  # characters
FILTERS = {"ident": 0, "upper": 0, "lower": 0, "default": 1, "join": 1}  # most arguments that each takes

_OPENING = re.compile(r"\{\{|\{%|\{#")
_TOKEN = re.compile(
    rf"""\s*(?:(?P<end>\}}\}})|(?P<name>{NAME})|(?P<constant>'[^'\\\n]*'|"[^"\\\n]*"|[0-9]{{1,15}}(?:\.[0-9]{{1,15}})?)"""
    r"""|(?P<sign>[|(),]))"""
)
_RESERVED = re.compile(  # words of Jinja2
    "self|super|loop|caller|varargs|kwargs|true|false|none|and|or|not|in|is|if|else|import|from|for|set|with",
    re.IGNORECASE,
)
_HELP = "only names, with the filters ident, upper, lower, default and join, can stand between {{ and }}"


class BadTemplate(BadInput):
    """A template cannot be read or filled."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"{where}: {reason}")


class _Refused(Exception):
    """Why a value cannot be written; the caller knows where."""


@dataclass(frozen=True)
class _Use:
    """One `{{ … }}`: the names in it, and whether the first may be missing."""

    names: tuple[str, ...]
    optional: bool


def fill(text: str, values: Mapping[str, object], *, where: str) -> str:
    """The text with its templates filled; NULL is written null, and a name without a value is refused.

    Raises:
        BadTemplate: with `where`, which says whose text it is.
    """
    if not has_template(text):
        return text
    uses = _uses(text, where)
    given = _given(uses, values, where)
    return _render(text, given, where)


def fill_sql(
    text: str, values: Mapping[str, object], *, where: str, dialects: Iterable[Dialect] = tuple(Dialect)
) -> str:
    """SQL with each `{{ name | ident }}` replaced by a quoted identifier; any other template is refused.

    Raises:
        BadTemplate: also where the template stands in a literal, quotes or a comment, in which quoting protects nothing.
    """
    try:
        return templates.fill(
            text, lambda name: _identifier(_look_up(name, values, where), name, where), dialects=dialects
        )
    except BadSql as bad:
        raise BadTemplate(
            where, f"cannot use {bad.reason}" if bad.line == 1 else f"line {bad.line}: cannot use {bad.reason}"
        ) from None
    except BadIdentifier as bad:
        raise BadTemplate(where, str(bad)) from None


# The grammar


def _uses(text: str, where: str) -> list[_Use]:
    if not has_template(text):
        return []
    if len(text) > MAX_TEMPLATE:
        raise BadTemplate(where, f"cannot use a template of {len(text):,} characters: at most {MAX_TEMPLATE:,}")
    uses: list[_Use] = []
    position = 0
    while opening := _OPENING.search(text, position):
        if opening[0] != "{{":
            raise BadTemplate(where, f"cannot use {opening[0]} in a template: {_HELP}")
        use, position = _use(text, opening.end(), where)
        uses.append(use)
    return uses


def _use(text: str, position: int, where: str) -> tuple[_Use, int]:
    """Read `operand [| filter[(operand, …)]]… }}` from `position`."""
    tokens = _tokens(text, position, where)
    found: list[str] = []
    filters: list[str] = []
    token = _operand(next(tokens), tokens, found=found, where=where)
    optional = bool(found)
    while token[0] != "}}":
        if token[0] != "|":
            raise _unexpected(token[0], where)
        name = next(tokens)[0]
        token = _filter(name, tokens, found=found, where=where)
        filters.append(name)
    return _Use(tuple(found), optional and filters[:1] == ["default"]), token[1]


_Token = tuple[str, int, Literal["end", "name", "constant", "sign"]]


def _tokens(text: str, position: int, where: str) -> Iterator[_Token]:
    while match := _TOKEN.match(text, position):
        position = match.end()
        kind: Any = match.lastgroup
        yield match[kind], position, kind
    rest = text[position:].strip()
    if not rest:
        raise BadTemplate(where, "cannot find the end of a template: close it with }}")
    raise _unexpected(rest[:1], where)


def _unexpected(sign: str, where: str) -> BadTemplate:
    return BadTemplate(where, f"cannot use {sign!r} here: {_HELP}")


def _operand(token: _Token, tokens: Iterator[_Token], *, found: list[str], where: str) -> _Token:
    """Take one name or constant, and give the token after it."""
    word, _, kind = token
    if kind == "name":
        if _RESERVED.fullmatch(word.split(".")[0]):
            raise BadTemplate(where, f"cannot use the word {word!r} as a name")
        found.append(word)
    elif kind != "constant":
        raise _unexpected(word, where)
    return next(tokens)


def _filter(name: str, tokens: Iterator[_Token], *, found: list[str], where: str) -> _Token:
    """Take one filter with its arguments, and give the token after it."""
    if name not in FILTERS:
        raise BadTemplate(where, f"cannot use the filter {name!r}{near(name, FILTERS)}: {_HELP}")
    token = next(tokens)
    arguments = 0
    if token[0] == "(":
        token = _operand(next(tokens), tokens, found=found, where=where)
        arguments = 1
        if token[0] != ")":
            raise _unexpected(token[0], where)
        token = next(tokens)
    if arguments > FILTERS[name] or (name == "default" and not arguments):
        raise BadTemplate(where, f"cannot use the filter {name!r} with {arguments} arguments")
    return token


# The values


def _given(uses: list[_Use], values: Mapping[str, object], where: str) -> dict[str, object]:
    """Only what the template names, so that nothing else can be reached."""
    given: dict[str, object] = {}
    for use in uses:
        for index, name in enumerate(use.names):
            first = name.split(".")[0]
            if first in values:
                given[first] = values[first]
            elif index > 0 or not use.optional:
                raise BadTemplate(where, f"cannot find {first!r}{near(first, values)}")
    return given


def _look_up(name: str, values: Mapping[str, object], where: str) -> object:
    value: object = values
    for part in name.split("."):
        inside = _inside(value)
        if part not in inside:
            raise BadTemplate(where, f"cannot find {part!r}{near(part, inside)}")
        value = inside[part]
    return value


def _inside(value: object) -> Mapping[str, object]:
    """The named parts of a mapping, a dataclass or a pydantic model: never its methods or hidden attributes."""
    if isinstance(value, Mapping):
        return value
    known: object = getattr(type(value), "model_fields", None)
    if isinstance(known, Mapping):
        return {str(name): getattr(value, str(name)) for name in known}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {}


def _identifier(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise BadTemplate(where, f"cannot use {name!r} as an identifier: its value is of type {type(value).__name__}")
    return value


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str | int | float | Decimal | date | time | timedelta | UUID | PurePath):
        raise _Refused(f"cannot write a {type(value).__name__} as text: name one part of it, or use the filter join")
    text = str(value)
    if len(text) > MAX_OUTPUT:
        raise _Refused(f"cannot write more than {MAX_OUTPUT:,} characters")
    return text


# Jinja2


def _render(text: str, given: Mapping[str, object], where: str) -> str:
    from jinja2 import TemplateError

    try:
        return "".join(_bounded(_environment().from_string(text).generate(given)))
    except (TemplateError, _Refused, ValueError) as bad:
        raise BadTemplate(where, str(bad)) from None


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_OUTPUT:
            raise _Refused(f"cannot write more than {MAX_OUTPUT:,} characters")
        yield piece


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined, Undefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        def getattr(self, obj: object, attribute: str) -> object:
            inside = _inside(obj)
            if attribute in inside:
                return inside[attribute]
            return self.undefined(hint=f"cannot find {attribute!r}{near(attribute, inside)}")

    def scalar(value: object) -> object:
        return value if isinstance(value, Undefined) else _text(value)

    def default(value: object, other: object) -> object:
        return other if isinstance(value, Undefined) else value

    environment = Environment(
        undefined=StrictUndefined, finalize=scalar, keep_trailing_newline=True, optimized=False, autoescape=False
    )
    environment.globals.clear()
    environment.tests.clear()
    environment.filters.clear()
    environment.filters |= {
        "ident": lambda value: _quoted(str(scalar(value))),
        "upper": lambda value: str(scalar(value)).upper(),
        "lower": lambda value: str(scalar(value)).lower(),
        "default": default,
        "join": _join,
    }
    return environment


def _quoted(name: str) -> str:
    try:
        return quote(name)
    except BadIdentifier as bad:
        raise _Refused(str(bad)) from None


def _join(value: object, between: object = ", ") -> str:
    if not isinstance(value, list | tuple | set | frozenset):
        raise _Refused(f"cannot join a {type(value).__name__}: only a list")
    if len(value) > MAX_OUTPUT:
        raise _Refused(f"cannot write more than {MAX_OUTPUT:,} characters")
    return _text(_text(between).join(_text(item) for item in value))
