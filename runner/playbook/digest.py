"""The two digests: what a playbook means, and what an approval is bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping

from runner.common.plain_data import Data

# words for people: changing them changes nothing that is done
SPOKEN = frozenset(
    {"title", "description", "why", "owner", "contacts", "links", "revision", "reviewed", "review_after", "takes"}
)
LISTS = frozenset({"steps", "preconditions", "success_criteria", "guards"})  # of steps and of checks, which have a why


def of_playbook(data: Mapping[str, Data], programs: Mapping[str, str] | None = None) -> str:
    """SHA-256 of what is written, without comments, key order or words for people; and of the files that it runs."""
    meant: dict[str, Data] = {key: value for key, value in data.items() if key not in SPOKEN}
    return _of({**meant, " programs": dict(programs)} if programs else meant)


def of_step(data: Data) -> str:
    """The same of one step; its words for people are `why`, its own and that of its checks."""
    return _of(data)


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def for_approval(
    playbook: str,
    *,
    inputs: Mapping[str, object],
    identity: Mapping[str, object],
    secrets: Collection[str] = (),
    programs: Mapping[str, str] | None = None,
) -> str:
    """Playbook digest, resolved inputs and target identity: staging's approval is worth nothing in production.

    A secret counts by its name alone, or whoever has the digest could find it by trying. programs: those that were
    exchanged while the run waited, as somebody accepted them.
    """
    known = {name: None if name in secrets else value for name, value in inputs.items()}
    parts = [playbook, known, _canonical(identity), *([dict(programs)] if programs else [])]
    return of_text(json.dumps(parts, sort_keys=True, default=str))


# What a database says of itself; how it was reached (name, host, service, user …) is told to people and compared with nothing.
ITSELF = ("dialect", "system", "timeline", "database_oid", "database", "standby", "inode", "device")


def _canonical(identity: Mapping[str, object]) -> dict[str, object]:
    """The database and where it lives, however its name or URL is spelled."""
    place = identity.get("server") or identity.get("dialed")
    return {key: identity[key] for key in ITSELF if key in identity} | {"place": place}


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
