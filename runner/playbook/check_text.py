"""A check as its author wrote it, in one line; the same in plan, terminal and report."""

from __future__ import annotations

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
        f"{field.alias or name}: {_written(getattr(probe, name), time=_is_time(field))}"
        for name, field in fields.items()
    ]
    return f" ({', '.join(words)})" if words else ""


def _is_time(field: FieldInfo) -> bool:
    return any(isinstance(one, BeforeValidator) and one.func is seconds for one in field.metadata)


def _written(value: object, *, time: bool = False) -> str:
    match value:
        case Query():
            return value.name or cut(" ".join(next(iter(value.texts.values())).split()), 60)
        case Text():
            return cut(" ".join(next(iter(value.texts.values())).split()), 60)
        case float() if time:
            return format_duration(value)
        case tuple() | list():
            return f"[{', '.join(map(_written, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_written(one)}' for key, one in value.items())}}}"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def cut(text: str, most: int) -> str:
    """Truncate to at most `most` characters, ending with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
