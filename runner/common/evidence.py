"""A short summary of a check's evidence: the objects, sessions and rows that its figures count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from steps.contract import cutting

SHOWN = 5  # items shown of each list
ITEM, ALL = 100, 500  # maximum characters of one item and of the whole summary; the trail has everything


def named(values: Mapping[str, object], text: str = "") -> str:
    """Summarise the lists among these figures: 'objects: view monthly, function f and 4 more; sessions: …'.

    text: what the check already says; lists whose items all occur in it are left out.
    """
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
