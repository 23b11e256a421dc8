"""Anchors of a trail: copies of its head hash kept elsewhere (in the ledger at each step's end, in each approval)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from runner.trail import old_words
from runner.trail.events import (
    AlertEnded,
    AlertRaised,
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

# What may follow a run's end: events that people and monitors cause, and a process that takes the run up again.
_AFTER_THE_END = (AlertEnded, AlertRaised, Approved, EvidenceGiven, Judged, Noted, Settled, SqlByHand, TornTail)
_GOES_ON = (RunResumed, RollbackStarted, Closed)


@dataclass(frozen=True)
class TrailAnchor:
    """A head hash as recorded by `by`, and the number of records at that time (0 if only the hash is known)."""

    by: str
    head: str
    length: int
    ended: bool = False  # the run's process had ended by then


@dataclass(frozen=True)
class AnchorVerdict:
    """Result of comparing a chain with its anchors: confirmed up to which record, by whom, or the first fault."""

    up_to: int
    by: str
    fault: str
    text: str


def records(data: bytes, *, up_to: int) -> list[Record]:
    """Parse the first `up_to` records of a trail, stopping at the first that isn't a record of this version."""
    found = []
    for line in data.split(b"\n")[:up_to]:
        try:
            found.append(Record.model_validate_json(old_words.today(line)))
        except ValidationError:
            break
    return found


def run_of(known: list[Record], path: Path) -> str:
    """The run that a trail belongs to, wherever its file is; if it has no start, the name of its folder."""
    first = known[0].event if known else None
    return first.run if isinstance(first, RunStarted) else path.absolute().parent.name


def in_trail(known: list[Record]) -> list[TrailAnchor]:
    """The anchors within the trail: each approval carries the head that the approver saw."""
    return [
        TrailAnchor(f"approval by {one.event.name}", one.event.chain_head, 0)
        for one in known
        if isinstance(one.event, Approved)
    ]


def of_run(look: Look, run: str) -> list[TrailAnchor]:
    """The anchors that the target's ledger has for this run, in order of length."""
    found = [TrailAnchor(f"the ledger at {one.what}", one.head, one.length) for one in anchors_of(look, run)]
    row = runs.find_run(look, run)
    if row is not None:
        ended = row.state != RunState.RUNNING
        found.append(TrailAnchor(f"the ledger, run {row.state}", row.trail_head, row.trail_length, ended))
    return sorted(found, key=lambda one: one.length)


def compare(found: Verification, vouchers: list[TrailAnchor]) -> AnchorVerdict:
    """Compare each anchor with the chain: if a head is missing, the chain's end was cut off or the chain was rewritten."""
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
    """Find a record after the run's end that can't be genuine: one of the engine's, though no process resumed the run."""
    ends = [one.length for one in vouchers if one.ended]
    for one in known[max(ends) :] if ends else []:
        event: Event = one.event
        if isinstance(event, _GOES_ON):
            return ""
        if not isinstance(event, _AFTER_THE_END):
            return f"record {one.n} ({event.event}) stands behind the run's end, which the ledger has at {max(ends)}"
    return ""
