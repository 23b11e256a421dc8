"""How PostgreSQL would plan a batch: what it reads as a whole, and which of its joins a batch must not use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from steps.backfill_batch import update
from steps.backfill_sql import Shape, Window, judged, looked_at
from steps.base import Look

# A batch is small beside the table and the source: reading either as a whole is never right, nor is compiling the query.
ALWAYS = ("enable_seqscan", "jit")
# Where the source has an index on what is compared, looking its rows up beats hashing all of it for each batch; of a range
# of pages the planner knows how many rows it has, and which of the two is better.
LOOKUPS = ("enable_hashjoin", "enable_mergejoin")


def off(names: tuple[str, ...]) -> str:
    """The SELECT that switches these off for the transaction."""
    return "SELECT " + ", ".join(f"set_config('{name}', 'off', true) AS {name}" for name in names)


def settings_for(look: Look, shape: Shape, window: Window) -> tuple[str, ...]:
    """What to switch off for each batch: joins too, where the plan still finds every row by an index."""
    if not shape.pg:
        return ()
    if window.pages and window.limit is None:
        return ALWAYS
    look.rows(off((*ALWAYS, *LOOKUPS)))
    return ALWAYS if scans(look, shape, window) else (*ALWAYS, *LOOKUPS)


def scans(look: Look, shape: Shape, window: Window) -> list[tuple[str, str]]:
    """(schema, table) of what a batch would read as a whole, as planned and never run."""
    sql = f"WITH rb_j AS MATERIALIZED ({judged(shape, looked_at(shape, window))}) {update(shape, window)}"
    found = look.row(f"EXPLAIN (FORMAT JSON, VERBOSE) {sql}", window.all_params())["QUERY PLAN"]
    return list(dict.fromkeys(_seq_scans(json.loads(found) if isinstance(found, str) else found)))


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
