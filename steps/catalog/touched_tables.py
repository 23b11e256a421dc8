"""Which table stood behind a name when a step acted on it, so that another one made under that name since is never taken for it.

PostgreSQL numbers its tables (oid). SQLite doesn't: there it is the row of sqlite_master and the first page, which VACUUM
may change, and the order in which tables were made, which it keeps. The newest table of all gets the same row and page when it
is dropped and made again: it is the same one for certain only while nobody else has changed the schema.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from steps.catalog import catalog
from steps.contract import Look, RunPosition
from steps.contract.dialect import Dialect
from steps.ledger import step_commits
from steps.ledger.step_commits import Touch
from steps.sql.scanner import BadSql, Token, TokenKind, scan

_LAYOUT = (
    "runbook_step_commit",
    "runbook_run",
)  # where these lie elsewhere than before, all of the file was rearranged
_FIELDS = ("tables", "order", "layout", "version")


@runtime_checkable
class Touching(Protocol):
    """Says which tables it changes, so that it is known later whether they are still the same ones."""

    def touches(self, look: Look) -> tuple[str, ...]:
        """Their names, as the playbook writes them."""


@runtime_checkable
class TouchingBack(Protocol):
    """Its way back works on other tables than its way there: only these are compared."""

    def touches_back(self, look: Look) -> tuple[str, ...]: ...


@runtime_checkable
class Rebuilding(Protocol):
    """Puts another table with the same rows in a table's place."""

    def keeps_rows(self) -> bool: ...


@dataclass(frozen=True)
class Identity:
    """What stood behind some names at one moment. tables: name → what identifies it.

    On SQLite alone, order: of all tables; layout: where some lie in the file; version: of the schema.
    """

    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    layout: tuple[tuple[int, ...], ...] = ()
    version: int = 0

    def same(self, other: Identity, name: str) -> bool:
        """Whether the name stands for the same table in a later one."""
        mine, theirs = self.tables.get(name), other.tables.get(name)
        if mine is None or theirs is None or not self.order:
            return mine == theirs
        if self.version == other.version:
            return mine == theirs
        return not self.made_again(other, name) and bool(self._later(name))

    def made_again(self, other: Identity, name: str) -> bool:
        """Whether it certainly is another table by then (SQLite)."""
        if self.layout == other.layout and self.tables[name] != other.tables[name]:
            return True
        now = set(other.order[: other.order.index(name)])
        return bool(self._later(name) & now)

    def _later(self, name: str) -> set[str]:
        """The tables that were made after it."""
        return set(self.order[self.order.index(name) + 1 :])


# ─── looking ────────────────────────────────────────────────────────────────────────────────────────────────────────
_POSTGRESQL = """
SELECT n.nspname || '.' || c.relname AS name, c.oid::bigint AS oid
FROM unnest(CAST(:schemas AS text[]), CAST(:tables AS text[])) AS w(s, t)
JOIN pg_catalog.pg_class c ON c.relname = CAST(w.t AS name) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND CASE WHEN w.s = '' THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = CAST(w.s AS name) END"""

_SQLITE = """SELECT name, rowid AS place, CASE WHEN (SELECT auto_vacuum FROM pragma_auto_vacuum) = 0 THEN rootpage ELSE 0 END AS page
FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"""


def identify(look: Look, names: Iterable[str]) -> Identity:
    """What stands behind these names now, each under its whole name; those of no table are left out."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return Identity()
    if look.dialect is Dialect.POSTGRESQL:
        pairs = [
            (schema, name) if dot else ("", schema) for schema, dot, name in (one.partition(".") for one in wanted)
        ]
        schemas, tables = [one for one, _ in pairs], [one for _, one in pairs]
        rows = look.rows(_POSTGRESQL, {"schemas": [*schemas], "tables": [*tables]})
        return Identity({row.text("name"): (row.integer("oid"),) for row in rows})
    there: dict[str, tuple[int, ...]] = {
        row.text("name").lower(): (row.integer("place"), row.integer("page")) for row in look.rows(_SQLITE)
    }
    found = {one: there[one] for one in map(_folded, wanted) if one in there}
    version = look.row("SELECT schema_version AS n FROM pragma_schema_version").integer("n")
    return Identity(found, tuple(there), tuple(there[one] for one in _LAYOUT if one in there), version)


def _folded(name: str) -> str:
    return name.lower().removeprefix("main.")


# ─── the record ─────────────────────────────────────────────────────────────────────────────────────────────────────
def recorded(before: Identity, after: Identity, step: object) -> str | None:
    """What an act of the step leaves in its ledger row, as JSON; None where it touched no table and changed no schema."""
    if not before.tables and not after.tables and before.version == after.version:
        return None
    moments = [after] if before == after else [before, after]
    document = [{name: getattr(one, name) for name in _FIELDS} for one in moments]
    return json.dumps([{**one, "rebuilt": isinstance(step, Rebuilding)} for one in document], separators=(",", ":"))


class _Act(NamedTuple):
    """What stood behind its names before an act and after it. trusted: what it put in a table's place is the same table."""

    before: Identity
    after: Identity
    trusted: bool


