"""The way back of the step `sql`: what of it is due, by what the ledger has of the way there."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BeforeValidator, model_validator

from steps.contract import Model, Text
from steps.contract.dialect import Dialect
from steps.sql.scanner import BadSql, split

BEGUN = " begun"
GIVEN_UP = " given up"
ENDED = "taken back"  # the ledger's label behind the last statement of the way back


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Texts = Annotated[tuple[Text, ...], BeforeValidator(_several)]


class Item(Model):
    """One statement, alone or with its own way back: SQL, or {run: SQL, revert: SQL}."""

    run: Text
    revert: Texts | None = None

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, data: object) -> object:
        return data if isinstance(data, dict) and "run" in data else {"run": data}


Items = Annotated[tuple[Item, ...], BeforeValidator(_several)]


def pieces(texts: Iterable[Text], dialect: Dialect) -> list[str]:
    """The single statements of some texts, in order."""
    return [piece for one in texts for piece in _cut(one.text(dialect), dialect)]


@functools.lru_cache(maxsize=4096)  # asked again at each commit, of all the step's texts
def _cut(text: str, dialect: Dialect) -> tuple[str, ...]:
    return tuple(piece.text for piece in split(text, dialect))


def numbered(statements: Sequence[str]) -> list[str]:
    """The ledger's labels of statements on the way there."""
    return [f"statement {n}" for n in range(1, len(statements) + 1)]


def given_up(label: str, done: Iterable[str]) -> int:
    """How often this statement was sent outside of a transaction and never had its lock."""
    return sum(one.startswith(f"{label}{GIVEN_UP} ") for one in done)


def begun_label(label: str, vain: int) -> str:
    """The ledger's label before it is sent, after so many times in vain."""
    return label + BEGUN + (f" {vain + 1}" if vain else "")


def back_labels(statements: Sequence[str], known: set[str]) -> list[str]:
    """Those of statements on the way back: named for their text, so that a mended list doesn't take one for another.

    Earlier versions numbered them; where the ledger has such a label it still counts.
    """
    found: list[str] = []
    for old, text in zip(numbered(statements), statements, strict=True):
        name = f"back {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        again = sum(one.split(" #")[0] == name for one in found)
        found.append(old if old in known else name + (f" #{again + 1}" if again else ""))
    return found


def most_pieces(texts: Iterable[Text]) -> int:
    """How many statements that is, at most: the dialects may differ."""
    return sum(max((_count(text, name) for name, text in one.texts.items()), default=0) for one in texts)


def _count(text: str, dialect: str) -> int:
    counts = []
    for one in [Dialect(dialect)] if dialect else list(Dialect):
        try:
            counts.append(len(split(text, one)))
        except BadSql:
            continue
    return max(counts, default=0)


def without_end(done: Iterable[str]) -> list[str]:
    """The statements that were sent outside of a transaction, and of which no end is known."""
    known = set(done)
    return [one.removesuffix(BEGUN) for one in done if one.endswith(BEGUN) and one.removesuffix(BEGUN) not in known]
