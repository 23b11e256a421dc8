"""Field types of the playbook format that steps and probes share: time spans, names, columns, queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from steps.contract.written import SQL, ColumnText, QueryText, SpanText, named


class Model(BaseModel):
    """A frozen model in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)


RESERVED = frozenset({"limits", "inputs", "grown", "per_min"})
"""Namespaces in `that:` that belong to the engine; no id, short name, input or column may have these names."""


_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0, "day": 86400.0}


def seconds(text: object) -> object:
    """Parse '250 ms', '5 min', '3 h', '7 days' into seconds; ValueError for a number without a unit."""
    if isinstance(text, Timespan):
        return text
    if not isinstance(text, str):
        raise ValueError(
            f"cannot read {text!r} as a time span: write a number and its unit, e.g. '200 ms', '5 min', '3 h', '7 days'"
        )
    number, _, unit = text.strip().partition(" ")
    if not unit:
        cut = len(number.rstrip("abcdefghijklmnopqrstuvwxyz"))
        number, unit = number[:cut], number[cut:]
    if unit.strip() not in _UNITS:
        raise ValueError(f"cannot read {text!r} as a time span: the unit must be one of ms, s, min, h, days")
    try:
        return Timespan(float(number) * _UNITS[unit.strip()])
    except ValueError:
        raise ValueError(f"cannot read {text!r} as a time span: {number!r} is not a number") from None


def refuse_unknown_zone(name: str) -> None:
    """Raises ValueError for a time zone that the system doesn't know."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"cannot find the time zone {name!r}: write one as Europe/Berlin or UTC") from error


class Figure(Model):
    """A reference to a figure of an earlier step or check (`count.rows`), whose value is known when the step starts."""

    figure: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")]

    def __str__(self) -> str:
        return f"(the figure {self.figure} of this run)"


class Timespan(float):
    """A duration in seconds, written in YAML with its unit."""


Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=SpanText)]

LONGEST_NAME = 63  # bytes; PostgreSQL cuts a longer one silently, and two names can become one
LONGEST_WORD = 2 * LONGEST_NAME + 1  # characters of `schema.table`


def whole_name(text: str) -> str:
    """The name or `schema.name` unchanged; ValueError where PostgreSQL would truncate a part of it."""
    parts = text.split(".", 1) if len(text.encode(errors="surrogatepass")) > LONGEST_NAME else [text]
    for part in parts:
        size = len(part.encode(errors="surrogatepass"))
        if size > LONGEST_NAME:
            raise ValueError(
                f"cannot use the name {part!r}: of its {size} bytes PostgreSQL keeps {LONGEST_NAME}; shorten it"
            )
    return text


Identifier = Annotated[str, Field(min_length=1, max_length=LONGEST_WORD), AfterValidator(whole_name)]
"""A table, column or index name, exactly as the database has it (it is always quoted)."""


def one_or_more(value: object) -> object:
    """A single word stands for a list of one."""
    return (value,) if isinstance(value, str) else value


Identifiers = Annotated[
    tuple[Identifier, ...], BeforeValidator(one_or_more, json_schema_input_type=tuple[Identifier, ...] | Identifier)
]
"""Several names, or one without brackets."""


def _column(text: object) -> object:
    if isinstance(text, ColumnRef) or not isinstance(text, str):
        return text
    table, dot, column = text.rpartition(".")
    if not dot or not table or not column:
        raise ValueError(f"cannot read {text!r} as a column: write table.column")
    return ColumnRef(table=table, column=column)


class NoText(Exception):
    """A query or statement has no SQL for this dialect."""


class ColumnRef(Model):
    """A column, written `table.column` in YAML."""

    table: Identifier
    column: Identifier

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


Column = Annotated[ColumnRef, BeforeValidator(_column, json_schema_input_type=ColumnText)]


def _beside(value: object, info: ValidationInfo) -> object:
    directory = (info.context or {}).get("directory")
    if isinstance(value, str) and directory and not Path(value).is_absolute():
        return str(Path(directory) / value)
    return value


BesideFile = Annotated[str, BeforeValidator(_beside, json_schema_input_type=str)]
"""A file or folder, written relative to the playbook's own directory."""


class Query(Model):
    """A named query of the playbook: one text per dialect (or one for both)."""

    name: str
    texts: Mapping[str, str]  # dialect → SQL; "" for both

    def text(self, dialect: str) -> str:
        found = self.texts.get(str(dialect)) or self.texts.get("")
        if found is None:
            raise NoText(f"cannot use query {self.name!r} on {dialect}: it has no text for it")
        return found


def _named(value: object, info: ValidationInfo) -> object:
    if isinstance(value, Query) or not isinstance(value, str):
        return value
    known: Mapping[str, Query] = (info.context or {}).get("queries", {})
    if value in known:
        return known[value]
    if len(value.split()) > 1:
        return Query(name="", texts={"": value})
    import difflib

    near = difflib.get_close_matches(value, known, 1)
    raise ValueError(
        f"cannot find the query {value!r}" + (f": did you mean {near[0]!r}?" if near else ": name it under queries")
    )


NamedQuery = Annotated[Query, BeforeValidator(_named, json_schema_input_type=QueryText)]
"""The name of one of the playbook's `queries:`, or SQL in place."""


class Text(Model):
    """SQL that may differ between dialects: a text, or {postgresql: …, sqlite: …}."""

    texts: Mapping[str, str]

    @model_validator(mode="before")
    @classmethod
    def _either(cls, data: object) -> object:
        if isinstance(data, str):
            return {"texts": {"": data}}
        if isinstance(data, dict) and data and set(data) <= {"postgresql", "sqlite"}:
            return {"texts": data}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler  # `texts` is never written
        return named("SQL", SQL)

    def text(self, dialect: str) -> str:
        found = self.texts.get(str(dialect)) or self.texts.get("")
        if found is None:
            raise NoText(f"cannot run on {dialect}: the playbook has no SQL for it")
        return found
