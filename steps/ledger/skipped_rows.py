"""The rows that steps skipped: dead rows of a run, and rows that its undo left alone."""

from __future__ import annotations

from collections.abc import Mapping

from steps.contract.look import Look
from steps.contract.values import Value
from steps.ledger import tables

COLUMNS = ("step", "key", "sqlstate", "message", "attempt", "at")
ACTIONS: Mapping[str, str] = {"dead": "apply", "refused": "revert"}  # the kind that operators name → skipped_row.action


def skipped(look: Look, run: str, kind: str) -> list[dict[str, Value]]:
    """A run's skipped rows of one kind, ordered by step and key; [] where there is no ledger. kind: a key of ACTIONS."""
    if not tables.exists(look):
        return []
    sql = f"""SELECT {", ".join(COLUMNS)} FROM {tables.table("skipped_row", look.dialect)}
              WHERE run = :run AND action = :action ORDER BY step, key"""
    return [dict(row) for row in look.rows(sql, {"run": run, "action": ACTIONS[kind]})]
