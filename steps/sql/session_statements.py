"""Detects statements that act on a session or transaction and would have no lasting effect here, with what to write instead.

Each statement runs in a transaction of its own, on a connection that no later statement is sure to get. A statement that sets,
locks or opens something for the rest of the session has no effect there or, behind a connection pool, affects somebody else.
This is the one place that decides it, for the step `sql` and its undo, `runbook sql`, and everything that reads.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from steps.contract.dialect import Dialect
from steps.sql.dialect import controls_transaction
from steps.sql.scanner import BadSql, Token, TokenKind, scan


class Void(NamedTuple):
    """A statement that would have no lasting effect: what it is, why, and what to write instead."""

    what: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"cannot run {self.what}: {self.why}; {self.instead}"


_ALONE = "each statement is a transaction of its own, and it would hold for nothing after it"
_TOGETHER = "write transaction: one"
_REBUILD = "a table is rebuilt by the step `rebuild_table`, which checks the foreign keys before COMMIT"
_BY_HAND = "do it by hand with the sqlite3 program, while nothing else uses the file"

# Settings that the engine relies on: a statement that changed one would change what its records or limits mean.
POLICY = {
    "lock_timeout": "write lock: {wait: …} in the playbook or step",
    "statement_timeout": "write timeout: {statement: …} in the playbook or step",
    "transaction_timeout": "write timeout: {statement: …} in the playbook or step",
    "idle_in_transaction_session_timeout": "leave it out: the engine sets it",
    "idle_session_timeout": "leave it out: the engine sets it",
    "deadlock_timeout": "leave it out",
    "application_name": "leave it out: a run finds its own sessions by it",
    "client_encoding": "leave it out: it is UTF8",
    "names": "leave it out: client_encoding is UTF8",
    "standard_conforming_strings": "leave it out: it is on, and texts are read so",
    "backslash_quote": "write E'…' with '' for a quote",
    "synchronous_commit": "leave it out: what the trail calls committed must be on disk",
    "session_authorization": "write set: {role: …}",
    "default_transaction_read_only": "leave it out: it is off",
    "transaction_read_only": "leave it out",
    "transaction_isolation": "leave it out",
    "transaction_deferrable": "leave it out",
    "default_transaction_isolation": "leave it out",
    "default_transaction_deferrable": "leave it out",
}
SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?")


def why_not_set(name: str) -> str:
    """Why a step can't change this setting; "" where it can."""
    if not SETTING.fullmatch(name):
        return f"cannot set {name!r}: write a setting's name, e.g. search_path, role, work_mem"
    if name.lower() in POLICY:
        return f"cannot set {name}: a step can't change what the run relies on; {POLICY[name.lower()]}"
    return ""


@functools.lru_cache(maxsize=16_384)
def void(sql: str, dialect: Dialect, *, together: bool = False) -> Void | None:
    """Why a single statement would have no lasting effect; None where it has. Raises BadSql.

    together: it shares one transaction with the statements around it, so that what is local to a transaction does have effect.
    """
    tokens = [token for token in scan(sql, dialect) if token.means_something]
    words = [token.keyword for token in tokens[:8]]
    if not words:
        return None
    if controls_transaction(sql, dialect=dialect):
        return Void("BEGIN, COMMIT or ROLLBACK", "the engine sees to transactions", "write transaction: one or each")
    read = _Read(tokens, words, together)
    found = _BY_WORD[words[0]](read) if words[0] in _BY_WORD else None
    return found or _called(read)


class _Read(NamedTuple):
    """A scanned statement."""

    tokens: Sequence[Token]
    words: Sequence[str]  # its first keywords, in upper case
    together: bool


