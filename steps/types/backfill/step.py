"""Fills columns that are NULL from a query, in batches that commit data, cursor, undo and counters together."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from steps.contract import Identifier, StepResult, Text
from steps.sql.queries import ReadQuery
from steps.types.backfill.batched import Batched, PassResult
from steps.types.backfill.spec import BackfillFields


class BackfillResult(PassResult):
    """visited = written + already + no_key + not_in_source + deferred + dead.

    no_key: the match is NULL; not_in_source: the source has no row for the key.
    """

    no_key: int
    not_in_source: int


class Backfill(Batched):
    """Fills each row's NULL columns from the source row that `match` names; values that aren't NULL are never changed.

    Every row is visited once, in heap order or in the order of a key. Progress counts rows visited, so rows that never match
    can't make the pass run for ever. Bounds are fixed at the start, and a final sweep covers the whole table. The undo resets
    exactly the rows that were written.
    """

    kind: ClassVar[str] = "backfill"
    summary: ClassVar[str] = "fills NULL columns from a query, in adaptive batches that can be resumed and taken back"
    Result: ClassVar[type[StepResult]] = BackfillResult

    source: ReadQuery
    match: Text
    fill: Annotated[tuple[Identifier, ...], Field(min_length=1)]

    def describe(self) -> str:
        source = self.source.name or "a query"
        return f"fill {', '.join(self.fill)} of {self.table}{self._scope} from {source}, only where NULL"

    def _fields(self) -> BackfillFields:
        return BackfillFields(self.table, self.key, self.source, self.match, self.fill, self.where, self.undo)
