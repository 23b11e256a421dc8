"""The JSON Schema of playbooks, for completion and checks in editors, and for review tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from runner.format.field_schema import definitions
from runner.playbook import load
from runner.playbook.check_builder import NOT_OF_CONDITIONS
from runner.playbook.model import CLOCK, FORMAT, ID, NAME, GuardAction, Input, LockPolicy, RetryPolicy, Timeouts
from runner.playbook.schedule import SCHEDULE
from steps import registry
from steps.catalog.shape import ShapeSpec
from steps.contract import Step
from steps.contract.dialect import Dialect
from steps.contract.field_words import describe_fields
from steps.contract.written import Schema

_TEXT: Schema = {"type": "string"}
_ID: Schema = {"type": "string", "pattern": ID}
_SPAN: Schema = {"$ref": "#/$defs/time_span"}
_SQL: Schema = {"$ref": "#/$defs/SQL"}


def schema() -> dict[str, Any]:
    """The complete schema (draft 2020-12): header keys, a definition for each step type and each probe.

    It accepts whatever the loader accepts, as far as a single file can tell. References to names, expressions and SQL are
    only checked by `runbook validate`.
    """
    kinds, probes = registry.step_types(), registry.probe_types()
    common: dict[str, type[BaseModel]] = {
        "input": Input,
        "lock": LockPolicy,
        "retry": RetryPolicy,
        "timeout": Timeouts,
        "declared_shape": ShapeSpec,
    }
    models: list[type[BaseModel]] = [*kinds.values(), *probes.values(), *common.values()]
    shapes = definitions(models)
    defs: dict[str, Any] = dict(shapes.shared)
    defs |= {name: shapes.of[model] for name, model in common.items()}
    defs["due"], defs["own"] = _due(), _own()
    for kind, probe in probes.items():
        defs[f"check.{kind}"] = _check(kind, shapes.of[probe], summary=probe.summary)
        defs[f"guard.{kind}"] = _guard(defs[f"check.{kind}"])
        if not probe.runs_programs:
            defs[f"monitor.{kind}"] = _monitor(defs[f"check.{kind}"])
    defs["guard.own"] = _guard(defs["own"])
    defs |= {f"guards.{key}": shape for key, shape in _guard_keys().items()}
    defs |= {f"monitors.{key}": shape for key, shape in _monitor_keys().items()}
    for kind, step in kinds.items():
        defs[f"step.{kind}"] = _step(kind, shapes.of[step], step)
    defs["condition"] = {
        "oneOf": [_condition(defs[f"check.{kind}"]) for kind, probe in probes.items() if probe.conditional]
    }
    defs["check"] = {"oneOf": [*_refs("check", probes), {"$ref": "#/$defs/due"}]}
    defs["criterion"] = {"oneOf": [*_refs("check", probes), {"$ref": "#/$defs/own"}]}
    defs["guard"] = {"oneOf": [*_refs("guard", probes), {"$ref": "#/$defs/guard.own"}]}
    looking = {kind: probe for kind, probe in probes.items() if not probe.runs_programs}
    defs["monitor"] = {"oneOf": _refs("monitor", looking)}
    defs["step"] = {"oneOf": _refs("step", kinds)}
    described = describe_fields({"playbook": {"properties": _header()}, **defs})
    properties = described.pop("playbook")["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Runbook playbook",
        "description": "An executable runbook for a database change. A file without name, title and steps is a part that others include.",
        "type": "object",
        "properties": properties,
        "required": ["runbook"],
        "dependentRequired": {
            key: ["name", "title", "steps"] for key in sorted(load.HEADER - load.SHARED - {"include", "description"})
        },
        "additionalProperties": False,
        "$defs": dict(sorted(described.items())),
    }


def _refs(group: str, kinds: Mapping[str, object]) -> list[Schema]:
    return [{"$ref": f"#/$defs/{group}.{kind}"} for kind in kinds]


# ─── header ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _header() -> dict[str, Schema]:
    return {
        "runbook": {"const": FORMAT, "description": "The format's version; the first line of every file."},
        "name": {"type": "string", "pattern": NAME, "description": "What other playbooks and runs call it."},
        "title": _text("What it does, in one line."),
        "description": _text("What it does, at length."),
        "owner": _text("Who answers for the playbook."),
        "contacts": _mapping(_TEXT, "Whom to call, by role; printed at every stop."),
        "links": _mapping(_TEXT, "Further reading, by name."),
        "revision": _text("The playbook's own version."),
        "reviewed": _text("When it was last reviewed."),
        "review_after": _text("When it must be reviewed again."),
        "takes": _text("How long it takes, in words."),
        "include": _one_or_list(_TEXT, "Files beside this one whose shared keys belong to it."),
        "schema": _text("The schema of all tables named without one. Default: public."),
        "search_path": {
            "type": "array",
            "items": {**_TEXT, "minLength": 1},
            "description": "Schemas in which names in SQL are looked up, in this order, after pg_catalog. Default: "
            "`schema`, then what the database gives its own sessions, then the schemas of its tables' extensions.",
        },
        "target": _target(),
        "inputs": _mapping({"$ref": "#/$defs/input"}, "Typed values that a run is given, as {{ name }}.", named=ID),
        "limits": _mapping(
            {"type": ["string", "number", "boolean", "null"]}, "Figures that checks name as limits.x.", named=ID
        ),
        "queries": _mapping(_SQL, "Named SELECTs, defined once and used by steps and checks.", named=ID),
        "shapes": _mapping(
            _either_dialect({"$ref": "#/$defs/declared_shape"}),
            "What the database is to look like, for checks and `runbook doctor`.",
            named=ID,
        ),
        "requires": {
            "type": "array",
            "items": _requirement(),
            "description": "Playbooks that must have succeeded on this target before.",
        },
        "removes": {
            "type": "array",
            "items": {"type": "string", "pattern": NAME},
            "description": "Playbooks whose earlier runs on this target lose their effect by this one.",
        },
        "window": {
            **_SPAN,
            "description": "How long changes may go on, from the first; nothing begins that doesn't fit.",
        },
        "open": _calendar(),
        "scope": _text("What one run at a time holds. Default: the whole target."),
        **{
            key: {"$ref": f"#/$defs/{key}", "description": f"{words} Of all steps."} for key, words in _POLICIES.items()
        },
        "preconditions": _list("check", "What must hold before the run begins."),
        "steps": {**_list("step", "The changes and gates, in order."), "minItems": 1},
        "success_criteria": _criteria(),
        "monitors": _list("monitor", "Checks that go on being asked after the run: runbook monitor."),
        "rollback": _rollback(),
    }


_POLICIES = {
    "lock": "How long a statement waits for a lock, and for how long it is tried again.",
    "timeout": "The longest times of one statement.",
    "retry": "After which faults a step is taken up again.",
}


def _either_dialect(item: Schema) -> Schema:
    each = {str(dialect): item for dialect in Dialect}
    return {"anyOf": [item, {"type": "object", "properties": each, "minProperties": 1, "additionalProperties": False}]}


def _text(description: str) -> Schema:
    return {**_TEXT, "description": description}


def _mapping(values: Schema, description: str, *, named: str = "") -> Schema:
    names: Schema = {"propertyNames": {"pattern": named}} if named else {}
    return {"type": "object", "additionalProperties": values, "description": description, **names}


def _list(of: str, description: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/$defs/{of}"}, "description": description}


def _one_or_list(item: Schema, description: str) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item}], "description": description}


def _object(properties: Mapping[str, Schema], *, required: list[str], description: str = "") -> Schema:
    found: Schema = {"type": "object", "properties": dict(properties), "required": required}
    return {**found, "additionalProperties": False, **({"description": description} if description else {})}


def _calendar() -> Schema:
    clock: Schema = {"type": "string", "pattern": CLOCK}
    fields = {
        "days": _text("Days of the week, such as Tue-Thu, Sat. Default: every day."),
        "from": {**clock, "description": "From then on changes may be made."},
        "to": {**clock, "description": "Until then; earlier than from: on the next day."},
        "zone": _text("Whose clocks, such as Europe/Berlin."),
    }
    return _object(fields, required=["from", "to", "zone"], description="The days and times at which changes are made.")


def _target() -> Schema:
    versions = {name: _text("Versions, such as >=14.") for name in ("postgresql", "sqlite")}
    return _object(versions, required=[], description="Where the playbook can run.")


def _requirement() -> Schema:
    name: Schema = {"type": "string", "pattern": NAME}
    fields = {
        "playbook": name,
        "as": {**_ID, "description": "Short name for the figures of that run."},
        "within": {**_SPAN, "description": "How old that run may be."},
        "settled": {
            **_SPAN,
            "description": "How long it must have stood since it succeeded, without an alert of its monitors.",
        },
    }
    return {"anyOf": [name, _object(fields, required=["playbook"])]}


def _criteria() -> Schema:
    why = "Why there is none; the run then ends as unproven."
    return {
        "description": "What proves that the whole did what it is for.",
        "anyOf": [
            {"type": "array", "items": {"$ref": "#/$defs/check"}},
            _object({"none": {**_TEXT, "pattern": r"\S", "description": why}}, required=["none"]),
        ],
    }


def _rollback() -> Schema:
    return {
        "description": "How the whole is taken back: in reverse, in an order by ids, or not, with the reason.",
        "anyOf": [
            {"const": "reverse"},
            {"type": "array", "items": _ID},
            _object({"none": {**_TEXT, "pattern": r"\S"}}, required=["none"]),
        ],
    }


# ─── checks ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _check_keys() -> dict[str, Schema]:
    condition: Schema = {"type": ["string", "boolean"]}
    return {
        "id": {**_ID, "description": "Its name, once in a playbook."},
        "that": {**condition, "description": "What must hold of the figures, such as: pct >= limits.coverage_pct"},
        "warn": {**condition, "description": "Where this does not hold, a pass is marked with a warning."},
        "why": _text("Why it is asked."),
        "due": _text("The playbook that decides this check; here it is only named."),
        "still": {"type": "boolean", "description": "At a checkpoint: asked again before each step behind it."},
        "record_only": _text("Why the answer is recorded and gates nothing."),
        "otherwise": _text("The playbook that is the next command where the criterion or precondition is not met."),
        "judge": _one_or_list(_TEXT, "Roles of which one may answer where the check can't decide (unknown)."),
        "within": {**_SPAN, "description": "How long it may take until it holds; asked again meanwhile."},
        "every": {**_SPAN, "description": "With within: how long to wait before it is asked again. Default: 10 s."},
    }


def _check(kind: str, shape: Schema, *, summary: str) -> Schema:
    properties = {"id": _check_keys()["id"], "check": {"const": kind, "description": summary}}
    properties |= shape.get("properties", {}) | _check_keys()
    return _object(properties, required=["id", "check", *shape.get("required", [])], description=summary)


def _condition(check: Schema) -> Schema:
    """A check as a step's condition: asked once, so without the keys about asking again and about not deciding."""
    kept = {key: shape for key, shape in check["properties"].items() if key not in NOT_OF_CONDITIONS}
    return {**check, "properties": kept, "required": [key for key in check["required"] if key != "id"]}


