"""Every rule of lint: its documentation, its examples, and that each finds what it is for and nothing else."""

from __future__ import annotations

import re

import pytest
from linting import codes, linted, written

from runner.review import squawk
from runner.review.findings import Severity
from runner.review.lint import load_rules
from runner.review.refusal import refuse_errors
from steps import registry

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


_FORM = re.compile(r"\{(type|check): (\w+)(?:, ((?:[^{}]|\{[^{}]*\})*))?\}")
_NAMED = re.compile(r"`(type|check): (\w+)`")


@pytest.mark.parametrize("code", RULES)
def test_safe_form_is_accepted_by_validate(code: str) -> None:
    """The example of its page, and what a finding proposes with the names of the playbook; `…` is left to the author."""
    rule = RULES[code]
    refuse_errors(written(rule.instead))
    for one in linted(rule.found_in, environment=_environment(rule.found_in)).findings:
        for what, kind, fields in _FORM.findall(one.instead):
            known = (registry.step_types() if what == "type" else registry.probe_types())[kind].model_fields
            assert {name for name in re.findall(r"(?:^|, )(\w+):", fields) if name != "…"} <= set(known), one.instead
            if "…" not in fields:
                refuse_errors(written(f"steps:\n  - {{id: safe, {what}: {kind}, {fields}}}\n"))


def test_types_in_advice_exist() -> None:
    advice = [one.instead for one in squawk.RULES.values()]
    advice += [one.instead for rule in RULES.values() for one in linted(rule.found_in).findings]
    for what, kind in {found for text in advice for found in _NAMED.findall(text)}:
        assert kind in (registry.step_types() if what == "type" else registry.probe_types()), kind


DROPS = {
    "DROP TABLE a.x": "{type: drop_table, table: a.x}",
    "DROP TABLE IF EXISTS a.x, a.y": "{type: drop_table, table: a.y, absent: fine}",
    "ALTER TABLE a.x DROP COLUMN c": "{type: drop_column, column: a.x.c}",
    "TRUNCATE a.x": "{type: keep, what: SELECT * FROM a.x, into: x_kept, because: …}",
}


@pytest.mark.parametrize("sql", DROPS)
def test_what_is_dropped_can_be_kept(sql: str) -> None:
    (found,) = [
        one
        for one in linted(f"steps: [{{id: drop, type: sql, whole_table: true, text: '{sql}'}}]\n").open
        if one.code == "RB206"
    ]
    assert DROPS[sql] in found.instead
    for _what, kind, fields in _FORM.findall(found.instead):
        refuse_errors(written(f"steps:\n  - {{id: safe, type: {kind}, {fields.replace('…', 'it is asked for')}}}\n"))


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
