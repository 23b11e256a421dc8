"""Examples of step types and probes: the shortest in playbooks/, else one generated from the required fields."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_origin

from pydantic import BaseModel, ValidationError

from runner.common.errors import BadInput
from runner.common.plain_data import Data
from runner.format.field_schema import Shapes, definitions
from runner.playbook.yaml_reader import Path as Place
from runner.playbook.yaml_reader import YamlDocument, parse
from steps.contract import Probe, Step
from steps.contract.written import Schema

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
MOST_OPTIONAL = 2  # maximum number of optional fields added until the model accepts the example
_WORDS = {
    "time_span": "5 min",
    "column": "table_name.column_name",
    "query": "SELECT count(*) AS n FROM {field}_rows",
    "SQL": "SELECT 1",
    "template": "",
}
_NO_QUERIES: Mapping[str, Mapping[str, str]] = {"queries": {}}
_SHAPE: Data = {"tables": {"some_table": {"columns": {"id": "integer"}}}}
_VALUES: dict[str, Data] = {"integer": 1, "number": 1, "boolean": True, "string": "some_{field}"}


def of(kind: str, model: type[Step | Probe]) -> str:
    """An example as YAML, as an item of a list."""
    key = "type" if issubclass(model, Step) else "check"
    return _written(kind, key, PLAYBOOKS / "examples") or _written(kind, key, PLAYBOOKS) or made(kind, key, model)


# ─── from the examples ──────────────────────────────────────────────────────────────────────────────────────────────
def _written(kind: str, key: str, directory: Path) -> str:
    found = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            document = parse(text, path.name)
        except (OSError, BadInput):
            continue
        found += [_lines(document, place) for place in _places(document.data, kind, key)]
    return min((one for one in found if one), key=len, default="")


def _places(data: Data, kind: str, key: str, place: Place = ()) -> Iterator[Place]:
    """The paths of list items with `type: kind` or `check: kind`; not of monitors, whose keys are not those of every check."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name != "monitors":
                yield from _places(value, kind, key, (*place, name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            if isinstance(value, dict) and value.get(key) == kind and "id" in value:
                yield (*place, index)
            yield from _places(value, kind, key, (*place, index))


def _lines(document: YamlDocument, place: Place) -> str:
    """The lines of an item, from its dash to the end of the indentation; "" if it doesn't start its line."""
    lines = document.text.splitlines()
    mark = document.mark(place)
    first = lines[mark.line - 1]
    dash = len(first) - len(first.lstrip())
    if first[dash : mark.column - 1].strip() != "-":
        return ""
    found = [first]
    for line in lines[mark.line :]:
        if line.strip() and len(line) - len(line.lstrip()) <= dash:
            break
        found.append(line)
    return textwrap.dedent("\n".join(found)).rstrip()


# ─── generated ──────────────────────────────────────────────────────────────────────────────────────────────────────
def made(kind: str, key: str, model: type[Step | Probe]) -> str:
    """A minimal example that the model accepts, with placeholder names."""
    shapes = definitions([model])
    fields = _fields(model, shapes)
    more: dict[str, Data] = {}
    probe = model.model_validate(fields, context=_NO_QUERIES) if issubclass(model, Probe) else None
    if probe is not None and not (probe.decides() or probe.default_that):
        more = {"that": _condition(type(probe))}
    return _yaml({"id": f"my_{'step' if key == 'type' else 'check'}", key: kind, **fields, **more})


def _fields(model: type[Step | Probe], shapes: Shapes) -> dict[str, Data]:
    """The required fields, and as few optional ones as the model accepts: some need one of several."""
    shape = shapes.of[model]
    nodes: dict[str, Schema] = shape.get("properties", {})
    required = {name: _value(nodes[name], shapes, field=name) for name in shape.get("required", [])}
    optional = [name for name in nodes if name not in required]
    for count in range(MOST_OPTIONAL + 1):
        for names in itertools.combinations(optional, count):
            tried = {**required, **{name: _value(nodes[name], shapes, field=name) for name in names}}
            if _accepted(model, tried):
                return tried
    return required


def _accepted(model: type[BaseModel], fields: dict[str, Data]) -> bool:
    try:
        model.model_validate(fields, context=_NO_QUERIES)
    except ValidationError:
        return False
    return True


def _value(node: Schema, shapes: Shapes, *, field: str) -> Data:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name == "shape":
            return _SHAPE
        return _WORDS[name].format(field=field) if name in _WORDS else _value(shapes.shared[name], shapes, field=field)
    if "anyOf" in node:
        return _value(node["anyOf"][0], shapes, field=field)
    if "enum" in node:
        return str(node["enum"][0])
    match node.get("type"):
        case "array":
            return [_value(node.get("items", {}), shapes, field=field.removesuffix("s"))]
        case "object":
            return _mapping(node, shapes)
        case kind:
            value = node.get("minimum", _VALUES.get(str(kind), "some_{field}"))
            return value.format(field=field) if isinstance(value, str) else value


def _mapping(node: Schema, shapes: Shapes) -> dict[str, Data]:
    if node.get("minProperties"):  # names of the author's own
        return {"some_name": _value(node["additionalProperties"], shapes, field="name")}
    fields: dict[str, Schema] = node.get("properties", {})
    return {name: _value(fields[name], shapes, field=name) for name in node.get("required", [])}


def _condition(model: type[Probe]) -> str:
    """A condition on the first figure."""
    if model.open_names or not model.Result.model_fields:
        return "n > 0"
    name, field = next(iter(model.Result.model_fields.items()))
    if field.annotation is bool:
        return f"{name} == True"
    if get_origin(field.annotation) in {tuple, list}:
        return f"len({name}) > 0"
    return f"{name} != ''" if field.annotation is str else f"{name} >= 0"


def _yaml(item: dict[str, Data]) -> str:
    import yaml

    text = yaml.safe_dump(item, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    return "- " + textwrap.indent(text, "  ").strip()
