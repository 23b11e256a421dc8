"""Reads trails of earlier versions: translates their event, field and value names to today's.

The translation is only for parsing: the hash chain is always verified over the bytes as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

# field of an event → {former value: today's value}
VALUES: Mapping[str, Mapping[str, str]] = {
    "event": {"redriven": "rows_requeued", "stop_asked": "stop_requested"},
    "outcome": {"already_so": "already_applied"},
}
# event → {former field name: today's name}
FIELDS: Mapping[str, Mapping[str, str]] = {
    "run_started": {"begun_at": "from_checkpoint", "elsewhere": "system_programs"},
    "run_resumed": {"elsewhere": "system_programs"},
    "lease_taken": {"over_from": "previous_run"},
    "tuned": {"order": "settings"},
}
_MARKS = tuple(
    [f'"{field}":"{was}"'.encode() for field, words in VALUES.items() for was in words]
    + [f'"{was}":'.encode() for names in FIELDS.values() for was in names]
)


def today(line: bytes) -> bytes:
    """A line of a trail with former names replaced by today's; unchanged if it has none, or isn't a record."""
    if not any(mark in line for mark in _MARKS):
        return line
    try:
        record = json.loads(line)
    except ValueError:  # whoever parses the line reports it
        return line
    event = record.get("event") if isinstance(record, dict) else None
    if not isinstance(event, dict):
        return line
    kind = event.get("event")
    names = FIELDS.get(kind, {}) if isinstance(kind, str) else {}
    renamed = {names.get(name, name): _word(name, value) for name, value in event.items()}
    return json.dumps({**record, "event": renamed}).encode()


def _word(field: str, value: object) -> object:
    return VALUES[field].get(value, value) if field in VALUES and isinstance(value, str) else value
