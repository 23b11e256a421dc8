"""Commands to a running run from other processes, which it reads at its next safe point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from steps.contract import Look, Value, Work
from steps.ledger.tables import table


@dataclass(frozen=True)
class RunCommand:
    """A command to a running run. order: JSON such as {"hold": true} or {"batch_seconds": 0.1}."""

    seq: int
    order: str
    by: str
    reason: str


def add_command(work: Work, *, run: str, order: Mapping[str, Value], by: str, reason: str) -> None:
    """Send a command to a run, which reads it at its next safe point."""
    sql = f"INSERT INTO {table('control', work.dialect)} (run, command, by_whom, reason) VALUES (:run, :order, :by, :reason)"
    work.execute(sql, {"run": run, "order": json.dumps(order), "by": by, "reason": reason})


def commands_since(look: Look, *, run: str, after: int) -> list[RunCommand]:
    """The commands with a higher seq than `after`, oldest first."""
    sql = f"""SELECT seq, command, by_whom, reason FROM {table("control", look.dialect)}
              WHERE run = :run AND seq > :after ORDER BY seq"""
    rows = look.rows(sql, {"run": run, "after": after})
    return [RunCommand(r.integer("seq"), r.text("command"), r.text("by_whom"), r.text("reason")) for r in rows]
