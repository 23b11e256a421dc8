"""`plan --target`: preconditions and plan against the database, which is only asked; no trail, so no record that could mislead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from runner import gates, plan, requirements
from runner.errors import RunRefused
from runner.events import CheckAnswered, Json, NotDue, jsonable
from runner.masks import Masks
from runner.model import Playbook
from runner.preflight import right_database
from runner.trail import masked
from runner.workflow import masks_of
from runner.workplace import Place, connected
from steps.base import Params, Value


@dataclass(frozen=True)
class DryRun:
    """What a look at the target found; faults are the reasons why a run could not begin now."""

    plan: plan.Plan
    answers: list[CheckAnswered | NotDue]
    faults: list[str]

    def document(self) -> list[Json]:
        return [cast("Json", one.model_dump(mode="json")) for one in self.answers]


def dry_run(playbook: Playbook, place: Place) -> DryRun:
    """Look, and say what would happen. Steps that wait for earlier ones may say that something is missing: those are notes."""
    with connected(place, schema=playbook.db_schema, masks=masks_of(playbook)) as target:
        faults: list[str] = []
        with target.database.look() as look:
            try:
                right_database(playbook, look)
            except RunRefused as error:
                faults.append(error.what)
            required, scope = requirements.ask(playbook, look)
            made = plan.plan(playbook, look=look, target=target.name)
            faults += _first_faults(playbook, made)
        values = {f"limits.{name}": cast("Value", value) for name, value in playbook.limits.items()}
        values |= {f"inputs.{name}": cast("Value", value) for name, value in playbook.values.items()}
        answers = gates.ask(
            playbook.preconditions, step="", role="precondition", look=target.database.look, scope={**values, **scope}
        )
        faults += [f"{one.id}: {one.text}" for one in gates.unmet([*required, *answers])]
    return _masked(DryRun(made, [*required, *answers], faults), target.masks)


def _masked(found: DryRun, masks: Masks) -> DryRun:
    """No trail masks what is only shown, so it is done here."""
    cards = tuple(
        replace(
            card,
            statements=tuple(
                replace(one, params=cast("Params", masks.mask_data(jsonable(one.params)))) for one in card.statements
            ),
            state=card.state and card.state._replace(evidence=masks.mask(card.state.evidence)),
            faults=tuple(masks.mask(fault) for fault in card.faults),
        )
        for card in found.plan.cards
    )
    answers = [cast("CheckAnswered | NotDue", masked(one, masks)) for one in found.answers]
    return DryRun(replace(found.plan, cards=cards), answers, [masks.mask(fault) for fault in found.faults])


def _first_faults(playbook: Playbook, made: plan.Plan) -> list[str]:
    """Only the first step's faults stop a run: what a later one misses may be what an earlier one makes."""
    return [f"{card.id}: {fault}" for card in made.cards[:1] for fault in card.faults] if playbook.entries else []


__all__ = ["DryRun", "dry_run"]
