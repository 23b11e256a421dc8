"""Asks whether the data lets a migration pass: which rows are at fault, how many, and an example of each rule.

A row that can't even be read is found by halving, named and counted; it never stops the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from steps.catalog import catalog
from steps.catalog.scratch import fault_text
from steps.catalog.shape import MustHold
from steps.contract import DatabaseFault, Look, NoText, Params, Row, StepError, Unknown, Value, cutting
from steps.contract.dialect import Dialect
from steps.sql.attempt import attempt
from steps.sql.dialect import quote
from steps.sql.queries import require_all_rows, text_of

EXAMPLES = 3
CHUNK = 5_000  # rows of one query, once a query over the whole table has failed
MOST_UNREADABLE = 1_000  # after so many the search ends, and says so
SHOWN = 120  # characters of one example
_DATA = "22"  # the class of SQLSTATEs that speak of a value


@dataclass
class Answered:
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


def ask(look: Look, name: str, rule: MustHold) -> Answered:
    """Ask one rule."""
    found = Answered(name, rule.why)
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


def _by_query(look: Look, sql: str, found: Answered) -> None:
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

    def __init__(self, look: Look, table: str, key: str, holds: str, show: tuple[str, ...], found: Answered) -> None:
        self.look, self.found, self.key_name = look, found, key
        self.table, self.key = catalog.sql_name(look, table), f"target.{quote(key)}"
        self.holds = holds
        self.shown = ", ".join([self.key, *(f"target.{quote(one)}" for one in show)])

    def ask(self) -> None:
        with attempt(self.look):
            require_all_rows(self.look, f"SELECT 1 AS one FROM {self.table}")
        if not self._in(_Range()):
            for part in self._ranges():
                self._halve(part, CHUNK)
                if self.found.unreadable >= MOST_UNREADABLE:
                    self.found.cut = True
                    return

    def _in(self, part: _Range) -> bool:
        """Count the rows at fault in a range; False where a row of it can't be read."""
        # the condition must not be evaluated on rows outside of the range, in whatever order the planner puts the two
        at_fault = f"""FROM {self.table} AS target WHERE {part.sql(self.key)}
            AND NOT coalesce(CASE WHEN {part.sql(self.key)} THEN ({self.holds}\n) END, {self._true})"""
        try:
            with attempt(self.look):
                count = self.look.row(f"SELECT count(*) AS n {at_fault}", part.params).integer("n")
                wanted = EXAMPLES - len(self.found.examples)
                if count and wanted > 0:
                    rows = self.look.rows(f"SELECT {self.shown} {at_fault} LIMIT {wanted}", part.params)
                    self.found.examples += map(_shown, rows)
        except DatabaseFault as fault:
            if not self._of_a_row(fault):
                raise
            return False
        self.found.rows += count
        return True

    @property
    def _true(self) -> str:
        return "true" if self.look.dialect is Dialect.POSTGRESQL else "1"

    def _of_a_row(self, fault: DatabaseFault) -> bool:
        if fault.lost:
            return False
        return self.look.dialect is Dialect.SQLITE or fault.sqlstate.startswith(_DATA)

    def _ranges(self) -> Iterator[_Range]:
        low: Value = None
        while True:
            high = self._key_after(_Range(low), CHUNK - 1)
            yield _Range(low, high)
            if high is None:
                return
            low = high

    def _key_after(self, part: _Range, offset: int) -> Value:
        sql = f"""SELECT {self.key} AS place FROM {self.table} AS target WHERE {part.sql(self.key)}
                  ORDER BY {self.key} LIMIT 1 OFFSET {offset}"""
        rows = self.look.rows(sql, part.params)
        return rows[0]["place"] if rows else None

    def _halve(self, part: _Range, size: int) -> None:
        """Split a range of at most `size` rows until those that can't be read stand alone."""
        if self.found.unreadable >= MOST_UNREADABLE or self._in(part):
            return
        middle = self._key_after(part, max(size // 2 - 1, 0))
        if size <= 1 or middle is None:
            if size <= 1:
                self._unreadable(part)
            else:
                self._halve(part, size // 2)  # it has fewer rows than its size says
            return
        self._halve(_Range(part.low, middle), max(size // 2, 1))
        self._halve(_Range(middle, part.high), max(size - size // 2, 1))

    def _unreadable(self, part: _Range) -> None:
        key = self._key_after(part, 0)
        if key is None:
            return
        self.found.unreadable += 1
        if len(self.found.examples) < EXAMPLES:
            self.found.examples.append(f"{_shown(Row({self.key_name: key}))}: can't be evaluated")
