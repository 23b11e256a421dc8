"""A declared shape: the tables, columns, indexes, constraints, triggers and rows that a database is to have.

A shape is written under `shapes:` in a playbook or in a file that playbooks include. `from` names the shape that it was
migrated from: it then declares only the differences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    JsonValue,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from steps.contract import Identifier, Model, NoText, Query, Text
from steps.contract.dialect import Dialect
from steps.contract.written import QueryText, Schema, named
from steps.sql.queries import ReadQuery

_INDEX = re.compile(r"(?P<unique>unique )?(?P<method>[a-z][a-z0-9_]*) (?P<rest>\(.+)", re.DOTALL | re.IGNORECASE)


class ShapeState(StrEnum):
    """How a shape stands in a database."""

    WHOLE = "whole"  # everything declared is there, as declared, and nothing that must be absent
    MORE = "more"  # everything declared is there, and more than it may have
    HALF = "half"  # some of it is there
    ABSENT = "absent"  # nothing of it is there that its base hasn't
    CHANGING = "changing"  # somebody is changing its tables now
    UNKNOWN = "unknown"  # what can be seen is as declared, and something can't be seen


# ─── as written ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _sql_text(value: object) -> object:
    """A default may be written as a bare number or truth value."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _short(key: str, model: type[Model]) -> BeforeValidator:
    """A bare text stands for the one key that is nearly always enough."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value, json_schema_input_type=model | str
    )


SqlText = Annotated[
    str, BeforeValidator(_sql_text, json_schema_input_type=str | int | float | bool), Field(min_length=1)
]


class ColumnSpec(Model):
    """A column. default, generated: SQL expressions; generated: that of a generated column."""

    type: str
    not_null: bool = False
    default: SqlText | None = None
    generated: SqlText | None = None
    identity: Literal["", "always", "by default"] = ""
    collation: str = ""


class IndexSpec(Model):
    """An index, valid and ready. definition: `[unique] METHOD (KEYS) [INCLUDE …] [WHERE …]`."""

    definition: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _readable(self) -> IndexSpec:
        if not _INDEX.fullmatch(self.definition):
            raise ValueError(
                f"cannot read the index {self.definition!r}: write its method and keys, e.g. btree (a, b), unique btree (a) "
                "WHERE b IS NULL"
            )
        return self

    @property
    def parts(self) -> tuple[bool, str, str]:
        """Whether it is unique, its method, and what follows the method."""
        found = _INDEX.fullmatch(self.definition)
        if found is None:
            raise ValueError(self.definition)
        return bool(found["unique"]), found["method"], found["rest"]


class ConstraintSpec(Model):
    """A constraint, as in ADD CONSTRAINT."""

    definition: Annotated[str, Field(min_length=1)]
    validated: bool = True


class TriggerSpec(Model):
    """A trigger: its CREATE TRIGGER statement."""

    definition: Annotated[str, Field(min_length=1)]
    enabled: bool = True


class TableSpec(Model):
    """A table. exact: whatever else it has is reported as more than declared."""

    exact: bool = False
    columns: Mapping[Identifier, Annotated[ColumnSpec, _short("type", ColumnSpec)]] = {}
    indexes: Mapping[Identifier, Annotated[IndexSpec, _short("definition", IndexSpec)]] = {}
    constraints: Mapping[Identifier, Annotated[ConstraintSpec, _short("definition", ConstraintSpec)]] = {}
    triggers: Mapping[Identifier, Annotated[TriggerSpec, _short("definition", TriggerSpec)]] = {}


class RowSpec(Model):
    """One row of a table: the one where these columns have these values has those values."""

    table: Identifier
    where: Annotated[Mapping[Identifier, JsonValue], Field(min_length=1)]
    has: Annotated[Mapping[Identifier, JsonValue], Field(min_length=1)]


def _fill(value: object) -> object:
    known: Mapping[object, object] = {"none": {"at_most": 0}, "some": {"at_least": 1}, "all": {"all": True}}
    return known.get(value, value) if isinstance(value, str) else value


class FillSpec(Model):
    """How many rows have a value in a column, or how many a query counts in its one column."""

    at_least: Annotated[int, Field(ge=0)] = 0
    at_most: Annotated[int, Field(ge=0)] | None = None
    all: bool = False
    query: ReadQuery | None = None


class MustHold(Model):
    """What the data must be like for the migration to pass.

    Either a query that returns the rows at fault, or a table with its key and a condition: the rows are at fault for which the
    condition is false or can't be evaluated. show: columns of them that are shown.
    """

    query: ReadQuery | None = None
    table: Identifier | None = None
    key: Identifier | None = None
    holds: Text | None = None
    show: tuple[Identifier, ...] = ()
    why: str = ""

    @model_validator(mode="after")
    def _one_form(self) -> MustHold:
        by_row = (self.table, self.key, self.holds)
        if (self.query is None) == (None in by_row) or (self.query is not None and any(by_row)):
            raise ValueError("give either `query`, or `table`, `key` and `holds`")
        return self


def _must_hold(value: object) -> object:
    return {"query": value} if isinstance(value, str | Query) else value


NAME = r"^[a-z][a-z0-9-]*$"
PlaybookName = Annotated[str, Field(pattern=NAME)]


class ShapeSpec(Model):
    """A shape as it is written. next: the playbook that an operator needs in this state (`half: adr007-recovery`)."""

    base: Annotated[str, Field(alias="from")] = ""
    tables: Mapping[Identifier, TableSpec] = {}
    rows: tuple[RowSpec, ...] = ()
    filled: Mapping[
        str,
        Annotated[FillSpec, BeforeValidator(_fill, json_schema_input_type=FillSpec | Literal["none", "some", "all"])],
    ] = {}
    absent: tuple[Identifier, ...] = ()
    next: Mapping[ShapeState, PlaybookName] = {}
    must_hold: Mapping[
        str, Annotated[MustHold, BeforeValidator(_must_hold, json_schema_input_type=MustHold | QueryText)]
    ] = {}

    @model_validator(mode="after")
    def _says_something(self) -> ShapeSpec:
        if not (self.base or self.tables or self.rows or self.filled or self.absent):
            raise ValueError("cannot use a shape that declares nothing: every database would be as it says")
        return self


# ─── as compared ────────────────────────────────────────────────────────────────────────────────────────────────────
class Kind(StrEnum):
    """What a part of a shape is."""

    TABLE = "table"
    COLUMN = "column"
    INDEX = "index"
    CONSTRAINT = "constraint"
    TRIGGER = "trigger"
    ROW = "row"
    FILL = "fill"


STRUCTURE = frozenset({Kind.TABLE, Kind.COLUMN, Kind.INDEX, Kind.CONSTRAINT, Kind.TRIGGER})
Wanted: TypeAlias = TableSpec | ColumnSpec | IndexSpec | ConstraintSpec | TriggerSpec | RowSpec | FillSpec
Key: TypeAlias = tuple[Kind, str, str]


@dataclass(frozen=True)
class ShapePart:
    """One thing that a shape declares. name: "" for a table."""

    kind: Kind
    table: str
    name: str
    wanted: Wanted

    @property
    def key(self) -> Key:
        return self.kind, self.table, self.name

    def __str__(self) -> str:
        match self.kind:
            case Kind.TABLE | Kind.FILL:
                return f"{self.kind} {self.table}"
            case Kind.COLUMN:
                return f"column {self.table}.{self.name}"
            case Kind.ROW:
                return f"row {self.table} {self.name}"
            case _:
                return f"{self.kind} {self.name} on {self.table}"


@dataclass(frozen=True)
class ResolvedShape:
    """A shape with all that it has from its base. own: the keys of the parts that its base has not, or has otherwise."""

    name: str
    parts: Mapping[Key, ShapePart]
    before: Mapping[Key, ShapePart] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    exact: frozenset[str] = frozenset()
    must_hold: Mapping[str, MustHold] = field(default_factory=dict)
    base: str = ""
    next: Mapping[ShapeState, str] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of which it says anything."""
        return tuple(dict.fromkeys(one.table for one in self.parts.values() if one.kind is not Kind.FILL))

    def own(self, part: ShapePart) -> bool:
        """Whether the part is new or changed in this shape; all are in one without a base."""
        earlier = self.before.get(part.key)
        return earlier is None or _differs(earlier.wanted, part.wanted)


