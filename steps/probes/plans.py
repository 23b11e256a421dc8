"""Probes on queries: the shape of a plan, and the comparison of two queries' results and speed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from steps.catalog import failing_row
from steps.contract import Answer, Identifier, Look, Model, Probe, Row, Unknown, Value, Verdict
from steps.contract.direction import FEWER, LOWER, UNSET
from steps.contract.values import exact, sortable
from steps.sql.queries import NOT_RUN, ReadQuery, analyze, explain, require_all_rows, text_of

MOST_ROWS = 100_000  # of a result, which is held in memory to be compared


class PlanResult(Model):
    """nodes: in PostgreSQL's terms ("Seq Scan", "Index Scan") on both databases; cost: None on SQLite.

    ms, rows: of the query's execution, None unless `analyze`; hit_pages, read_pages: pages found in the server's buffers,
    and read into them, None also on SQLite.
    """

    nodes: tuple[str, ...]
    indexes: tuple[str, ...]
    tables: tuple[str, ...]
    cost: float | None
    text: str
    ms: float | None = None
    rows: int | None = None
    hit_pages: int | None = None
    read_pages: int | None = None


class PlanProbe(Probe):
    """The shape of a query's plan. With `analyze` the query is run, once and read-only, and measured."""

    kind: ClassVar[str] = "plan"
    summary: ClassVar[str] = "the shape of a query's plan; with `analyze` its time, rows and pages too"
    Result: ClassVar[type[BaseModel]] = PlanResult

    query: ReadQuery
    analyze: bool = False
    uses: Annotated[Identifier | None, UNSET] = None
    has: Annotated[tuple[str, ...], FEWER] = ()
    lacks: Annotated[tuple[str, ...], FEWER] = ()

    def observe(self, look: Look) -> PlanResult:
        sql = text_of(self.query, look)
        plan, ran = explain(look, sql), analyze(look, sql) if self.analyze else NOT_RUN
        return PlanResult(
            nodes=plan.nodes,
            indexes=plan.indexes,
            tables=plan.tables,
            cost=plan.cost,
            text=ran.text or plan.text,
            ms=ran.ms,
            rows=ran.rows,
            hit_pages=ran.hit_pages,
            read_pages=ran.read_pages,
        )

    def verdict(self, result: BaseModel) -> Verdict | None:
        if not self.decides():
            return None
        seen = PlanResult.model_validate(result)
        nodes = {node.lower() for node in seen.nodes}
        faults = [f"has no {node}" for node in self.has if node.lower() not in nodes]
        faults += [f"has a {node}" for node in self.lacks if node.lower() in nodes]
        if self.uses and self.uses not in seen.indexes:
            faults.append(f"does not use {self.uses}, but {', '.join(seen.indexes) or 'no index'}")
        if faults:
            return Verdict(Answer.FAIL, "the plan " + "; ".join(faults))
        return Verdict(Answer.PASS, "the plan is " + ", ".join(seen.nodes))

    def decides(self) -> bool:
        return bool(self.uses or self.has or self.lacks)


class CompareResult(Model):
    """a_ms, b_ms: medians at the client; speedup: b_ms ÷ a_ms, so a is the one expected to be faster.

    noise_pct: the wider interquartile range, in per cent of its median. undecided: the interquartile ranges of a and b overlap,
    so that the difference may be noise. *_value: the first column of a single row, otherwise the number of rows; a number is
    one that `that:` can compare.
    """

    a_ms: float
    b_ms: float
    speedup: float
    agree: bool
    noise_pct: float
    undecided: bool
    a_value: int | Decimal | str | None
    b_value: int | Decimal | str | None
    difference_pct: float | None
    a_plan: str
    b_plan: str


