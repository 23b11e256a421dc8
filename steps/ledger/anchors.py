"""The heads of a trail's chain as the ledger vouches for them: whoever writes the trail can't redo it unseen."""

from __future__ import annotations

from dataclasses import dataclass

from steps.contract import Look, Work
from steps.ledger.tables import table, tables


@dataclass(frozen=True)
class Anchor:
    """The chain's head as the ledger vouches for it. what: when it was taken, for people."""

    what: str
    head: str
    length: int


def anchors_of(look: Look, run: str) -> list[Anchor]:
    """All anchors of a run, the earliest first."""
    sql = f"""SELECT 'the end of step ' || step AS what, trail_head, trail_length FROM {table("step", look.dialect)}
              WHERE run = :run AND trail_head <> ''"""
    if "anchor" in tables(look):
        by_hand = table("anchor", look.dialect)
        sql += f" UNION ALL SELECT what, trail_head, trail_length FROM {by_hand} WHERE run = :run AND trail_head <> ''"
    rows = look.rows(f"{sql} ORDER BY trail_length", {"run": run})
    return [Anchor(row.text("what"), row.text("trail_head"), row.integer("trail_length")) for row in rows]


def anchor_anew(work: Work, *, run: str, head: str, length: int) -> None:
    """A run's trail was made again from the ledger: the heads of the lost one vouch for nothing any more."""
    for name in ("step", "anchor"):
        sql = f"UPDATE {table(name, work.dialect)} SET trail_head = '', trail_length = 0 WHERE run = :run"
        work.execute(sql, {"run": run})
    sql = f"UPDATE {table('run', work.dialect)} SET trail_head = :head, trail_length = :length WHERE run = :run"
    work.execute(sql, {"run": run, "head": head, "length": length})


def add_anchor(work: Work, *, run: str, what: str, head: str, length: int) -> None:
    """The head of a run's chain after what somebody did to it by hand."""
    sql = f"""INSERT INTO {table("anchor", work.dialect)} (run, what, trail_head, trail_length)
              VALUES (:run, :what, :head, :length)"""
    work.execute(sql, {"run": run, "what": what, "head": head, "length": length})