def _differs(one: Wanted, other: Wanted) -> bool:
    return not isinstance(one, TableSpec) and one != other


class BadShape(ValueError):
    """A shape can't be made of what is written."""


def resolve(specs: Mapping[str, ShapeSpec]) -> dict[str, ResolvedShape]:
    """Every shape with what it has from its base; raises BadShape for a base that isn't there, or a circle."""
    made: dict[str, ResolvedShape] = {}
    for name in specs:
        _resolve(name, specs, made, ())
    return made


def _resolve(
    name: str, specs: Mapping[str, ShapeSpec], made: dict[str, ResolvedShape], way: tuple[str, ...]
) -> ResolvedShape:
    if name in way:
        raise BadShape(f"cannot use the shape {name!r}: `from` goes in a circle: {' → '.join([*way, name])}")
    if name not in specs:
        raise BadShape(f"cannot find the shape {name!r}, from which {way[-1]!r} is made")
    if name not in made:
        spec = specs[name]
        base = _resolve(spec.base, specs, made, (*way, name)) if spec.base else None
        made[name] = _shape(name, spec, base)
    return made[name]


def _shape(name: str, spec: ShapeSpec, base: ResolvedShape | None) -> ResolvedShape:
    mine = {part.key: part for part in _parts(spec)}
    before = base.parts if base else {}
    kept = {key: part for key, part in before.items() if not any(covers(one, part) for one in spec.absent)}
    inherited = [one for one in base.absent if not any(covers(one, part) for part in mine.values())] if base else []
    return ResolvedShape(
        name=name,
        parts={**kept, **mine},
        before=before,
        absent=tuple(dict.fromkeys([*inherited, *spec.absent])),
        exact=(base.exact if base else frozenset()) | {table for table, one in spec.tables.items() if one.exact},
        must_hold=spec.must_hold,
        base=spec.base,
        next=spec.next,
    )


