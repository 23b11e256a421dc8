"""Writes the shape of some tables as a database has it, in the form that playbooks include.

The text depends on nothing but definitions: two databases with the same ones give the same file.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from steps.catalog import catalog, shape_form
from steps.catalog.definitions import ColumnInfo
from steps.catalog.shape import (
    ColumnSpec,
    ConstraintSpec,
    IndexSpec,
    Kind,
    ResolvedShape,
    ShapePart,
    ShapeSpec,
    TableSpec,
    TriggerSpec,
    resolve,
)
from steps.contract import Look, Refused
from steps.contract.dialect import Dialect

_PLAIN = re.compile(r"[A-Za-z_][\w ()./-]*[\w)]|[A-Za-z_]")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})  # no texts in YAML
_WIDTH = 120
_NOT_VALID = " NOT VALID"


# ─── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────
def read(look: Look, tables: Sequence[str]) -> ShapeSpec:
    """The shape of these tables; raises Refused where one isn't there, or has an index that is not valid."""
    return ShapeSpec(tables={table: _table(look, table) for table in sorted(set(tables))})


def _table(look: Look, table: str) -> TableSpec:
    columns = catalog.columns(look, table)
    if not columns:
        raise Refused(f"cannot write the shape of {table}: there is no such table")
    indexes = [one for one in catalog.indexes(look, table) if not one.constraint]
    broken = [one.name for one in indexes if not one.usable]
    if broken:
        raise Refused(
            f"cannot write the shape of {table}: the index {broken[0]} is not valid, and a shape declares none such"
        )
    return TableSpec(
        exact=True,
        columns={name: _column(look, table, columns[name]) for name in sorted(columns)},
        indexes={one.name: IndexSpec(definition=_one_line(shape_form.index_text(look, one))) for one in indexes},
        constraints=_constraints(look, table),
        triggers={
            one.name: TriggerSpec(definition=_one_line(one.definition), enabled=one.enabled)
            for one in catalog.triggers(look, table)
        },
    )


def _column(look: Look, table: str, has: ColumnInfo) -> ColumnSpec:
    return ColumnSpec(
        type=has.type,
        not_null=has.not_null,
        default=_one_line(has.default or "") or None,
        generated=_one_line(shape_form.generated_from(look, table, has)) or None,
        identity={"always": "always", "by default": "by default"}.get(has.identity, ""),
        collation=has.collation,
    )


def _constraints(look: Look, table: str) -> dict[str, ConstraintSpec]:
    known = catalog.constraints(look, table)
    if catalog.on_postgresql(look):
        return {
            one.name: ConstraintSpec(
                definition=_one_line(one.definition.removesuffix(_NOT_VALID)), validated=one.validated
            )
            for one in known
        }
    texts = sorted(shape_form.sqlite_text(one) for one in known)
    return {f"constraint_{n}": ConstraintSpec(definition=text) for n, text in enumerate(texts, 1)}


