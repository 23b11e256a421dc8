"""The rows that steps skipped: dead rows of a run, and rows that its undo left alone."""

from __future__ import annotations

from collections.abc import Mapping

from steps.contract.look import Look, RunPosition
from steps.contract.values import Value
from steps.ledger import tables

COLUMNS = ("step", "key", "sqlstate", "message", "attempt", "at")
UNREADABLE = "cannot be read: "  # begins the message of a dead row at which the playbook's SQL fails
KINDS: Mapping[str, str] = {  # the kind that operators name → its rows
    "dead": "action = 'apply'",
    "unreadable": f"action = 'apply' AND message LIKE '{UNREADABLE}%'",
    "refused": "action = 'revert'",
}


def skipped(look: Look, run: str, kind: str) -> list[dict[str, Value]]:
    """A run's skipped rows of one kind, ordered by step and key; [] where there is no ledger. kind: a key of KINDS."""
    if not tables.exists(look):
        return []
    sql = f"""SELECT {", ".join(COLUMNS)} FROM {tables.table("skipped_row", look.dialect)}
              WHERE run = :run AND {KINDS[kind]} ORDER BY step, key"""
    return [dict(row) for row in look.rows(sql, {"run": run})]


def unreadable(look: Look, place: RunPosition) -> int:
    """How many of a step's dead rows couldn't be read."""
    sql = f"""SELECT count(*) AS n FROM {tables.table("skipped_row", look.dialect)}
              WHERE run = :run AND step = :step AND {KINDS["unreadable"]}"""
    return look.row(sql, {"run": place.run, "step": place.step}).integer("n")