class Compare(Probe):
    """Runs two queries alternately (a b a b …) after a warm-up; gives medians, noise and plans, and whether the results agree.

    Where both find nothing (no row, or a single 0 or NULL) the answer is unknown.
    """

    kind: ClassVar[str] = "compare"
    summary: ClassVar[str] = "two queries: do they agree, and which is faster beyond the noise"
    alone: ClassVar[bool] = True
    Result: ClassVar[type[BaseModel]] = CompareResult

    a: ReadQuery
    b: ReadQuery
    runs: Annotated[int, Field(ge=3, le=101), LOWER] = 7
    warm_up: Annotated[int, Field(ge=1, le=20), LOWER] = 1
    agree: str = "exact"

    @field_validator("agree")
    @classmethod
    def _readable(cls, text: str) -> str:
        _tolerance(text)
        return text

    @model_validator(mode="after")
    def _two(self) -> Self:
        if self.a.texts == self.b.texts:
            raise ValueError("a and b are the same query")
        return self

    def observe(self, look: Look) -> CompareResult:
        first, second = text_of(self.a, look), text_of(self.b, look)
        for sql in (first, second):
            require_all_rows(look, sql)
            with failing_row.named(look, sql):
                _require_few(look, sql)
        for _ in range(self.warm_up):
            with failing_row.named(look, first):
                a_rows = look.rows(first)  # counted beforehand
            with failing_row.named(look, second):
                b_rows = look.rows(second)
        a_ms, b_ms = [], []
        for _ in range(self.runs):
            a_ms.append(_timed(lambda: look.rows(first)))
            b_ms.append(_timed(lambda: look.rows(second)))
        a, b = _spread(a_ms), _spread(b_ms)
        a_value, b_value = _value(a_rows), _value(b_rows)
        return CompareResult(
            a_ms=round(a.median, 3),
            b_ms=round(b.median, 3),
            speedup=round(b.median / a.median, 2),
            agree=self._agrees(a_rows, b_rows),
            noise_pct=round(max(a.noise_pct, b.noise_pct), 1),
            undecided=a.low <= b.high and b.low <= a.high,
            a_value=_figure(a_value),
            b_value=_figure(b_value),
            difference_pct=_difference(a_value, b_value),
            a_plan=explain(look, first).text,
            b_plan=explain(look, second).text,
        )

    def _agrees(self, a_rows: list[Row], b_rows: list[Row]) -> bool:
        tolerance = _tolerance(self.agree)
        if tolerance is None:
            return sorted(map(_comparable, a_rows)) == sorted(map(_comparable, b_rows))
        apart = _apart(_value(a_rows), _value(b_rows))
        return apart is not None and apart <= tolerance

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = CompareResult.model_validate(result)
        if not seen.a_value and not seen.b_value:
            return Verdict(Answer.UNKNOWN, "both found nothing, so that neither result nor speed proves anything")
        if not seen.agree:
            by = "" if seen.difference_pct is None else f", {seen.difference_pct:g} % apart"
            return Verdict(Answer.FAIL, f"the results disagree: {seen.a_value} and {seen.b_value}{by}")
        if seen.undecided:
            return Verdict(
                Answer.UNKNOWN,
                f"undecided: noise of {seen.noise_pct:g} % above the effect ({seen.a_ms:g} ms and {seen.b_ms:g} ms)",
            )
        return Verdict(Answer.PASS, f"they agree; {seen.speedup:g} times ({seen.a_ms:g} ms and {seen.b_ms:g} ms)")


@dataclass(frozen=True)
class _Spread:
    low: float
    median: float
    high: float

    @property
    def noise_pct(self) -> float:
        return 100 * (self.high - self.low) / self.median


def _spread(times: list[float]) -> _Spread:
    import statistics

    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return _Spread(low, median, high)


def _timed(act: Callable[[], object]) -> float:
    """The duration in milliseconds, never 0."""
    began = time.perf_counter()
    act()
    return max((time.perf_counter() - began) * 1000, 1e-6)


def _require_few(look: Look, sql: str) -> None:
    count = look.row(f"SELECT count(*) AS n FROM (\n{sql}) AS counted").integer("n")
    if count > MOST_ROWS:
        raise Unknown(
            f"cannot hold a result of {count:,} rows (at most {MOST_ROWS:,}): let both queries give sums, counts or checksums"
        )


def _tolerance(text: str) -> Fraction | None:
    """The tolerance in per cent; None for exact."""
    if text == "exact":
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%", text)
    if found is None:
        raise ValueError(f"cannot read {text!r} as a tolerance: write `exact` or a percentage such as '1 %'")
    return Fraction(found[1])


def _value(rows: list[Row]) -> Value:
    return next(iter(rows[0].values())) if len(rows) == 1 else len(rows)


def _apart(a: Value, b: Value) -> Fraction | None:
    """The exact difference in per cent of the larger value; None where they aren't both finite numbers."""
    one, other = exact(a), exact(b)
    if not (isinstance(one, int | Decimal) and isinstance(other, int | Decimal)):
        return None
    if not (Decimal(one).is_finite() and Decimal(other).is_finite()):
        return None
    left, right = Fraction(one), Fraction(other)
    larger = max(abs(left), abs(right))
    return 100 * abs(left - right) / larger if larger else Fraction(0)


def _difference(a: Value, b: Value) -> float | None:
    """The difference in per cent, rounded for display, but never to 0 where the values differ."""
    apart = _apart(a, b)
    return None if apart is None else round(float(apart), 3) or float(apart)


def _comparable(row: Row) -> tuple[str, ...]:
    return tuple(map(sortable, row.values()))


def _figure(value: Value) -> int | Decimal | str | None:
    number = exact(value)
    if isinstance(number, int | Decimal) and not isinstance(value, bool):
        return number
    return None if value is None else str(value)