def _one_line(text: str) -> str:
    """The text with white space outside of quotes reduced to single blanks."""
    pieces = re.split(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""", text.strip())
    return "".join(one if one[:1] in {"'", '"'} else re.sub(r"\s+", " ", one) for one in pieces)


# ─── the difference to a base ───────────────────────────────────────────────────────────────────────────────────────
def since(base: ResolvedShape, spec: ShapeSpec) -> ShapeSpec:
    """The same shape, written as what it has otherwise than its base."""
    whole = resolve({"": spec})[""]
    tables = {table: _less(table, one, base) for table, one in spec.tables.items()}
    gone = [part for key, part in base.parts.items() if key not in whole.parts and part.table in {*spec.tables}]
    return ShapeSpec.model_validate(
        {
            "from": base.name,
            "tables": {table: one for table, one in tables.items() if one != TableSpec() or table not in base.tables},
            "absent": sorted(f"{part.table}.{part.name}" for part in gone if part.kind in _NAMED),
        }
    )


_NAMED = (Kind.COLUMN, Kind.INDEX, Kind.CONSTRAINT, Kind.TRIGGER)


def _less(table: str, one: TableSpec, base: ResolvedShape) -> TableSpec:
    def new(kind: Kind, name: str, wanted: object) -> bool:
        before: ShapePart | None = base.parts.get((kind, table, name))
        return before is None or before.wanted != wanted

    return TableSpec(
        exact=one.exact and table not in base.exact,
        columns={name: each for name, each in one.columns.items() if new(Kind.COLUMN, name, each)},
        indexes={name: each for name, each in one.indexes.items() if new(Kind.INDEX, name, each)},
        constraints={name: each for name, each in one.constraints.items() if new(Kind.CONSTRAINT, name, each)},
        triggers={name: each for name, each in one.triggers.items() if new(Kind.TRIGGER, name, each)},
    )


# ─── YAML ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def text(name: str, spec: ShapeSpec, dialect: Dialect) -> str:
    """The shape as a file that playbooks can include."""
    lines = ["runbook: 1", "shapes:", f"  {name}:", f"    {dialect}:"]
    if spec.base:
        lines.append(f"      from: {spec.base}")
    lines += ["      tables:"] if spec.tables else []
    for table, one in spec.tables.items():
        lines += [f"        {_scalar(table)}:", *_table_lines(one)]
    if spec.absent:
        lines += ["      absent:", *(f"        - {_scalar(one)}" for one in spec.absent)]
    return "\n".join(lines) + "\n"


def _table_lines(one: TableSpec) -> Iterator[str]:
    if one.exact:
        yield "          exact: true"
    groups: Mapping[str, Mapping[str, ColumnSpec | IndexSpec | ConstraintSpec | TriggerSpec]] = {
        "columns": one.columns,
        "constraints": one.constraints,
        "indexes": one.indexes,
        "triggers": one.triggers,
    }
    for key, parts in groups.items():
        if parts:
            yield f"          {key}:"
        for name, part in parts.items():
            yield from _part_lines(_scalar(name), part)


def _part_lines(name: str, part: ColumnSpec | IndexSpec | ConstraintSpec | TriggerSpec) -> Iterator[str]:
    """`name: text` where one text says it all, else a mapping, on one line if it fits."""
    keys = {key: value for key, value in part.model_dump().items() if value != _default(part, key)}
    first = "type" if isinstance(part, ColumnSpec) else "definition"
    short = f"            {name}: {_scalar(keys[first])}" if set(keys) == {first} else ""
    flow = f"            {name}: {{{', '.join(f'{key}: {_scalar(value)}' for key, value in keys.items())}}}"
    if (short or flow) and len(short or flow) <= _WIDTH:
        yield short or flow
        return
    if short:
        yield from _long(f"            {name}:", str(keys[first]), 14)
        return
    yield f"            {name}:"
    for key, value in keys.items():
        line = f"              {key}: {_scalar(value)}"
        yield from [line] if len(line) <= _WIDTH else _long(f"              {key}:", str(value), 16)


def _default(part: ColumnSpec | IndexSpec | ConstraintSpec | TriggerSpec, key: str) -> object:
    field = type(part).model_fields[key]
    return ... if field.is_required() else field.default


def _long(head: str, value: str, indent: int) -> Iterator[str]:
    """A folded block; what folding would change stays on one quoted line."""
    wrapped = textwrap.wrap(value, _WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    if " ".join(wrapped) != value or any(line.startswith((" ", "#")) for line in wrapped):
        yield f"{head} {_scalar(value)}"
        return
    yield f"{head} >-"
    yield from (f"{' ' * indent}{line}" for line in wrapped)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    written = str(value)
    plain = _PLAIN.fullmatch(written) and written.lower() not in _WORDS
    return written if plain else json.dumps(written, ensure_ascii=False)
