"""A probe that compares a random sample of rows with their source: the accuracy of a backfill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from steps.catalog import catalog
from steps.contract import Identifier, Look, Model, Params, Probe, Row, Text, Value, cutting
from steps.contract.dialect import Dialect
from steps.contract.direction import FEWER, LOWER
from steps.sql.dialect import quote
from steps.sql.queries import ReadQuery, require_all_rows, text_of
from steps.sql.unreadable import FailingRow, UnreadableRow, sift, tried
from steps.types.backfill.reading import keys_of, table_pages
from steps.types.backfill.sql import Shape, Window, inside, listed, own_key, rows_from, scope
from steps.types.backfill.tables import TypedColumns

SEED = 20250601  # arbitrary; fixed, so that two runs of a check are comparable
SHOWN = 20  # differences that are listed
_PRIME = 2_147_483_647


class Difference(Model):
    """One value that differs from the source's; None is NULL."""

    key: str
    column: str
    stored: str | None
    expected: str | None


class SampleResult(Model):
    """matched + mismatched + not_in_source + unreadable = sampled; accuracy_pct: of the rows compared, None without any.

    unreadable: rows at which the playbook's SQL fails; unreadable_rows: the first of them.
    """

    sampled: int
    matched: int
    mismatched: int
    not_in_source: int
    ambiguous: int
    accuracy_pct: float | None
    seed: int
    worst: tuple[Difference, ...] = ()
    unreadable: int = 0
    unreadable_rows: tuple[FailingRow, ...] = ()


