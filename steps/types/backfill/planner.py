"""How PostgreSQL plans a batch: which tables it would read completely, and which planner methods to disable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from steps.contract import Look
from steps.types.backfill.batch import update
from steps.types.backfill.sql import Shape, Window, judged, looked_at

# Both read the whole source for each batch, however few of its rows are needed.
JOINS = ("hashjoin", "mergejoin")
LOOKUP = 5  # source rows that can be hashed in the time of one index lookup (measured); the planner assumes more


@dataclass(frozen=True)
class JoinChoice:
    """The planner methods to disable for batches of one kind.

    off: always disabled. indexed: whether an index finds the source's rows. source_rows: their estimated number.
    """

    off: tuple[str, ...] = ()
    indexed: bool = False
    source_rows: float = 0.0

    def off_for(self, rows: int) -> tuple[str, ...]:
        """The planner methods to disable for a batch of this size."""
        return (*self.off, *JOINS) if self.indexed and self.source_rows > LOOKUP * rows else self.off


def joining(look: Look, shape: Shape, window: Window) -> JoinChoice:
    """The planner methods to disable for windows like this one.

    Sequential scans are disabled, since a scan of the whole table per batch would make the pass quadratic; but not for page
    ranges, where the planner itself knows how little it reads.
    """
    if not shape.pg:
        return JoinChoice()
    off = () if window.pages and window.limit is None else ("seqscan",)
    if shape.clears:
        return JoinChoice(off)
    rows = _plan(look, f"SELECT * FROM ({shape.source}\n) AS source", Window("", {}))["Plan"]["Plan Rows"]
    return JoinChoice(off, indexed=_indexed(look, shape, window), source_rows=float(rows))


def _indexed(look: Look, shape: Shape, window: Window) -> bool:
    names = ("seqscan", *JOINS)
    look.rows("SELECT " + ", ".join(f"set_config('enable_{name}', 'off', true) AS {name}" for name in names))
    return not scans(look, shape, window)


def scans(look: Look, shape: Shape, window: Window) -> list[tuple[str, str]]:
    """The tables, as (schema, name), that a batch would read completely; it is planned, not run."""
    sql = f"WITH rb_j AS MATERIALIZED ({judged(shape, looked_at(shape, window))}) {update(shape, window)}"
    return list(dict.fromkeys(_seq_scans(_plan(look, sql, window))))


def _plan(look: Look, sql: str, window: Window) -> Any:
    found = look.row(f"EXPLAIN (FORMAT JSON, VERBOSE) {sql}", window.all_params())["QUERY PLAN"]
    plans: Any = json.loads(found) if isinstance(found, str) else found
    return plans[0]


def _seq_scans(node: object) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for one in node:
            yield from _seq_scans(one)
    elif isinstance(node, Mapping):
        if node.get("Node Type") == "Seq Scan":
            yield str(node.get("Schema")), str(node.get("Relation Name"))
        for one in node.values():
            if isinstance(one, list | Mapping):
                yield from _seq_scans(one)
