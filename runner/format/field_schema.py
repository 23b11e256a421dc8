"""JSON Schemas of the fields of steps, probes and policies: pydantic's, with the format's short forms added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind, models_json_schema
from pydantic_core import core_schema

from steps.contract import ApprovalNeed, ColumnRef, Query, Text, seconds

Schema: TypeAlias = dict[str, Any]

WORD = "x-word"  # placeholder for a reference to a definition below, until pydantic has resolved its own references
SPAN: Schema = {"$ref": "#/$defs/time_span"}
TEMPLATE: Schema = {"$ref": "#/$defs/template"}
FILE: Schema = {
    "type": "object", "properties": {"file": {"type": "string"}}, "required": ["file"], "additionalProperties": False,
    "description": "The text of a file beside the playbook.",
}  # fmt: skip
_TEXT_OR_FILE: Schema = {"anyOf": [{"type": "string"}, FILE]}
_WORDS: Schema = {
    "time_span": {
        "description": "A number and its unit: 200 ms, 5 min, 3 h, 7 days.",
        "type": "string",
        "pattern": r"^\s*[0-9.]+ ?(ms|s|min|m|h|d|days?)\s*$|^\{\{.*\}\}$",
    },
    "template": {"description": "An input: {{ name }}.", "type": "string", "pattern": r"^\{\{.*\}\}$"},
    "column": {"description": "table.column", "type": "string", "pattern": r"^.+\..+$"},
    "query": {
        "description": "The name of one of the playbook's queries, or a SELECT in place.",
        "anyOf": [{"type": "string", "minLength": 1}, FILE],
    },
    "SQL": {
        "description": "SQL, or one text for each of postgresql and sqlite; {file: name.sql} stands for a file's text.",
        "anyOf": [
            {"type": "string"},
            FILE,
            {
                "type": "object",
                "properties": {"postgresql": _TEXT_OR_FILE, "sqlite": _TEXT_OR_FILE},
                "minProperties": 1,
                "additionalProperties": False,
            },
        ],
    },
}
_NULL: Schema = {"type": "null"}
_MODELS: dict[type, str] = {Query: "query", Text: "SQL", ColumnRef: "column"}


def _several(inner: Schema) -> Schema:
    """Allow a single item in place of a list."""
    return {"anyOf": [inner, inner["items"]]} if "items" in inner else _anything(inner)


def _anything(inner: Schema) -> Schema:
    """For a validator not described here: keep the schema for completion, but refuse nothing that the loader may accept."""
    return {"anyOf": [inner, {}]}


def _evidence(inner: Schema) -> Schema:
    """Evidence: a list of names, or {name: required | optional | {its fields}}."""
    fields: Schema = {"optional": {"type": "boolean"}, "valid_for": {WORD: "time_span"}}
    each = {"type": "object", "properties": fields, "additionalProperties": False}
    named = {"anyOf": [{"enum": ["required", "optional"]}, each]}
    listed = {"anyOf": [{"type": "string"}, *([inner["items"]] if "items" in inner else [])]}
    return {"anyOf": [{"type": "array", "items": listed}, {"type": "object", "additionalProperties": named}]}


def _or_sql(inner: Schema) -> Schema:
    return {"anyOf": [{WORD: "SQL"}, inner]}


def _moment(inner: Schema) -> Schema:
    return {**inner, "description": "22:00, or a date and time with its offset."}


def _as_it_is(inner: Schema) -> Schema:
    return inner


# Functions of `before` validators → what they accept in addition to the plain form.
BEFORE: dict[str, Callable[[Schema], Schema]] = {
    "_several": _several,
    "_listed": _several,
    "_evidence": _evidence,
    "_approval": _as_it_is,  # its short forms are added to ApprovalNeed itself
    "_moment": _moment,
    "_named": _as_it_is,
    "_column": _as_it_is,
    "_beside": _as_it_is,
    "_alone": _or_sql,
}


class _Generator(GenerateJsonSchema):
    """Generates a model's schema with references to the definitions below."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic says that it is no ClassVar

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        word = _MODELS.get(schema["cls"])
        if word:
            return {WORD: word}
        found = _closed_inside(super().model_schema(schema))
        return _approval(found) if schema["cls"] is ApprovalNeed else found

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        function = schema["function"]["function"]
        if function is seconds:
            return {WORD: "time_span"}
        inner = super().function_before_schema(schema)
        if "json_schema_input_schema" in schema or WORD in inner:
            return inner
        return BEFORE.get(getattr(function, "__name__", ""), _anything)(inner)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        default = found.get("default")
        if default is None:  # an optional field; null is not a value that anybody writes
            found = _unwrapped({**found, "anyOf": [one for one in found.get("anyOf", []) if one != _NULL]})
        if found.get(WORD) == "time_span" and isinstance(default, int | float):
            return {**found, "default": span_words(default)}
        if isinstance(default, dict) or default in (None, "", []):  # a nested model has defaults of its own
            found.pop("default", None)
        return found


def _closed_inside(found: Schema) -> Schema:
    """Move `additionalProperties` from a choice (anyOf) into those of its alternatives that are mappings."""
    if "anyOf" not in found or "additionalProperties" not in found:
        return found
    closed = {"additionalProperties": found["additionalProperties"]}
    options = [{**one, **closed} if "properties" in one else one for one in found["anyOf"]]
    return {**{key: value for key, value in found.items() if key not in closed}, "anyOf": options}


def _approval(found: Schema) -> Schema:
    """Approval: `not: operator`, and a single role without brackets."""
    fields = {name: one for name, one in found["properties"].items() if name != "not_operator"}
    fields["roles"] = _several(fields["roles"])
    fields["not"] = {"const": "operator", "description": "Keeps the operator from approving."}
    return {**found, "properties": fields}


@dataclass(frozen=True)
class Shapes:
    """The schemas of models, and the shared definitions that they refer to."""

    of: dict[type[BaseModel], Schema]
    shared: dict[str, Schema]


def definitions(models: Sequence[type[BaseModel]]) -> Shapes:
    """Generate the schemas of these models, with the keys as in YAML."""
    found, both = models_json_schema(
        [(model, "validation") for model in models], by_alias=True, schema_generator=_Generator
    )
    defs: dict[str, Schema] = both.get("$defs", {})
    names = {f"#/$defs/{name}": f"#/$defs/{one[WORD]}" for name, one in defs.items() if WORD in one}
    mine = {model: found[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    of = {model: _written(defs[name], names) for model, name in mine.items()}
    shared = {name: _written(one, names) for name, one in defs.items() if WORD not in one and name not in mine.values()}
    return Shapes(of, {**shared, **_WORDS})


def _written(node: Any, names: Mapping[str, str]) -> Any:
    """Adapt a schema to YAML: without titles, and with a template allowed for any scalar."""
    if isinstance(node, list):
        return [_written(one, names) for one in node]
    if not isinstance(node, dict):
        return node
    if WORD in node:
        rest = {key: value for key, value in node.items() if key not in {WORD, "title"}}
        return {"$ref": f"#/$defs/{node[WORD]}", **rest}
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
    """Replace a choice (anyOf) with a single alternative by that."""
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
    return {"anyOf": [inner, TEMPLATE], **outer}


def span_words(length: float) -> str:
    """Format seconds as in a playbook: '250 ms', '5 min', '6 h'."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if length >= size and length % size == 0:
            return f"{length / size:g} {unit}"
    return f"{length * 1000:g} ms"