# ─── by the first word ──────────────────────────────────────────────────────────────────────────────────────────────────
def _set(read: _Read) -> Void | None:
    rest = list(read.tokens[1:])
    scope = read.words[1] if len(read.words) > 1 else ""
    if scope == "CONSTRAINTS":
        return None if read.together else Void("SET CONSTRAINTS", _ALONE, _TOGETHER)
    rest = rest[1:] if scope in ("LOCAL", "SESSION") and _followed(read.tokens) else rest
    name = _setting(rest)
    if name.lower() in POLICY:
        return Void(f"SET {name}", "a statement can't change what the run relies on", POLICY[name.lower()])
    if scope == "LOCAL":
        return (
            None
            if read.together
            else Void(f"SET LOCAL {name}", _ALONE, f"{_TOGETHER}, or set: {{{name}: …}} at the step")
        )
    return Void(f"SET {name}", _ALONE, f"write set: {{{name}: …}} at the step")


def _followed(tokens: Sequence[Token]) -> bool:
    """Whether LOCAL or SESSION is a scope here (SET LOCAL x = …), and not a setting of that name (SET local = …)."""
    return len(tokens) > 2 and tokens[2].sign != "=" and tokens[2].keyword != "TO"


def _setting(tokens: Sequence[Token]) -> str:
    words = [token.keyword for token in tokens[:2]]
    match words:
        case ["TIME", "ZONE"]:
            return "TimeZone"
        case ["SESSION", "AUTHORIZATION"] | ["AUTHORIZATION", *_]:
            return "session_authorization"
        case ["XML", "OPTION"]:
            return "xmloption"
        case ["SCHEMA", *_]:
            return "search_path"
        case _:
            name = "".join(token.text for token in _until(tokens, ("=", "TO")))
            return name.strip('"').lower()[:63] or "…"


def _until(tokens: Sequence[Token], ends: tuple[str, ...]) -> Iterator[Token]:
    for number, token in enumerate(tokens):
        if (
            token.sign in ends
            or token.keyword in ends
            or (number and token.kind is TokenKind.WORD and tokens[number - 1].sign != ".")
        ):
            return
        yield token


def _pragma(read: _Read) -> Void | None:
    tokens = read.tokens
    names = [token.name.lower() for token in tokens[1:] if token.kind in (TokenKind.WORD, TokenKind.QUOTED)]
    named = names[1] if len(tokens) > 2 and tokens[2].sign == "." and len(names) > 1 else (names or ["…"])[0]
    if named in _PRAGMAS_KEPT or (named == "defer_foreign_keys" and read.together):
        return None
    what = f"PRAGMA {named}"
    if named == "defer_foreign_keys":
        return Void(what, _ALONE, _TOGETHER)
    if named in ("foreign_keys", "legacy_alter_table", "writable_schema", "ignore_check_constraints"):
        return Void(what, "SQLite ignores it within a transaction, or for the session after it", _REBUILD)
    if named.endswith(("_check", "_info", "_list", "_xinfo")):
        return Void(what, "what it finds would be thrown away", "ask for it in a criterion: check: query, or rows")
    return Void(what, "it is for a session or ignored within a transaction", _BY_HAND)


_PRAGMAS_KEPT = frozenset({"user_version", "application_id", "optimize", "incremental_vacuum"})  # stored in the file


def _create(read: _Read) -> Void | None:
    head = [word for word in read.words[1:] if word not in ("OR", "REPLACE", "GLOBAL", "LOCAL", "RECURSIVE", "UNIQUE")]
    temporary = head[:1] in (["TEMP"], ["TEMPORARY"]) or _in_schema(read.tokens, ("PG_TEMP", "TEMP"))
    if not temporary or read.together:
        return None
    return Void(
        "CREATE TEMP", "it would be gone with the connection", f"{_TOGETHER}, or make an ordinary table and drop it"
    )


def _in_schema(tokens: Sequence[Token], schemas: tuple[str, ...]) -> bool:
    """Whether the created object's name is qualified by one of these schemas: CREATE TABLE pg_temp.x."""
    for number, token in enumerate(tokens[1:7], 1):
        if token.sign in {".", "("}:
            return token.sign == "." and tokens[number - 1].text.strip('"').upper() in schemas
    return False


