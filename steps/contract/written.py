"""How values are written in YAML, as JSON Schema, where a validator reads another form than its field's own type.

A validator names its form (`BeforeValidator(read, json_schema_input_type=SpanText)`), so that what it reads and what
editors are told stand side by side.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import WithJsonSchema

Schema: TypeAlias = dict[str, Any]

NAMED = "x-named"
"""{NAMED: {name: schema}}: the schema stands under this name in `$defs`, and is referred to from where it is used."""

FILE: Schema = {
    "type": "object",
    "properties": {"file": {"type": "string"}},
    "required": ["file"],
    "additionalProperties": False,
    "description": "The text of a file beside the playbook.",
}
_TEXT_OR_FILE: Schema = {"anyOf": [{"type": "string"}, FILE]}
SQL: Schema = {
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
}


def named(name: str, schema: Schema) -> Schema:
    """A schema that is defined once, under its name."""
    return {NAMED: {name: schema}}


_SPAN: Schema = {
    "description": "A number and its unit: 200 ms, 5 min, 3 h, 7 days.",
    "type": "string",
    "pattern": r"^\s*[0-9.]+ ?(ms|s|min|m|h|d|days?)\s*$|^\{\{.*\}\}$",
}
_COLUMN: Schema = {"description": "table.column", "type": "string", "pattern": r"^.+\..+$"}
_QUERY: Schema = {
    "description": "The name of one of the playbook's queries, or a SELECT in place.",
    "anyOf": [{"type": "string", "minLength": 1}, FILE],
}

SpanText = Annotated[str, WithJsonSchema(named("time_span", _SPAN))]
ColumnText = Annotated[str, WithJsonSchema(named("column", _COLUMN))]
QueryText = Annotated[str, WithJsonSchema(named("query", _QUERY))]