def _own() -> Schema:
    """A criterion without a probe, about the step's own result."""
    found = _object(_check_keys(), required=["id"], description="About the step's own result.")
    return {**found, "anyOf": [{"required": [key]} for key in ("that", "due", "record_only")]}


def _due() -> Schema:
    return _object(_check_keys(), required=["id", "due"], description="A check that another playbook decides.")


def _guard(check: Schema) -> Schema:
    more = {key: {"$ref": f"#/$defs/guards.{key}"} for key in _guard_keys()}
    return {**check, "properties": {**check["properties"], **more}}


def _guard_keys() -> dict[str, Schema]:
    condition: Schema = {"type": ["string", "boolean"]}
    return {
        "for": {**_SPAN, "description": "How long it must be broken before something is done."},
        "else": {"enum": [one.value for one in GuardAction], "description": "What is done. Default: hold."},
        "resume": {
            **condition,
            "description": "What must hold before the run goes on, besides `that`; write it stricter. Default: that.",
        },
        "critical": {
            **condition,
            "description": "When this is true twice, the run holds at once, for at least `hibernate`.",
        },
        "hibernate": {
            **_SPAN,
            "description": "How long the run stands still after a critical reading. Default: 5 min.",
        },
        "last": {
            "type": "string",
            "pattern": "^[1-9][0-9]? of [1-9][0-9]?$",
            "description": "How many of the last samples must have broken, such as: 2 of 3",
        },
        "every": {
            **_SPAN,
            "description": "Between two samples; longer where they would take more than 1 % of the time. Default: 5 s.",
        },
        "longest_hold": {
            **_SPAN,
            "description": "How long it may hold before the run ends, to be resumed. Default: 1 h.",
        },
    }


