"""Probes on columns: the columns of a table with their types, and the dependants of a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, model_validator

from steps.catalog import catalog
from steps.catalog.definitions import Tie
from steps.contract import Answer, Column, Identifier, Look, Model, Probe, Unknown, Verdict
from steps.contract.direction import FEWER


class ColumnsResult(Model):
    """missing: in `has`, but absent; unwanted: in `lacks`, but present; wrong_type: with the actual and the expected type."""

    exists: bool
    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    wrong_type: tuple[str, ...] = ()


class Columns(Probe):
    """Which columns a table has. has: [name] or {name: type}; lacks: [name].

    Types are compared as the database resolves them (`varchar(2)` is `character varying(2)`); on SQLite by affinity.
    """

    kind: ClassVar[str] = "columns"
    summary: ClassVar[str] = "which columns a table has, and of what type"
    Result: ClassVar[type[BaseModel]] = ColumnsResult

    table: Identifier
    has: Annotated[tuple[Identifier, ...] | Mapping[Identifier, str], FEWER] = ()
    lacks: Annotated[tuple[Identifier, ...], FEWER] = ()

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        both = sorted(set(self.has) & set(self.lacks))
        if both:
            raise ValueError(f"{', '.join(both)} can't be in both `has` and `lacks`")
        return self

    def observe(self, look: Look) -> ColumnsResult:
        from steps.catalog import compare

        found = catalog.columns(look, self.table)
        types = self.has if isinstance(self.has, Mapping) else {}
        return ColumnsResult(
            exists=bool(found) or catalog.relation(look, self.table) is not None,
            columns=tuple(found),
            missing=tuple(name for name in self.has if name not in found),
            unwanted=tuple(name for name in self.lacks if name in found),
            wrong_type=tuple(
                f"{name} is {found[name].type}, not {wanted}"
                for name, wanted in types.items()
                if name in found and not compare.same_type(look, found[name].type, wanted)
            ),
        )

    def verdict(self, result: BaseModel) -> Verdict | None:
        if not self.decides():
            return None
        seen = ColumnsResult.model_validate(result)
        if not seen.exists:
            return Verdict(Answer.FAIL, f"there is no table {self.table}")
        faults = [f"{name} is missing" for name in seen.missing]
        faults += [f"{name} is there" for name in seen.unwanted]
        faults += seen.wrong_type
        return Verdict(Answer.FAIL if faults else Answer.PASS, "; ".join(faults) or f"{self.table} is as expected")

    def decides(self) -> bool:
        return bool(self.has or self.lacks)


class DependantsResult(Model):
    """names: with their kind; by_text: how many only name the column in their source, and would fail after a rename."""

    count: int
    names: tuple[str, ...]
    by_text: int


class Dependants(Probe):
    """What uses a column: views, functions, generated columns, policies, triggers, foreign keys of other tables.

    Indexes and constraints of the table itself follow the column and don't count, unless `indexes: true`.
    """

    kind: ClassVar[str] = "dependants"
    summary: ClassVar[str] = "views, functions, triggers … that use a column"
    Result: ClassVar[type[BaseModel]] = DependantsResult

    column: Column
    indexes: bool = False

    def observe(self, look: Look) -> DependantsResult:
        if self.column.column not in catalog.columns(look, self.column.table):
            raise Unknown(f"there is no column {self.column}, so nothing can be said of what uses it")
        found = [one for one in catalog.dependants(look, self.column) if self.indexes or one.how is not Tie.OWN]
        return DependantsResult(
            count=len(found),
            names=tuple(str(one) for one in found),
            by_text=sum(one.how is Tie.TEXT for one in found),
        )
