"""What a review of playbooks finds: findings with code, severity and place, and the result that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import JsonValue

from runner.playbook.yaml_reader import Mark

LINT = "lint"  # the extra that brings the parser of PostgreSQL's grammar and squawk
INSTALL = "pip install 'runbook-engine[lint]'"


class Severity(StrEnum):
    """How much a finding matters. Errors make `lint` and `validate` exit with 4."""

    ERROR = "error"  # a run would fail or be refused
    WARNING = "warning"  # it would run, and may do harm or prove nothing
    NOTE = "note"  # worth knowing for a reviewer

    @property
    def order(self) -> int:
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One thing that the text shows: where, why it matters, and the safe form with the playbook's own names.

    step: the id of the step or check that it is about, "" for the whole playbook.
    allowed: the reason why the file allows it (`# runbook: allow CODE: reason`), "" where it doesn't.
    """

    code: str
    severity: Severity
    mark: Mark
    why: str
    instead: str = ""
    step: str = ""
    allowed: str = ""

    def __str__(self) -> str:
        return f"{self.mark}: {self.severity} {self.code}: {self.why}" + (f"; {self.instead}" if self.instead else "")

    def document(self) -> dict[str, JsonValue]:
        """As JSON; empty fields are left out."""
        whole: dict[str, JsonValue] = {
            "code": self.code,
            "severity": str(self.severity),
            "file": self.mark.file,
            "line": self.mark.line,
            "column": self.mark.column,
            "step": self.step,
            "why": self.why,
            "instead": self.instead,
            "allowed": self.allowed,
        }
        return {key: value for key, value in whole.items() if value != ""}


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Without duplicates (files that several playbooks include), by file, line and severity."""
    unique = dict.fromkeys(findings)
    return tuple(sorted(unique, key=lambda one: (one.mark.file, one.mark.line, one.severity.order, one.mark.column)))


@dataclass(frozen=True)
class RuleSummary:
    """What a report says of a rule: its stable code, how severe, in one line, and what it needs to be applied."""

    code: str
    severity: Severity
    title: str
    needs: str = ""

    @property
    def page(self) -> str:
        """Its page in the documentation."""
        return f"docs/lint/{self.code}.md"

    def document(self) -> dict[str, JsonValue]:
        return {"code": self.code, "severity": str(self.severity), "title": self.title, "page": self.page}


@dataclass(frozen=True)
class Reviewed:
    """One playbook that was reviewed, by its digest."""

    file: str
    name: str
    digest: str


@dataclass(frozen=True)
class LintResult:
    """The outcome of a lint: what was looked at, with which rules and versions, and what was found.

    skipped: rules that were not applied, because `versions` lacks what they need.
    """

    playbooks: tuple[Reviewed, ...]
    findings: tuple[Finding, ...]
    rules: tuple[RuleSummary, ...]
    skipped: tuple[RuleSummary, ...]
    versions: Mapping[str, str]

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings that no comment in the file allows."""
        return tuple(one for one in self.findings if not one.allowed)

    def count(self, severity: Severity) -> int:
        return sum(one.severity is severity for one in self.open)

    def document(self) -> dict[str, JsonValue]:
        """As JSON: what certificates and approvals can carry."""
        return {
            "format": 1,
            "versions": dict(self.versions),
            "playbooks": [{"file": one.file, "name": one.name, "digest": one.digest} for one in self.playbooks],
            "rules": [one.document() for one in self.rules],
            "skipped": [one.code for one in self.skipped],
            "findings": [one.document() for one in self.findings],
        }
