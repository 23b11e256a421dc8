"""Decides whether a run's record can be trusted; asked before every action on a run.

The hash chain proves that nothing within it was changed. Only the target's ledger proves that the chain was not rewritten,
cut, or swapped for another run's. An anchor is some record of the chain, not necessarily its head: records after the last
anchor are *unanchored*, and a resume asks the database instead of believing them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from runner.common.errors import TrailBroken
from runner.record import anchors
from runner.record.anchors import TrailAnchor
from runner.target import ledger_check
from runner.target.database import RunDatabase
from runner.target.runs import Found, load_run
from runner.trail.events import (
    Approved,
    Event,
    EvidenceGiven,
    LeaseTaken,
    LedgerCreated,
    Noted,
    Record,
    RunEnded,
    RunResumed,
    RunStarted,
    StepStarted,
    TornTail,
)
from runner.trail.status import fold
from runner.trail.trail import Verification
from steps.contract import Look
from steps.ledger import encoding, runs, step_commits, tables
from steps.ledger.runs import RunRow

# Events that may be in a trail before the run's row is in the ledger.
_BEFORE_THE_ROW: tuple[type[Event], ...] = (
    RunStarted,
    LedgerCreated,
    LeaseTaken,
    RunResumed,
    RunEnded,
    TornTail,
    Approved,
    EvidenceGiven,
    Noted,
)


class RecordTrust(StrEnum):
    """How far a record is trusted."""

    PROVEN = "proven"  # intact, of this run, and it contains every anchor of the target's ledger
    CONTRADICTED = "contradicted"  # it is inconsistent, or the ledger has something else
    NOT_ASKED = "not asked"  # consistent in itself; no target was asked, or it has no row of the run


@dataclass(frozen=True)
class Trust:
    """The verdict on a record.

    anchored: how many records are confirmed; by: by which anchor; row: the run's row in the ledger; begun: whether the
    run got so far that there should be a row.
    """

    answer: RecordTrust
    fault: str = ""
    anchored: int = 0
    by: str = ""
    row: RunRow | None = None
    begun: bool = True

    @property
    def words(self) -> str:
        """The verdict for people, in a report."""
        if self.answer is RecordTrust.CONTRADICTED:
            return f"contradicted: {self.fault}"
        if self.answer is RecordTrust.PROVEN:
            return f"proven by the target's ledger, up to record {self.anchored} ({self.by})"
        return f"not asked: {self.fault or 'no target was asked'}"


@dataclass(frozen=True)
class _Known:
    """What the ledger has of a run, from one snapshot. The trail it is compared with is read later, see `_read_again`."""

    row: RunRow | None
    vouchers: tuple[TrailAnchor, ...]
    acted: frozenset[str]


def trusted(found: Found, database: RunDatabase | None = None) -> Trust:
    """Verify a run's record: its chain, and if a database is given, the chain against the target's ledger."""
    fault = alone(found)
    if fault:
        return Trust(RecordTrust.CONTRADICTED, fault)
    if database is None:
        return Trust(RecordTrust.NOT_ASKED)
    with database.look() as look:
        ledger_check.refuse_bad(look)
        known = _known(look, found.status.run)
    return _against(_read_again(found), known)


def alone(found: Found) -> str:
    """What is wrong with a record in itself (chain, folder name); "" if nothing is."""
    chain: Verification = found.chain
    if chain.fault:
        return chain.fault
    run = found.status.run
    if found.directory.absolute().name != run:
        return f"the folder {found.directory.name} holds the trail of {run}"
    return ""


def proven(found: Found, database: RunDatabase, *, changes: bool, what: str) -> Trust:
    """Require a proven record before an action on the target; raises TrailBroken otherwise. what: the action, for messages.

    NOT_ASKED is enough for a playbook that changes nothing, which has no ledger, and for a run that was killed before
    its ledger row was written, which has done nothing.
    """
    verdict = trusted(found, database)
    if verdict.answer is RecordTrust.PROVEN or (
        verdict.answer is RecordTrust.NOT_ASKED and not (changes and verdict.begun)
    ):
        return verdict
    raise refusal(found, verdict, what)


def uncontradicted(found: Found, database: RunDatabase | None, *, what: str) -> Trust:
    """Require a record that isn't contradicted, as for notes and approvals without a target; raises TrailBroken otherwise."""
    verdict = trusted(found, database)
    if verdict.answer is RecordTrust.CONTRADICTED:
        raise refusal(found, verdict, what)
    return verdict


def refusal(found: Found, verdict: Trust, what: str) -> TrailBroken:
    """The error of a command that refuses to act on this record."""
    run = found.status.run
    return TrailBroken(
        f"cannot {what} {run}: its record in {found.trail} is {verdict.answer}",
        why=verdict.fault,
        state="nothing was changed by this command",
        then=f"runbook trail verify {found.directory.name} --against-target; put the folder of the run back as it was",
    )