_LATER = frozenset({"due", "still", "judge", "within", "every"})  # keys of a check that a monitor doesn't have


def _monitor(check: Schema) -> Schema:
    own = {key: one for key, one in check["properties"].items() if key not in _LATER}
    more = {key: {"$ref": f"#/$defs/monitors.{key}"} for key in _monitor_keys()}
    return {**check, "properties": {**own, **more}, "required": [*check["required"], "every"]}


def _monitor_keys() -> dict[str, Schema]:
    return {
        "every": {
            **SCHEDULE,
            "description": "When it is due: a time span, counted from the run's end, or cron and zone.",
        },
        "alert": {
            "type": ["string", "boolean"],
            "description": "When this is true, it alerts. Default: when the check does not pass.",
        },
        "for": {**_SPAN, "description": "How long it must be broken before it alerts."},
        "last": {
            "type": "string",
            "pattern": "^[1-9][0-9]? of [1-9][0-9]?$",
            "description": "How many of the last observations must have broken, such as: 2 of 3",
        },
        "against": {
            "type": "string",
            "pattern": r"^run(\.[a-z][a-z0-9_]*){0,2}$",
            "description": "Compares its figures with the run's: run (the check that asks the same), or run.ID; gives change_pct.x.",
        },
        "missed": {
            "description": "What becomes of a due time at which nobody looked. Default: catch_up, once and late.",
            "anyOf": [
                {"const": "catch_up"},
                _object(
                    {"skip_after": {**_SPAN, "description": "Skipped when it is later than that."}},
                    required=["skip_after"],
                ),
            ],
        },
        "takes_at_most": {**_SPAN, "description": "How long one observation may take. Default: 5 min."},
    }


