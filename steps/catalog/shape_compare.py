"""Compares a declared shape with the database: what is there, missing, different, more than declared, or being changed.

Only the catalogue and the rows are asked. Definitions are compared in the server's own form (steps.catalog.shape_form).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeVar

from steps.catalog import catalog, changers, shape_form, shape_rows
from steps.catalog.changers import Changer
from steps.catalog.definitions import ColumnInfo, ConstraintInfo, IndexInfo, TriggerInfo
from steps.catalog.scratch import fault_text
from steps.catalog.shape import (
    STRUCTURE,
    ColumnSpec,
    ConstraintSpec,
    FillSpec,
    IndexSpec,
    Kind,
    ResolvedShape,
    RowSpec,
    ShapePart,
    ShapeState,
    TableSpec,
    TriggerSpec,
    covers,
)
from steps.contract import UNDEFINED, DatabaseFault, Look, NoText, StepError, Unknown
from steps.sql.unreadable import attempt

Info = TypeVar("Info", ColumnInfo, IndexInfo, ConstraintInfo, TriggerInfo)


class PartState(StrEnum):
    """How one part of a shape stands."""

    THERE = "there"
    MISSING = "missing"
    DIFFERS = "differs"
    BEFORE = "before"  # as its base declares it
    UNSEEN = "unseen"


class ShapeFinding(NamedTuple):
    """A part of the shape, how it stands, and what in the catalogue says so."""

    part: ShapePart
    found: PartState
    evidence: str

    def __str__(self) -> str:
        return f"{self.part}: {self.evidence}"


@dataclass(frozen=True)
class Comparison:
    """A shape compared with a database. more: what is there and must not be. hidden: what this role can't see of changers."""

    shape: ResolvedShape
    state: ShapeState
    findings: tuple[ShapeFinding, ...]
    more: tuple[str, ...]
    changers: tuple[Changer, ...] = ()
    hidden: str = ""
    _by_found: dict[PartState, list[ShapeFinding]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def those(self, *found: PartState) -> list[ShapeFinding]:
        """The findings of these kinds."""
        return [one for one in self.findings if one.found in found]

    @property
    def faults(self) -> list[ShapeFinding]:
        """What is not as declared."""
        return self.those(PartState.MISSING, PartState.DIFFERS, PartState.BEFORE)


def compare(look: Look, shape: ResolvedShape) -> Comparison:
    """Compare a shape with the database."""
    there = {one: _exists(look, one) for one in shape.tables}
    busy = changers.at_work(look, shape.tables, unseen=not all(there.values()))
    closed = {name for one in busy.changers for name in one.closed}
    comparer = _Comparer(look, shape, there, frozenset(closed))
    findings = tuple(comparer.findings())
    more = tuple(comparer.more())
    state = ShapeState.CHANGING if busy.changers else _state(shape, findings, more)
    return Comparison(shape, state, findings, more, busy.changers, busy.hidden)


def _exists(look: Look, table: str) -> bool:
    return bool(
        catalog.answers(look, "exists", dict(zip(("schema", "table"), catalog.named(look, table), strict=True)))
    )


def _state(shape: ResolvedShape, findings: tuple[ShapeFinding, ...], more: tuple[str, ...]) -> ShapeState:
    faulty = any(one.found in {PartState.MISSING, PartState.DIFFERS, PartState.BEFORE} for one in findings)
    if not faulty:
        unseen = any(one.found is PartState.UNSEEN for one in findings)
        return ShapeState.UNKNOWN if unseen else ShapeState.MORE if more else ShapeState.WHOLE
    own = [one for one in findings if shape.own(one.part) and (one.part.kind in STRUCTURE or one.part.kind is Kind.ROW)]
    some = any(one.found in {PartState.THERE, PartState.DIFFERS, PartState.UNSEEN} for one in own)
    return ShapeState.HALF if some else ShapeState.ABSENT


class _Unseen(Exception):
    """This part can't be seen; the text says why."""


_Verdict = tuple[PartState, str]


@dataclass(frozen=True)
class _Table:
    """A table's catalogue, read once."""

    columns: dict[str, ColumnInfo]
    indexes: dict[str, IndexInfo]
    constraints: dict[str, ConstraintInfo]
    triggers: dict[str, TriggerInfo]


class _Comparer:
    """Goes through the parts of a shape, and reads each table once."""

    def __init__(self, look: Look, shape: ResolvedShape, there: dict[str, bool], closed: frozenset[str]) -> None:
        self.look, self.shape, self.there, self.closed = look, shape, there, closed
        self._tables: dict[str, _Table] = {}

    def findings(self) -> Iterator[ShapeFinding]:
        for part in self.shape.parts.values():
            if part.kind not in {Kind.TABLE, Kind.FILL} and not self.there[part.table]:
                if part.kind is not Kind.ROW:
                    continue  # the table itself is missing, which says it all
                yield ShapeFinding(part, PartState.MISSING, f"there is no table {part.table}")
                continue
            yield ShapeFinding(part, *self._seen(part))

    def _seen(self, part: ShapePart) -> _Verdict:
        """How a part stands, also where the database refuses to say."""
        try:
            return self._look_at(part)
        except DatabaseFault as fault:
            if fault.lost:
                raise
            if fault.sqlstate in UNDEFINED:
                return PartState.MISSING, f"what it reads is not there: {fault_text(fault)}"
            return PartState.UNSEEN, f"can't be seen: {fault_text(fault)}"
        except (_Unseen, Unknown, StepError, NoText) as why:
            return PartState.UNSEEN, f"can't be seen: {why}"

    def _look_at(self, part: ShapePart) -> _Verdict:
        fault, evidence = self._against(part)
        earlier = self.shape.before.get(part.key) if fault is PartState.DIFFERS and self.shape.own(part) else None
        if earlier is not None and self._against(earlier)[0] is PartState.THERE:
            return PartState.BEFORE, f"{evidence} (as in {self.shape.base})"
        return fault, evidence

    def _against(self, part: ShapePart) -> _Verdict:
        match part.wanted:
            case TableSpec():
                return (
                    (PartState.THERE, "is there")
                    if self.there[part.table]
                    else (PartState.MISSING, "there is no such table")
                )
            case ColumnSpec() as column:
                return self._named(
                    part,
                    self._of(part.table).columns,
                    lambda has: shape_form.column(self.look, part.table, has, column),
                )
            case IndexSpec() as index:
                return self._named(
                    part, self._of(part.table).indexes, lambda has: shape_form.index(self.look, part.table, has, index)
                )
            case ConstraintSpec() as constraint:
                return self._constraint(part, constraint)
            case TriggerSpec() as trigger:
                return self._named(part, self._of(part.table).triggers, lambda has: shape_form.trigger(has, trigger))
            case RowSpec() as row:
                self._readable(part.table)
                with attempt(self.look):
                    told = shape_rows.row(self.look, row)
                return (PartState.MISSING, "there is no such row") if told is None else _told(told)
            case FillSpec() as fill:
                return self._fill(part, fill)

    def _fill(self, part: ShapePart, fill: FillSpec) -> _Verdict:
        table, _, column = part.table.rpartition(".")
        if fill.query is None and not (_exists(self.look, table) and column in self._of(table).columns):
            return PartState.MISSING, f"there is no column {part.table}"
        if fill.query is not None and self.closed:
            raise _Unseen("somebody holds ACCESS EXCLUSIVE on a table that it may read")
        with attempt(self.look):
            return _told(shape_rows.fill(self.look, table, column, fill))

    def _named(self, part: ShapePart, known: dict[str, Info], differences: Callable[[Info], list[str]]) -> _Verdict:
        if part.name not in known:
            return PartState.MISSING, f"the catalogue has no such {part.kind}"
        return _told(differences(known[part.name]))

    def _constraint(self, part: ShapePart, wanted: ConstraintSpec) -> _Verdict:
        """SQLite has no names for most constraints: there the definition counts."""
        known = self._of(part.table).constraints
        if catalog.on_postgresql(self.look):
            return self._named(part, known, lambda has: shape_form.constraint(self.look, part.table, has, wanted))
        if shape_form.sqlite_has(self.look, part.table, known.values(), wanted):
            return PartState.THERE, "is there"
        return PartState.MISSING, f"the table has no such constraint: {wanted.definition}"

    # ─── more than declared ─────────────────────────────────────────────────────────────────────────────────────────
    def more(self) -> Iterator[str]:
        for name in self.shape.absent:
            yield from self._unwanted(name)
        for table in sorted(self.shape.exact):
            if self.there.get(table) and not self._shut(table):
                yield from self._undeclared(table)

    def _unwanted(self, name: str) -> Iterator[str]:
        table, _, inner = name.rpartition(".")
        if not inner or not table:
            kind = catalog.answers(self.look, "exists", {"schema": self.look.schema, "table": name})
            yield from (f"{row.text('kind')} {name}" for row in kind)
        elif _exists(self.look, table) and not self._shut(table):
            found = self._of(table)
            groups: list[tuple[str, Iterable[str]]] = [
                ("column", found.columns),
                ("index", found.indexes),
                ("constraint", found.constraints),
                ("trigger", found.triggers),
            ]
            yield from (f"{kind} {name}" for kind, known in groups if inner in known)

    def _undeclared(self, table: str) -> Iterator[str]:
        found = self._of(table)
        declared = {(part.kind, part.name) for part in self.shape.parts.values() if part.table == table}
        listed = set(self.shape.absent)
        groups: list[tuple[Kind, list[str]]] = [
            (Kind.COLUMN, list(found.columns)),
            (Kind.INDEX, [one.name for one in found.indexes.values() if not one.constraint]),
            (Kind.TRIGGER, list(found.triggers)),
        ]
        if catalog.on_postgresql(self.look):
            groups.append((Kind.CONSTRAINT, list(found.constraints)))
        for kind, names in groups:
            for name in names:
                part = ShapePart(kind, table, name, TableSpec())
                if (kind, name) not in declared and not any(covers(one, part) for one in listed):
                    yield str(part)

    # ─── reading ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _of(self, table: str) -> _Table:
        self._readable(table)
        if table not in self._tables:
            with attempt(self.look):
                self._tables[table] = _Table(
                    catalog.columns(self.look, table),
                    {one.name: one for one in catalog.indexes(self.look, table)},
                    {one.name: one for one in catalog.constraints(self.look, table)},
                    {one.name: one for one in catalog.triggers(self.look, table)},
                )
        return self._tables[table]

    def _readable(self, table: str) -> None:
        """Raises _Unseen where reading would wait behind somebody's ACCESS EXCLUSIVE."""
        if self._shut(table):
            raise _Unseen("somebody holds ACCESS EXCLUSIVE on its table")

    def _shut(self, table: str) -> bool:
        return ".".join(catalog.named(self.look, table)) in self.closed


def _told(differences: list[str]) -> _Verdict:
    return (PartState.DIFFERS, "; ".join(differences)) if differences else (PartState.THERE, "is as declared")