def unanchored_steps(found: Found, verdict: Trust) -> frozenset[str]:
    """Ids of the steps that end after the last anchor; their outcome must be asked of the database again."""
    if verdict.row is None:
        return frozenset()
    vouched = fold(found.records[: verdict.anchored])
    return frozenset(
        step.id
        for step in found.status.steps.values()
        if step.finished and not (step.id in vouched.steps and vouched.steps[step.id].finished)
    )


# ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _known(look: Look, run: str) -> _Known:
    if not tables.exists(look):
        return _Known(None, (), frozenset())
    return _Known(
        runs.find_run(look, run),
        tuple(anchors.of_run(look, run)),
        frozenset(step_commits.acted(look, run=run, action="apply")),
    )


def _read_again(found: Found) -> Found | str:
    """Read the trail once more, after the ledger; a str is the fault.

    A running run keeps appending and anchoring. Read first, the trail could lack a record whose anchor we then see.
    """
    again = load_run(found.directory)
    if not again.data.startswith(found.data[: found.data.rfind(b"\n") + 1]):
        return "it was changed while it was being read"
    return again if not again.chain.fault else again.chain.fault


def against(database: RunDatabase, records: list[Record], *, run: str) -> tuple[list[TrailAnchor], str]:
    """The ledger's anchors for a trail in any place, and any other difference between trail and ledger ("" if none).

    A ledger without a row of the run counts as a difference.
    """
    with database.look() as look:
        known = _known(look, run)
    if known.row is None:
        return [], f"the target's ledger has no row of the run {run}"
    return [*known.vouchers], _differs(records, known)


def _against(found: Found | str, known: _Known) -> Trust:
    if isinstance(found, str):
        return Trust(RecordTrust.CONTRADICTED, found)
    if known.row is None:
        return _without_row(found.records)
    compared = anchors.compare(found.chain, [*anchors.in_trail(found.records), *known.vouchers])
    fault = compared.fault or _differs(found.records, known)
    answer = RecordTrust.CONTRADICTED if fault else RecordTrust.PROVEN
    return Trust(answer, fault, _anchored(found.chain, known.vouchers), compared.by, known.row)


def _differs(records: list[Record], known: _Known) -> str:
    """How the ledger and the records differ, apart from the anchors; "" if they don't."""
    unfit = _unfit(records, known.row) if known.row is not None else ""
    return unfit or _unknown_acts(records, known.acted) or anchors.beyond(records, [*known.vouchers])


def _anchored(chain: Verification, vouchers: Iterable[TrailAnchor]) -> int:
    """The number of the last record that an anchor of the ledger confirms."""
    places = {head: number for number, head in enumerate(chain.hashes, start=1)}
    return max((places.get(one.head, 0) for one in vouchers), default=0)


def _without_row(records: list[Record]) -> Trust:
    """The verdict without a ledger row: nothing was started yet, the row was lost, or the playbook changes nothing."""
    later = next((one for one in records if not isinstance(one.event, _BEFORE_THE_ROW)), None)
    leased = any(isinstance(one.event, LeaseTaken) for one in records)
    if leased and later is not None:
        return Trust(
            RecordTrust.CONTRADICTED,
            f"the target's ledger knows nothing of this run, and the trail goes on after its start (record {later.n}, "
            f"{later.event.event})",
        )
    return Trust(RecordTrust.NOT_ASKED, "the target's ledger has no row of this run", begun=later is not None)


def _unfit(records: list[Record], row: RunRow) -> str:
    """How the run's ledger row differs from the records up to that row's head; "" if it doesn't."""
    place = next((one.n for one in records if one.hash == row.trail_head), len(records))
    then = fold(records[:place])
    started = then.started
    if started is None:
        return "it has no beginning"
    pairs = {
        "playbook": (row.playbook, started.playbook),
        "kind": (row.kind, started.kind.value),
        "digest": (row.digest, then.digest),
        "approval digest": (row.approval_digest, then.approval_digest),
        "text of the playbook": (json.loads(row.source), then.source),
        "inputs": (json.loads(row.inputs), started.inputs),
        "identity of the target": (json.loads(row.identity), started.identity),
        "operator": (encoding.readable(row.operator), encoding.readable(started.process.operator)),
    }
    unfit = [name for name, (ours, theirs) in pairs.items() if ours != theirs]
    return f"the target's ledger has another {', '.join(unfit)} for this run" if unfit else ""


def _unknown_acts(records: list[Record], acted: Iterable[str]) -> str:
    """Steps with commits in the ledger but no start in the trail: impossible, since a start is on disk before any commit."""
    begun = {one.event.step for one in records if isinstance(one.event, StepStarted)}
    unknown = sorted(set(acted) - begun)
    return (
        f"the ledger has what step {', '.join(unknown)} committed, and the trail has no start of it" if unknown else ""
    )