def _lock(read: _Read) -> Void | None:
    return None if read.together else Void("LOCK", "the lock would be gone at once with its transaction", _TOGETHER)


def _copy(read: _Read) -> Void | None:
    keywords = {token.keyword for token in read.tokens}
    if not keywords & {"STDIN", "STDOUT"}:
        return None
    return Void(
        "COPY with STDIN or STDOUT",
        "there is no stream to read or write",
        "write INSERT, or use a step `command` with psql",
    )


def _follows(tokens: Sequence[Token], keyword: str, name: str) -> bool:
    """Whether a name follows a keyword, directly or after ONLY, TABLE, or its schema and a dot."""
    for number, token in enumerate(tokens):
        behind = [one.text.strip('"').lower() for one in tokens[number + 1 : number + 5]]
        if token.keyword == keyword and name in behind and not {"(", ",", "set"} & set(behind[: behind.index(name)]):
            return True
    return False


def _update(read: _Read) -> Void | None:
    if not _follows(read.tokens, "UPDATE", "pg_settings"):
        return None
    return Void("UPDATE pg_settings", "it acts on a session, as SET does", "write set: {…} at the step")


def _select(read: _Read) -> Void | None:
    keywords = [token.keyword for token in read.tokens]
    pairs = set(zip(["", *keywords], keywords, strict=False))
    if found := _update(read):
        return found
    temporary = pairs & {("INTO", "TEMP"), ("INTO", "TEMPORARY")} or _follows(read.tokens, "INTO", "pg_temp")
    if temporary and not read.together:
        return Void("SELECT INTO TEMP", "it would be gone with the connection", _TOGETHER)
    locks = any(before == "FOR" and word in ("UPDATE", "SHARE", "NO", "KEY") for before, word in pairs)
    writes = any(
        word in ("INSERT", "UPDATE", "DELETE", "MERGE") and before not in ("FOR", "KEY") for before, word in pairs
    )
    if locks and not writes and not read.together:
        return Void("SELECT … FOR UPDATE", "its row locks would be gone at once with its transaction", _TOGETHER)
    return None


def _always(why: str, instead: str) -> Callable[[_Read], Void]:
    return lambda read: Void(read.words[0], why, instead)


_CURSOR = _always(
    "what a cursor gives would be thrown away, and it ends with its transaction", "write one statement that does all"
)
_PREPARED = _always(
    "it is for a session, and each statement may have another", "write the statement itself, with params"
)
_HEARS = _always("it is for a session, and nobody would hear", "leave it out")
_OTHER_FILE = _always("a run is on one database file", "give the other file a playbook of its own")
_RESETS = _always("each transaction begins with the engine's settings", "leave it out")
_BY_WORD: dict[str, Callable[[_Read], Void | None]] = {
    "SET": _set,
    "RESET": _RESETS,
    "DISCARD": _RESETS,
    "PRAGMA": _pragma,
    "LOCK": _lock,
    "CREATE": _create,
    "UPDATE": _update,
    "SELECT": _select,
    "WITH": _select,
    "COPY": _copy,
    "PREPARE": _PREPARED,
    "EXECUTE": _PREPARED,
    "DEALLOCATE": _PREPARED,
    "LOAD": _PREPARED,
    "LISTEN": _HEARS,
    "UNLISTEN": _HEARS,
    "DECLARE": _CURSOR,
    "FETCH": _CURSOR,
    "MOVE": _CURSOR,
    "CLOSE": _CURSOR,
    "ATTACH": _OTHER_FILE,
    "DETACH": _OTHER_FILE,
}


# ─── by what is called ──────────────────────────────────────────────────────────────────────────────────────────────────
_OF_SESSION = re.compile(
    r"pg_(try_)?advisory_(un)?lock(_shared|_all)?|setseed|dblink_connect(_u)?|pg_notification_queue"
)
_OF_TRANSACTION = re.compile(r"pg_(try_)?advisory_xact_lock(_shared)?")


