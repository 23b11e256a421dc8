"""Every rule of lint: its documentation, its examples, and that each finds what it is for and nothing else."""

from __future__ import annotations

import pytest
from linting import codes, linted

from runner.review.findings import Severity
from runner.review.lint import load_rules

RULES = load_rules()


def _environment(text: str) -> str:
    return "production" if "# environment: production" in text else ""


@pytest.mark.parametrize("code", RULES)
def test_rule_finds_its_bad_example(code: str) -> None:
    text = RULES[code].found_in
    assert code in codes(text, environment=_environment(text))


@pytest.mark.parametrize("code", RULES)
def test_rule_accepts_its_safe_form(code: str) -> None:
    text = RULES[code].instead
    assert code not in codes(text, environment=_environment(text))


@pytest.mark.parametrize("code", RULES)
def test_rule_is_documented(code: str) -> None:
    rule = RULES[code]
    title, _, rest = rule.documentation.partition("\n\n")
    assert "\n" not in title
    assert title.endswith(".")
    assert not rest.startswith("Found in")


@pytest.mark.parametrize("code", RULES)
def test_finding_has_place_and_severity(code: str) -> None:
    text = RULES[code].found_in
    for one in linted(text, environment=_environment(text)).findings:
        if one.code == code:
            assert one.severity is RULES[code].severity
            assert one.mark.file == "change.yaml"
            assert one.mark.line > 1
            assert (
                one.why[0].islower()
                or not one.why[0].isalpha()
                or one.why.split("_")[0].split(" ")[0].isupper()
                or one.why[0].isupper()
            )


def test_an_error_is_what_stops_a_run() -> None:
    """Nobody can allow what would fail anyway, but for what only a parser says, and a secret that is none."""
    errors = {code: rule for code, rule in RULES.items() if rule.severity is Severity.ERROR}
    assert {code for code, rule in errors.items() if rule.allowable and not rule.parsed} == {"RB005"}
