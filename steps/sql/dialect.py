"""Differences between PostgreSQL and SQLite: quoting, parameters, statements outside transactions, read-only queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import dropwhile, islice, pairwise, takewhile

from steps.contract import LONGEST_NAME, StepError
from steps.contract.dialect import Dialect
from steps.sql.scanner import BadSql, Token, TokenKind, line_of, scan, split


class BadIdentifier(StepError):
    """A name that the database would refuse or truncate."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot use {name!r} as a name: {reason}")
        self.name, self.reason = name, reason


def quote(name: str) -> str:
    """Quote one identifier; raises BadIdentifier. The only place where names become SQL."""
    if not name:
        raise BadIdentifier(name, "it is empty")
    if "\0" in name:
        raise BadIdentifier(name, "it has a NUL character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadIdentifier(name, "it isn't valid Unicode") from None
    if size > LONGEST_NAME:
        raise BadIdentifier(name, f"it has {size} bytes, and PostgreSQL cuts it at {LONGEST_NAME}")
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal, for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def qualified(schema: str | None, table: str, dialect: Dialect) -> str:
    """The quoted table, qualified by its schema where one is given; raises BadIdentifier."""
    if dialect is Dialect.SQLITE and schema not in (None, "main"):
        raise BadIdentifier(schema or "", "SQLite has no schemas: leave it out, or write main")
    return quote(table) if schema is None else f"{quote(schema)}.{quote(table)}"


# --- parameters --------------------------------------------------------------------------------------------------


def parameters(sql: str, dialect: Dialect) -> tuple[str, ...]:
    """The names of the `:name` parameters, each once, in order of appearance; raises BadSql.

    A parameter is a colon followed by a name of ASCII letters, digits and underscores that doesn't begin with a digit, outside
    of literals, quoted names and comments. It must not follow a colon (`x::int`), a word character, `]`, `)` or a quote, as in
    slices (`x[1:n]`) and keys (`JSON_OBJECT('a':b)`).
    """
    found = (token.text[1:] for token in scan(sql, dialect) if token.kind is TokenKind.PARAMETER)
    return tuple(dict.fromkeys(found))


# A backfill sends the same few texts thousands of times, and scanning one takes as long as a small query.
@lru_cache(maxsize=512)
def bind(sql: str, dialect: Dialect) -> str:
    """SQL in the driver's parameter style; raises BadSql. The driver must always be given a mapping of parameters.

    For psycopg `:name` becomes `%(name)s` and every other % is doubled; SQLite reads `:name` itself.
    """
    tokens = list(scan(sql, dialect))
    if any(token.kind is TokenKind.PARAMETER for token in tokens):
        _refuse_positional(sql, tokens, dialect)
    if dialect is Dialect.SQLITE:
        return sql
    return "".join(
        f"%({token.text[1:]})s" if token.kind is TokenKind.PARAMETER else token.text.replace("%", "%%")
        for token in tokens
    )


def _refuse_positional(sql: str, tokens: Sequence[Token], dialect: Dialect) -> None:
    # mixed with :name, the driver's own numbering would give $1 or ? the value of another parameter
    signs = [token for token in tokens if dialect is Dialect.SQLITE and token.sign == "?"]
    signs += [token for token, after in pairwise(tokens) if token.sign == "$" and after.kind is TokenKind.NUMBER]
    if signs:
        raise BadSql(line_of(sql, signs[0].start), f"{signs[0].text} beside a named parameter: name them all, as :name")


# --- what a statement is -----------------------------------------------------------------------------------------

_TRANSACTION = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"}
_TRANSACTION_SETTINGS = {
    "TRANSACTION",
    "CHARACTERISTICS",
    "TRANSACTION_READ_ONLY",
    "TRANSACTION_ISOLATION",
    "TRANSACTION_DEFERRABLE",
}
_NEVER_IN_TRANSACTION = {
    ("ALTER", "SYSTEM"),
    ("CREATE", "DATABASE"),
    ("CREATE", "SUBSCRIPTION"),
    ("CREATE", "TABLESPACE"),
    ("DISCARD", "ALL"),
    ("DROP", "DATABASE"),
    ("DROP", "SUBSCRIPTION"),
    ("DROP", "TABLESPACE"),
    ("REINDEX", "DATABASE"),
    ("REINDEX", "SCHEMA"),
    ("REINDEX", "SYSTEM"),
}


def first_words(sql: str, n: int = 3, *, dialect: Dialect = Dialect.POSTGRESQL) -> tuple[str, ...]:
    """Up to n bare words at the beginning, in upper case, skipping comments and opening parentheses."""
    meaningful = (token for token in scan(sql, dialect) if token.means_something)
    inside = dropwhile(lambda token: token.sign == "(", meaningful)
    return tuple(token.keyword for token in islice(takewhile(lambda token: token.keyword, inside), n))


def controls_transaction(sql: str, *, dialect: Dialect = Dialect.POSTGRESQL) -> bool:
    """Whether any statement of the text begins, ends or alters a transaction; what a procedure does can't be known."""
    return any(_controls(first_words(piece.text, 4, dialect=dialect)) for piece in split(sql, dialect))


def _controls(words: tuple[str, ...]) -> bool:
    if words[:1] == ("SET",):
        setting = [word for word in words[1:] if word not in ("LOCAL", "SESSION")]
        return bool(setting) and setting[0] in _TRANSACTION_SETTINGS
    return words[:2] == ("PREPARE", "TRANSACTION") or not _TRANSACTION.isdisjoint(words[:1])


def needs_autocommit(sql: str, *, dialect: Dialect = Dialect.POSTGRESQL) -> bool:
    """Whether the database refuses any statement of the text inside a transaction; what a procedure does can't be known."""
    return any(_stands_alone(_meaningful(piece.text, dialect)) for piece in split(sql, dialect))


def _stands_alone(tokens: Sequence[Token]) -> bool:
    keywords = [token.keyword for token in tokens]
    outer = tuple(token.keyword for token in _outside_parentheses(tokens))
    if "CONCURRENTLY" in keywords:
        return outer[0] in ("CREATE", "DROP", "REINDEX", "ALTER")  # REFRESH … CONCURRENTLY is allowed in a transaction
    if outer[:2] == ("ALTER", "DATABASE"):
        return outer[3:5] == ("SET", "TABLESPACE")
    return outer[:1] == ("VACUUM",) or outer == ("CLUSTER",) or outer[:2] in _NEVER_IN_TRANSACTION


def _outside_parentheses(tokens: Sequence[Token]) -> list[Token]:
    depth, outer = 0, []
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.sign, 0)
        if depth == 0 and token.sign != ")":
            outer.append(token)
    return outer


