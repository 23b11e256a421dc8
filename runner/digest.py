"""The two digests: what a playbook means, and what an approval is bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from runner.source import Data

# words for people: changing them changes nothing that is done
SPOKEN = frozenset(
    {"title", "description", "why", "owner", "contacts", "links", "revision", "reviewed", "review_after", "takes"}
)


def of_data(data: Data) -> str:
    """SHA-256 of what is written, without comments, key order or words for people."""
    return of_text(json.dumps(_meaning(data), sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def for_approval(playbook: str, *, inputs: Mapping[str, object], identity: Mapping[str, object]) -> str:
    """Playbook digest, resolved inputs and target identity: staging's approval is worth nothing in production."""
    return of_text(json.dumps([playbook, dict(inputs), dict(identity)], sort_keys=True, default=str))


def _meaning(data: Data) -> Data:
    if isinstance(data, dict):
        return {key: _meaning(value) for key, value in data.items() if key not in SPOKEN}
    if isinstance(data, list):
        return [_meaning(value) for value in data]
    return data
