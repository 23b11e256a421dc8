"""`runbook steps`: lists step types and probes, or describes one with its fields, figures and an example."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runner.common.errors import RunRefused
from runner.format import examples
from runner.format.field_schema import Shapes, definitions
from runner.playbook.check_builder import ALWAYS, GUARD
from runner.playbook.load import COMMON
from runner.playbook.yaml_reader import near
from runner.trail.events import Json
from steps import registry
from steps.contract import LONGEST_WORD, Probe, Step, StepResult, running_figures
from steps.contract.written import Schema

INDENT = 2
_WHERE_NOT = "; `runbook plan` says where not or on which condition, and why"
_DIALECTS = {"": "both", "postgresql": "PostgreSQL", "sqlite": "SQLite"}
_WORDS = {
    "time_span": "time span",
    "column": "table.column",
    "query": "query",
    "SQL": "SQL",
    "JsonValue": "any value",
    "shape": "shape",
    "declared_shape": "shape",
}
_PLURALS = {"name", "text", "whole number", "value"}
_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


@dataclass(frozen=True)
class Field:
    """One key of a step or probe; its type in the words of the format's documentation."""

    name: str
    type: str
    default: str
    required: bool


@dataclass(frozen=True)
class TypeDescription:
    """A step type or a probe."""

    kind: str
    group: str  # "step type" or "probe"
    summary: str
    back: str  # whether it can be undone; "" for a probe
    on: str
    model: type[Step | Probe]

    @property
    def figures(self) -> list[str]:
        return list(self.model.Result.model_fields)


def words() -> list[TypeDescription]:
    """All step types and probes."""
    found = [
        TypeDescription(kind, "step type", step.summary, _back(step), _DIALECTS[step.only], step)
        for kind, step in registry.step_types().items()
    ]
    return found + [
        TypeDescription(kind, "probe", probe.summary, "", _DIALECTS[probe.only], probe)
        for kind, probe in registry.probe_types().items()
    ]


def _back(step: type[Step]) -> str:
    if not step.changes:
        return "a gate"
    if not step.lasting:
        return "no need"
    return "yes" if hasattr(step, "revert") or hasattr(step, "undoes") else "no"


def _find(kind: str) -> list[TypeDescription]:
    """The step type or probe of this name, or both; raises RunRefused if there is neither."""
    known = words()
    found = [word for word in known if word.kind == kind]
    if not found:
        hint = near(kind, [word.kind for word in known])
        raise RunRefused(f"cannot find the step type or probe {kind!r}{hint}", then="runbook steps")
    return found


# ─── as text ────────────────────────────────────────────────────────────────────────────────────────────────────────
def text(kind: str | None) -> str:
    """A table of all kinds, or the description of one."""
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 140))
    if kind is None:
        return _everything(width)
    return "\n\n".join("\n".join(_one(word, width)) for word in _find(kind))


def _everything(width: int) -> str:
    known = words()
    longest = max(len(word.kind) for word in known)
    lines = [f"{'step type':<{longest}}  back     what it does"]
    lines += [line for word in known if word.back for line in _row(word, longest, width)]
    lines += ["", f"{'probe':<{longest}}  what it looks at"]
    lines += [line for word in known if not word.back for line in _row(word, longest, width)]
    told = "back: whether `runbook rollback` can take it back. All about one of them: runbook steps KIND"
    return "\n".join([*lines, "", *textwrap.wrap(told, width)])


def _row(word: TypeDescription, longest: int, width: int) -> list[str]:
    back = f"{word.back:<7}  " if word.back else ""
    only = "" if word.on == "both" else f" ({word.on} only)"
    return _hanging(f"{word.kind:<{longest}}  {back}", word.summary + only, width)


