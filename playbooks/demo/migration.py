"""The honeypot's schema at version 15, and its migration v16 statement by statement."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

Dialect = Literal["postgresql", "sqlite"]

_BEGINS = re.compile(r"^--- (?P<phase>\d) (?P<name>\w+)\n", re.MULTILINE)


class Statement(NamedTuple):
    """One statement of v16, without its semicolon. `name`: what it makes, or what it does."""

    phase: int
    name: str
    sql: str


def tables(dialect: Dialect) -> list[str]:
    """The statements that make the tables of v15, and its version."""
    return _statements(_v15(dialect)[0])


def indexes(dialect: Dialect) -> list[str]:
    """The statements that make the indexes of v15, which is faster once its rows are there."""
    return _statements(_v15(dialect)[1])


def v16(dialect: Dialect) -> list[Statement]:
    """The migration, in the order in which its statements run."""
    _, *parts = _BEGINS.split(_read(f"v16_{dialect}.sql"))
    phases, names, texts = parts[::3], parts[1::3], parts[2::3]
    return [
        Statement(int(phase), name, text.strip().removesuffix(";"))
        for phase, name, text in zip(phases, names, texts, strict=True)
    ]


def _v15(dialect: Dialect) -> list[str]:
    return _read(f"v15_{dialect}.sql").split("-- after loading --\n")


def _statements(text: str) -> list[str]:
    return [statement for part in text.split(";\n") if (statement := part.strip())]


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
