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
LISTS = frozenset({"steps", "preconditions", "success_criteria", "guards"})  # of steps and of checks, which have a why


def of_playbook(data: Mapping[str, Data]) -> str:
    """SHA-256 of what is written, without comments, key order or words for people."""
    return _of({key: value for key, value in data.items() if key not in SPOKEN})


def of_step(data: Data) -> str:
    """The same of one step; its words for people are `why`, its own and that of its checks."""
    return _of(data)


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def for_approval(playbook: str, *, inputs: Mapping[str, object], identity: Mapping[str, object]) -> str:
    """Playbook digest, resolved inputs and target identity: staging's approval is worth nothing in production."""
    return of_text(json.dumps([playbook, dict(inputs), dict(identity)], sort_keys=True, default=str))


def _of(data: Data) -> str:
    return of_text(json.dumps(_meaning(data), sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def _meaning(data: Data) -> Data:
    """Only where a step or a check is expected: a query or a limit may be called `why` too."""
    if not isinstance(data, dict):
        return data
    return {
        key: [_meaning(one) for one in value] if key in LISTS and isinstance(value, list) else value
        for key, value in data.items()
        if key != "why"
    }
