"""Probes on rows: the figures that a query returns, and row counts."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from steps.catalog import catalog, failing_row
from steps.contract import RESERVED, Answer, Figures, Identifier, Look, Model, Probe, StepError, Text, Verdict
from steps.contract.direction import HIGHER, LOWER, NO_EFFECT, UNSET
from steps.sql.queries import ReadQuery, require_all_rows, text_of

Count = Annotated[int, Field(ge=0)]


OWN = frozenset({"rows", "table"})  # figures of the probe itself
_ALIAS = re.compile(r"""\bAS\s+(?:"([^"]+)"|`([^`]+)`|\[([^\]]+)\]|(\w+))""", re.IGNORECASE)
_TAKEN = "it is one of this check's own figures; name it otherwise with AS"


def _refuse_alias(text: str) -> None:
    """Raises ValueError for a column alias that would clash with another name in `that:`.

    Only aliases in the text are found here; names that only the database knows are checked when the query runs.
    """
    for found in _ALIAS.finditer(text):
        quoted, bare = found[1] or found[2] or found[3] or "", found[4] or ""
        if "." in quoted:
            raise ValueError(f"cannot use the column name {quoted!r}: with a dot it could be another's figure")
        if (quoted or bare.lower()) in RESERVED:
            raise ValueError(f"cannot use the column name {quoted or bare!r}: the word is reserved")


class QueryProbe(Probe):
    """The columns of a query that returns one row are names for `that:`; of several rows, only their number is.

    show: Annotated[columns whose values are shown at a checkpoint and in the report, for at most max_rows rows., NO_EFFECT]
    rows: Annotated[the exact number of rows expected; a check on its own., UNSET]
    """

    kind: ClassVar[str] = "query"
    conditional: ClassVar[bool] = True
    summary: ClassVar[str] = "the figures of a named query"
    Result: ClassVar[type[BaseModel]] = Figures
    open_names: ClassVar[bool] = True

    query: ReadQuery
    show: tuple[str, ...] = ()
    max_rows: Annotated[int, Field(ge=1, le=20), NO_EFFECT] = 20
    rows: Count | None = None

    @model_validator(mode="after")
    def _columns(self, info: ValidationInfo) -> Self:
        if not (info.context or {}).get("kept"):
            for text in self.query.texts.values():
                _refuse_alias(text)
        return self

    def observe(self, look: Look) -> Figures:
        sql = text_of(self.query, look)
        require_all_rows(look, sql)
        with failing_row.named(look, sql):
            found = look.rows(f"SELECT * FROM (\n{sql}) AS the_query LIMIT {self.max_rows + 1}")
            count = len(found)
            if count > self.max_rows:
                count = look.row(f"SELECT count(*) AS n FROM (\n{sql}) AS the_query").integer("n")
        missing = [name for name in self.show if found and name not in found[0]]
        if missing:
            raise StepError(f"cannot show {', '.join(missing)}: the query has {', '.join(found[0])}")
        shadowing = OWN.intersection(found[0]) if count == 1 else set()
        if shadowing:
            raise StepError(f"cannot use the column name {min(shadowing)!r}: {_TAKEN}")
        figures: dict[str, object] = {"rows": count}
        if self.show:
            figures["table"] = [{name: row[name] for name in self.show} for row in found[: self.max_rows]]
        return Figures.model_validate({**figures, **(found[0] if count == 1 else {})})

    def verdict(self, result: BaseModel) -> Verdict | None:
        if self.rows is None:
            return None
        count = Figures.model_validate(result).model_dump()["rows"]
        answer = Answer.PASS if count == self.rows else Answer.FAIL
        return Verdict(answer, f"{count} rows, expected {self.rows}")

    def decides(self) -> bool:
        return self.rows is not None


class RowsResult(Model):
    """rows: an exact count, in the snapshot that the checks of a group share."""

    rows: int


class RowsProbe(Probe):
    """An exact count of the rows of a table or a query, with bounds for it."""

    kind: ClassVar[str] = "rows"
    summary: ClassVar[str] = "an exact count of rows"
    Result: ClassVar[type[BaseModel]] = RowsResult

    table: Identifier | None = None
    where: Text | None = None
    query: ReadQuery | None = None
    at_least: Annotated[Count | None, LOWER] = None
    at_most: Annotated[Count | None, HIGHER] = None
    exactly: Annotated[Count | None, UNSET] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either `table` or `query`")
        if self.where is not None and self.table is None:
            raise ValueError("`where` goes with `table`; a query has its own")
        return self

    def observe(self, look: Look) -> RowsResult:
        sql = self._source(look)
        require_all_rows(look, sql)
        with failing_row.named(look, sql):
            return RowsResult(rows=look.row(f"SELECT count(*) AS n FROM (\n{sql}) AS counted").integer("n"))

    def _source(self, look: Look) -> str:
        if self.query is not None:
            return text_of(self.query, look)
        where = f" WHERE ({self.where.text(look.dialect)}\n)" if self.where else ""
        return f"SELECT 1 AS one FROM {catalog.sql_name(look, str(self.table))} AS target{where}"

    def verdict(self, result: BaseModel) -> Verdict | None:
        if not self.decides():
            return None
        rows = RowsResult.model_validate(result).rows
        faults = [
            f"expected {word} {bound}"
            for word, bound, kept in (
                ("at least", self.at_least, self.at_least is None or rows >= self.at_least),
                ("at most", self.at_most, self.at_most is None or rows <= self.at_most),
                ("exactly", self.exactly, self.exactly is None or rows == self.exactly),
            )
            if not kept
        ]
        return Verdict(Answer.FAIL if faults else Answer.PASS, ", ".join([f"{rows} rows", *faults]))

    def decides(self) -> bool:
        return any(bound is not None for bound in (self.at_least, self.at_most, self.exactly))
