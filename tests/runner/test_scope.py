"""What an expression may name: nothing that is found can stand in for what was given."""

from __future__ import annotations

import pytest
from command import proven
from databases import Database
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import InProcessCli, written

from runner.playbook.load import load
from runner.playbook.scope import Scope, misnamed
from runner.playbook.yaml_reader import Faulty
from steps.contract import RESERVED

HEAD = "runbook: 1\nname: p\ntitle: T\n"
STEP = "- {id: s, type: analyze, table: t}"
NAMES = st.text("lim.its x", max_size=9)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, st.integers(), max_size=3), NAMES, st.dictionaries(NAMES, st.integers(), max_size=3))
def test_what_was_given_is_never_overwritten(given_: dict, name: str, figures: dict) -> None:
    scope = Scope(given_)
    scope.learn(name, figures)
    assert {key: scope[key] for key in given_} == given_
    assert {key: scope.names(figures)[key] for key in given_} == given_
    assert set(scope.tuned(dict.fromkeys([*given_, "limits.new"], 0))) == set(scope), "nothing is made by tuning"


def faults(text: str) -> str:
    with pytest.raises(Faulty) as caught:
        load("p.yaml", lambda _name: proven(text))
    return str(caught.value)


CHECK = "preconditions: [{{id: {}, check: query, query: SELECT 0 AS x, that: x == 0}}]\n"


@pytest.mark.parametrize("word", [*sorted(RESERVED), "before"])
def test_word_that_is_taken(word: str) -> None:
    """For a check, a step, a guard, an input, a requirement; also in an included file, and where a run keeps its copy it loads."""
    head = f"{HEAD}requires: [{{playbook: q, as: before}}]\n"
    reason = "the word is reserved" if word in RESERVED else "`as: before`"
    guard = f"- {{id: s, type: analyze, table: t, guards: [{{id: {word}, that: elapsed_s < 9}}]}}"
    for text in (
        f"{head}{CHECK.format(word)}steps:\n  {STEP}\n",
        f"{head}steps:\n  {STEP.replace('id: s', f'id: {word}')}\n",
        f"{head}steps:\n  {guard}\n",
    ):
        assert f"{word!r}" in faults(text) and reason in faults(text)
        assert load("p.yaml", lambda _name, text=text: proven(text), kept={}).entries
    if word in RESERVED:
        assert "reserved" in faults(f"{HEAD}inputs: {{{word}: {{default: 1}}}}\nsteps:\n  {STEP}\n")
        assert "reserved" in faults(f"{HEAD}requires: [{{playbook: q, as: {word}}}]\nsteps:\n  {STEP}\n")


@pytest.mark.parametrize("alias", ['"limits.x"', "`a.b`", "[limits.x]", "limits", '"inputs"', "Grown"])
def test_column_that_would_be_anothers_figure(alias: str) -> None:
    text = f"{HEAD}queries: {{q: 'SELECT 0 AS {alias}'}}\n" + CHECK.format("c").replace("SELECT 0 AS x", "q")
    assert "cannot use the column name" in faults(f"{text}steps:\n  {STEP}\n")


def test_names_of_a_result() -> None:
    assert misnamed({"pct": 1, "rows": 2}) == ""
    assert "another's figure" in misnamed({"limits.pct": 1}) and "reserved" in misnamed({"limits": 1})


@pytest.mark.parametrize("column", ["limits.pct", "rows", "inputs"])
def test_column_that_only_the_database_knows(empty_database: Database, tmp_path, column: str) -> None:
    """A view may call its columns as it likes: such a check can't be evaluated, and opens nothing."""
    empty_database.script(f'CREATE VIEW v AS SELECT 99 AS "{column}", 3 AS pct')
    desk = InProcessCli(tmp_path, empty_database.url)
    criterion = (
        "success_criteria: [{id: c, check: query, query: SELECT * FROM v, that: 'pct >= limits.pct or rows > 5'}]\n"
    )
    written(desk, "- {id: go, type: checkpoint}", f"limits: {{pct: 95}}\n{criterion}")
    found = desk.runbook("exec", "change.yaml")
    assert found.code == 3 and f"cannot use the column name {column!r}" in found.text, found.text
