"""The undo of the step `sql`: labels of its statements in the ledger, and which of the undo's statements are due.

A statement outside of a transaction can't commit with its ledger row. It is sent between two commits, labelled "… begun" and
then as the statement itself: a start without an end means that the process died in between, and only a person can say
whether the statement took effect.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BeforeValidator, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from steps.contract import Model, Text
from steps.contract.dialect import Dialect
from steps.contract.written import SQL, named
from steps.sql.scanner import BadSql, split

BEGUN = " begun"  # suffix: about to be sent outside of a transaction
GIVEN_UP = " given up"  # suffix: it didn't get its lock, and did nothing
ENDED = "taken back"  # label of the commit after the last statement of the undo


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Texts = Annotated[tuple[Text, ...], BeforeValidator(_several, json_schema_input_type=tuple[Text, ...] | Text)]


class Item(Model):
    """One statement, alone or with its own undo: SQL, or {run: SQL, revert: SQL}."""

    run: Text
    revert: Texts | None = None

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, data: object) -> object:
        return data if isinstance(data, dict) and "run" in data else {"run": data}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        description = found.pop("description")
        return {"anyOf": [named("SQL", SQL), found], "description": description}


Items = Annotated[tuple[Item, ...], BeforeValidator(_several, json_schema_input_type=tuple[Item, ...] | Item)]


def pieces(texts: Iterable[Text], dialect: Dialect) -> list[str]:
    """The texts split into single statements, in order."""
    return [piece for one in texts for piece in _cut(one.text(dialect), dialect)]


@functools.lru_cache(maxsize=4096)  # called at each commit, for all of the step's texts
def _cut(text: str, dialect: Dialect) -> tuple[str, ...]:
    return tuple(piece.text for piece in split(text, dialect))


def numbered(statements: Sequence[str]) -> list[str]:
    """The ledger's labels for the statements of `apply`."""
    return [f"statement {n}" for n in range(1, len(statements) + 1)]


def given_up(label: str, done: Iterable[str]) -> int:
    """How often this statement was sent outside of a transaction and failed to get its lock."""
    return sum(one.startswith(f"{label}{GIVEN_UP} ") for one in done)


def begun_label(label: str, vain: int) -> str:
    """The label to commit before a statement is sent, after `vain` failed attempts."""
    return label + BEGUN + (f" {vain + 1}" if vain else "")


def back_labels(statements: Sequence[str], known: set[str]) -> list[str]:
    """The ledger's labels for the statements of the undo: a hash of the text, so that edits of the list don't shift them.

    Earlier versions numbered them; a numbered label in the ledger still counts.
    """
    found: list[str] = []
    for old, text in zip(numbered(statements), statements, strict=True):
        name = f"back {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        again = sum(one.split(" #")[0] == name for one in found)
        found.append(old if old in known else name + (f" #{again + 1}" if again else ""))
    return found


def most_pieces(texts: Iterable[Text]) -> int:
    """The number of statements in the texts; the larger one where the dialects differ."""
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
    """The statements that were sent outside of a transaction and whose outcome is unknown."""
    known = set(done)
    return [one.removesuffix(BEGUN) for one in done if one.endswith(BEGUN) and one.removesuffix(BEGUN) not in known]
