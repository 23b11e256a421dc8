"""A probe that counts what a backfill would do to its first rows, without writing: the read half of one batch."""

from __future__ import annotations

import time
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from steps.contract import Identifier, Identifiers, Look, Model, Probe, Row, Text
from steps.contract.direction import LOWER
from steps.sql.queries import ReadQuery
from steps.sql.unreadable import FailingRow, UnreadableRow, tried
from steps.types.backfill.reading import in_window
from steps.types.backfill.spec import BackfillFields, read_shape
from steps.types.backfill.sql import Shape, Window, keys, listed, own_key, preview, rows_from


class PreviewResult(Model):
    """seen = would_write + already + no_key + not_in_source + unreadable, of the first rows in the key's order.

    unreadable: rows at which the playbook's SQL fails; unreadable_rows: the first of them.
    """

    seen: int
    would_write: int
    already: int
    no_key: int
    not_in_source: int
    seconds: float
    unreadable: int = 0
    unreadable_rows: tuple[FailingRow, ...] = ()


class Preview(Probe):
    """What a backfill with the same fields would do to the first rows by key; nothing is written."""

    kind: ClassVar[str] = "preview"
    summary: ClassVar[str] = "what a backfill's first rows would get: the read half of one batch"
    Result: ClassVar[type[BaseModel]] = PreviewResult

    table: Identifier
    key: Identifiers = ()
    source: ReadQuery
    match: Text
    fill: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    where: Text | None = None
    limit: Annotated[int, Field(ge=1, le=100_000), LOWER] = 1000

    def observe(self, look: Look) -> PreviewResult:
        shape = read_shape(look, BackfillFields(self.table, self.key, self.source, self.match, self.fill, self.where))
        first = keys(shape, shape.key, lo="", hi="", limit=self.limit)
        began = time.perf_counter()
        row, bad = _counted(look, shape, first)
        return PreviewResult(
            seen=row.integer("seen") + len(bad),
            would_write=row.integer("wanted"),
            already=row.integer("already"),
            no_key=row.integer("no_key"),
            not_in_source=row.integer("not_in_source"),
            seconds=round(time.perf_counter() - began, 4),
            unreadable=len(bad),
            unreadable_rows=FailingRow.of(bad),
        )


def _counted(look: Look, shape: Shape, window: Window) -> tuple[Row, tuple[UnreadableRow, ...]]:
    row = tried(look, lambda: look.row(preview(shape, window), window.all_params()))
    if row is not None:
        return row, ()
    window = _by_keys(look, shape, window)
    bad = in_window(look, shape, window).found
    rest = window.without([one.key for one in bad])
    return look.row(preview(shape, rest), rest.all_params()), bad


def _by_keys(look: Look, shape: Shape, window: Window) -> Window:
    """The same rows by their keys: a server that sorts evaluates the playbook's SQL for rows beyond the limit too."""
    order = ", ".join(f"target.{column.sql}" for column in shape.key)
    sql = f"SELECT {own_key(shape)} AS key FROM {rows_from(shape, window)} ORDER BY {order} LIMIT :rb_rows"
    return listed(shape, [row.text("key") for row in look.rows(sql, window.all_params())])
