"""squawk's rules: each that is mapped exists, appears under our code at its place, and where ours say it better, ours stay."""

from __future__ import annotations

import pytest
from linting import codes, finding, linted

from runner.review import squawk

EXAMPLES = {
    "adding-required-field": "ALTER TABLE public.t ADD COLUMN a integer NOT NULL",
    "ban-alter-domain-with-add-constraint": "ALTER DOMAIN public.d ADD CONSTRAINT positive CHECK (VALUE > 0)",
    "ban-create-domain-with-constraint": "CREATE DOMAIN public.d AS integer CHECK (VALUE > 0)",
    "ban-char-field": "CREATE TABLE public.t (a char(3))",
    "identifier-too-long": f"CREATE TABLE public.{'t' * 70} (a integer)",
    "ban-drop-database": "DROP DATABASE old",
    "ban-drop-not-null": "ALTER TABLE public.t ALTER COLUMN a DROP NOT NULL",
    "renaming-table": "ALTER TABLE public.t RENAME TO u",
    "ban-set-schema": "ALTER TABLE public.t SET SCHEMA old",
    "ban-drop-function": "DROP FUNCTION public.f",
    "ban-drop-extension": "DROP EXTENSION pgcrypto",
    "ban-drop-view": "DROP VIEW public.v",
    "ban-disable-trigger": "ALTER TABLE public.t DISABLE TRIGGER ALL",
    "ban-alter-row-level-security": "ALTER TABLE public.t DISABLE ROW LEVEL SECURITY",
    "ban-revoke": "REVOKE ALL ON public.t FROM reader",
}


def test_every_mapped_rule_has_an_example() -> None:
    assert set(EXAMPLES) == set(squawk.RULES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_rule_appears_under_our_code(name: str) -> None:
    text = f"steps:\n  - id: change\n    type: sql\n    text: {EXAMPLES[name]}\n"
    found = finding(text, squawk.RULES[name].code)
    assert (found.mark.line, found.mark.column, found.step) == (7, 11, "change")
    assert found.instead


def test_places_of_several_statements_in_several_texts() -> None:
    text = """\
steps:
  - {id: a, type: sql, text: {file: a.sql}}
  - id: b
    type: sql
    text: |
      CREATE TABLE public.t (
        a integer
      );
      ALTER TABLE public.t ALTER COLUMN a DROP NOT NULL;
"""
    files = {"a.sql": "-- nothing\nALTER TABLE public.x RENAME TO y;\n"}
    marks = {one.code: str(one.mark) for one in linted(text, files).findings if one.code.startswith("RB5")}
    assert marks == {"RB508": "a.sql:2:1", "RB507": "change.yaml:12:7"}


def test_style_rules_and_timeouts_are_off() -> None:
    text = "steps: [{id: make, type: sql, text: 'CREATE TABLE public.t (id serial, name varchar(20), at timestamp)'}]\n"
    assert [one for one in codes(text) if one.startswith("RB5")] == []


def test_ours_stay_where_both_speak() -> None:
    found = codes("steps: [{id: i, type: sql, text: CREATE INDEX i ON public.t (a)}]\n")
    assert "RB201" in found
    assert not [one for one in found if one.startswith("RB5")]
