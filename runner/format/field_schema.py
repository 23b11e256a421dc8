"""What may be written for each field of a step, probe or policy, as JSON Schema: pydantic's, with templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind, models_json_schema
from pydantic_core import core_schema

from steps.contract.written import NAMED, Schema

_A_TEMPLATE: Schema = {"$ref": "#/$defs/template"}
_TEMPLATE: Schema = {"description": "An input: {{ name }}.", "type": "string", "pattern": r"^\{\{.*\}\}$"}
_NULL: Schema = {"type": "null"}


class _Generator(GenerateJsonSchema):
    """pydantic's schema of a model, in the words of the format."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic says that it is no ClassVar

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        found = super().function_before_schema(schema)
        if "json_schema_input_schema" in schema or schema["schema"]["type"] == "model-fields":
            return found  # what the validator, or its model's __get_pydantic_json_schema__, says itself
        # A validator that doesn't say what it reads: editors can complete, and nothing is refused that the loader takes.
        return {"anyOf": [found, {}]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        default = found.get("default")
        if default is None:  # a field that may be left out; nobody writes null for it
            found = _unwrapped({**found, "anyOf": [one for one in found.get("anyOf", []) if one != _NULL]})
        if "time_span" in found.get(NAMED, {}) and isinstance(default, int | float):
            return {**found, "default": span_words(default)}
        if isinstance(default, dict) or default in (None, "", []):  # a nested model tells its own
            found.pop("default", None)
        return found


@dataclass(frozen=True)
class Shapes:
    """A schema for each model, and the definitions that they refer to."""

    of: dict[type[BaseModel], Schema]
    shared: dict[str, Schema]


def definitions(models: Sequence[type[BaseModel]]) -> Shapes:
    """The schemas of these models by their keys in YAML."""
    found, both = models_json_schema(
        [(model, "validation") for model in models], by_alias=True, schema_generator=_Generator
    )
    defs: dict[str, Schema] = both.get("$defs", {})
    once = {
        name: one[NAMED] for name, one in defs.items() if NAMED in one
    }  # models that are written as something named
    names = {f"#/$defs/{model}": f"#/$defs/{name}" for model, word in once.items() for name in word}
    mine = {model: found[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    of = {model: _written(defs[name], names) for model, name in mine.items()}
    shared = {name: _written(one, names) for name, one in defs.items() if name not in {*once, *mine.values()}}
    used = _references([*of.values(), *shared.values()])  # pydantic keeps models that only other forms stand for
    shared = {name: one for name, one in shared.items() if f"#/$defs/{name}" in used}
    return Shapes(of, {**shared, **_named(defs), "template": _TEMPLATE})


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return {found for part in node for found in _references(part)}
    if not isinstance(node, dict):
        return set()
    return {node["$ref"]} if isinstance(node.get("$ref"), str) else _references(list(node.values()))


def _named(node: Any) -> dict[str, Schema]:
    """All named schemas in it."""
    if isinstance(node, list):
        return {name: one for part in node for name, one in _named(part).items()}
    if not isinstance(node, dict):
        return {}
    return {**node.get(NAMED, {}), **_named([one for key, one in node.items() if key != NAMED])}


def _written(node: Any, names: Mapping[str, str]) -> Any:
    """As it can be written in YAML: without titles, and with a template wherever a scalar can stand."""
    if isinstance(node, list):
        return [_written(one, names) for one in node]
    if not isinstance(node, dict):
        return node
    if NAMED in node:
        rest = {key: value for key, value in node.items() if key not in {NAMED, "title"}}
        return {"$ref": f"#/$defs/{next(iter(node[NAMED]))}", **rest}
    if "properties" in node:
        fields = {name: _written(one, names) for name, one in node["properties"].items()}
        node = {**node, "properties": fields}
    found = {
        key: value if key in {"properties", "enum", "default"} else _written(value, names)
        for key, value in node.items()
        if key != "title"
    }
    if "$ref" in found:
        found["$ref"] = names.get(found["$ref"], found["$ref"])
    return _with_template(_unwrapped(found))


def _unwrapped(node: Schema) -> Schema:
    """A choice of one thing is that thing."""
    options = node.get("anyOf")
    if options is None or len(options) > 1:
        return node
    if not options:
        return {key: value for key, value in node.items() if key != "anyOf"}
    return {**options[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def _with_template(node: Schema) -> Schema:
    narrow = node.get("type") in {"integer", "number", "boolean"} or "enum" in node or "pattern" in node
    if not narrow:
        return node
    outer = {key: value for key, value in node.items() if key in {"default", "description"}}
    inner = {key: value for key, value in node.items() if key not in outer}
    return {"anyOf": [inner, _A_TEMPLATE], **outer}


def span_words(length: float) -> str:
    """Seconds as a playbook writes them: '250 ms', '5 min', '6 h'."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if length >= size and length % size == 0:
            return f"{length / size:g} {unit}"
    return f"{length * 1000:g} ms"