def _read(touch: Touch, run: str) -> _Act:
    documents = json.loads(touch.text)
    found = [
        Identity(
            {str(name): tuple(mark) for name, mark in one["tables"].items()},
            tuple(one["order"]),
            tuple(tuple(page) for page in one["layout"]),
            int(one["version"]),
        )
        for one in documents
    ]
    return _Act(found[0], found[-1], touch.run == run or bool(documents[-1]["rebuilt"]))


def replaced(look: Look, place: RunPosition, step: object, *, certain: bool = False) -> list[str]:
    """The tables that this step changed and that are others now, each in words. certain: without those that only may be.

    What the run itself put in a table's place, there or on its way back, is meant; so is a table that any run rebuilt.
    """
    touches = step_commits.touches(look, place)
    acts = [_read(one, place.run) for one in touches]
    own = [n for n, one in enumerate(touches) if (one.run, one.step, one.action) == (place.run, place.step, "apply")]
    changed = {name for n in own for name in acts[n].after.tables}
    now = identify(look, step.touches_back(look) if isinstance(step, TouchingBack) else sorted(changed))
    found = []
    for name in sorted(changed & set(now.tables)):
        mine = [n for n in own if name in acts[n].after.tables]
        then = acts[mine[-1]].after
        if certain and now.order and not then.made_again(now, name):
            continue
        if not all(_leads_to(now, name, acts[n:]) or _undisturbed(now, name, acts[n:]) for n in mine):
            found.append(_told(name, then, now))
    return found


def _leads_to(now: Identity, name: str, acts: Sequence[_Act]) -> bool:
    """Whether the table behind the name is the one that the first of these acts left, or one that was meant to take its place."""
    known = [acts[0].after]
    for act in acts[1:]:
        there = name in act.before.tables and name in act.after.tables
        if not there or not any(one.same(act.before, name) for one in known):
            continue
        if act.trusted or act.before.tables[name] == act.after.tables[name]:
            known.append(act.after)
    return any(one.same(now, name) for one in known)


def _undisturbed(now: Identity, name: str, acts: Sequence[_Act]) -> bool:
    """Whether it looks the same on SQLite, and all changes of the schema since the first of these acts were made by them.

    The version counts each change. Where the acts account for all of them, nobody can have dropped the table and made
    another one that got its row and page.
    """
    if not now.order or acts[0].after.tables[name] != now.tables[name]:
        return False
    ours = sum(act.after.version - act.before.version for act in acts[1:])
    return now.version - acts[0].after.version == ours


def _told(name: str, then: Identity, now: Identity) -> str:
    if not now.order:
        return f"{name} is another table now (oid {now.tables[name][0]}, then {then.tables[name][0]})"
    if then.made_again(now, name):
        return f"{name} is another table now: the one that was changed was dropped, and this one was made later"
    return (
        f"{name} may be another table now: it was the newest in the file, and the schema was changed since by others (version "
        f"{now.version}, then {then.version})"
    )


# ─── names in SQL ───────────────────────────────────────────────────────────────────────────────────────────────────
def named_in(statements: Iterable[str], dialect: Dialect) -> tuple[str, ...]:
    """All that may be the name of a table in these statements, and in the bodies that they quote with $…$."""
    return tuple(dict.fromkeys(name for sql in statements for name in _names_in(sql, dialect)))


@functools.lru_cache(maxsize=4096)  # asked again at each commit, of all the step's statements
def _names_in(sql: str, dialect: Dialect) -> tuple[str, ...]:
    return tuple(_names(sql, dialect))


def _names(sql: str, dialect: Dialect) -> Iterator[str]:
    tokens = [token for token in scan(sql, dialect) if token.means_something]
    for n, token in enumerate(tokens):
        if token.kind is TokenKind.STRING and token.text.startswith("$"):
            with contextlib.suppress(BadSql):
                yield from _names(
                    token.text.strip("$").partition("$")[2] if token.text[1] != "$" else token.text[2:-2], dialect
                )
        if token.kind not in (TokenKind.WORD, TokenKind.QUOTED) or (n and tokens[n - 1].sign == "."):
            continue
        first = _plain(token, dialect)
        yield first
        if (
            n + 2 < len(tokens)
            and tokens[n + 1].sign == "."
            and tokens[n + 2].kind in (TokenKind.WORD, TokenKind.QUOTED)
        ):
            yield f"{first}.{_plain(tokens[n + 2], dialect)}"


def _plain(token: Token, dialect: Dialect) -> str:
    return token.name.lower() if token.kind is TokenKind.WORD or dialect is Dialect.SQLITE else token.name


def qualified(look: Look, *tables: str) -> tuple[str, ...]:
    """Tables as a playbook names them, with their schema."""
    return tuple(".".join(catalog.named(look, one)) for one in tables)
