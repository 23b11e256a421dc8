"""What a single statement does, as far as its words tell: its verb, whether it has a WHERE, and its lock."""

from __future__ import annotations

from collections.abc import Iterator

from steps.sqltext import Dialect, Token, scan

_DML = ("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE")
_LOCKS = {
    "INSERT": "ROW EXCLUSIVE",
    "UPDATE": "ROW EXCLUSIVE",
    "DELETE": "ROW EXCLUSIVE",
    "MERGE": "ROW EXCLUSIVE",
    "ALTER": "ACCESS EXCLUSIVE",
    "DROP": "ACCESS EXCLUSIVE",
    "TRUNCATE": "ACCESS EXCLUSIVE",
    "REINDEX": "ACCESS EXCLUSIVE",
    "CLUSTER": "ACCESS EXCLUSIVE",
    "LOCK": "ACCESS EXCLUSIVE",
    "VACUUM": "SHARE UPDATE EXCLUSIVE",
    "ANALYZE": "SHARE UPDATE EXCLUSIVE",
}


def is_dml(sql: str, dialect: Dialect) -> bool:
    """Whether the statement writes rows, also after WITH."""
    return _verb(list(_outer_words(sql, dialect))) in _DML


def whole_table_verb(sql: str, dialect: Dialect) -> str:
    """UPDATE, DELETE or TRUNCATE where nothing limits its rows, else ""."""
    words = list(_outer_words(sql, dialect))
    verb = _verb(words)
    if words[:1] == ["TRUNCATE"]:
        return "TRUNCATE"
    return verb if verb in ("UPDATE", "DELETE") and "WHERE" not in words else ""


def lock_of(sql: str) -> str:
    """The strongest lock that PostgreSQL takes on the statement's table, "" where its words don't tell."""
    words = list(_outer_words(sql, Dialect.POSTGRESQL))
    first = _verb(words) or (words[0] if words else "")
    if "CONCURRENTLY" in words:
        return "SHARE UPDATE EXCLUSIVE"
    if first == "CREATE":
        return "SHARE" if "INDEX" in words[:3] else "SHARE ROW EXCLUSIVE" if "TRIGGER" in words[:4] else ""
    if first == "VACUUM" and "FULL" in words:
        return "ACCESS EXCLUSIVE"
    return _LOCKS.get(first, "")


def _verb(words: list[str]) -> str:
    """The main verb of a query or DML statement, "" for anything else."""
    if not words or words[0] not in (*_DML, "SELECT", "VALUES", "WITH"):
        return ""
    return next((word for word in words if word in (*_DML, "SELECT", "VALUES")), "")


def _outer_words(sql: str, dialect: Dialect) -> Iterator[str]:
    """The bare words outside of parentheses, in upper case."""
    depth = 0
    for token in _meaningful(sql, dialect):
        depth += {"(": 1, ")": -1}.get(token.sign, 0)
        if depth == 0 and token.keyword:
            yield token.keyword


def _meaningful(sql: str, dialect: Dialect) -> Iterator[Token]:
    return (token for token in scan(sql, dialect) if token.means_something)
