"""`plan --target` and `exec --dry-run`: plan and preconditions against the target, which is only read. Writes no trail."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from runner.common.durations import format_duration
from runner.common.errors import CriteriaNotMet, RunbookError, RunRefused, Waiting
from runner.common.secrets import Masks
from runner.plan import ask, judgements, plan, window
from runner.plan.foresight import Foresight
from runner.playbook.model import Check, Playbook
from runner.playbook.scope import given
from runner.run.execute import RunOptions, beginning, masks_of
from runner.target import search_path
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected, connected
from runner.trail.events import CheckAnswered, Json, NotDue
from runner.trail.trail import masked
from steps.contract import Params, Value
from steps.contract.values import readable_all


@dataclass(frozen=True)
class DryRun:
    """The result of a dry run. refused: why exec would refuse to start; unmet: preconditions that don't hold now.

    end: the error with which exec would end before its first step; None if it would start. not_asked: checks that run a
    program of the playbook, which a plan does only on request.
    """

    plan: plan.Plan
    answers: list[CheckAnswered | NotDue]
    refused: list[str]
    unmet: list[str]
    not_asked: list[str]
    end: RunbookError | None

    @property
    def faults(self) -> list[str]:
        return [*self.refused, *self.unmet]

    def document(self) -> list[Json]:
        return [cast("Json", one.model_dump(mode="json")) for one in self.answers]

    def raise_if_faulty(self, file: str) -> None:
        """Raise the error that exec would, with all reasons."""
        if self.end is not None:
            again = f"mend what stands in the way, then look again: runbook plan {shlex.quote(file)}"
            raise type(self.end)(
                "the playbook could not begin on this target now",
                why="; ".join(self.faults),
                state="nothing was changed by this command",
                then=(self.end.then if len(self.faults) == 1 else "") or again,
            )


def dry_run(playbook: Playbook, orders: RunOptions, *, run_probes: bool = False) -> DryRun:
    """Read the target and predict what exec would do, with every reason for which it would not start."""
    place, masks = orders.place, masks_of(playbook)
    with connected(place, schema=playbook.db_schema, path=playbook.search_path, masks=masks) as target:
        ahead = beginning(playbook, target, orders)
        refusals = list(ahead.refusals())
        foresight = Foresight(target.database.look, target.database.dialect, given(playbook))
        made = plan.plan(playbook, foresight=foresight, target=target.name)
        with target.database.look() as look:
            looked_up = search_path.notes(look, target.database.path)
        made = replace(made, notes=(*made.notes, *looked_up, *_shut(playbook, server_clock(target.database)())))
        asked = [check for check in playbook.preconditions if run_probes or not _runs(check)]
        answers = _answers(playbook, asked, target, ahead.scope)
    faults = made.faults_before(orders.until)
    refused = [f"{one.what}: {one.why}" if one.why else one.what for one in refusals] + faults
    ends = refusals or [RunRefused(one) for one in faults] or _waits(answers, asked)
    left_out = [check.id for check in playbook.preconditions if check not in asked]
    found = DryRun(made, [*ahead.answers, *answers], refused, _unmet(answers, asked), left_out, next(iter(ends), None))
    return _masked(found, target.masks)


def _shut(playbook: Playbook, now: datetime) -> list[str]:
    """A note if exec would wait for the window to open."""
    opening = window.opens(playbook, now)
    return [f"the window opens at {window.shown(opening, playbook.open)}: a run waits for it"] if opening else []


def _waits(answers: list[CheckAnswered | NotDue], checks: list[Check]) -> list[RunbookError]:
    """The error for preconditions that don't hold: Waiting if people may judge all of them, else CriteriaNotMet."""
    unmet = ask.unmet(answers)
    if not unmet:
        return []
    needs = judgements.awaited(unmet, checks)
    return [Waiting("a judgement is waited for") if needs else CriteriaNotMet("preconditions are not met")]


def _unmet(answers: list[CheckAnswered | NotDue], checks: list[Check]) -> list[str]:
    time = {check.id: check.within for check in checks if check.within}
    return [
        f"{one.id}: {one.text}" + (f" (exec asks again for {format_duration(time[one.id])})" if one.id in time else "")
        for one in ask.unmet(answers)
    ]


def _runs(check: Check) -> bool:
    return check.probe is not None and check.probe.runs_programs


def _answers(
    playbook: Playbook, checks: list[Check], target: Connected, scope: Mapping[str, Value]
) -> list[CheckAnswered | NotDue]:
    names = {**given(playbook), **scope}
    return ask.ask(checks, step="", role="precondition", look=target.database.look, scope=names)


def _masked(found: DryRun, masks: Masks) -> DryRun:
    """Mask secrets; for a run the trail does it, but a dry run has none."""
    cards = tuple(
        replace(
            card,
            statements=tuple(
                replace(one, params=cast("Params", masks.mask_data(readable_all(one.params))))
                for one in card.statements
            ),
            state=card.state and card.state._replace(evidence=masks.mask(card.state.evidence)),
            faults=tuple(masks.mask(fault) for fault in card.faults),
            later=tuple(masks.mask(fault) for fault in card.later),
            when_now=masks.mask(card.when_now),
        )
        for card in found.plan.cards
    )
    answers = [cast("CheckAnswered | NotDue", masked(one, masks)) for one in found.answers]
    return replace(
        found,
        plan=replace(found.plan, cards=cards),
        answers=answers,
        refused=[masks.mask(fault) for fault in found.refused],
        unmet=[masks.mask(fault) for fault in found.unmet],
    )
