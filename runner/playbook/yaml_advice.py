"""What a plain YAML word means, and why a line of YAML cannot be read, in words that say what to change."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from yaml import Event, MarkedYAMLError

Scalar = None | bool | int | float | str
Place = tuple[int, int]  # line and column, counted from 0 as the parser does


class ParserMark(Protocol):
    """What both parsers of PyYAML give as a place."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
_NUMBER_STARTS = frozenset("0123456789+-.")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}(?:_[0-9]{3})+")
_DECIMAL = re.compile(
    r"[-+]?(?:0|[1-9][0-9]*)?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?(?:0|[1-9][0-9]*)[eE][-+][0-9]+"
)  # 1e5 is a text
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(?:\.[0-9]*)?")
_UNDERSCORES = re.compile(r"[-+]?[0-9]+_[0-9_]*")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)")
MAX_DIGITS = 30  # more is an identifier that lost its quotes; Python itself refuses 4,300


class Ambiguous(ValueError):
    """A plain word that two readers of YAML take for two different things."""


def plain(word: str) -> Scalar:
    """What an unquoted word means: YAML 1.2's few words and decimal numbers, and text for all the rest."""
    if word in _WORDS:
        return _WORDS[word]
    if word[0] not in _NUMBER_STARTS:
        return word
    return _number(word)


def _number(word: str) -> Scalar:
    if _INTEGER.fullmatch(word) or _GROUPED.fullmatch(word):
        return _integer(word)
    if _DECIMAL.fullmatch(word):
        return _decimal(word)
    if _LEADING_ZERO.fullmatch(word):
        raise Ambiguous(f"cannot tell what number {word[:40]} is (010 is 8 to some): drop the first 0, or quote it")
    if _UNDERSCORES.fullmatch(word):
        raise Ambiguous(f"cannot tell whether {word[:40]} is a number: group its digits by three, or quote it")
    if _NO_NUMBER.fullmatch(word):
        raise Ambiguous(f"cannot use {word}: nothing can be compared with it; quote it if it is a text")
    return word


def _integer(word: str) -> int:
    if len(word) > MAX_DIGITS:
        raise Ambiguous(f"cannot use a number of more than {MAX_DIGITS} digits: quote it if it is a text")
    return int(word)


def _decimal(word: str) -> float:
    number = float(word)
    if len(word) > MAX_DIGITS or math.isinf(number):
        raise Ambiguous(f"cannot use a number of this size: {word[:MAX_DIGITS]}…; quote it if it is a text")
    if Decimal(repr(number)) != Decimal(word.replace("_", "")):
        raise Ambiguous(f"cannot keep all digits of {word}: quote it, and cast it where it is used")
    return number


_BLOCK_VALUE = re.compile(r"\s*(?:-\s+)*(?:[\w.-]+:\s+)?(.*?)(?:\s+#.*)?\s*")


@dataclass(frozen=True)
class _Last:
    """The last thing that the parser understood."""

    start: Place
    end: Place
    quoted: bool
    closes: bool  # it ends with a quote or a bracket, so nothing can follow


@dataclass(frozen=True)
class _Spot:
    """Where the parser gave up: its words, the place, the last thing that it understood."""

    problem: str
    context: str
    at: Place
    since: Place
    last: _Last | None
    lines: list[str]

    @property
    def line(self) -> str:
        return self.lines[self.at[0]] if self.at[0] < len(self.lines) else ""

    @property
    def char(self) -> str:
        return self.char_at(self.at)

    @property
    def in_flow(self) -> bool:
        return "flow" in self.context

    def char_at(self, place: Place) -> str:
        line = self.lines[place[0]] if place[0] < len(self.lines) else ""
        return line[place[1] : place[1] + 1]

    def advice(self) -> str:
        """How to quote the value of this line; between brackets it isn't known where the value ends."""
        match = None if self.in_flow or len(self.line) > 120 else _BLOCK_VALUE.fullmatch(self.line)
        return f"quote the whole value: {_quoted(match[1])}" if match and match[1] else "quote the whole value"


def _quoted(value: str) -> str:
    if '"' in value or "\\" in value:
        return "'" + value.replace("'", "''") + "'"
    return f'"{value}"'


_Answer = tuple[Place, str] | None


def explain(error: MarkedYAMLError, *, last: Event | None, lines: list[str]) -> tuple[Place, str]:
    """The place and a helpful message for an error of the YAML parser; `last` is the last event before it."""
    here = _place(error.problem_mark) or (max(len(lines) - 1, 0), 0)
    begun = _place(error.context_mark) or here
    spot = _Spot(error.problem or "", error.context or "", here, begun, _understood(last), lines)
    for rule in (_tab, _unclosed_quote, _escape, _no_colon, _after_end, _colon, _first_sign, _flow, _indentation):
        if answer := rule(spot):
            return answer
    return here, f"cannot read this: {spot.problem}"


