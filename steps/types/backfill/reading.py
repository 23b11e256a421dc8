"""Which rows of a backfill can't be read: those at which the playbook's `where` or `match`, or their source row, fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from steps.contract import DatabaseFault, Look, Row, RunPosition, StepError, Value
from steps.sql.dialect import quote
from steps.sql.unreadable import UnreadableRow, sift, tried
from steps.types.backfill.sql import (
    Shape,
    Window,
    as_text,
    json_of,
    keys,
    listed,
    looked_at,
    numbered,
    preview,
)

PAGE = 2_000  # rows whose keys are held in mind at a time, where a whole table is gone over


@dataclass(frozen=True)
class Unreadable:
    """Rows that the SQL must leave out. found: those met just now; known: the keys of those that the ledger has already."""

    found: tuple[UnreadableRow, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.known, *(one.key for one in self.found))

    def plus(self, other: Unreadable) -> Unreadable:
        return Unreadable((*self.found, *other.found), (*self.known, *other.known))


def in_window(
    look: Look, shape: Shape, window: Window, *, place: RunPosition | None = None, some: bool = False
) -> Unreadable:
    """The window's unreadable rows. place: the pass that may have set some of them aside already.

    Where nothing but `match` is evaluated, rows that need nothing are passed over. some: those by the source only where there
    are no others; the caller tries again, and asks again where that fails.
    """
    params: dict[str, Value] = {"run": place.run, "step": place.step} if place else {}
    rows = look.rows(numbered(shape, window, known=place is not None), {**window.all_params(), **params})
    known = tuple(row.text("key") for row in rows if row.flag("known"))
    unknown = [row.text("key") for row in rows if not row.flag("known")]
    return Unreadable(_among(look, shape, unknown, some=some), known)


def in_table(look: Look, shape: Shape, *, place: RunPosition | None = None) -> Unreadable:
    """The table's unreadable rows, page by page in the key's order; called where a statement over all of it has failed."""
    bad = Unreadable()
    for window in table_pages(look, shape):
        bad = bad.plus(in_window(look, shape, window, place=place))
    return bad


def keys_of(look: Look, shape: Shape, window: Window) -> list[str]:
    """The keys of the window's rows for which something would be evaluated."""
    return [row.text("key") for row in look.rows(numbered(shape, window, known=False), window.all_params())]


def table_pages(look: Look, shape: Shape) -> Iterator[Window]:
    """Windows over the whole table, in the key's order."""
    names = [f"target.{column.sql}" for column in shape.key]
    place = json_of(shape, [as_text(shape, name) for name in names])
    lo = ""
    while True:
        page = keys(shape, shape.key, lo=lo, hi="", limit=PAGE)
        sql = f"""SELECT {place} AS key FROM {shape.table} AS target WHERE {page.condition}
                  ORDER BY {", ".join(names)} LIMIT 1 OFFSET {PAGE - 1}"""
        rows = look.rows(sql, page.params)
        if not rows:
            yield replace(page, limit=None)
            return
        yield page
        lo = rows[0].text("key")


def _among(look: Look, shape: Shape, wanted: Sequence[str], *, some: bool) -> tuple[UnreadableRow, ...]:
    """The unreadable ones of these rows: first by their own expressions, then by what the source has for the others."""
    own = sift(look, wanted, lambda keys: _evaluate(look, shape, listed(shape, keys)))
    if shape.clears or (own and some):
        return tuple(own)
    bad = {one.key for one in own}
    others = [key for key in wanted if key not in bad]
    if tried(look, lambda: _ask_source(look, shape, others)) is None:
        _require_source(look, shape)
        own += sift(look, others, lambda keys: _ask_source(look, shape, keys))
    return tuple(own)


def _evaluate(look: Look, shape: Shape, window: Window) -> None:
    used = [f"count(rb_w.rb_m{n})" for n in range(len(shape.pairs))]
    sql = f"SELECT {' + '.join(['count(rb_w.rb_inside)', *used])} AS n FROM ({looked_at(shape, window)}) AS rb_w"
    look.rows(sql, window.all_params())


def _ask_source(look: Look, shape: Shape, some: Sequence[str]) -> Row:
    window = listed(shape, some)
    return look.row(preview(shape, window), window.all_params())


def _require_source(look: Look, shape: Shape) -> None:
    """Raises StepError where the source fails by itself: then no row of the table is at fault."""
    names = [one.name for one in shape.fill] + [one.column for one in shape.pairs]
    used = " + ".join(f"count(source.{quote(name)})" for name in dict.fromkeys(names))
    try:
        look.rows(f"SELECT {used} AS n FROM ({shape.source}\n) AS source")
    except DatabaseFault as fault:
        raise StepError(
            f"cannot read the source: {fault}; correct that row of it, or leave it out in the query"
        ) from fault
