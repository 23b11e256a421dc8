"""Who vouches for a trail, and up to which record: the ledger at each step's end, and each approval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.database import RunDatabase
from runner.events import Approved
from runner.trail import Verification, read
from steps import ledger


@dataclass(frozen=True)
class Voucher:
    """The head of the chain as somebody else than the trail's writer has it; length 0 where only the hash is known."""

    by: str
    head: str
    length: int


@dataclass(frozen=True)
class Word:
    """What the anchors say of a chain."""

    up_to: int
    by: str
    fault: str
    text: str


def in_trail(path: Path) -> list[Voucher]:
    """Approvals carry the head that the approver saw."""
    return [
        Voucher(f"approval by {r.event.name}", r.event.chain_head, 0)
        for r in read(path)
        if isinstance(r.event, Approved)
    ]


def in_ledger(database: RunDatabase, run: str) -> list[Voucher]:
    """The heads that the target's ledger has for this run."""
    with database.look() as look:
        if not ledger.exists(look):
            return []
        found = [
            Voucher(f"the ledger at the end of step {one.step}", one.head, one.length)
            for one in ledger.anchors(look, run)
        ]
        row = ledger.find_run(look, run)
    if row is not None:
        found.append(Voucher(f"the ledger, run {row.state}", row.trail_head, row.trail_length))
    return sorted(found, key=lambda one: one.length)


def compare(found: Verification, vouchers: list[Voucher]) -> Word:
    """Hold each anchor against the chain: a missing head means that a tail was cut or the chain made anew."""
    places = {head: number for number, head in enumerate(found.hashes, start=1)}
    up_to, by = 0, ""
    for one in vouchers:
        place = places.get(one.head, 0)
        if not place or (one.length and place != one.length):
            return Word(
                up_to,
                by,
                f"{one.by} has a head that this chain doesn't have",
                f"NOT vouched for: {one.by} has another head",
            )
        if place >= up_to:
            up_to, by = place, one.by
    if not up_to:
        return Word(0, "", "", "the chain is whole; nobody else vouches for it (a chain alone can't show a cut tail)")
    return Word(up_to, by, "", f"the chain is whole; vouched for up to record {up_to} by {by}")
