"""Who vouches for a trail, and up to which record: the ledger at each step's end, and each approval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from runner.trail import old_words
from runner.trail.events import (
    Approved,
    Closed,
    Event,
    EvidenceGiven,
    Judged,
    Noted,
    Record,
    RollbackStarted,
    RunResumed,
    RunStarted,
    RunState,
    Settled,
    SqlByHand,
    TornTail,
)
from runner.trail.trail import Verification
from steps.contract import Look
from steps.ledger import runs
from steps.ledger.anchors import anchors_of

# what may follow a run's end: people's words, and a process that takes the run up again
_AFTER_THE_END = (Approved, EvidenceGiven, Judged, Noted, Settled, SqlByHand, TornTail)
_GOES_ON = (RunResumed, RollbackStarted, Closed)


@dataclass(frozen=True)
class TrailAnchor:
    """The head of the chain as somebody else than the trail's writer has it; length 0 where only the hash is known."""

    by: str
    head: str
    length: int
    ended: bool = False  # the run's process had let go of it then


@dataclass(frozen=True)
class AnchorVerdict:
    """What the anchors say of a chain."""

    up_to: int
    by: str
    fault: str
    text: str


def records(data: bytes, *, up_to: int) -> list[Record]:
    """The first records of a trail, as many as its chain holds together; one that is of no kind we know ends them."""
    found = []
    for line in data.split(b"\n")[:up_to]:
        try:
            found.append(Record.model_validate_json(old_words.today(line)))
        except ValidationError:
            break
    return found


def run_of(known: list[Record], path: Path) -> str:
    """Whose trail it is, wherever the file lies."""
    first = known[0].event if known else None
    return first.run if isinstance(first, RunStarted) else path.absolute().parent.name


def in_trail(known: list[Record]) -> list[TrailAnchor]:
    """Approvals carry the head that the approver saw."""
    return [
        TrailAnchor(f"approval by {one.event.name}", one.event.chain_head, 0)
        for one in known
        if isinstance(one.event, Approved)
    ]


def of_run(look: Look, run: str) -> list[TrailAnchor]:
    """The heads that the target's ledger has for this run."""
    found = [TrailAnchor(f"the ledger at {one.what}", one.head, one.length) for one in anchors_of(look, run)]
    row = runs.find_run(look, run)
    if row is not None:
        ended = row.state != RunState.RUNNING
        found.append(TrailAnchor(f"the ledger, run {row.state}", row.trail_head, row.trail_length, ended))
    return sorted(found, key=lambda one: one.length)


def compare(found: Verification, vouchers: list[TrailAnchor]) -> AnchorVerdict:
    """Hold each anchor against the chain: a missing head means that a tail was cut or the chain made anew."""
    places = {head: number for number, head in enumerate(found.hashes, start=1)}
    up_to, by = 0, ""
    for one in vouchers:
        place = places.get(one.head, 0)
        if not place or (one.length and place != one.length):
            return AnchorVerdict(
                up_to,
                by,
                f"{one.by} has a head that this chain doesn't have",
                f"NOT vouched for: {one.by} has another head",
            )
        if place >= up_to:
            up_to, by = place, one.by
    if not up_to:
        return AnchorVerdict(
            0, "", "", "the chain is whole; nobody else vouches for it (a chain alone can't show a cut tail)"
        )
    rest = len(found.hashes) - up_to
    after = f"; nobody vouches for the {rest} after it" if rest else ""
    return AnchorVerdict(up_to, by, "", f"the chain is whole; vouched for up to record {up_to} by {by}{after}")


def beyond(known: list[Record], vouchers: list[TrailAnchor]) -> str:
    """What stands behind a run's end and can't be: an engine's record without a process that took the run up again."""
    ends = [one.length for one in vouchers if one.ended]
    for one in known[max(ends) :] if ends else []:
        event: Event = one.event
        if isinstance(event, _GOES_ON):
            return ""
        if not isinstance(event, _AFTER_THE_END):
            return f"record {one.n} ({event.event}) stands behind the run's end, which the ledger has at {max(ends)}"
    return ""
