"""Text into Markdown that can't be broken by what it quotes: cells, code, fences; and text fit for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

# An underscore inside a word is no emphasis, and column names are full of them; & matters where an entity would begin.
_SPECIAL = re.compile(r"([\\`*<|~]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|^[#>+=-])")


def plain(text: str, *, lines: bool = False) -> str:
    """Without signs that steer a terminal or turn the direction of reading; on one line, unless `lines` are wanted."""
    kept = "\n" if lines else ""
    text = text.expandtabs(4) if lines else " ".join(text.split())
    return "".join(sign if sign.isprintable() or sign in kept else _named(sign) for sign in text)


def safe(text: str) -> str:
    """On one line and without signs that steer a terminal, with its spaces as they are."""
    return "".join(
        sign if sign.isprintable() else " " if sign.isspace() and ord(sign) < 128 else _named(sign) for sign in text
    )


def _named(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode() if ord(sign) > 127 else f"\\x{ord(sign):02x}"


def escaped(text: str) -> str:
    """As Markdown that shows exactly this text, also inside a table's cell."""
    return _SPECIAL.sub(r"\\\1", plain(text))


def code(text: str) -> str:
    """As inline code, also inside a table's cell; "" for no text."""
    text = plain(text)
    if not text:
        return ""
    if "|" in text or "`" in text:  # no escape works in both GitHub's and other readers' code spans
        return f"<code>{_entities(text)}</code>"
    return f"`{text}`"


def _entities(text: str) -> str:
    for sign, entity in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "&#124;"),
        ("`", "&#96;"),
        ("*", "&#42;"),
        ("_", "&#95;"),
        ("[", "&#91;"),
        ("\\", "&#92;"),
    ):
        text = text.replace(sign, entity)
    return text


def fenced(text: str, language: str = "") -> list[str]:
    """As a block of code, in a fence longer than any within it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *plain(text, lines=True).splitlines(), fence]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of cells that are Markdown already; [] where there are no rows."""
    if not rows:
        return []
    return [_row(headings), _row(["---"] * len(headings)), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
