"""Parses a backfill's `match`: pairs of a source column and an expression over the target that must be equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from steps.contract import StepError
from steps.contract.dialect import Dialect
from steps.sql.scanner import Token, TokenKind, scan

_COMPARES = set("<>!=:~@#&|*/%^-+")  # next to one of these, = is part of another operator (>=, ~=)
_FORM = "write source.column = an expression over target, joined by AND where there are several"


@dataclass(frozen=True)
class Pair:
    """One equality: source.column = expression over the target's columns."""

    column: str
    expression: str


def read_match(text: str, dialect: Dialect) -> tuple[Pair, ...]:
    """Parse a match into its equalities; raises StepError for any other form.

    They are needed apart, since a NULL on the target's side (no_key) counts differently from a missing source row.
    """
    tokens = [token for token in scan(text, dialect) if token.kind is not TokenKind.COMMENT]
    pairs = tuple(_pair(part, text) for part in _parts(tokens))
    if not pairs:
        raise StepError(f"cannot read match {text!r}: it is empty; {_FORM}")
    return pairs


def _parts(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Split at each AND outside of parentheses and CASE."""
    part: list[Token] = []
    for token, depth in _depths(tokens):
        if token.keyword == "AND" and depth == 0:
            yield part
            part = []
        else:
            part.append(token)
    if any(token.means_something for token in part):
        yield part


def _depths(tokens: Sequence[Token]) -> Iterator[tuple[Token, int]]:
    depth = 0
    for token in tokens:
        if token.sign in (")", "]") or token.keyword == "END":
            depth -= 1
        yield token, depth
        if token.sign in ("(", "[") or token.keyword == "CASE":
            depth += 1


def _pair(part: list[Token], text: str) -> Pair:
    at = [n for n, (token, depth) in enumerate(_depths(part)) if depth == 0 and _equals(part, n, token)]
    if len(at) == 1:
        left, right = part[: at[0]], part[at[0] + 1 :]
        for side, other in ((left, right), (right, left)):
            column = _source_column(side)
            if column and not _mentions_source(other) and _text(other):
                return Pair(column, _text(other))
    raise StepError(f"cannot read match {text!r}: {_text(part)!r} isn't of that form; {_FORM}")


def _equals(part: list[Token], n: int, token: Token) -> bool:
    near = {part[m].sign for m in (n - 1, n + 1) if 0 <= m < len(part)}
    return token.sign == "=" and not near & _COMPARES


def _source_column(side: list[Token]) -> str:
    words = [token for token in side if token.means_something]
    if len(words) != 3 or words[0].keyword != "SOURCE" or words[1].sign != ".":
        return ""
    name = words[2]
    if name.kind is TokenKind.QUOTED:
        return name.text[1:-1].replace('""', '"')
    return name.text.lower() if name.kind is TokenKind.WORD else ""


def _mentions_source(side: list[Token]) -> bool:
    words = [token for token in side if token.means_something]
    return any(a.keyword == "SOURCE" and b.sign == "." for a, b in pairwise(words))


def _text(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens).strip()