def _called(read: _Read) -> Void | None:
    """Calls of functions that act on the session, also inside DO; what other functions do can't be known here."""
    if read.words[0] == "CREATE":
        return None  # a routine's body runs when it is called
    if read.words[0] == "DO" and (body := _body(read.tokens)):
        return _in_body(body)
    return _first_call(read)


def _first_call(read: _Read) -> Void | None:
    found = (_call(name, arguments, read) for name, arguments in _calls(read.tokens))
    return next((one for one in found if one is not None), None)


def _call(name: str, arguments: Sequence[Sequence[Token]], read: _Read) -> Void | None:
    if name == "set_config":
        return _set_config(arguments, together=read.together)
    if _OF_SESSION.fullmatch(name):
        instead = "write pg_advisory_xact_lock and transaction: one" if "lock" in name else "leave it out"
        return Void(f"{name}()", "it acts on a session, and each statement may have another", instead)
    if _OF_TRANSACTION.fullmatch(name) and not read.together and read.words[0] in ("SELECT", "VALUES"):
        return Void(f"{name}()", "the lock would be gone at once with its transaction", _TOGETHER)
    return None


def _set_config(arguments: Sequence[Sequence[Token]], *, together: bool) -> Void | None:
    named = arguments[0] if arguments else ()
    if len(named) != 1 or not named[0].text.startswith("'"):
        return Void(
            "set_config(…)", "which setting it changes can't be read beforehand", "name it as a plain text in quotes"
        )
    setting = _content(named[0])
    what = f"set_config({setting!r}, …)"
    if setting.lower() in POLICY:
        return Void(what, "a statement can't change what the run relies on", POLICY[setting.lower()])
    local = len(arguments) > 2 and [token.keyword for token in arguments[2]] == ["TRUE"]
    return None if local and together else Void(what, _ALONE, f"write set: {{{setting}: …}} at the step")


def _in_body(body: str) -> Void | None:
    """Check the body of DO, which is one transaction: what is local to it has effect, what it leaves to the session hasn't."""
    try:
        tokens = [token for token in scan(body, Dialect.POSTGRESQL) if token.means_something]
    except BadSql:
        return None  # the server will report what is wrong with it
    for number, token in enumerate(tokens):
        before = tokens[number - 1] if number else None
        starts = before is None or before.sign == ";" or before.keyword in ("BEGIN", "THEN", "ELSE", "LOOP")
        if starts and token.keyword in ("SET", "RESET", "DISCARD"):
            words = [one.keyword for one in tokens[number : number + 8]]
            if found := _BY_WORD[token.keyword](_Read(tokens[number:], words, together=True)):
                return Void(f"{found.what} within DO", found.why, found.instead)
    return _first_call(_Read(tokens, ["DO"], together=True))


def _body(tokens: Sequence[Token]) -> str | None:
    """The body of DO: the longest string of the statement, since another one may name the language."""
    texts = [_content(token) for token in tokens if token.kind is TokenKind.STRING]
    return max(texts, key=len, default=None)


def _content(token: Token) -> str:
    """The content of a string literal; escapes of E'…' are left as they are."""
    text = token.text
    if token.kind is not TokenKind.STRING:
        return "…"
    if text.startswith("$"):
        tag = text[: text.index("$", 1) + 1]
        return text[len(tag) : -len(tag)]
    return text[text.index("'") + 1 : -1].replace("''", "'")


def _calls(tokens: Sequence[Token]) -> Iterator[tuple[str, list[list[Token]]]]:
    """Every call by name, with the tokens of each argument."""
    for number, (token, after) in enumerate(pairwise(tokens)):
        if after.sign == "(" and token.kind in (TokenKind.WORD, TokenKind.QUOTED):
            yield token.text.strip('"').lower(), _arguments(tokens[number + 2 :])


def _arguments(tokens: Sequence[Token]) -> list[list[Token]]:
    found: list[list[Token]] = [[]]
    depth = 1
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.sign, 0)
        if depth == 0:
            break
        if token.sign == "," and depth == 1:
            found.append([])
        else:
            found[-1].append(token)
    return found
