"""What a gate waits for (approvals, evidence, a time), and the programs that steps and probes run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from steps.contract.direction import HIGHER, LOWER, MORE_OR_NONE, OFF, ON
from steps.contract.fields import Model, Seconds, one_or_more


def _several(value: object) -> object:
    return () if value == "" else one_or_more(value)


Written = tuple[str, ...] | str  # names in a list, or one without brackets


class ApprovalNeed(Model):
    """The approvals required before the run continues."""

    roles: Annotated[tuple[str, ...], BeforeValidator(one_or_more, json_schema_input_type=Written), MORE_OR_NONE] = ()
    need: Annotated[int, Field(ge=1, le=20), LOWER] = 1
    # who alone may: one name, or several
    by: Annotated[tuple[str, ...], BeforeValidator(_several, json_schema_input_type=Written), MORE_OR_NONE] = ()
    not_operator: Annotated[bool, OFF] = False
    valid_for: Annotated[Seconds | None, HIGHER] = None

    @model_validator(mode="before")
    @classmethod
    def _read_not(cls, data: object) -> object:
        if not isinstance(data, Mapping) or "not" not in data:
            return data
        if data["not"] != "operator":
            raise ValueError(
                "cannot read `not`: only `not: operator` is known, which keeps the operator from approving"
            )
        return {**{key: value for key, value in data.items() if key != "not"}, "not_operator": True}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """`not: operator` is how not_operator is written."""
        found = handler(schema)
        fields = {name: one for name, one in found["properties"].items() if name != "not_operator"}
        fields["not"] = {"const": "operator", "description": "Keeps the operator from approving."}
        return {**found, "properties": fields}


class EvidenceNeed(Model):
    """A file or statement that a person must submit; the trail records its SHA-256."""

    name: str
    optional: Annotated[bool, ON] = False
    valid_for: Annotated[Seconds | None, HIGHER] = None


class GateNeeds(Model):
    """Everything that a gate waits for, besides its criteria."""

    approval: ApprovalNeed | None = None
    evidence: tuple[EvidenceNeed, ...] = ()
    not_before: str = ""  # local wall-clock "22:00" or an ISO date-time with offset
    not_after: str = ""
    zone: str = ""  # of wall-clock times; "": this machine's
    message: str = ""


class Uses(NamedTuple):
    """A program with its arguments and working directory, or a suite of tests."""

    words: tuple[str, ...]
    cwd: str = ""
    suite: bool = False


@runtime_checkable
class RunsPrograms(Protocol):
    """A step or probe that runs programs or suites; their files count as part of the playbook."""

    def programs(self) -> tuple[Uses, ...]: ...
