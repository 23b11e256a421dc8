"""`plan --target`: preconditions and plan against the database, which is only asked; no trail, so no record that could mislead."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import cast

from runner import gates, names, open_runs, plan, preflight, requirements
from runner.errors import CriteriaNotMet, RunRefused
from runner.events import CheckAnswered, Json, NotDue
from runner.foresight import Foresight
from runner.masks import Masks
from runner.model import Check, Playbook
from runner.trail import masked
from runner.workflow import masks_of, stored
from runner.workplace import Connected, Place, connected
from steps.base import Params, Value
from steps.values import readable_all


@dataclass(frozen=True)
class DryRun:
    """What a look at the target found. refused: why a run would not be begun; unmet: preconditions that don't hold now.

    not_asked: checks that run a program of the playbook's own, which a plan doesn't do unasked.
    """

    plan: plan.Plan
    answers: list[CheckAnswered | NotDue]
    refused: list[str]
    unmet: list[str]
    not_asked: list[str]

    @property
    def faults(self) -> list[str]:
        return [*self.refused, *self.unmet]

    def document(self) -> list[Json]:
        return [cast("Json", one.model_dump(mode="json")) for one in self.answers]

    def raise_if_faulty(self, file: str) -> None:
        """Raise what exec of this file would: RunRefused, or CriteriaNotMet where only preconditions don't hold."""
        if self.faults:
            raise (RunRefused if self.refused else CriteriaNotMet)(
                "the playbook could not begin on this target now",
                why="; ".join(self.faults),
                state="nothing was changed by this command",
                then=f"mend what stands in the way, then look again: runbook plan {shlex.quote(file)}",
            )


def dry_run(playbook: Playbook, place: Place, *, run_probes: bool = False) -> DryRun:
    """Look, and say what would happen, with every reason for which exec would not begin."""
    with connected(place, schema=playbook.db_schema, path=playbook.search_path, masks=masks_of(playbook)) as target:
        refused = [error.what for error in preflight.refusals(playbook, target)] or _beside(playbook, target, place)
        with target.database.look() as look:
            required, scope = requirements.ask(playbook, look)
            looked_up = names.notes(look, target.database.path)
        made = plan.plan(
            playbook, foresight=Foresight(target.database.look, target.database.dialect), target=target.name
        )
        made = replace(made, notes=(*made.notes, *looked_up))
        asked = [check for check in playbook.preconditions if run_probes or not _runs(check)]
        answers = _answers(playbook, asked, target, scope)
    refused += [f"{one.id}: {one.text}" for one in gates.unmet(required)] + made.faults
    unmet = [f"{one.id}: {one.text}" for one in gates.unmet(answers)]
    left_out = [check.id for check in playbook.preconditions if check not in asked]
    return _masked(DryRun(made, [*required, *answers], refused, unmet, left_out), target.masks)


def _beside(playbook: Playbook, target: Connected, place: Place) -> list[str]:
    """Whether a run of it is open, beside which exec would begin none."""
    try:
        if playbook.changes:
            open_runs.refuse_open(playbook, target, place.runs_directory(target.target), stored)
    except RunRefused as error:
        return [error.what]
    return []


def _runs(check: Check) -> bool:
    return check.probe is not None and check.probe.runs_programs


def _answers(
    playbook: Playbook, checks: list[Check], target: Connected, scope: dict[str, Value]
) -> list[CheckAnswered | NotDue]:
    values = {f"limits.{name}": cast("Value", value) for name, value in playbook.limits.items()}
    values |= {f"inputs.{name}": cast("Value", value) for name, value in playbook.values.items()}
    return gates.ask(checks, step="", role="precondition", look=target.database.look, scope={**values, **scope})


def _masked(found: DryRun, masks: Masks) -> DryRun:
    """No trail masks what is only shown, so it is done here."""
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


__all__ = ["DryRun", "dry_run"]