class Sample(Probe):
    """A seeded random sample over the whole key space, each row compared NULL-safely with the source's columns.

    `match` joins `target` and `source`; `where` limits the rows (by `target`). A row that matches several source rows
    is ambiguous and counts as mismatched; one that matches none is counted apart. The same seed gives the same sample;
    on SQLite it follows the row ids.
    """

    kind: ClassVar[str] = "sample"
    summary: ClassVar[str] = "a random sample of rows, compared with the query that they come from"
    Result: ClassVar[type[BaseModel]] = SampleResult

    table: Identifier
    key: Identifier
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1), FEWER]
    source: ReadQuery
    match: Text
    where: Text | None = None
    size: Annotated[int, Field(ge=1, le=100_000), LOWER] = 1000
    seed: Annotated[int, Field(ge=0, le=_PRIME)] = SEED

    def observe(self, look: Look) -> SampleResult:
        where = f"WHERE ({self.where.text(look.dialect)}\n)" if self.where else ""
        sql, params = self._compared(look, self._drawn(look, "target.*", where)), self._params
        require_all_rows(look, sql, params)
        rows, bad = tried(look, lambda: look.rows(sql, params)), list[UnreadableRow]()
        if rows is None:
            rows, bad = self._one_by_one(look)
        by_key: dict[str, list[Row]] = {}
        for row in rows:
            by_key.setdefault(str(row["k"]), []).append(row)
        return self._judge(by_key, bad)

    @property
    def _params(self) -> Params:
        return {"seed": self.seed, "size": self.size}

    def _one_by_one(self, look: Look) -> tuple[list[Row], list[UnreadableRow]]:
        """The same sample where the SQL fails at some rows: its keys are drawn first, and those rows are found among them."""
        shape = self._shape(look)

        def compared(keys: Sequence[str]) -> list[Row]:
            some = listed(shape, keys)
            sql = self._compared(look, f"SELECT target.* FROM {rows_from(shape, some)}")
            return look.rows(sql, some.all_params())

        unknown = {one.key: one for one in self._unknown(look, shape)}
        window = Window("true", {}).without(tuple(unknown))
        where = f"WHERE {scope(shape, window, otherwise='true')}"
        drawn = look.rows(self._drawn(look, f"{own_key(shape)} AS key", where), {**self._params, **window.params})
        keys = [row.text("key") for row in drawn]
        bad = [unknown[key] for key in keys if key in unknown]
        bad += sift(look, [key for key in keys if key not in unknown], compared)
        left_out = {one.key for one in bad}
        return compared([key for key in keys if key not in left_out]), bad

    def _shape(self, look: Look) -> Shape:
        """The table, its key and `where`, for the windows of a backfill."""
        found = catalog.relation(look, self.table)
        key = TypedColumns(look, found.oid if found else None, self.table)(self.key)
        where = self.where.text(look.dialect) if self.where else ""
        name = catalog.sql_name(look, self.table)
        return Shape(look.dialect, name, key=(key,), fill=(), source="", pairs=(), where=where)

    def _unknown(self, look: Look, shape: Shape) -> list[UnreadableRow]:
        """The rows of the whole table at which `where` fails: whether it holds isn't known, so they may be drawn."""

        def judged(keys: Sequence[str]) -> Row:
            some = listed(shape, keys)
            return look.row(f"SELECT count({inside(shape)}) AS n FROM {rows_from(shape, some)}", some.all_params())

        pages = table_pages(look, shape) if shape.where else ()
        return [one for page in pages for one in sift(look, keys_of(look, shape, page), judged)]

    def _drawn(self, look: Look, columns: str, where: str) -> str:
        name = catalog.sql_name(look, self.table)
        return f"SELECT {columns} FROM {name} AS target {where} ORDER BY {self._shuffle(look)} LIMIT :size"

    def _compared(self, look: Look, rows: str) -> str:
        same = "IS" if look.dialect is Dialect.SQLITE else "IS NOT DISTINCT FROM"
        names = [quote(name) for name in self.columns]
        values = ", ".join(
            f"target.{name} AS s{n}, source.{name} AS e{n}, target.{name} {same} source.{name} AS ok{n}"
            for n, name in enumerate(names)
        )
        return f"""
            SELECT target.{quote(self.key)} AS k, source.found_in_source AS found, {values}
            FROM ({rows}) AS target
            LEFT JOIN (SELECT the_source.*, 1 AS found_in_source
                       FROM (\n{text_of(self.source, look)}) AS the_source) AS source
              ON ({self.match.text(look.dialect)}\n)
            ORDER BY 1"""

    def _shuffle(self, look: Look) -> str:
        """A pseudo-random order that depends only on key and seed, and not on a row's age or position."""
        key = f"target.{quote(self.key)}"
        if look.dialect is not Dialect.SQLITE:
            return f"md5({key}::text || ':' || CAST(:seed AS bigint)::text), {key}"
        # SQLite has no hash function; the residues of a quadratic polynomial in the rowid scatter well enough
        x = f"((target.rowid % {_PRIME}) * (48271 + :seed % 1000000) % {_PRIME})"
        return f"({x} * {x} + :seed + target.rowid % {_PRIME}) % {_PRIME}, {key}"

    def _judge(self, by_key: dict[str, list[Row]], bad: Sequence[UnreadableRow]) -> SampleResult:
        matched = absent = ambiguous = 0
        worst: list[Difference] = []
        for key, rows in by_key.items():
            differs = self._differences(key, rows[0])
            absent += rows[0]["found"] is None
            ambiguous += len(rows) > 1
            matched += not differs and len(rows) == 1 and rows[0]["found"] is not None
            worst += differs[: SHOWN - len(worst)]
        compared = len(by_key) - absent
        return SampleResult(
            sampled=len(by_key) + len(bad),
            matched=matched,
            mismatched=compared - matched,
            not_in_source=absent,
            ambiguous=ambiguous,
            accuracy_pct=round(100 * matched / compared, 2) if compared else None,
            seed=self.seed,
            worst=tuple(worst),
            unreadable=len(bad),
            unreadable_rows=FailingRow.of(bad),
        )

    def _differences(self, key: str, row: Row) -> list[Difference]:
        if row["found"] is None:
            return []
        return [
            Difference(key=key, column=name, stored=_text(row[f"s{n}"]), expected=_text(row[f"e{n}"]))
            for n, name in enumerate(self.columns)
            if not row.flag(f"ok{n}")
        ]


def _text(value: Value) -> str | None:
    return None if value is None else cutting.shortened(str(value), 200)