def _meaningful(sql: str, dialect: Dialect) -> list[Token]:
    return [token for token in scan(sql, dialect) if token.means_something]


# --- queries that only read --------------------------------------------------------------------------------------

_READS = {
    Dialect.POSTGRESQL: ("SELECT", "WITH", "VALUES", "TABLE", "EXPLAIN", "SHOW"),
    Dialect.SQLITE: ("SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"),
}
_WRITES = {"DELETE", "INSERT", "MERGE", "REPLACE", "UPDATE"}
_PRAGMAS_OF_A_NAME = {
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
}
_PRAGMAS = _PRAGMAS_OF_A_NAME | {
    "application_id",
    "auto_vacuum",
    "busy_timeout",
    "cache_size",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "journal_mode",
    "page_count",
    "page_size",
    "query_only",
    "schema_version",
    "synchronous",
    "user_version",
    "wal_autocheckpoint",
}


def is_single_select(sql: str, dialect: Dialect) -> str | None:
    """None where the text is a single read-only statement, otherwise the reason why not.

    This gives an early and clear message, and is no protection: a function can write, and only the read-only transaction stops it.
    """
    try:
        pieces = split(sql, dialect)
    except BadSql as exc:
        return str(exc)
    if len(pieces) != 1:
        return f"it has {len(pieces)} statements, and a query is one" if pieces else "it is empty"
    first = first_words(sql, 1, dialect=dialect)
    if not first or first[0] not in _READS[dialect]:
        begins = first[0] if first else pieces[0].text[:20]
        return f"it begins with {begins!r}, and a query begins with {', '.join(_READS[dialect])}"
    return _why_not_reading(first[0], _meaningful(sql, dialect))


def _why_not_reading(first: str, tokens: list[Token]) -> str | None:
    match first:
        case "EXPLAIN":
            options = takewhile(lambda token: token.keyword not in _READS[Dialect.POSTGRESQL], tokens[1:])
            analyzes = {"ANALYZE", "ANALYSE"} & {token.keyword for token in options}
            return "EXPLAIN ANALYZE runs the statement: leave ANALYZE out" if analyzes else None
        case "PRAGMA":
            return _why_pragma_writes([token for token in tokens if token.sign != ";"])
        case "SHOW":
            return None
        case _:
            return _why_select_writes(tokens)


def _why_select_writes(tokens: list[Token]) -> str | None:
    for before, token, after in zip(tokens, tokens[1:], [*tokens[2:], None], strict=False):
        if token.keyword in _WRITES and before.sign in ("(", ")") and not (after and after.sign == "("):
            return f"it changes data ({token.keyword}): a query only reads"
        if token.keyword == "INTO":
            return "it makes a table (SELECT … INTO): a query only reads"
        if before.keyword == "FOR" and token.keyword in ("UPDATE", "SHARE", "NO", "KEY"):
            return f"it locks rows (FOR {token.keyword}): a query only reads"
    return None


def _why_pragma_writes(tokens: list[Token]) -> str | None:
    signs = [token.sign for token in tokens]
    name = tokens[3 if signs[2:3] == ["."] and len(tokens) > 3 else 1].text.lower() if len(tokens) > 1 else ""
    if "=" in signs or name not in _PRAGMAS or ("(" in signs and name not in _PRAGMAS_OF_A_NAME):
        return f"PRAGMA {name} can change the database: a query only reads"
    return None
