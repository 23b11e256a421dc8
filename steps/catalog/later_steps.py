"""What later steps of a playbook make of an earlier one's change, so that the playbook may run again when all of it is there."""

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
    """Recognises its change also where later steps of its playbook have gone on from it."""

    def followed_by(self, later: Sequence[Step]) -> None:
        """Told once, when the playbook is read."""


@runtime_checkable
class GoesOn(Protocol):
    """Changes columns further in a way that it can't say as a Foretold."""

    def goes_on(self, look: Look) -> tuple[Trace, ...]:
        """kind: "not_null", "default" or "type", of which column."""


@dataclass(eq=False)
class Later:
    """The steps behind one. It says nothing of that step itself, so any two are equal when steps are compared."""

    steps: tuple[Step, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Later)

    __hash__ = None  # type: ignore[assignment]  # never a key

    def names(self, look: Look, table: str, column: str) -> list[str]:
        """What the column is called, first and after each later step that renames it."""
        names = [column]
        for one in self._of(look, table):
            if one.kind == "column" and one.was == names[-1] != one.name:
                names.append(one.name)
        return names

    def changes(self, look: Look, table: str, names: Sequence[str]) -> list[Trace]:
        """What they change of the column under any of these names: `kind` says what, `type` its new type."""
        every = self._of(look, table)
        found = [one for one in every if one.name in names]
        found = [one._replace(kind="type") if one.kind == "column" and one.was == one.name else one for one in found]
        rebuilt = any(one.kind == "table" for one in every)  # as the playbook writes the whole table
        return found + [Trace(kind, table, names[0]) for kind in ("not_null", "default") if rebuilt]

    def _of(self, look: Look, table: str) -> list[Trace]:
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
    """The columns that an ALTER TABLE changes in place: whether they may be NULL, their defaults, their types."""
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
