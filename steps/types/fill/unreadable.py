"""The rows of a source whose values can't be computed: found by halving, and left out of what is filled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from steps.contract import DatabaseFault, StepError, Value, Work
from steps.sql.dialect import literal
from steps.sql.unreadable import UnreadableRow, attempt, caused_by_a_row, sift
from steps.types.backfill.limits import DeadLetters
from steps.types.backfill.sql import wrap
from steps.types.fill.shape import FillShape
from steps.types.fill.sql import as_text


def without(shape: FillShape, keys: Sequence[str]) -> FillShape:
    """The same fill from the source's other rows."""
    if not keys:
        return shape
    left_out = ", ".join(map(literal, keys))
    rest = f"SELECT rb_u.* FROM ({shape.source}\n) AS rb_u WHERE {_key(shape)} NOT IN ({left_out})"
    return replace(shape, source=rest)


def find(work: Work, shape: FillShape, budget: DeadLetters) -> list[UnreadableRow]:
    """These rows, by key; [] where the source fails whichever of its rows are asked for.

    Raises StepError where they are more than `budget` allows, or where two rows have one key.
    """
    sql = f"SELECT {_key(shape)} AS key FROM ({shape.source}\n) AS rb_u WHERE {_keyed(shape)}"
    try:
        with attempt(work):
            keys = [row.text("key") for row in work.rows(sql)]
            work.rows(_evaluated(shape), _listed(shape, []))
    except DatabaseFault as fault:
        if not caused_by_a_row(fault, shape.dialect):
            raise
        return []
    several = len(keys) - len(set(keys))
    if several:
        raise StepError(
            f"cannot choose a row: the source has {several} rows with a key that others have; make it unique with DISTINCT ON, "
            "GROUP BY or a narrower WHERE"
        )
    allowed = min(budget.max, ceil(len(keys) * budget.pct / 100))
    met = 0

    def evaluate(some: Sequence[str]) -> object:
        nonlocal met
        try:
            return work.rows(_evaluated(shape), _listed(shape, some))
        except DatabaseFault as fault:
            met += len(some) == 1
            if met > allowed:
                raise StepError(
                    f"cannot go on: {met} rows of the source can't be read, and dead_letters allows {allowed} (max {budget.max}, "
                    f"{budget.pct} % of {len(keys)}); the last one, {some[0]}: {fault}"
                ) from fault
            raise

    return sift(work, keys, evaluate)


def _evaluated(shape: FillShape) -> str:
    """The SELECT that computes each value of the rows with these keys."""
    used = " + ".join(f"count(rb_u.{one.sql})" for one in shape.columns)
    listed = "= ANY (CAST(:keys AS text[]))" if shape.pg else "IN (SELECT value FROM json_each(:keys))"
    return f"SELECT {used} AS n FROM ({shape.source}\n) AS rb_u WHERE {_key(shape)} {listed}"


def _listed(shape: FillShape, keys: Sequence[str]) -> dict[str, Value]:
    return {"keys": list(keys) if shape.pg else json.dumps(list(keys))}


def _key(shape: FillShape) -> str:
    """SQL for a row's key, as the ledger stores it."""
    each = [f"rb_u.{one.sql}" for one in shape.key]
    if shape.pg:
        return f"CAST(json_build_array({', '.join(map(as_text, each))}) AS text)"
    return f"json_array({', '.join(map(wrap, each))})"


def _keyed(shape: FillShape) -> str:
    return " AND ".join(f"rb_u.{one.sql} IS NOT NULL" for one in shape.key)
