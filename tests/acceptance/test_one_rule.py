"""Each rule that keeps SQL and records safe is written once: a second, weaker one is how an input became SQL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.playbook.fill_data import SPOKEN, SQL
from steps import registry

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("runner", "steps") for path in sorted((ROOT / folder).rglob("*.py"))]
RULES = [  # masks: the forms of a secret; syntax: YAML
    ("quoting a name", r"replace\('\"', '\"\"'\)", {"steps/sql/dialect.py", "runner/common/secrets.py"}),
    (
        "quoting a text",
        r"replace\(\"'\", \"''\"\)",
        {"steps/sql/dialect.py", "runner/common/secrets.py", "runner/playbook/yaml_advice.py"},
    ),
    ("filling names into SQL", r"\|\\s\*ident", {"steps/sql/templates.py"}),
    ("scanning SQL", r"\$\(\?:\{letter\}|\(\?P<(dollar|tag)>", {"steps/sql/scanner.py"}),
    ("a playbook's patterns", r"core_schema\.str_schema", {"steps/expressions/patterns.py"}),
    ("values as JSON", r"\"\$decimal\"", {"steps/contract/values.py"}),
    ("what acts on a session", r"advisory_\(", {"steps/sql/session_statements.py"}),
]


@pytest.mark.parametrize(("rule", "pattern", "places"), RULES, ids=[rule for rule, _, _ in RULES])
def test_a_rule_stands_in_one_place(rule: str, pattern: str, places: set[str]) -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES if re.search(pattern, path.read_text(), re.MULTILINE)}
    assert found <= places, f"{rule}: also in {found - places}"
    assert found, rule


def test_every_field_of_sql_is_known_as_such() -> None:
    """An input alone in such a field is an identifier or refused; elsewhere it takes the input's own type."""
    models = {**registry.step_types(), **registry.probe_types()}
    fields = {
        (field.alias or name)
        for model in models.values()
        for name, field in model.model_fields.items()
        if re.search(r"\b(Text|Query|Item)\b", f"{field.annotation} {field.metadata}")
    }
    assert fields
    assert fields - SQL == {"columns"}, "SQL in a mapping, and names in a list: see is_sql"
    assert fields & SPOKEN == set()
