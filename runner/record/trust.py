"""Whether a run's record may be acted on: one question, three answers, asked before every act on a run.

The chain shows that nothing within it was changed; only the target's ledger shows that it wasn't made anew, cut, or put in
another's place. An anchor is an ancestor of the chain, not necessarily its head: what stands behind the last one is
*unanchored*, and a resume asks the database about it instead of believing it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from runner.common.errors import TrailBroken
from runner.record import anchors
from runner.record.anchors import TrailAnchor
from runner.target import ledger_check, session_settings
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
from steps.ledger import runs, step_commits, tables
from steps.ledger.runs import RunRow

# what may stand in a trail before the run's row is in the ledger
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
    """What is known of a record."""

    PROVEN = "proven"  # whole, this run's, and every anchor of the target's ledger is in it
    CONTRADICTED = "contradicted"  # by itself, or by the ledger
    NOT_ASKED = "not asked"  # whole as far as it goes; no target was asked


@dataclass(frozen=True)
class Trust:
    """The answer. anchored: how many records are vouched for; by: by whom; row: the run as the ledger has it.

    begun: whether the run came as far as having a row there.
    """

    answer: RecordTrust
    fault: str = ""
    anchored: int = 0
    by: str = ""
    row: RunRow | None = None
    begun: bool = True

    @property
    def words(self) -> str:
        """For people, in a report."""
        if self.answer is RecordTrust.CONTRADICTED:
            return f"contradicted: {self.fault}"
        if self.answer is RecordTrust.PROVEN:
            return f"proven by the target's ledger, up to record {self.anchored} ({self.by})"
        return f"not asked: {self.fault or 'no target was asked'}"


@dataclass(frozen=True)
class _Known:
    """What the ledger has of a run, from one look, which is older than the reading of the trail that it is held against."""

    row: RunRow | None
    vouchers: tuple[TrailAnchor, ...]
    acted: frozenset[str]


def trusted(found: Found, database: RunDatabase | None = None) -> Trust:
    """Is this run's record what it was: of itself, and as the target's ledger has it where there is a target."""
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
    """What is wrong with a record by itself; "" where nothing is."""
    chain: Verification = found.chain
    if chain.fault:
        return chain.fault
    run = found.status.run
    if found.directory.absolute().name != run:
        return f"the folder {found.directory.name} holds the trail of {run}"
    return ""


def proven(found: Found, database: RunDatabase, *, changes: bool, what: str) -> Trust:
    """The same for an act on the target: raises TrailBroken where the record isn't proven.

    A playbook that changes nothing needs no ledger, and a run that was killed before its row was there has begun nothing:
    for these there is nothing to hold the record against.
    """
    told = trusted(found, database)
    if told.answer is RecordTrust.PROVEN or (told.answer is RecordTrust.NOT_ASKED and not (changes and told.begun)):
        return told
    raise refusal(found, told, what)


def uncontradicted(found: Found, database: RunDatabase | None, *, what: str) -> Trust:
    """The same for people's words, which accept that no target was asked; raises TrailBroken where it is contradicted."""
    told = trusted(found, database)
    if told.answer is RecordTrust.CONTRADICTED:
        raise refusal(found, told, what)
    return told


def refusal(found: Found, told: Trust, what: str) -> TrailBroken:
    """Why a command does nothing with this record."""
    run = found.status.run
    return TrailBroken(
        f"cannot {what} {run}: its record in {found.trail} is {told.answer}",
        why=told.fault,
        state="nothing was changed by this command",
        then=f"runbook trail verify {found.directory.name} --against-target; put the folder of the run back as it was",
    )


def unanchored_steps(found: Found, told: Trust) -> frozenset[str]:
    """The steps whose end stands behind the last anchor: the database is asked about them once more."""
    if told.row is None:
        return frozenset()
    vouched = fold(found.records[: told.anchored])
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
    """The trail as it is after the look into the ledger: a run that goes on has anchored what was written since."""
    again = load_run(found.directory)
    if not again.data.startswith(found.data[: found.data.rfind(b"\n") + 1]):
        return "it was changed while it was being read"
    return again if not again.chain.fault else again.chain.fault


def against(database: RunDatabase, records: list[Record], *, run: str) -> tuple[list[TrailAnchor], str]:
    """What the ledger vouches for of a trail that lies anywhere, and in what else the two differ.

    Where the ledger has no row of the run there is nothing to compare with, and that is a difference.
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
    word = anchors.compare(found.chain, [*anchors.in_trail(found.records), *known.vouchers])
    fault = word.fault or _differs(found.records, known)
    answer = RecordTrust.CONTRADICTED if fault else RecordTrust.PROVEN
    return Trust(answer, fault, _anchored(found.chain, known.vouchers), word.by, known.row)


def _differs(records: list[Record], known: _Known) -> str:
    """What the ledger and the records say differently, beside the heads."""
    unfit = _unfit(records, known.row) if known.row is not None else ""
    return unfit or _unknown_acts(records, known.acted) or anchors.beyond(records, [*known.vouchers])


def _anchored(chain: Verification, vouchers: Iterable[TrailAnchor]) -> int:
    """The last record that the ledger vouches for."""
    places = {head: number for number, head in enumerate(chain.hashes, start=1)}
    return max((places.get(one.head, 0) for one in vouchers), default=0)


def _without_row(records: list[Record]) -> Trust:
    """No row is no proof: either nothing was begun yet, or the row was lost, or the playbook changes nothing."""
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
    """What the run's row and the records up to that row's head say differently."""
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
        "operator": (session_settings.readable(row.operator), session_settings.readable(started.process.operator)),
    }
    unfit = [name for name, (ours, theirs) in pairs.items() if ours != theirs]
    return f"the target's ledger has another {', '.join(unfit)} for this run" if unfit else ""


def _unknown_acts(records: list[Record], acted: Iterable[str]) -> str:
    """Steps that have committed, and that the trail doesn't know as begun: a start is on disk before any act."""
    begun = {one.event.step for one in records if isinstance(one.event, StepStarted)}
    unknown = sorted(set(acted) - begun)
    return (
        f"the ledger has what step {', '.join(unknown)} committed, and the trail has no start of it" if unknown else ""
    )
