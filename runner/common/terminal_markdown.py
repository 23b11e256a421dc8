"""Renders our own Markdown for a terminal; a table that is too wide becomes a list with one line per cell."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from runner.common import terminal

NAMED = 2  # columns of a table of names and values
_CELLS = re.compile(r"(?<!\\)\|")
_BREAK = re.compile(r"<br>")
_CODE = re.compile(r"(?<!\\)(`[^`]*`|<code>.*?</code>)")
_EMPHASIS = re.compile(r"(?<!\\)\*{1,2}")
_ESCAPED = re.compile(r"\\([\\`*<|~_&#>+=\[\]-])")


def rendered(markdown: str) -> str:
    """Render a report or a plan; nothing but the Markdown markup is left out."""
    lines: list[str] = []
    for is_table, block in groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        own = list(block)
        lines += _table(own) if is_table else [one for line in own for one in _line(line)]
    return "\n".join(lines) + "\n"


def _line(line: str) -> Iterator[str]:
    text = _plain(line)
    if not line.startswith("#"):
        yield from _wrapped("", text)
        return
    title = text.lstrip("# ")
    yield from _wrapped("", title)
    yield ("=" if line.startswith("# ") else "-") * min(len(title), terminal.columns() - 1)


def _table(block: Sequence[str]) -> Iterator[str]:
    """In columns if they fit; a table of two columns wraps the second; else one line per cell."""
    heads, _rule, *rows = [
        [_plain(_BREAK.sub("; ", cell.strip())) for cell in _CELLS.split(row)[1:-1]] for row in block
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    if sum(widths) + 2 * len(widths) <= terminal.columns():
        for row in [heads, *rows] if any(heads) else rows:
            yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    elif len(heads) == NAMED:
        for name, text in [heads, *rows] if any(heads) else rows:
            yield from _wrapped(f"{name:<{widths[0] + 2}}", text)
    else:
        for number, row in enumerate(rows):
            yield from [""] if number else []
            yield from _listed(heads, row)


def _listed(heads: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    width = max(map(len, heads)) + 2
    for head, cell in zip(heads, row, strict=True):
        if cell:
            yield from _wrapped(f"{head:<{width}}", cell)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        f"{label}{text}",
        terminal.columns() - 1,
        subsequent_indent=" " * len(label),
        drop_whitespace=True,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label]


def _plain(cell: str) -> str:
    """Remove Markdown markup; the content of code spans is kept unchanged."""
    parts = _CODE.split(cell)
    for number, part in enumerate(parts):
        if part.startswith("<code>"):
            parts[number] = html.unescape(part.removeprefix("<code>").removesuffix("</code>"))
        elif number % 2:
            parts[number] = part.strip("`")
        else:
            parts[number] = _ESCAPED.sub(r"\1", _EMPHASIS.sub("", part))
    return "".join(parts)
