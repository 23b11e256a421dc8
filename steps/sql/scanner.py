"""A scanner for SQL that knows literals and comments, and the splitting of scripts into statements."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from steps.contract.dialect import Dialect


class BadSql(Exception):
    """The text can't be scanned, split or bound; line: counted from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"cannot read SQL, line {line}: {reason}")
        self.line, self.reason = line, reason


class TokenKind(StrEnum):
    """The kind of a token."""

    SPACE = "space"
    COMMENT = "comment"
    STRING = "string"  # '…', E'…', $tag$…$tag$
    QUOTED = "quoted"  # "…"; on SQLite also `…` and […]
    WORD = "word"  # a keyword or a bare name
    NUMBER = "number"
    PARAMETER = "parameter"  # :name
    OTHER = "other"  # one character of an operator or of punctuation


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text; the tokens joined give the text again."""

    kind: TokenKind
    text: str
    start: int

    @property
    def keyword(self) -> str:
        """A bare ASCII word in upper case; "" for anything else, since a quoted name is no keyword."""
        return self.text.upper() if self.kind is TokenKind.WORD and self.text.isascii() else ""

    @property
    def sign(self) -> str:
        """The character of an operator or punctuation; "" for anything else."""
        return self.text if self.kind is TokenKind.OTHER else ""

    @property
    def name(self) -> str:
        """The name that a bare or quoted word denotes, without quotes; letter case as written."""
        return self.text[1:-1].replace(self.text[-1] * 2, self.text[-1]) if self.kind is TokenKind.QUOTED else self.text

    @property
    def means_something(self) -> bool:
        return self.kind not in (TokenKind.SPACE, TokenKind.COMMENT)


@dataclass(frozen=True)
class StatementText:
    """One statement without its semicolon and surrounding comments, and the line where it begins."""

    text: str
    line: int


def line_of(sql: str, position: int) -> int:
    return sql.count("\n", 0, position) + 1


# --- scanning ----------------------------------------------------------------------------------------------------

# A parameter is a colon and a name of ASCII letters, digits and underscores. The character before it must not be a
# colon (x::int), a word character, ], ) or a closing quote: those write a slice ([1:n], ["low":high]) or a key
# (JSON_OBJECT('a':b)). So [:n] is a parameter; a slice without lower bound is written [1:n].
_COMMON = r"""
  (?P<space>[ \t\r\n\f\v]+)
