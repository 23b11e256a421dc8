"""Templates in SQL: `{{ name | ident }}` becomes one quoted identifier, and is refused inside literals and comments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from steps.contract.dialect import Dialect
from steps.sql.dialect import quote
from steps.sql.scanner import BadSql, Token, TokenKind, line_of, scan

MAX_SQL = 1_000_000  # characters; a named SQL file may be long
NAME = r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*"
_OPENING = re.compile(r"\{\{|\{%")
_IDENTIFIER = re.compile(rf"\{{\{{\s*(?P<name>{NAME})\s*\|\s*ident\s*\}}\}}")
_SHIELDED = (TokenKind.STRING, TokenKind.QUOTED, TokenKind.COMMENT)
_HOW = "bind a parameter (:name) instead; an array of arrays is written '{ {1}, {2} }'"


class TemplateSlot(NamedTuple):
    """A template in SQL: its position, and the name whose value it inserts ("" for an invalid template)."""

    start: int
    end: int
    name: str


def has_template(text: str) -> bool:
    """Whether the text contains the beginning of a template."""
    return "{{" in text or "{%" in text


def fill(sql: str, value_of: Callable[[str], str], *, dialects: Iterable[Dialect] = tuple(Dialect)) -> str:
    """Replace the templates in SQL by quoted identifiers; raises BadSql and BadIdentifier.

    dialects: those for which the text may be meant. In each that can scan it, every template must be outside of literals, quoted
    names and comments: what is a comment for one database may be code for the other.
    """
    if not has_template(sql):
        return sql
    if len(sql) > MAX_SQL:
        raise BadSql(1, f"a template of {len(sql):,} characters: at most {MAX_SQL:,}")
    places = list(_places(sql))
    readers = _readers(sql, dialects)
    for dialect, tokens in readers.items():
        _refuse_shielded(sql, dialect, tokens, places)
    pieces, put, done, length = [], [], 0, 0
    for place in places:
        name = quote(value_of(place.name))
        pieces += [sql[done : place.start], name]
        length += place.start - done
        put.append((length, name))
        length, done = length + len(name), place.end
    filled = "".join([*pieces, sql[done:]])
    for dialect in readers:
        _prove(filled, dialect, put)
    return filled


def as_names(sql: str) -> str:
    """The text with each template as a quoted name, for a parser; of the same length, so that positions stay."""
    return _IDENTIFIER.sub(lambda found: f'"{found["name"]}"'.ljust(len(found[0])), sql)


def _places(sql: str) -> Iterator[TemplateSlot]:
    """Every template of the text, with the name "" where it isn't `{{ name | ident }}`."""
    position = 0
    while opening := _OPENING.search(sql, position):
        found = _IDENTIFIER.match(sql, opening.start())
        end = found.end() if found else opening.end()
        yield TemplateSlot(opening.start(), end, found["name"] if found else "")
        position = end


def _readers(sql: str, dialects: Iterable[Dialect]) -> dict[Dialect, list[Token]]:
    """Dialect → tokens, for the dialects that can scan the text; raises BadSql where none can."""
    readers: dict[Dialect, list[Token]] = {}
    faults = []
    for dialect in dialects:
        try:
            readers[dialect] = list(scan(sql, dialect))
        except BadSql as fault:
            faults.append(fault)
    if not readers:
        raise faults[0]
    return readers


def _refuse_shielded(sql: str, dialect: Dialect, tokens: Iterable[Token], places: Iterable[TemplateSlot]) -> None:
    shields = [token for token in tokens if token.kind in _SHIELDED and has_template(token.text)]
    for place in places:
        inside = next((one for one in shields if one.start <= place.start < one.start + len(one.text)), None)
        line = line_of(sql, place.start)
        if inside is not None and inside.text[0] in "[`":
            raise BadSql(
                line,
                f"a template between {inside.text[0]} and {inside.text[-1]}, which {dialect} reads as a quoted name: "
                "`| ident` quotes by itself; an array's index belongs into a text of its own for postgresql",
            )
        if inside is not None:
            raise BadSql(line, f"{{{{ or {{% in a literal or comment: {_HOW}")
        if not place.name:
            opening = sql[place.start : place.start + 2]
            raise BadSql(line, f"{opening} in SQL: only {{{{ name | ident }}}} can stand there")


def _prove(filled: str, dialect: Dialect, put: Iterable[tuple[int, str]]) -> None:
    """Scan the result and check that each inserted name is a quoted identifier of its own; raises BadSql where one isn't."""
    tokens = list(scan(filled, dialect))
    found = {token.start: (before, token) for before, token in pairwise([Token(TokenKind.SPACE, "", 0), *tokens])}
    for start, name in put:
        before, token = found.get(start, (None, None))
        if token is None or before is None or token.kind is not TokenKind.QUOTED or token.text != name:
            raise BadSql(line_of(filled, start), f"the name {name} would run into its neighbour: put a space between")
        if filled[max(0, start - 2) : start].upper() == "U&":
            raise BadSql(line_of(filled, start), 'a template behind U&, where "\\0041" is another name: leave U& out')
