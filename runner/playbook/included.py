"""Finds which names of its included files a playbook uses, directly or indirectly; only these belong to its meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from runner.common.plain_data import Data

SHARED_BY_NAME = ("limits", "queries", "inputs", "shapes")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_LIMIT = re.compile(r"\blimits\.([a-z][a-z0-9_]*)")

Names = dict[str, set[str]]
"""Key (limits, queries, inputs, shapes) → names."""


def unused(data: Mapping[str, Data], *, included: Collection[str], spoken: Collection[str]) -> Names:
    """Included names that the playbook doesn't use. included: "queries.coverage", or a whole key; spoken: keys for people."""
    theirs = {key: {name for name in _named(data, key) if _is(key, name, included)} for key in SHARED_BY_NAME}
    open_names = {key: set(names) for key, names in theirs.items()}
    if not any(theirs.values()):
        return open_names
    own = {key: value for key, value in data.items() if key != "include" and key not in spoken}
    texts = [text for key, value in own.items() for text in _texts(_own(value, theirs.get(key, ())))]
    while texts:
        text = texts.pop()
        for key, name in _said(text, open_names):
            open_names[key].discard(name)
            texts += _texts(_named(data, key)[name])
    return open_names


def without(data: Mapping[str, Data], names: Mapping[str, Collection[str]]) -> dict[str, Data]:
    """The playbook's data without these names, and without keys that become empty by that."""
    kept = {
        key: {name: one for name, one in value.items() if name not in names.get(key, ())}
        if isinstance(value, dict) and names.get(key)
        else value
        for key, value in data.items()
    }
    return {key: value for key, value in kept.items() if value != {} or data[key] == {}}


def _is(key: str, name: str, included: Collection[str]) -> bool:
    return key in included or f"{key}.{name}" in included


def _named(data: Mapping[str, Data], key: str) -> dict[str, Data]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _own(value: Data, theirs: Collection[str]) -> Data:
    return {name: one for name, one in value.items() if name not in theirs} if isinstance(value, dict) else value


def _texts(data: Data) -> Iterator[str]:
    """All texts in the data, including keys."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(data, list):
        for one in data:
            yield from _texts(one)
    elif isinstance(data, str):
        yield data


def _said(text: str, names: Names) -> Iterator[tuple[str, str]]:
    """Names used in a text. A limit is always written limits.x; any word may be a query, an input or a shape (better one too many)."""
    words = set(_WORD.findall(text))
    yield from (("limits", name) for name in names["limits"].intersection(_LIMIT.findall(text)))
    for key in ("queries", "inputs", "shapes"):
        yield from ((key, name) for name in names[key] & words)
