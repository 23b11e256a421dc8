"""Records the identity of the tables that a step changed, so that an undo never touches another table of the same name.

PostgreSQL identifies a table by its oid. SQLite has no such number: there it is the rowid in sqlite_master and the root page,
which VACUUM may change, together with the order in which tables were created, which VACUUM keeps. The newest table of a file
gets the same rowid and page when it is dropped and created again: it is certainly the same one only while the schema version
is unchanged.
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

_LAYOUT = ("runbook_step_commit", "runbook_run")  # if these moved in the file, VACUUM has rearranged all of it
_FIELDS = ("tables", "order", "layout", "version")


@runtime_checkable
class Touching(Protocol):
    """A step that names the tables it changes, so that their identity is recorded."""

    def touches(self, look: Look) -> tuple[str, ...]:
        """The tables' names as the playbook writes them."""


@runtime_checkable
class TouchingBack(Protocol):
    """A step whose undo works on other tables than `apply`: only these are compared."""

    def touches_back(self, look: Look) -> tuple[str, ...]: ...


@runtime_checkable
class Rebuilding(Protocol):
    """A step that replaces a table by another one with the same rows."""

    def keeps_rows(self) -> bool: ...


@dataclass(frozen=True)
class Identity:
    """The identity of some tables at one moment. tables: name → (oid,), or (rowid, root page) on SQLite.

    On SQLite only: order: all tables by creation; layout: rowid and root page of _LAYOUT's tables; version: schema_version.
    """

    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    layout: tuple[tuple[int, ...], ...] = ()
    version: int = 0

    def same(self, other: Identity, name: str) -> bool:
        """Whether the name denotes the same table in `other`, a later identity; False where that isn't certain."""
        mine, theirs = self.tables.get(name), other.tables.get(name)
        if mine is None or theirs is None or not self.order:
            return mine == theirs
        if self.version == other.version:
            return mine == theirs
        return not self.made_again(other, name) and bool(self._later(name))

    def made_again(self, other: Identity, name: str) -> bool:
        """Whether it certainly is another table in `other` (SQLite only)."""
        if self.layout == other.layout and self.tables[name] != other.tables[name]:
            return True  # the file wasn't rearranged, and yet the table moved
        now = set(other.order[: other.order.index(name)])
        return bool(self._later(name) & now)  # a table that was created after it now precedes it

    def _later(self, name: str) -> set[str]:
        """The tables created after this one."""
        return set(self.order[self.order.index(name) + 1 :])


# ─── identities ─────────────────────────────────────────────────────────────────────────────────────────────────────
_POSTGRESQL = """
SELECT n.nspname || '.' || c.relname AS name, c.oid::bigint AS oid
FROM unnest(CAST(:schemas AS text[]), CAST(:tables AS text[])) AS w(s, t)
JOIN pg_catalog.pg_class c ON c.relname = CAST(w.t AS name) JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND CASE WHEN w.s = '' THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = CAST(w.s AS name) END"""

# With auto_vacuum SQLite moves root pages as tables are dropped, so there the page identifies nothing.
_SQLITE = """SELECT name, rowid AS place, CASE WHEN (SELECT auto_vacuum FROM pragma_auto_vacuum) = 0 THEN rootpage ELSE 0 END AS page
FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"""


def identify(look: Look, names: Iterable[str]) -> Identity:
    """The current identity of the tables with these names, by qualified name; names of no table are left out."""
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
    """The JSON for the ledger row of one commit of the step; None where it touched no table and changed no schema."""
    if not before.tables and not after.tables and before.version == after.version:
        return None
    moments = [after] if before == after else [before, after]
    document = [{name: getattr(one, name) for name in _FIELDS} for one in moments]
    return json.dumps(
        [{**one, "rebuilt": isinstance(step, Rebuilding) and step.keeps_rows()} for one in document],
        separators=(",", ":"),
    )


class _Act(NamedTuple):
    """One commit: the tables' identity before and after it. trusted: where it replaced a table, the new one counts as the same."""

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


def replaced(look: Look, place: RunPosition, step: object, *, going_on: bool = False) -> list[str]:
    """The tables that this step changed and that have since been replaced, each in words.

    Replacements by this run (its apply or undo), and rebuilds by any run, don't count. going_on: the step stands, and its run goes
    on: then neither count those that only may have been replaced (SQLite), nor those that the run has dropped and created again.
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
        if going_on and now.order and not then.made_again(now, name):
            continue
        led = (_leads_to(now, name, acts[n:], anew=going_on) or _undisturbed(now, name, acts[n:]) for n in mine)
        if not all(led):
            found.append(_describe_replaced(name, then, now))
    return found


def _leads_to(now: Identity, name: str, acts: Sequence[_Act], *, anew: bool) -> bool:
    """Whether the table is the one that the first of these commits left, or a trusted replacement of it.

    anew: also one that a trusted commit created after another had dropped that one.
    """
    known, dropped = [acts[0].after], False
    for act in acts[1:]:
        before, after = name in act.before.tables, name in act.after.tables
        ours = any(one.same(act.before, name) for one in known) if before else dropped
        if not ours or not (before or after):
            continue
        if after and (act.trusted or act.before.tables.get(name) == act.after.tables[name]):
            known.append(act.after)
        dropped = anew and act.trusted and not after
    return any(one.same(now, name) for one in known)


def _undisturbed(now: Identity, name: str, acts: Sequence[_Act]) -> bool:
    """Whether, on SQLite, the table looks the same, and these commits made all schema changes since the first of them.

    schema_version counts every change. If these commits account for all of them, nobody can have dropped the table and created
    another one that got its rowid and root page.
    """
    if not now.order or acts[0].after.tables[name] != now.tables[name]:
        return False
    ours = sum(act.after.version - act.before.version for act in acts[1:])
    return now.version - acts[0].after.version == ours


def _describe_replaced(name: str, then: Identity, now: Identity) -> str:
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
    """Everything that may be a table's name in these statements, and in the bodies that they quote with $…$."""
    return tuple(dict.fromkeys(name for sql in statements for name in _names_in(sql, dialect)))


@functools.lru_cache(maxsize=4096)  # called at each commit, for all of the step's statements
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
    """Table names from a playbook, each with its schema."""
    return tuple(".".join(catalog.named(look, one)) for one in tables)
