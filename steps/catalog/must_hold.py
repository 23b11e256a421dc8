"""Asks whether the data lets a migration pass: which rows are at fault, how many, and an example of each rule.

A row that can't even be read is found by halving, named and counted; it never stops the question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from steps.catalog import catalog
from steps.catalog.scratch import fault_text
from steps.catalog.shape import MustHold
from steps.contract import DatabaseFault, Look, NoText, Params, Row, StepError, Unknown, Value, cutting
from steps.sql.dialect import quote
from steps.sql.queries import require_all_rows, text_of
from steps.sql.unreadable import UnreadableRow, attempt, sift, tried

EXAMPLES = 3
CHUNK = 5_000  # rows of one query, once a query over the whole table has failed
MOST_UNREADABLE = 1_000  # after so many the search ends, and says so
SHOWN = 120  # characters of one example


@dataclass
class MustHoldAnswer:
    """A rule, and the rows at fault. unreadable: those for which it can't be evaluated. unknown: why it could not be asked."""

    name: str
    why: str
    rows: int = 0
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)
    unknown: str = ""
    cut: bool = False  # there are more

    @property
    def holds(self) -> bool:
        """Whether it was asked, and no row is at fault."""
        return not (self.rows or self.unreadable or self.unknown)


def ask(look: Look, name: str, rule: MustHold) -> MustHoldAnswer:
    """Ask one rule."""
    found = MustHoldAnswer(name, rule.why)
    try:
        if rule.query is not None:
            _by_query(look, text_of(rule.query, look), found)
        elif rule.table and rule.key and rule.holds:
            _ByRow(look, rule.table, rule.key, rule.holds.text(look.dialect), rule.show, found).ask()
    except (StepError, Unknown, NoText) as why:
        if isinstance(why, DatabaseFault):
            if why.lost:
                raise
            found.unknown = fault_text(why)
        else:
            found.unknown = str(why)
    return found


def _by_query(look: Look, sql: str, found: MustHoldAnswer) -> None:
    with attempt(look):
        require_all_rows(look, sql)
        found.rows = look.row(f"SELECT count(*) AS n FROM (\n{sql}) AS at_fault").integer("n")
        found.examples += map(_shown, look.rows(f"SELECT * FROM (\n{sql}) AS at_fault LIMIT {EXAMPLES}"))


def _shown(row: Row) -> str:
    return cutting.on_one_line(", ".join(f"{name}={value}" for name, value in row.items()), SHOWN)


@dataclass(frozen=True)
class _Range:
    """The keys after `low` up to `high`; None: without bound."""

    low: Value = None
    high: Value = None

    @property
    def params(self) -> Params:
        named = (("low", self.low), ("high", self.high))
        return {name: value for name, value in named if value is not None}

    def sql(self, key: str) -> str:
        parts = [f"{key} > :low" if self.low is not None else "", f"{key} <= :high" if self.high is not None else ""]
        return " AND ".join(part for part in parts if part) or "1 = 1"


class _ByRow:
    """Evaluates a condition on all rows of a table: at once, and where that fails in ranges of its key."""

    def __init__(
        self, look: Look, table: str, key: str, holds: str, show: tuple[str, ...], found: MustHoldAnswer
    ) -> None:
        self.look, self.found, self.key_name = look, found, key
        self.table, self.key = catalog.sql_name(look, table), f"target.{quote(key)}"
        self.holds = holds
        self.shown = ", ".join([self.key, *(f"target.{quote(one)}" for one in show)])

    def ask(self) -> None:
        with attempt(self.look):
            require_all_rows(self.look, f"SELECT 1 AS one FROM {self.table}")
        if self._count(_Range()):
            return
        for part in self._ranges():
            if not self._count(part):
                self._sift(part)
            if self.found.unreadable >= MOST_UNREADABLE:
                self.found.cut = True
                return

    def _count(self, part: _Range) -> bool:
        """Count the rows at fault in a range; False where a row of it can't be read."""
        return tried(self.look, lambda: self._judge(part.sql(self.key), part.params)) is not None

    def _judge(self, where: str, params: Params) -> int:
        # the condition must not be evaluated on rows outside of `where`, in whatever order the planner puts the two
        at_fault = f"""FROM {self.table} AS target WHERE {where}
            AND NOT coalesce(CASE WHEN {where} THEN ({self.holds}\n) END, 1 = 1)"""
        count = self.look.row(f"SELECT count(*) AS n {at_fault}", params).integer("n")
        wanted = EXAMPLES - len(self.found.examples)
        rows = self.look.rows(f"SELECT {self.shown} {at_fault} LIMIT {wanted}", params) if count and wanted > 0 else []
        self.found.rows += count
        self.found.examples += map(_shown, rows)
        return count

    def _ranges(self) -> Iterator[_Range]:
        low: Value = None
        while True:
            sql = f"""SELECT {self.key} AS place FROM {self.table} AS target WHERE {_Range(low).sql(self.key)}
                      ORDER BY {self.key} LIMIT 1 OFFSET {CHUNK - 1}"""
            rows = self.look.rows(sql, _Range(low).params)
            yield _Range(low, rows[0]["place"] if rows else None)
            if not rows:
                return
            low = rows[0]["place"]

    def _sift(self, part: _Range) -> None:
        """Find the rows of a range that can't be read, and judge the others."""
        where, text = part.sql(self.key), f"CAST({self.key} AS text)"
        some = (
            "= ANY(CAST(:keys AS text[]))"
            if catalog.on_postgresql(self.look)
            else "IN (SELECT value FROM json_each(:keys))"
        )
        keys = [
            row.text("k")
            for row in self.look.rows(f"SELECT {text} AS k FROM {self.table} AS target WHERE {where}", part.params)
        ]

        def evaluate(few: Sequence[str]) -> object:
            inside = f"{where} AND {text} {some}"
            sql = f"SELECT count(CASE WHEN {inside} THEN ({self.holds}\n) END) AS n FROM {self.table} AS target WHERE {inside}"
            return self.look.row(sql, {**part.params, "keys": [*few]})

        unreadable = sift(self.look, keys, evaluate)
        self._judge(
            f"{where} AND NOT ({text} {some})" if unreadable else where, {**part.params, **self._keys(unreadable)}
        )
        self.found.unreadable += len(unreadable)
        wanted = EXAMPLES - len(self.found.examples)
        self.found.examples += [
            f"{_shown(Row({self.key_name: one.key}))}: {_first_line(one.message)}" for one in unreadable[:wanted]
        ]

    @staticmethod
    def _keys(rows: Sequence[UnreadableRow]) -> Params:
        return {"keys": [one.key for one in rows]} if rows else {}


def _first_line(message: str) -> str:
    """The database's message, without the statement that we append to it."""
    return cutting.on_one_line(message.partition(" (in: ")[0].splitlines()[0], SHOWN)
