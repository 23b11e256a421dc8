"""On what a check decided, in a few words: the names, sessions and rows that its figures count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from steps.contract import cutting

SHOWN = 5  # items of one list
ITEM, ALL = 100, 500  # signs of one item, and of all together: the trail has the rest


def named(values: Mapping[str, object], text: str = "") -> str:
    """'objects: view monthly, function f and 4 more; sessions: …'; without what the text tells already."""
    parts = [part for name, value in values.items() if (part := _list(name, value, text))]
    words = "; ".join(parts)
    return cutting.shortened(words, ALL)


def _list(name: str, value: object, text: str) -> str:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return ""
    items = [_item(one) for one in value[:SHOWN]]
    if not items or all(one in text for one in items):
        return ""
    more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
    return f"{name}: {', '.join(items)}{more}"


def _item(value: object) -> str:
    return cutting.shortened(_words(value), ITEM)


def _words(value: object) -> str:
    match value:
        case BaseModel():
            return _words(dict(value))
        case Mapping():
            return f"({', '.join(f'{key}={one}' for key, one in value.items() if one not in (None, '', ()))})"
        case list() | tuple():
            return f"({', '.join(map(_words, value))})"
        case bytes():
            return f"{len(value)} bytes"
        case _:
            return str(value)
