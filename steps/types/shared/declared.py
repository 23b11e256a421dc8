"""Executes the statements that a step has declared to the plan, so that what was shown is what runs."""

from __future__ import annotations

from collections.abc import Sequence

from steps.contract import Context, Statement, Work
from steps.contract.dialect import Dialect
from steps.sql.statements import waits_in_the_way


def execute(work: Work, needed: Sequence[Statement]) -> None:
    """Execute them in order, in the transaction that is open."""
    for one in needed:
        work.execute(one.sql, one.params)


def execute_outside(ctx: Context, needed: Sequence[Statement], *, label: str) -> None:
    """Execute what can't be in a transaction on PostgreSQL: there each in autocommit, on SQLite all in one commit."""
    if not needed:
        return
    if ctx.db.dialect is Dialect.SQLITE:
        ctx.patiently(label, lambda work: execute(work, needed))
        return
    bounded = any(waits_in_the_way(one.lock) for one in needed)
    ctx.patiently_outside(label, lambda work: execute(work, needed), bounded=bounded)
