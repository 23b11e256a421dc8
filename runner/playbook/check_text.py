"""A check as its author wrote it, in one line; the same in plan, terminal and report."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from runner.common.durations import format_duration
from runner.playbook.model import Check
from steps.contract import Query, Text, seconds


def question(check: Check) -> str:
    """A check as its author wrote it, in one line: probe, typed fields, and `that`."""
    probe = f"{check.probe.kind}{_fields(check.probe)}" if check.probe is not None else ""
    that = f"that: {check.that.text}" if check.that is not None else ""
    return ", ".join(part for part in (probe, that) if part)


def _fields(probe: BaseModel) -> str:
    fields = {name: field for name, field in type(probe).model_fields.items() if name in probe.model_fields_set}
    words = [
        f"{field.alias or name}: {shown(getattr(probe, name), time=is_time(field))}" for name, field in fields.items()
    ]
    return f" ({', '.join(words)})" if words else ""


def is_time(field: FieldInfo) -> bool:
    """Whether a field holds a time span."""
    parts = get_args(field.annotation) if field.annotation is not None else ()  # of `Seconds | None`
    written = [*field.metadata, *(one for part in parts for one in getattr(part, "__metadata__", ()))]
    return any(isinstance(one, BeforeValidator) and one.func is seconds for one in written)


def shown(value: object, *, time: bool = False) -> str:
    """A field's value in one line, as its author would write it. time: it is a time span, in seconds."""
    match value:
        case Query():
            return value.name or cut(" ".join(next(iter(value.texts.values())).split()), 60)
        case Text():
            return cut(" ".join(next(iter(value.texts.values())).split()), 60)
        case float() if time:
            return format_duration(value)
        case tuple() | list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {shown(one)}' for key, one in value.items())}}}"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def cut(text: str, most: int) -> str:
    """Truncate to at most `most` characters, ending with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
