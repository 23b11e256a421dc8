"""A gate: the one step that changes nothing, and waits for criteria, approvals, evidence or a time of day."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from steps.contract import (
    ApprovalNeed,
    Context,
    Effect,
    EvidenceNeed,
    GateNeeds,
    Look,
    Model,
    Seconds,
    State,
    Step,
    StepResult,
    refuse_unknown_zone,
)
from steps.contract.direction import FEWER, NO_EFFECT, UNSET


class EvidenceTerms(Model):
    """The properties of a piece of evidence, written under its name."""

    optional: bool = False
    valid_for: Seconds | None = None


NamedEvidence = Mapping[str, Literal["required", "optional"] | EvidenceTerms]
WrittenEvidence = tuple[str | EvidenceNeed, ...] | NamedEvidence


def _evidence(value: object) -> object:
    """Accepts a list of names, {name: required | optional}, or {name: {optional: …, valid_for: …}}."""
    if isinstance(value, Mapping):
        return tuple(_one_evidence(str(name), kind) for name, kind in value.items())
    if isinstance(value, list | tuple):
        return tuple({"name": one} if isinstance(one, str) else one for one in value)
    return value


def _one_evidence(name: str, kind: object) -> object:
    if isinstance(kind, Mapping):
        return {"name": name, **kind}
    if kind not in ("required", "optional"):
        raise ValueError(f"cannot read the evidence {name!r}: write required or optional, not {kind!r}")
    return {"name": name, "optional": kind == "optional"}


def _moment(value: object) -> object:
    """Accepts a wall-clock time such as "22:00", or a date and time with its offset."""
    if value == "" or (isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value)):
        return value
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"cannot read {value!r} as a time: write '22:00', or a date and time with its offset")
    return str(value)


MomentText = Annotated[str, Field(description="22:00, or a date and time with its offset.")]
Moment = Annotated[str, BeforeValidator(_moment, json_schema_input_type=MomentText)]


class Checkpoint(Step):
    """Waits for people or a time; its criteria are preconditions and success criteria, as on every step.

    `by` names one person; `need` is the number of approvals; evidence is a file or statement whose digest the trail records.
    """

    kind: ClassVar[str] = "checkpoint"
    summary: ClassVar[str] = "waits for criteria, approval, evidence or a time of day; changes nothing"
    changes: ClassVar[bool] = False

    approval: Annotated[ApprovalNeed | None, UNSET] = None
    evidence: Annotated[
        tuple[EvidenceNeed, ...], BeforeValidator(_evidence, json_schema_input_type=WrittenEvidence), FEWER
    ] = ()
    not_before: Annotated[Moment, UNSET] = ""
    not_after: Annotated[Moment, UNSET] = ""
    zone: str = ""
    message: Annotated[str, NO_EFFECT] = ""

    @model_validator(mode="after")
    def _known_zone(self) -> Checkpoint:
        if self.zone:
            refuse_unknown_zone(self.zone)
        return self

    def needs(self) -> GateNeeds:
        return GateNeeds(
            approval=self.approval,
            evidence=self.evidence,
            not_before=self.not_before,
            not_after=self.not_after,
            zone=self.zone,
            message=self.message,
        )

    def describe(self) -> str:
        waits = [*_approvals(self.approval), *map(_evidence_text, self.evidence)]
        waits += [f"not before {self.not_before} {self.zone}".rstrip()] if self.not_before else []
        waits += [f"not after {self.not_after} {self.zone}".rstrip()] if self.not_after else []
        return f"wait for {'; '.join(waits)}" if waits else "wait for its criteria"

    def verify(self, look: Look) -> Effect:
        del look
        return Effect(State.DONE, "a gate changes nothing")

    def apply(self, ctx: Context) -> StepResult:
        del ctx
        return StepResult()


def _approvals(need: ApprovalNeed | None) -> list[str]:
    if need is None:
        return []
    who = " or ".join(need.by or need.roles) or "anybody"
    not_operator = ", not the operator" if need.not_operator else ""
    valid = f", each valid for {_time(need.valid_for)}" if need.valid_for is not None else ""
    return [f"{need.need} approval{'s' if need.need > 1 else ''} by {who}{not_operator}{valid}"]


def _time(seconds: float) -> str:
    unit, name = next((one for one in ((3600, "h"), (60, "min")) if seconds >= one[0]), (1, "s"))
    return f"{seconds / unit:g} {name}"


def _evidence_text(need: EvidenceNeed) -> str:
    valid = f", valid for {_time(need.valid_for)}" if need.valid_for is not None else ""
    return f"evidence {need.name}{' (optional)' if need.optional else ''}{valid}"
