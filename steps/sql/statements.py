"""Classifies a single statement by its keywords: its verb, whether it has a WHERE, and the lock it takes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from steps.contract import Look
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote
from steps.sql.scanner import Token, TokenKind, scan

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
    """Whether the statement is INSERT, UPDATE, DELETE, MERGE or REPLACE, possibly after WITH."""
    return _verb(_outer_words(sql, dialect)) in _DML


def whole_table_verb(sql: str, dialect: Dialect) -> str:
    """UPDATE, DELETE or TRUNCATE where the statement has no WHERE, else ""."""
    words = _outer_words(sql, dialect)
    verb = _verb(words)
    if words[:1] == ("TRUNCATE",):
        return "TRUNCATE"
    return verb if verb in ("UPDATE", "DELETE") and "WHERE" not in words else ""


def _dropped_table(sql: str) -> str:
    """The table of a DROP TABLE in SQLite, "" for any other statement."""
    tokens = list(_meaningful(sql, Dialect.SQLITE))
    if [token.keyword for token in tokens[:2]] != ["DROP", "TABLE"]:
        return ""
    rest = tokens[4:] if [token.keyword for token in tokens[2:4]] == ["IF", "EXISTS"] else tokens[2:]
    name = rest[2] if len(rest) > 2 and rest[1].sign == "." else rest[0] if rest else None
    return "" if name is None else name.name


_TAKEN_ALONG = """SELECT m.name AS other, f."from" AS col, f.on_delete AS act FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f
    WHERE m.type = 'table' AND f.seq = 0 AND lower(f."table") = lower(:name) AND lower(m.name) <> lower(:name)
      AND f.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
      AND EXISTS (SELECT 1 FROM sqlite_master AS t WHERE t.type = 'table' AND lower(t.name) = lower(:name))"""


def what_goes_with_it(look: Look, sql: str) -> list[str]:
    """Faults of a DROP TABLE in SQLite that would change rows of other tables.

    SQLite deletes all rows before it drops a table, which triggers ON DELETE CASCADE, SET NULL and SET DEFAULT of foreign keys.
    """
    table = _dropped_table(sql)
    if not table:
        return []
    faults = []
    for row in look.rows(_TAKEN_ALONG, {"name": table}):
        other, column = quote(row.text("other")), quote(row.text("col"))
        count = look.row(f"SELECT count(*) AS n FROM {other} WHERE {column} IS NOT NULL").integer("n")
        if count:
            act = "delete" if row.text("act") == "CASCADE" else "change"
            faults.append(
                f"cannot drop {table}: SQLite would {act} {count:,} rows of {row.text('other')} with it (foreign key, ON DELETE "
                f"{row.text('act')}); a table is rebuilt by the step `rebuild_table`, else take the references away first"
            )
    return faults


def lock_of(sql: str) -> str:
    """The strongest lock that PostgreSQL takes on the statement's table, "" where its keywords don't tell."""
    words = _outer_words(sql, Dialect.POSTGRESQL)
    first = _verb(words) or (words[0] if words else "")
    if "CONCURRENTLY" in words or (first == "REINDEX" and _says(sql, "CONCURRENTLY")):
        return "SHARE UPDATE EXCLUSIVE"
    if first == "CREATE":
        return "SHARE" if "INDEX" in words[:3] else "SHARE ROW EXCLUSIVE" if "TRIGGER" in words[:4] else ""
    if first == "VACUUM" and _is_full(sql):
        return "ACCESS EXCLUSIVE"
    return _LOCKS.get(first, "")


def waits_in_the_way(lock: str) -> bool:
    """Whether readers or writers queue behind a statement that waits for this lock, so that its wait must be short.

    They don't queue behind SHARE UPDATE EXCLUSIVE, the lock of CONCURRENTLY. That must have no lock_timeout either: it waits for
    old transactions through their locks, and a timeout in the middle would leave an INVALID index.
    """
    return lock != "SHARE UPDATE EXCLUSIVE"


def _says(sql: str, keyword: str) -> bool:
    return any(token.keyword == keyword for token in _meaningful(sql, Dialect.POSTGRESQL))


def _is_full(sql: str) -> bool:
    """Whether this is VACUUM FULL, or VACUUM (…) with FULL among its options and not set to off."""
    words = [token.keyword or token.text.upper() for token in _meaningful(sql, Dialect.POSTGRESQL)][1:]
    if words[:1] != ["("]:
        return words[:1] == ["FULL"]
    options = " ".join(words[1 : words.index(")")] if ")" in words else words[1:]).split(",")
    return any(one.split()[:1] == ["FULL"] and one.split()[1:] not in _OFF for one in options)


_OFF = (["FALSE"], ["OFF"], ["0"], ["'FALSE'"], ["'OFF'"])


def _verb(words: tuple[str, ...]) -> str:
    """The main verb of a query or DML statement, "" for anything else."""
    if not words or words[0] not in (*_DML, "SELECT", "VALUES", "WITH"):
        return ""
    return next((word for word in words if word in (*_DML, "SELECT", "VALUES")), "")


@functools.lru_cache(maxsize=1024)  # each question above is asked of the same statement
def _outer_words(sql: str, dialect: Dialect) -> tuple[str, ...]:
    """The bare words outside of parentheses, in upper case: those of the outer statement."""
    depth, words = 0, []
    for token in scan(sql, dialect):
        if token.kind is TokenKind.OTHER:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        elif depth == 0 and (word := token.keyword):
            words.append(word)
    return tuple(words)


def _meaningful(sql: str, dialect: Dialect) -> Iterator[Token]:
    return (token for token in scan(sql, dialect) if token.means_something)
