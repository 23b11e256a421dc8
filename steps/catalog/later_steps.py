"""What later steps of a playbook do to an earlier step's change.

On a repeated run the earlier step meets its column renamed or altered by those that followed, and must recognise it as done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from steps.catalog import catalog
from steps.contract import Foretold, Look, Step
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.scanner import Token, TokenKind, scan


@runtime_checkable
class Followed(Protocol):
    """A step that recognises its change even after later steps of its playbook have altered it."""

    def followed_by(self, later: Sequence[Step]) -> None:
        """Receive the later steps; called once, when the playbook is loaded."""


@runtime_checkable
class GoesOn(Protocol):
    """A step that alters existing columns, which Foretold can't express."""

    def goes_on(self, look: Look) -> tuple[Trace, ...]:
        """The altered columns; kind is "not_null", "default" or "type"."""


@dataclass(eq=False)
class Later:
    """The steps that follow a step. Not part of that step's definition: any two are equal when steps are compared."""

    steps: tuple[Step, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Later)

    __hash__ = None  # type: ignore[assignment]  # never a key

    def names(self, look: Look, table: str, column: str) -> list[str]:
        """The column's name, followed by its name after each later step that renames it."""
        names = [column]
        for one in self.of(look, table):
            if one.kind == "column" and one.was == names[-1] != one.name:
                names.append(one.name)
        return names

    def changes(self, look: Look, table: str, names: Sequence[str]) -> list[Trace]:
        """What later steps change about the column, under any of its names: `kind` says what, `type` is its new type."""
        every = self.of(look, table)
        found = [one for one in every if one.name in names]
        found = [one._replace(kind="type") if one.kind == "column" and one.was == one.name else one for one in found]
        rebuilt = any(one.kind == "table" for one in every)  # a rebuild writes the whole definition anew
        return found + [Trace(kind, table, names[0]) for kind in ("not_null", "default") if rebuilt]

    def of(self, look: Look, table: str) -> list[Trace]:
        """All that later steps do to this table."""
        every: list[Trace] = []
        for step in self.steps:
            every += step.goes_on(look) if isinstance(step, GoesOn) else ()
            every += step.leaves(look) if isinstance(step, Foretold) else ()
        wanted = catalog.named(look, table)
        return [one for one in every if one.table and catalog.named(look, one.table) == wanted]


# ─── SQL ────────────────────────────────────────────────────────────────────────────────────────────────────────────
_KINDS = {
    ("SET", "NOT"): "not_null",
    ("DROP", "NOT"): "not_null",
    ("SET", "DEFAULT"): "default",
    ("DROP", "DEFAULT"): "default",
    ("SET", "DATA"): "type",
}


def altered(sql: str, dialect: Dialect) -> list[Trace]:
    """The columns whose NOT NULL, default or type an ALTER TABLE statement changes."""
    words = [token for token in scan(sql, dialect) if token.means_something]
    keywords = [token.keyword for token in words]
    if keywords[:2] != ["ALTER", "TABLE"]:
        return []
    table = _table(words, keywords)
    found = []
    for n in range(3, len(words) - 2):
        if keywords[n] != "ALTER":
            continue
        at = n + 1 + (keywords[n + 1] == "COLUMN")
        first, second = [*keywords[at + 1 : at + 3], "", ""][:2]
        kind = "type" if first == "TYPE" else _KINDS.get((first, second), "")
        if kind:
            found.append(Trace(kind, table, _plain(words[at])))
    return found


def _table(words: list[Token], keywords: list[str]) -> str:
    at = 2
    while at < len(words) and keywords[at] in ("IF", "EXISTS", "ONLY"):
        at += 1
    name = _plain(words[at]) if at < len(words) else ""
    if at + 2 < len(words) and words[at + 1].sign == ".":
        name += f".{_plain(words[at + 2])}"
    return name


def _plain(token: Token) -> str:
    return token.name.lower() if token.kind is TokenKind.WORD else token.name
