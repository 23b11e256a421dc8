"""What a gate waits for (approvals, evidence, a time), and the programs that steps and probes run."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field

from steps.contract.fields import Model, Seconds


def _several(value: object) -> object:
    return ((value,) if value else ()) if isinstance(value, str) else value


class ApprovalNeed(Model):
    """The approvals required before the run continues."""

    roles: tuple[str, ...] = ()
    need: Annotated[int, Field(ge=1, le=20)] = 1
    by: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()  # who alone may: one name, or several
    not_operator: bool = False
    valid_for: Seconds | None = None


class EvidenceNeed(Model):
    """A file or statement that a person must submit; the trail records its SHA-256."""

    name: str
    optional: bool = False
    valid_for: Seconds | None = None


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