def _hanging(label: str, told: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(told, max(width - len(label), 20), break_on_hyphens=False) or [""]
    return [(f"{label}{wrapped[0]}").rstrip(), *(" " * len(label) + line for line in wrapped[1:])]


def _one(word: TypeDescription, width: int) -> list[str]:
    lines = [
        f"{word.kind} · {word.group}",
        *textwrap.wrap(word.summary, width),
        *_paragraphs(word.model.__doc__, width),
    ]
    lines += ["", f"runs on     {'PostgreSQL and SQLite' if word.on == 'both' else word.on + ' only'}"]
    if word.back:
        lines.append(
            f"taken back  {word.back}{_WHERE_NOT if hasattr(word.model, 'one_way') or hasattr(word.model, 'back_if') else ''}"
        )
    lines += ["", "fields", *_table(fields(word), width)]
    common = (
        sorted(COMMON - {"id", "type"}) if word.group == "step type" else ["that", "warn", "due", "record_only", "why"]
    )
    lines += _hanging("  also: ", ", ".join(common), width)
    if word.group == "probe":
        lines += _hanging("  as a guard: ", ", ".join(GUARD), width)
    lines += ["", "figures for `that:`", *_figures(word, width)]
    return [*lines, "", "example", *textwrap.indent(examples.of(word.kind, word.model), " " * INDENT).splitlines()]


def _paragraphs(told: str | None, width: int) -> list[str]:
    return [line for part in inspect.cleandoc(told or "").split("\n\n") for line in ["", *textwrap.wrap(part, width)]]


def _table(found: Iterable[Field], width: int) -> list[str]:
    rows = [
        (one.name, one.type, "required" if one.required else f"default: {one.default}" if one.default else "")
        for one in found
    ]
    longest = max((len(name) for name, _, _ in rows), default=0)
    lines = []
    for name, kind, more in rows:
        lines += _hanging(f"  {name:<{longest}}  ", f"{kind}; {more}" if more else kind, width)
    return lines or ["  none of its own"]


def _figures(word: TypeDescription, width: int) -> list[str]:
    names = ", ".join(word.figures)
    if word.group == "probe" and getattr(word.model, "open_names", False):
        names += f"{', and ' if names else ''}each column that the query returns"
    lines = _hanging("  ", names or "none", width)
    result = word.model.Result
    if result is not StepResult and result.__doc__:
        lines += [f"  {line}".rstrip() for line in _paragraphs(result.__doc__, width - INDENT)]
    if issubclass(word.model, Step) and word.model.changes:
        running = (*ALWAYS, *running_figures(word.model).names)
        lines += _hanging("  while it runs, for guards: ", ", ".join(running), width)
    if word.group == "probe":
        lines += _hanging("  of a guard also: ", "grown.NAME since its first sample, per_min.NAME", width)
    return lines


# ─── fields in the format's words ───────────────────────────────────────────────────────────────────────────────────
def fields(word: TypeDescription) -> list[Field]:
    """The kind's own keys, without those that every step or check has."""
    shapes = definitions([word.model])
    shape = shapes.of[word.model]
    required = shape.get("required", [])
    return [
        Field(name, type_words(node, shapes), _default(node.get("default")), name in required)
        for name, node in shape.get("properties", {}).items()
    ]


def type_words(node: Schema, shapes: Shapes) -> str:
    """A field's type in words."""
    if "$ref" in node:
        return _named(node["$ref"].rpartition("/")[2], shapes)
    if "anyOf" in node:
        options = dict.fromkeys(type_words(one, shapes) for one in node["anyOf"])
        return " or ".join(sorted(filter(None, options), key=lambda one: one.startswith("list of ")))
    if "enum" in node:
        return " | ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if isinstance(kinds := node.get("type"), list):
        return " or ".join(type_words({**node, "type": kind}, shapes) for kind in kinds)
    return _plain(node, shapes)


def _named(name: str, shapes: Shapes) -> str:
    """The words for a definition; "" for a template, which is allowed for any scalar."""
    if name == "template":
        return ""
    return _WORDS.get(name) or type_words(shapes.shared[name], shapes)


def _plain(node: Schema, shapes: Shapes) -> str:
    match node.get("type"):
        case "array" if "prefixItems" in node:
            return f"[{', '.join(type_words(one, shapes) for one in node['prefixItems'])}]"
        case "array":
            each = type_words(node.get("items", {}), shapes) or "value"
            return f"list of {each}s" if each in _PLURALS else f"list of {each}"
        case "object" if "properties" in node:
            inner = [f"{name}: {_nested(one, shapes)}" for name, one in node["properties"].items()]
            return f"{{{', '.join(inner)}}}"
        case "object":
            return f"{{name: {type_words(node.get('additionalProperties', {}), shapes) or 'value'}}}"
        case "string" if node.get("maxLength") == LONGEST_WORD:
            return "name"
        case kind:
            return _TYPES.get(str(kind), "any value") + _range(node)


def _nested(node: Schema, shapes: Shapes) -> str:
    default = _default(node.get("default"))
    return type_words(node, shapes) + (f" = {default}" if default else "")


def _range(node: Schema) -> str:
    low, high = node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum")
    if node.get("type") not in {"integer", "number"} or (low is None and high is None):
        return ""
    return f" from {low:g}" + (f" to {high:g}" if high is not None else "") if low is not None else f" up to {high:g}"


def _default(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return f"[{', '.join(_default(one) for one in value)}]"
        case _:
            return str(value)


# ─── as JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────
def document(kind: str | None) -> Json:
    """The descriptions as JSON: all kinds in short, or one kind with its fields."""
    if kind is None:
        return [_short(word) for word in words()]
    return [dict(_long(word)) for word in _find(kind)]


def _short(word: TypeDescription) -> dict[str, Json]:
    found: dict[str, Json] = {"kind": word.kind, "group": word.group, "summary": word.summary, "on": word.on}
    return found | ({"taken_back": word.back} if word.back else {})


def _long(word: TypeDescription) -> Iterator[tuple[str, Json]]:
    yield from _short(word).items()
    yield (
        "fields",
        [
            {"name": one.name, "type": one.type, "default": one.default, "required": one.required}
            for one in fields(word)
        ],
    )
    yield "figures", list(word.figures)
    yield "example", examples.of(word.kind, word.model)
