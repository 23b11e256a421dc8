"""The JSON Schema: the committed file is the generated one, and it takes what the loader takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticUndefined

from runner.common.errors import BadInput
from runner.format.json_schema import schema
from runner.playbook import load
from runner.playbook.yaml_reader import parse
from steps import registry
from steps.contract import field_words

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
HEAD = "runbook: 1\nname: one\ntitle: One\n"
STEP = HEAD + "steps:\n  - {id: a, type: rename_column, column: t.a, to: b}\n"


def test_the_committed_schema_is_the_generated_one() -> None:
    """When this fails: ./dev generate."""
    assert json.loads((PLAYBOOKS / "runbook.schema.json").read_text()) == schema()


def test_every_key_of_the_loader_is_in_the_schema() -> None:
    found = schema()
    assert set(found["properties"]) == load.HEADER
    for kind in registry.step_types():
        assert set(found["$defs"][f"step.{kind}"]["properties"]) >= load.COMMON
    assert set(found["$defs"]) >= {f"check.{kind}" for kind in registry.probe_types()}


def test_every_short_form_is_described() -> None:
    """A validator that runs before pydantic's own, and that the schema does not know, would let anything pass there."""
    found = [
        one for kind in (*registry.step_types().values(), *registry.probe_types().values()) for one in _before(kind)
    ]
    assert len(found) > 20
    assert not {one.func.__qualname__ for one in found if one.json_schema_input_type is PydanticUndefined}


def _before(model: type[BaseModel]) -> Iterator[BeforeValidator]:
    for field in model.model_fields.values():
        yield from (one for one in field.metadata if isinstance(one, BeforeValidator))


def test_only_what_has_keys_refuses_unknown_ones() -> None:
    """`additionalProperties: false` beside a choice of forms would refuse every key of all of them."""
    assert [place for place, node in _nodes(schema(), "") if _shut(node)] == []


def _shut(node: dict) -> bool:
    return node.get("additionalProperties") is False and "properties" not in node


def _nodes(node: object, place: str) -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        yield place, node
        for key, one in node.items():
            yield from _nodes(one, f"{place}/{key}")
    elif isinstance(node, list):
        for index, one in enumerate(node):
            yield from _nodes(one, f"{place}/{index}")


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.rglob("*.yaml")), ids=lambda path: path.name)
def test_a_playbook_that_loads_validates(path: Path, validator) -> None:
    data = parse(path.read_text(), path.name).data
    if isinstance(data, dict) and "steps" in data:
        try:
            load.load_file(path)
        except BadInput:
            pytest.skip("the loader refuses it too")
    assert [error.message[:200] for error in validator.iter_errors(data)] == []


@pytest.mark.parametrize("more", [
    "window: 5 min",
    "requires: [other, {playbook: third, as: t, within: 7 days}]",
    "rollback: {none: it only looks}",
    "rollback: [a]",
    "include: common.yaml",
    "limits: {a: 1, b: text, c: true}",
    "inputs: {n: {type: integer, default: 1, min: 0}}",
    "queries: {q: SELECT 1, r: {postgresql: SELECT 1, sqlite: {file: r.sql}}, s: {file: s.sql}}",
    "lock: {wait: 200 ms, retry_for: 5 min}",
    "preconditions: [{id: p, due: other}, {id: r, check: rows, table: t, at_least: '{{ n }}'}]",
])  # fmt: skip
def test_short_forms_of_the_header(more: str, validator) -> None:
    assert validator.is_valid(parse(f"{STEP}{more}\n", "one.yaml").data)


@pytest.mark.parametrize("step", [
    "{id: a, type: checkpoint, approval: {roles: dba, not: operator, valid_for: 12 h}, evidence: {backup: optional}}",
    "{id: a, type: checkpoint, evidence: [backup, {name: log, optional: true}], not_before: '22:00'}",
    "{id: a, type: sql, statements: UPDATE t SET a = 1 WHERE b = 2, revert: [{file: back.sql}], expect_rows: any}",
    "{id: a, type: sql, text: {postgresql: SELECT 1, sqlite: SELECT 2}, on_failure: {continue: no harm}}",
    "{id: a, type: add_constraint, table: t, name: c, foreign_key: {columns: [a], references: u.id}}",
    "{id: a, type: vacuum, table: t, guards: [{id: g, that: done > 1, for: 5 min, else: hold}]}",
    "{id: a, type: analyze, table: t, success_criteria: [{id: g, that: true}, {id: h, check: size, that: bytes > 1}]}",
    "{id: a, type: sql, statements: [{run: UPDATE t SET a = 1 WHERE b = 2, revert: []}, ANALYZE t]}",
    "{id: a, type: undo, of: '{{ other }}', on_failure: rollback, timeout: {long: 1 h}}",
])  # fmt: skip
def test_short_forms_of_steps(step: str, validator) -> None:
    assert validator.is_valid(parse(f"{HEAD}steps:\n  - {step}\n", "one.yaml").data)


@pytest.mark.parametrize("text", [
    STEP + "wndow: 5 min\n",
    STEP + "window: 5\n",
    STEP + "window: 5 minutes\n",
    STEP.replace("rename_column", "rename_colum"),
    STEP.replace("to: b", "tu: b"),
    STEP.replace("t.a", "a"),
    STEP.replace("to: b", "to: b, on_failure: continue"),
    STEP + "preconditions: [{id: p, that: n > 1}]\n",
    STEP + "preconditions: [{id: p, check: rows, table: t, atleast: 1}]\n",
    STEP + "success_criteria: [{id: p, check: rows, table: t, for: 5 min}]\n",
    STEP + "rollback: {none: ''}\n",
    HEAD,
    STEP.replace("runbook: 1", "runbook: 2"),
])  # fmt: skip
def test_a_faulty_playbook_is_refused(text: str, validator) -> None:
    assert not validator.is_valid(parse(text, "one.yaml").data)


def test_every_field_has_a_description() -> None:
    """For hover and completion in editors. When this fails: Field(description=…) in the type, or a line in field_words."""
    assert sorted(set(field_words.undescribed(schema()))) == []


def test_no_description_is_of_a_field_that_is_gone() -> None:
    fields: set[str] = set()

    def collect(node: object, name: str) -> None:
        if isinstance(node, dict):
            fields.update(f"{name}.{field}" for field in node.get("properties", {}))
            for one in node.values():
                collect(one, name)
        elif isinstance(node, list):
            for one in node:
                collect(one, name)

    for name, one in schema()["$defs"].items():
        collect(one, name)
    collect(schema()["properties"], "playbook")
    assert sorted(set(field_words._HERE) - fields) == []
    assert sorted(set(field_words._EVERYWHERE) - {one.rpartition(".")[2] for one in fields}) == []
