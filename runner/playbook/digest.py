"""The two digests: of a playbook's meaning, and of what an approval is given for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping

from runner.common.plain_data import Data

# Text for people; it changes nothing that is executed, so it is not part of the digest.
SPOKEN = frozenset(
    {"title", "description", "why", "owner", "contacts", "links", "revision", "reviewed", "review_after", "takes"}
)
LISTS = frozenset(
    {"steps", "preconditions", "success_criteria", "guards", "monitors"}
)  # lists whose items may have a `why`


def of_playbook(data: Mapping[str, Data], programs: Mapping[str, str] | None = None) -> str:
    """SHA-256 of a playbook and the programs it runs; comments, key order and text for people don't count."""
    meant: dict[str, Data] = {key: value for key, value in data.items() if key not in SPOKEN}
    return _of({**meant, " programs": dict(programs)} if programs else meant)


def of_step(data: Data) -> str:
    """SHA-256 of one step, without its own `why` and those of its checks."""
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
    """SHA-256 of playbook digest, inputs and target identity: an approval for staging is not valid in production.

    Of a secret only the name counts, since its value could be found from the digest by brute force. programs: hashes of
    programs that were replaced during the run, as accepted by a person.
    """
    known = {name: None if name in secrets else value for name, value in inputs.items()}
    parts = [playbook, known, _canonical(identity), *([dict(programs)] if programs else [])]
    return of_text(json.dumps(parts, sort_keys=True, default=str))


# Keys of an identity that the database itself reports. How it was reached (name, host, service, user …) is shown but not compared.
ITSELF = ("dialect", "system", "timeline", "database_oid", "database", "standby", "inode", "device")


def _canonical(identity: Mapping[str, object]) -> dict[str, object]:
    """The identity as far as it counts, independent of how the target's name or URL was written."""
    place = identity.get("server") or identity.get("dialed")
    return {key: identity[key] for key in ITSELF if key in identity} | {"place": place}


def _of(data: Data) -> str:
    return of_text(json.dumps(_meaning(data), sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def _meaning(data: Data) -> Data:
    """The data without `why`, only where a step or check is expected: a query or a limit may be called `why`, too."""
    if not isinstance(data, dict):
        return data
    return {key: _part(key, value) for key, value in data.items() if key != "why"}


def _part(key: str, value: Data) -> Data:
    if key == "when":
        return _meaning(value)
    return [_meaning(one) for one in value] if key in LISTS and isinstance(value, list) else value
