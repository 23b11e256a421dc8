"""Where a run may start with --from: after gates that were passed on this target for the same approval digest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from runner.common import person_names
from runner.common.errors import RunRefused
from runner.playbook.model import Entry, Playbook
from runner.trail.events import StepOutcome
from steps.contract import Gate, GateNeeds, Look, Value
from steps.ledger import runs, step_commits, tables


@dataclass(frozen=True)
class Passing:
    """A gate passed in an earlier run, according to the ledger."""

    run: str
    age_s: float
    digest: str
    by: tuple[str, ...]
    until: str = ""  # when the first of its approvals and evidence expires


def passed_earlier(
    playbook: Playbook, look: Look, *, begin_at: str, approval_digest: str, operator: str, now: datetime
) -> dict[str, str]:
    """Gate before the start → the run in which it was passed. Raises RunRefused if one was not, or not validly."""
    if not begin_at:
        return {}
    found: dict[str, str] = {}
    before = playbook.entries[: playbook.ids.index(begin_at)]
    known = _passings(playbook, look)
    for gate in (entry for entry in before if isinstance(entry.step, Gate)):
        reasons = ["it was never passed on this target"]
        for one in known.get(gate.id, []):
            reasons = _against(gate, one, approval_digest=approval_digest, operator=operator, now=now)
            if not reasons:
                found[gate.id] = one.run
                break
        if reasons and gate.when is None:  # a gate with a condition may turn out not to be due
            raise RunRefused(
                f"cannot begin at {begin_at}: gate {gate.id} ({gate.mark}) before it is not passed",
                why="; ".join(reasons),
                state="nothing was changed by this command",
                then="leave --from away: what is done already is found as already applied",
            )
    return found


def record(digest: str, by: list[str], until: str) -> dict[str, Value]:
    """The results that the ledger stores for a passed gate."""
    return {"approval_digest": digest, "approved_by": cast("list[Value]", by), "until": until}


def _passings(playbook: Playbook, look: Look) -> dict[str, list[Passing]]:
    if not tables.exists(look):
        return {}
    found: dict[str, list[Passing]] = {}
    for run in runs.latest_runs(look, playbook=playbook.name):
        if run.rolled_back or run.going_back or run.removed_by:
            continue
        for row in step_commits.step_rows(look, run.run):
            if row.state == StepOutcome.PASSED:
                kept = json.loads(row.results)
                by = tuple(map(str, kept.get("approved_by", ())))
                passing = Passing(
                    run.run, row.age_s, str(kept.get("approval_digest", "")), by, str(kept.get("until", ""))
                )
                found.setdefault(row.step, []).append(passing)
    return found


def _against(gate: Entry, passing: Passing, *, approval_digest: str, operator: str, now: datetime) -> list[str]:
    """Why an earlier passing is not valid now; [] if it is."""
    needs = gate.step.needs() if isinstance(gate.step, Gate) else GateNeeds()
    wrong = []
    if passing.digest != approval_digest:
        wrong.append(f"run {passing.run} passed it with another playbook or other inputs")
    spans = [
        one.valid_for for one in (needs.approval, *needs.evidence) if one is not None and one.valid_for is not None
    ]
    over = bool(passing.until) and datetime.fromisoformat(passing.until) < now
    if over or (spans and passing.age_s > min(spans)):
        wrong.append(f"what run {passing.run} passed it with has run out")
    barred = needs.approval is not None and needs.approval.not_operator
    if barred and any(person_names.same(operator, one) for one in passing.by):
        wrong.append(f"{operator} approved it in run {passing.run}, and operates now")
    return wrong