# ─── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _step(kind: str, shape: Schema, step: type[Step]) -> Schema:
    common = _common_keys()
    head = {"id": common.pop("id"), "type": {"const": kind, "description": step.summary}, "why": common.pop("why")}
    properties = {**head, **shape.get("properties", {}), **common}
    return _object(properties, required=["id", "type", *shape.get("required", [])], description=_described(step))


def _described(step: type[Step]) -> str:
    where = {"postgresql": " PostgreSQL only.", "sqlite": " SQLite only."}.get(step.only, "")
    return f"{step.summary[:1].upper()}{step.summary[1:]}.{where}"


def _common_keys() -> dict[str, Schema]:
    """The keys that every step has, independent of its type."""
    return {
        "id": {**_ID, "description": "Its name, once in a playbook; criteria name its result as id.name."},
        "why": _text("Why this step; it stands in plan and report."),
        "when": {
            "$ref": "#/$defs/condition",
            "description": "A check that is asked once, when it is the step's turn: where it fails, the step is skipped.",
        },
        "preconditions": _list("check", "What must hold right before this step."),
        "success_criteria": _list("criterion", "What proves it; without `check:` about the step's own result."),
        "guards": _list("guard", "Checks that are sampled while the step runs."),
        "on_failure": {
            "description": "What a failure means for the run. Default: stop.",
            "anyOf": [
                {"enum": ["stop", "rollback"]},
                _object({"continue": {**_TEXT, "pattern": r"\S"}}, required=["continue"]),
            ],
        },
        "if_stopped_here": _text("Whether the database can be left as it is after this step, and why."),
        **{key: {"$ref": f"#/$defs/{key}", "description": words} for key, words in _POLICIES.items()},
    }