| (?P<comment>--[^\r\n]*)
| (?P<block>/\*)
| (?P<string>'[^']*+(?:''[^']*+)*+')
| (?P<quoted>"[^"]*+(?:""[^"]*+)*+"{quoted})
{special}
| (?P<parameter>(?<![:\w\])'"$]):[A-Za-z_][A-Za-z0-9_]*)
| (?P<word>{letter}{inner}*)
| (?P<number>[0-9][A-Za-z0-9_.]*)
| (?P<meta>\\)
| (?P<open>['"{openers}])
| (?P<other>[^\0])
"""
_POSTGRESQL_ONLY = r"""
| (?P<escape>[eE]'(?:[^'\\]|\\.|'')*+')
| (?P<dollar>\$(?:{letter}{inner_but_dollar}*)?\$)
| (?P<openescape>[eE]')
"""
# The characters of a bare name; every character beyond ASCII is a letter. Written as excluded characters, which compiles
# much faster than a range up to the last code point.
_LETTER = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f]"  # a-z, A-Z, _
_INNER = r"[^\x00-\x23\x25-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"  # a-z, A-Z, _, 0-9, $
_INNER_BUT_DOLLAR = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_NO_NAME_END = re.compile(r"[$]|[^\x00-\x7f]")


SHORT = 1000  # characters; what is longer isn't kept


@functools.cache  # compiled at first use: loading a playbook's types must stay fast
def _tokens(dialect: Dialect) -> re.Pattern[str]:
    names = {"letter": _LETTER, "inner": _INNER, "inner_but_dollar": _INNER_BUT_DOLLAR}
    parts = {"quoted": r"|`[^`]*+(?:``[^`]*+)*+`|\[[^\]]*\]", "special": "", "openers": "`["}
    if dialect is Dialect.POSTGRESQL:
        parts = {"quoted": "", "special": _POSTGRESQL_ONLY.format(**names), "openers": ""}
    return re.compile(_COMMON.format(**names, **parts), re.VERBOSE | re.DOTALL)


@functools.cache
def _continued() -> re.Pattern[str]:
    """The continuation of an E'…' literal: PostgreSQL joins literals with a line end between them, and E applies to all."""
    gap = r"[ \t\f\v]*(?:--[^\r\n]*)?[\r\n](?:[ \t\r\n\f\v]|--[^\r\n]*[\r\n])*+"
    return re.compile(gap + r"'(?:[^'\\]|\\.|'')*+'", re.DOTALL)


def scan(sql: str, dialect: Dialect) -> Iterator[Token]:
    """Yield all tokens of the text, without gaps; raises BadSql for an unclosed literal or comment, and psql's meta-commands.

    Literals are read as with standard_conforming_strings on, which the engine ensures.
    """
    known = _scanned(sql, dialect) if len(sql) <= SHORT else None
    return iter(known) if known is not None else _scan(sql, dialect)


@functools.lru_cache(
    maxsize=16_384
)  # a statement is scanned ten times and more while its playbook is read, and reviewed
def _scanned(sql: str, dialect: Dialect) -> tuple[Token, ...] | None:
    """The tokens of a text; None where it can't be scanned to its end."""
    try:
        return tuple(_scan(sql, dialect))
    except BadSql:
        return None


def _scan(sql: str, dialect: Dialect) -> Iterator[Token]:
    position = 0
    while position < len(sql):
        found = _tokens(dialect).match(sql, position)
        if found is None or found.lastgroup is None:
            raise BadSql(line_of(sql, position), "a NUL character")
        end = _END.get(found.lastgroup, _plain_end)(sql, found, dialect)
        yield Token(_KIND[found.lastgroup], sql[position:end], position)
        position = end


def _plain_end(_sql: str, found: re.Match[str], _dialect: Dialect) -> int:
    return found.end()


def _block_end(sql: str, found: re.Match[str], dialect: Dialect) -> int:
    depth = 1
    for edge in _BLOCK_EDGE.finditer(sql, found.end()):
        if edge[0] == "*/":
            depth -= 1
        elif dialect is Dialect.POSTGRESQL:  # SQLite's comments don't nest
            depth += 1
        if depth == 0:
            return edge.end()
    raise BadSql(line_of(sql, found.start()), "the comment that begins here never ends")


def _dollar_end(sql: str, found: re.Match[str], _dialect: Dialect) -> int:
    end = sql.find(found[0], found.end())
    if end < 0:
        raise BadSql(line_of(sql, found.start()), f"the text that begins here with {found[0]} never ends")
    return end + len(found[0])


def _escape_end(sql: str, found: re.Match[str], _dialect: Dialect) -> int:
    end = found.end()
    while more := _continued().match(sql, end):
        end = more.end()
    return end


def _parameter_end(sql: str, found: re.Match[str], _dialect: Dialect) -> int:
    if _NO_NAME_END.match(sql, found.end()):
        raise BadSql(
            line_of(sql, found.start()), f"the parameter {found[0]} goes on with another sign than a-z, 0-9, _"
        )
    return found.end()


def _never_closed(sql: str, found: re.Match[str], _dialect: Dialect) -> int:
    raise BadSql(line_of(sql, found.start()), f"the quote {found[0]} that begins here never ends")


def _meta_command(sql: str, found: re.Match[str], _dialect: Dialect) -> int:
    command = sql[found.start() :].split(maxsplit=1)[0]
    raise BadSql(line_of(sql, found.start()), f"psql meta-command {command}: only SQL can be run, write it as a step")


_END: dict[str, Callable[[str, re.Match[str], Dialect], int]] = {
    "block": _block_end,
    "dollar": _dollar_end,
    "escape": _escape_end,
    "parameter": _parameter_end,
    "open": _never_closed,
    "openescape": _never_closed,
    "meta": _meta_command,
}
_KIND = {kind.value: kind for kind in TokenKind}
_KIND |= {"block": TokenKind.COMMENT, "dollar": TokenKind.STRING, "escape": TokenKind.STRING}


# --- statements --------------------------------------------------------------------------------------------------

_HEAD = 5  # tokens that suffice to tell whether a statement has a body: CREATE OR REPLACE TEMPORARY TRIGGER


@dataclass
class _Statement:
    """The statement being collected, with its open parentheses and blocks."""

    dialect: Dialect
    tokens: list[Token] = field(default_factory=list)
    head: list[str] = field(default_factory=list)
    parentheses: int = 0
    blocks: int = 0  # open BEGIN ATOMIC and CASE

    def add(self, token: Token) -> None:
        if len(self.tokens) < _HEAD:
            self.head.append(token.keyword)
        self.parentheses = max(0, self.parentheses + {"(": 1, ")": -1}.get(token.sign, 0))
        if self.is_routine and self.parentheses == 0:
            self.count_blocks(token.keyword)
        self.tokens.append(token)

    def count_blocks(self, keyword: str) -> None:
        previous = self.tokens[-1].keyword if self.tokens else ""
        if (previous, keyword) == ("BEGIN", "ATOMIC") or (self.blocks and keyword == "CASE"):
            self.blocks += 1
        elif self.blocks and keyword == "END":
            self.blocks -= 1

    @property
    def is_routine(self) -> bool:
        """Whether this is a PostgreSQL function or procedure, whose body may be BEGIN ATOMIC … END."""
        created = [word for word in self.head if word not in ("OR", "REPLACE")][:2]
        return self.dialect is Dialect.POSTGRESQL and created in (["CREATE", "FUNCTION"], ["CREATE", "PROCEDURE"])

    @property
    def is_trigger(self) -> bool:
        """Whether this is a SQLite trigger, whose body always is BEGIN … ; END."""
        created = [word for word in self.head if word not in ("TEMP", "TEMPORARY")][:2]
        return self.dialect is Dialect.SQLITE and created == ["CREATE", "TRIGGER"]

    @property
    def open_end(self) -> str:
        """Why a semicolon doesn't end the statement here; "" where it does."""
        if self.parentheses:
            return "a parenthesis is never closed"
        if self.blocks:
            return "BEGIN ATOMIC has no END"
        # the rule of SQLite's own sqlite3_complete(): END is not reserved there, so only '; END' ends a trigger
        if self.is_trigger and [token.keyword or token.sign for token in self.tokens[-2:]] != [";", "END"]:
            return "a trigger ends with '; END'"
        return ""

    def piece(self, sql: str) -> StatementText:
        first, last = self.tokens[0], self.tokens[-1]
        if first.sign == ".":
            raise BadSql(line_of(sql, first.start), "sqlite3 shell command: only SQL can be run")
        return StatementText(sql[first.start : last.start + len(last.text)], line_of(sql, first.start))


def split(sql: str, dialect: Dialect) -> list[StatementText]:
    """Split a script into statements; empty ones and lone comments are dropped. Raises BadSql.

    A semicolon inside parentheses (CREATE RULE … DO (…; …)), BEGIN ATOMIC … END or a SQLite trigger ends no statement.
    """
    return list(_split(sql, dialect) if len(sql) <= SHORT else _split.__wrapped__(sql, dialect))


@functools.lru_cache(maxsize=16_384)
def _split(sql: str, dialect: Dialect) -> tuple[StatementText, ...]:
    pieces: list[StatementText] = []
    statement = _Statement(dialect)
    for token in scan(sql, dialect):
        if token.sign == ";" and not statement.open_end:
            pieces += [statement.piece(sql)] if statement.tokens else []
            statement = _Statement(dialect)
        elif token.means_something:
            statement.add(token)
    if statement.tokens:
        if reason := statement.open_end:
            raise BadSql(line_of(sql, statement.tokens[0].start), f"in the statement that begins here {reason}")
        pieces.append(statement.piece(sql))
    return tuple(pieces)