def covers(absent: str, part: ShapePart) -> bool:
    """Whether a name under `absent:` speaks of this part: a table or index by its name, what belongs to a table as table.name."""
    if absent == part.table:
        return part.kind is not Kind.FILL
    return absent == f"{part.table}.{part.name}" or (part.kind is Kind.INDEX and absent == part.name)


def _parts(spec: ShapeSpec) -> Iterable[ShapePart]:
    for table, one in spec.tables.items():
        yield ShapePart(Kind.TABLE, table, "", one)
        yield from (ShapePart(Kind.COLUMN, table, name, wanted) for name, wanted in one.columns.items())
        yield from (ShapePart(Kind.CONSTRAINT, table, name, wanted) for name, wanted in one.constraints.items())
        yield from (ShapePart(Kind.INDEX, table, name, wanted) for name, wanted in one.indexes.items())
        yield from (ShapePart(Kind.TRIGGER, table, name, wanted) for name, wanted in one.triggers.items())
    for row in spec.rows:
        where = ", ".join(f"{name}={value}" for name, value in row.where.items())
        yield ShapePart(Kind.ROW, row.table, where, row)
    for name, fill in spec.filled.items():
        yield ShapePart(Kind.FILL, name, "", fill)


@dataclass(frozen=True)
class DeclaredShape:
    """A named shape: one for each kind of database, or one for both."""

    name: str
    shapes: Mapping[str, ResolvedShape]  # dialect → shape

    def __str__(self) -> str:
        """Its name, as its author writes it; of a shape in place, what it declares."""
        parts = dict.fromkeys(str(part) for shape in self.shapes.values() for part in shape.parts.values())
        return self.name or f"in place: {', '.join(parts)}"

    def on(self, dialect: str) -> ResolvedShape:
        """The shape for this kind of database; raises NoText where there is none."""
        found = self.shapes.get(str(dialect))
        if found is None:
            raise NoText(f"cannot compare the shape {self.name!r} on {dialect}: it is not declared for it")
        return found


SpecsByDialect: TypeAlias = Mapping[str, Mapping[str, ShapeSpec]]
"""Name → dialect, or "" for both → what is written."""


def declared(written: SpecsByDialect) -> dict[str, DeclaredShape]:
    """The shapes by name, each for every kind of database for which it and its base are written; raises BadShape."""
    found: dict[str, dict[str, ResolvedShape]] = {name: {} for name in written}
    for dialect in map(str, Dialect):
        specs = {name: one for name, texts in written.items() if (one := texts.get(dialect) or texts.get(""))}
        for name, shape in resolve(specs).items():
            found[name][dialect] = shape
    return {name: DeclaredShape(name, shapes) for name, shapes in found.items()}


# ─── by name ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _named(value: object, info: ValidationInfo) -> object:
    known: Mapping[str, DeclaredShape] = (info.context or {}).get("shapes", {})
    if isinstance(value, Mapping):
        return declared({"": {"": ShapeSpec.model_validate(value, context=info.context)}})[""]
    if not isinstance(value, str):
        return value
    if value in known:
        return known[value]
    import difflib

    near = difflib.get_close_matches(value, known, 1)
    raise ValueError(
        f"cannot find the shape {value!r}" + (f": did you mean {near[0]!r}?" if near else ": declare it under shapes")
    )


_SHAPE: Schema = {
    "description": "The name of one of the playbook's shapes, or a shape in place.",
    "anyOf": [{"type": "string", "minLength": 1}, {"$ref": "#/$defs/declared_shape"}],
}
ShapeText = Annotated[str, WithJsonSchema(named("shape", _SHAPE))]
NamedShape = Annotated[InstanceOf[DeclaredShape], BeforeValidator(_named, json_schema_input_type=ShapeText)]
"""The name of one of the playbook's `shapes:`, or a shape in place."""
