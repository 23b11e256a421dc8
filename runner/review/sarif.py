"""Findings as SARIF 2.1.0, the format in which code hosts take the results of checkers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue

from runner.review.findings import Finding, RuleSummary, Severity

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def document(findings: Iterable[Finding], rules: Iterable[RuleSummary], *, version: str) -> dict[str, JsonValue]:
    """One SARIF run; a finding that its file allows is in it as suppressed. rules: those that the findings name."""
    described: list[JsonValue] = [
        {
            "id": one.code,
            "shortDescription": {"text": one.title},
            "defaultConfiguration": {"level": _level(one.severity)},
        }
        for one in rules
    ]
    driver: JsonValue = {"name": "runbook", "version": version, "rules": described}
    results: list[JsonValue] = [_result(one) for one in findings]
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _level(severity: Severity) -> str:
    return str(severity)  # SARIF's own words: error, warning, note


def _result(finding: Finding) -> JsonValue:
    region: JsonValue = {"startLine": finding.mark.line, "startColumn": finding.mark.column}
    place: JsonValue = {"artifactLocation": {"uri": _uri(finding.mark.file)}, "region": region}
    said = finding.why + (f"; {finding.instead}" if finding.instead else "")
    result: dict[str, JsonValue] = {
        "ruleId": finding.code,
        "level": _level(finding.severity),
        "message": {"text": said},
        "locations": [{"physicalLocation": place}],
    }
    if finding.allowed:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.allowed}]
    return result


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