def _place(mark: object) -> Place | None:
    if mark is None:
        return None
    known = cast("ParserMark", mark)
    return known.line, known.column


def _understood(last: Event | None) -> _Last | None:
    from yaml import MappingEndEvent, ScalarEvent, SequenceEndEvent

    start, end = (_place(last.start_mark), _place(last.end_mark)) if last else (None, None)
    if not start or not end:
        return None
    quoted = isinstance(last, ScalarEvent) and last.style in {"'", '"'}
    flow = isinstance(last, MappingEndEvent | SequenceEndEvent)  # a block's end is a place without any sign
    return _Last(start, end, quoted, closes=quoted or (flow and start != end))


def _tab(spot: _Spot) -> _Answer:
    if spot.char == "\t" or "tab character" in spot.problem:
        return spot.at, "cannot read a tab in the indentation: use spaces"
    return None


def _unclosed_quote(spot: _Spot) -> _Answer:
    if "quoted scalar" in spot.context and "found unexpected" in spot.problem:
        return spot.since, f"cannot find the end of the text that starts here: close it with {spot.char_at(spot.since)}"
    return None


def _escape(spot: _Spot) -> _Answer:
    if "unknown escape" not in spot.problem:
        return None
    line, column = spot.at
    if spot.char != "\\":  # the two parsers point at different letters of the pair
        column -= 1
    pair = spot.line[column : column + 2]
    return (line, column), f"cannot read {pair} between double quotes: use single quotes, or write \\{pair}"


def _no_colon(spot: _Spot) -> _Answer:
    if "could not find expected ':'" not in spot.problem:
        return None
    words = spot.lines[spot.since[0]][spot.since[1] :].strip()[:40]
    return (
        spot.since,
        f"cannot find ': ' after {words!r}: write 'key: value', or indent it if it goes on the line above",
    )


def _after_end(spot: _Spot) -> _Answer:
    """More text after a closing quote or bracket: an expression that began with one."""
    last = spot.last
    rest = spot.line[spot.at[1] :].strip()[:40]
    if not last or not last.closes or not rest or spot.char in ",]}" or last.end[0] != spot.at[0]:
        return None
    if spot.line[last.end[1] : spot.at[1]].strip():
        return None
    if last.quoted and last.start[0] != last.end[0]:
        begun = last.start[0] + 1
        return spot.at, f"cannot read {rest!r} after a text in quotes that began on line {begun}: was it closed there?"
    closing = spot.line[last.end[1] - 1]
    return spot.at, f"cannot read {rest!r} after the closing {closing}: {spot.advice()}"


def _colon(spot: _Spot) -> _Answer:
    if not (spot.problem.startswith("mapping values are not allowed") or (spot.in_flow and spot.char == ":")):
        return None
    begun = spot.last.start[0] if spot.last else spot.at[0]
    if begun == spot.at[0]:
        return spot.at, f"cannot read ': ' inside an unquoted value: {spot.advice()}"
    if spot.in_flow:
        return None
    return spot.at, (
        f"cannot read ':' here: the unquoted text of line {begun + 1} goes on to this line: "
        "check the indentation, and the space after each ':'"
    )


_SIGNS = "%@`*&!|>-?,]}"
_SCANNED = ("alias", "anchor", "block scalar", "tag", "directive")


def _first_sign(spot: _Spot) -> _Answer:
    by_context = spot.context.startswith("while scanning a") and spot.context.endswith(_SCANNED)
    by_problem = any(words in spot.problem for words in ("cannot start any token", "not allowed", "node content"))
    place = spot.since if by_context else spot.at
    sign = spot.char_at(place)
    if not (by_context or by_problem) or not sign or sign not in _SIGNS:
        return None
    return place, f"cannot start an unquoted value with {sign}: {spot.advice()}"


def _flow(spot: _Spot) -> _Answer:
    if not spot.in_flow:
        return None
    opened = spot.char_at(spot.since)
    if spot.since[0] == spot.at[0] and spot.char:
        return spot.at, f"cannot read {spot.char!r} inside an unquoted value after {opened}: quote the whole value"
    return spot.since, f"cannot find the end of the {opened} that starts here"


def _indentation(spot: _Spot) -> _Answer:
    if not any(words in spot.problem for words in ("expected key", "expected <block end>", "'-' indicator")):
        return None
    return spot.at, "cannot place this line: neither its indentation nor its form ('key: value', '- item') fits above"
