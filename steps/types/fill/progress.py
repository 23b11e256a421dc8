"""A fill's figures, for guards, criteria and the live view."""

from __future__ import annotations

from steps.contract import Progress, RunningFigures, Value
from steps.types.backfill.progress import beside, share
from steps.types.backfill.store import Totals
from steps.types.backfill.throttle import Pace

RUNNING = RunningFigures(
    names=(
        "visited",
        "written",
        "already",
        "no_key",
        "deferred",
        "dead",
        "dead_pct",
        "in_range",
        "batches",
        "visited_per_second",
        "others_per_second",
        "at_rest_pct",
        "batch_rows",
        "batch_ms",
    ),
    counted=("visited", "written"),
    set_aside="dead",
    batch_ms="batch_ms",
)


def figures(totals: Totals, in_range: int) -> dict[str, Value]:
    """The figures as far as the ledger has them."""
    return {
        "in_range": max(in_range, totals.seen),
        "visited": totals.seen,
        "written": totals.written,
        "already": totals.already,
        "no_key": totals.no_key,
        "deferred": totals.deferred,
        "dead": totals.dead,
        "dead_pct": share(totals.dead, totals.seen),
        "batches": totals.batches,
    }


def progress(totals: Totals, in_range: int, *, rate: float, rows: int, ms: float, pace: Pace) -> Progress:
    """Progress of the pass: rows visited of those that the source gave."""
    speed: dict[str, Value] = {
        "visited_per_second": round(rate, 1),
        "others_per_second": round(pace.others, 1),
        "at_rest_pct": round(100 * pace.at_rest, 1),
        "batch_rows": rows,
        "batch_ms": round(ms, 1),
    }
    size = f" · batches of {rows:,} in {ms:.0f} ms" if ms else ""
    note = f"{totals.written:,} written, {totals.already:,} there already{size}{beside(pace)}"
    found = {**figures(totals, in_range), **speed}
    return Progress(totals.seen, max(in_range, totals.seen), "rows", note=note, figures=found)
