"""The rows that steps skipped: those set aside on the way there, and those left alone on the way back."""

from __future__ import annotations

from collections.abc import Mapping

from steps.contract.look import Look
from steps.contract.values import Value
from steps.ledger import tables

COLUMNS = ("step", "key", "sqlstate", "message", "attempt", "at")
ACTIONS: Mapping[str, str] = {"dead": "apply", "refused": "revert"}  # by their name for people: what put the row there


def skipped(look: Look, run: str, kind: str) -> list[dict[str, Value]]:
    """A run's rows of one kind of ACTIONS, in the order of step and key; none where there is no ledger."""
    if not tables.exists(look):
        return []
    sql = f"""SELECT {", ".join(COLUMNS)} FROM {tables.table("skipped_row", look.dialect)}
              WHERE run = :run AND action = :action ORDER BY step, key"""
    return [dict(row) for row in look.rows(sql, {"run": run, "action": ACTIONS[kind]})]
