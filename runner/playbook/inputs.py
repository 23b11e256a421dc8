"""Resolves the inputs of a run: checks given values against their declarations, and fills in defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

from pydantic import JsonValue

from runner.common.errors import RunRefused
from runner.common.plain_data import Data
from runner.common.secrets import MASK
from runner.playbook.model import Input, parse_duration
from runner.playbook.sources import Sources, validated
from runner.playbook.yaml_reader import near
from steps.expressions import patterns

_BLANK: Mapping[str, JsonValue] = {
    "text": "example",
    "integer": 1,
    "number": 1.0,
    "boolean": False,
    "time span": 1.0,
}


class SecretOnCommandLine(str):
    """An input from the command line, where every user of this machine can read it: refused for secrets."""

    __slots__ = ()


class Ambient(str):
    """An input from the environment; unknown ones are ignored, since they may be meant for another playbook."""

    __slots__ = ()


def resolve(sources: Sources, data: Mapping[str, Data], given: Mapping[str, str] | None) -> dict[str, JsonValue]:
    """The value of each declared input. given: texts by name; None if the playbook is only inspected, not run.

    Faults (unknown, missing, out of range) are added to `sources`.
    """
    declared = data.get("inputs", {})
    if not isinstance(declared, dict):
        sources.fault(("inputs",), "cannot read inputs: it must be a mapping from name to {type, default, …}")
        return {}
    for name, value in (given or {}).items():
        if name not in declared and not isinstance(value, Ambient):
            sources.fault(
                ("inputs",), f"cannot use --input {name}: this playbook has no such input{near(name, declared)}"
            )
    values: dict[str, JsonValue] = {}
    for name, spec in declared.items():
        model = validated(sources, Input, spec, path=("inputs", name))
        if model is not None and model.secret:
            sources.secrets.add(name)
        if model is not None and _declared_well(sources, name, model):
            values[name] = _value(sources, name, model, given)
    return values


def _declared_well(sources: Sources, name: str, spec: Input) -> bool:
    """Whether a declaration is consistent in itself."""
    reasons = []
    if spec.secret and spec.default is not None:
        reasons.append("it is a secret, and a default would stand in the playbook for everybody to read")
    if spec.secret and spec.type != "text":
        reasons.append("a secret is a text: only what is written as text can be masked everywhere")
    try:
        patterns.check(spec.pattern)
    except patterns.BadPattern as error:
        reasons.append(f"its pattern can't be read: {error}")
    for reason in reasons:
        sources.fault(("inputs", name), f"cannot use the input {name!r}: {reason}")
    return not reasons


def _value(sources: Sources, name: str, spec: Input, given: Mapping[str, str] | None) -> JsonValue:
    text = (given or {}).get(name)
    if text is None:
        if spec.default is None and spec.required and given is not None:
            sources.fault(
                ("inputs", name),
                f"cannot run without the input {name!r}: give {_way(name, spec)} ({spec.help or spec.type})",
            )
        if spec.default is None:
            return _BLANK[spec.type] if given is None else None
        return _read(
            sources, name, spec, str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default)
        )
    if spec.secret:
        _refuse_seen(name, spec, text)
        if text == MASK:  # read back from a trail, where secrets are masked; nothing needs the value then
            return text
    return _read(sources, name, spec, text)


def _way(name: str, spec: Input) -> str:
    """How to supply an input; never as an argument if it is a secret."""
    if not spec.secret:
        return f"--input {name}=…"
    return f"RUNBOOK_INPUT_{name.upper()} in the environment, or a file by --inputs-file"


def _refuse_seen(name: str, spec: Input, text: str) -> None:
    if isinstance(text, SecretOnCommandLine):
        raise RunRefused(
            f"cannot take the secret input {name!r} from the command line: there it has been seen in the process list "
            "and in the shell's history",
            state="nothing was run",
            then=f"change it, then give {_way(name, spec)}",
        )


def _read(sources: Sources, name: str, spec: Input, text: str) -> JsonValue:
    try:
        value = _typed(spec, text)
    except ValueError as error:
        sources.fault(("inputs", name), f"cannot use {_shown(spec, text)} for the input {name!r}: {error}")
        return None
    reason = _out_of_range(spec, value, text)
    if reason:
        sources.fault(("inputs", name), f"cannot use {_shown(spec, text)} for the input {name!r}: {reason}")
    return value


def _shown(spec: Input, text: str) -> str:
    return "the given value" if spec.secret else repr(text)


def _typed(spec: Input, text: str) -> JsonValue:
    match spec.type:
        case "text":
            return text
        case "integer":
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
                raise ValueError("write a whole number of at most 18 digits")
            return int(text)
        case "number":
            return _number(text)
        case "time span":
            return parse_duration(text)
        case "boolean":
            if text not in {"true", "false"}:
                raise ValueError("write true or false")
            return text == "true"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError("write a number, e.g. 0.5")
    if Decimal(repr(value)) != Decimal(text):
        raise ValueError(
            "it has more digits than a number here can keep: declare the input as text, and cast it in SQL"
        )
    return value


def _out_of_range(spec: Input, value: JsonValue, text: str) -> str:
    if spec.one_of and value not in spec.one_of:
        return f"it must be one of {', '.join(map(str, spec.one_of))}"
    if spec.pattern and not patterns.matches(spec.pattern, text):
        return f"it must match {spec.pattern}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if spec.min is not None and value < spec.min:
            return f"it must be at least {spec.min:g}"
        if spec.max is not None and value > spec.max:
            return f"it must be at most {spec.max:g}"
    return ""
