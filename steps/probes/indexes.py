"""Probes on indexes and constraints: existence, validity, use."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, model_validator

from steps.catalog import catalog
from steps.catalog.definitions import IndexInfo
from steps.contract import Answer, Identifier, Look, Model, Probe, Verdict
from steps.contract.dialect import Dialect
from steps.contract.direction import OFF, UNSET

_SCANS = "SELECT idx_scan AS scans FROM pg_catalog.pg_stat_user_indexes WHERE indexrelid = CAST(:oid AS oid)"


class IndexResult(Model):
    """exists to bytes: of the one index; count and invalid: of the table's indexes. scans: since statistics were reset."""

    exists: bool
    valid: bool
    ready: bool
    name: str = ""
    definition: str = ""
    scans: int | None = None
    bytes: int | None = None
    count: int
    invalid: int
    invalid_names: tuple[str, ...] = ()


class IndexProbe(Probe):
    """One index, by name or by its leading columns; without either, the health of all indexes of the table.

    An index that an interrupted CONCURRENTLY left behind exists, but is not valid: it doesn't pass.
    """

    kind: ClassVar[str] = "index"
    summary: ClassVar[str] = "an index by name or columns, or the health of a table's indexes"
    Result: ClassVar[type[BaseModel]] = IndexResult

    table: Identifier
    name: Annotated[Identifier | None, UNSET] = None
    columns: tuple[Identifier, ...] = ()
    unique: Annotated[bool | None, UNSET] = None
    valid: Annotated[bool, OFF] = True

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.name and self.columns:
            raise ValueError("give either `name` or `columns`")
        return self

    def observe(self, look: Look) -> IndexResult:
        known = catalog.indexes(look, self.table)
        bad = tuple(one.name for one in known if not one.usable)
        found = self._find(known)
        return IndexResult(
            exists=found is not None,
            valid=found is not None and found.valid,
            ready=found is not None and found.ready,
            name=found.name if found else "",
            definition=found.definition if found else "",
            scans=_scans(look, found) if found else None,
            bytes=found.bytes if found else None,
            count=len(known),
            invalid=len(bad),
            invalid_names=bad,
        )

    def _find(self, known: list[IndexInfo]) -> IndexInfo | None:
        """The wanted index; among several that fit, a usable one."""
        fits = [one for one in known if self._fits(one)]
        return max(fits, key=lambda one: one.usable, default=None)

    def _fits(self, one: IndexInfo) -> bool:
        if self.unique is not None and one.unique is not self.unique:
            return False
        if self.name:
            return one.name == self.name
        whole = not one.predicate
        return bool(self.columns) and whole and one.columns[: len(self.columns)] == self.columns

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = IndexResult.model_validate(result)
        if not self._named():
            says = f"{seen.count} indexes, none invalid"
            bad = f"invalid: {', '.join(seen.invalid_names)}"
            return Verdict(Answer.FAIL, bad) if seen.invalid else Verdict(Answer.PASS, says)
        what = self.name or f"on ({', '.join(self.columns)})"
        if not seen.exists:
            return Verdict(Answer.FAIL, f"{self.table} has no index {what}")
        if self.valid and not (seen.valid and seen.ready):
            return Verdict(
                Answer.FAIL, f"index {seen.name} is not valid: a build was interrupted; drop and build it again"
            )
        return Verdict(Answer.PASS, f"index {seen.name} is there" + (" and valid" if seen.valid else ""))

    def _named(self) -> bool:
        return bool(self.name or self.columns)

    def decides(self) -> bool:
        return True


def _scans(look: Look, found: IndexInfo) -> int | None:
    if look.dialect is Dialect.SQLITE:
        return None
    rows = look.rows(_SCANS, {"oid": found.oid})
    return rows[0].maybe_integer("scans") if rows else None


class ConstraintResult(Model):
    """validated: existing rows were checked too, and not only new ones."""

    exists: bool
    validated: bool
    name: str = ""
    kind: str = ""
    definition: str = ""


class ConstraintProbe(Probe):
    """A constraint of a table; one that was added NOT VALID and never validated doesn't pass.

    SQLite's foreign keys have no names of their own: they are fk_0, fk_1 …
    """

    kind: ClassVar[str] = "constraint"
    summary: ClassVar[str] = "a constraint that is there and validated"
    Result: ClassVar[type[BaseModel]] = ConstraintResult

    table: Identifier
    name: Identifier
    validated: Annotated[bool, OFF] = True

    def observe(self, look: Look) -> ConstraintResult:
        for one in catalog.constraints(look, self.table):
            if one.name == self.name:
                return ConstraintResult(
                    exists=True, validated=one.validated, name=one.name, kind=one.kind, definition=one.definition
                )
        return ConstraintResult(exists=False, validated=False)

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = ConstraintResult.model_validate(result)
        if not seen.exists:
            return Verdict(Answer.FAIL, f"{self.table} has no constraint {self.name}")
        if self.validated and not seen.validated:
            return Verdict(
                Answer.FAIL, f"constraint {self.name} was never validated: ALTER TABLE … VALIDATE CONSTRAINT"
            )
        return Verdict(Answer.PASS, f"constraint {self.name} is there" + (" and validated" if seen.validated else ""))

    def decides(self) -> bool:
        return True
