"""Anchors: heads of a trail's hash chain, kept in the target so that a rewritten trail is detected."""

from __future__ import annotations

from dataclasses import dataclass

from steps.contract import Look, Work
from steps.ledger.tables import table, tables


@dataclass(frozen=True)
class Anchor:
    """The head of a trail's hash chain at one moment, kept to detect a rewritten trail. what: that moment, for display."""

    what: str
    head: str
    length: int


def anchors_of(look: Look, run: str) -> list[Anchor]:
    """All anchors of a run, earliest first."""
    sql = f"""SELECT 'the end of step ' || step AS what, trail_head, trail_length FROM {table("step", look.dialect)}
              WHERE run = :run AND trail_head <> ''"""
    if "anchor" in tables(look):
        by_hand = table("anchor", look.dialect)
        sql += f" UNION ALL SELECT what, trail_head, trail_length FROM {by_hand} WHERE run = :run AND trail_head <> ''"
    rows = look.rows(f"{sql} ORDER BY trail_length", {"run": run})
    return [Anchor(row.text("what"), row.text("trail_head"), row.integer("trail_length")) for row in rows]


def anchor_anew(work: Work, *, run: str, head: str, length: int) -> None:
    """Replace a run's anchors by one of its new trail: it was rebuilt from the ledger, and no old head can match it."""
    for name in ("step", "anchor"):
        sql = f"UPDATE {table(name, work.dialect)} SET trail_head = '', trail_length = 0 WHERE run = :run"
        work.execute(sql, {"run": run})
    sql = f"UPDATE {table('run', work.dialect)} SET trail_head = :head, trail_length = :length WHERE run = :run"
    work.execute(sql, {"run": run, "head": head, "length": length})


def add_anchor(work: Work, *, run: str, what: str, head: str, length: int) -> None:
    """Record the chain head after an intervention by a person; what: which one."""
    sql = f"""INSERT INTO {table("anchor", work.dialect)} (run, what, trail_head, trail_length)
              VALUES (:run, :what, :head, :length)"""
    work.execute(sql, {"run": run, "what": what, "head": head, "length": length})
