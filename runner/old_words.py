"""The words of trails that earlier versions wrote, read as those of today.

Only what is read is renamed: the chain of hashes is checked over the bytes as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

# field of an event → what stood in it, and what stands there since
VALUES: Mapping[str, Mapping[str, str]] = {
    "event": {"redriven": "rows_requeued"},
    "outcome": {"already_so": "already_applied"},
}
_MARKS = tuple(f'"{field}":"{was}"'.encode() for field, words in VALUES.items() for was in words)


def today(line: bytes) -> bytes:
    """A line of a trail with today's words in the place of earlier ones."""
    if not any(mark in line for mark in _MARKS):
        return line
    try:
        record = json.loads(line)
    except ValueError:  # told by whoever checks the line
        return line
    event = record.get("event") if isinstance(record, dict) else None
    if not isinstance(event, dict):
        return line
    return json.dumps({**record, "event": {name: _word(name, value) for name, value in event.items()}}).encode()


def _word(name: str, value: object) -> object:
    return VALUES[name].get(value, value) if name in VALUES and isinstance(value, str) else value
