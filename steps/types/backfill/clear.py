"""Empties columns in batches: sets them to NULL, and keeps what stood there for the way back."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from steps.contract import Identifiers, StepResult
from steps.types.backfill.batched import Batched, PassResult
from steps.types.backfill.spec import BackfillFields


class ClearColumns(Batched):
    """Sets columns to NULL wherever they hold a value; other columns and rows outside of `where` are never changed.

    It goes over the table as a backfill does: in adaptive batches that can be resumed, throttled while others work. The undo
    puts back what stood in each row, where the columns are still NULL; a row that was written meanwhile is refused.
    """

    kind: ClassVar[str] = "clear_columns"
    summary: ClassVar[str] = "sets columns to NULL, in adaptive batches that can be resumed and taken back"
    Result: ClassVar[type[StepResult]] = PassResult

    columns: Identifiers = Field(min_length=1)

    def describe(self) -> str:
        return f"empty {', '.join(self.columns)} of {self.table}{self._scope}"

    def _fields(self) -> BackfillFields:
        return BackfillFields(self.table, self.key, None, None, self.columns, self.where, self.undo)
