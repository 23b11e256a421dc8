"""A backfill's reporting: its figures for guards and criteria, its progress, and the forecast at a pause."""

from __future__ import annotations

from steps.contract import Look, Progress, RunningFigures, Value
from steps.types.backfill.ranges import TREE_BYTES, Start
from steps.types.backfill.sql import Shape
from steps.types.backfill.store import Totals
from steps.types.backfill.throttle import Pace

RUNNING = RunningFigures(
    names=(
        "visited",
        "written",
        "already",
        "no_key",
        "not_in_source",
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


def figures(totals: Totals, start: Start) -> dict[str, Value]:
    """The figures that guards can read, as far as the ledger has them."""
    return {
        "in_range": max(start.rows, totals.seen),
        "visited": totals.seen,
        "written": totals.written,
        "already": totals.already,
        "no_key": totals.no_key,
        "not_in_source": totals.not_in_source,
        "deferred": totals.deferred,
        "dead": totals.dead,
        "dead_pct": share(totals.dead, totals.seen),
        "batches": totals.batches,
    }


def progress(totals: Totals, start: Start, *, rate: float, rows: int, ms: float, pace: Pace) -> Progress:
    """Progress of the pass: rows visited of those in range (rows changed would never reach the total)."""
    speed: dict[str, Value] = {"visited_per_second": round(rate, 1), "batch_rows": rows, "batch_ms": round(ms, 1)}
    speed |= {"others_per_second": round(pace.others, 1), "at_rest_pct": round(100 * pace.at_rest, 1)}
    size = f" · batches of {rows:,} in {ms:.0f} ms" if totals.batches else ""
    note = f"{totals.written:,} written{size}{beside(pace)}"
    total = max(start.rows, totals.seen)
    return Progress(totals.seen, total, "rows", note=note, figures={**figures(totals, start), **speed})


def beside(pace: Pace) -> str:
    """The part of the progress note on other sessions' work; their rate is known only after some seconds of counting."""
    if not pace.busy:
        return ""
    others = f"{pace.others:,.0f} transactions/s of others" if round(pace.others) else "others at work"
    return f", gently beside {others}" + (f", {100 * pace.at_rest:.0f} % at rest" if pace.at_rest else "")


def share(part: int, whole: int) -> float:
    """The part in per cent of the whole; 0 where the whole is 0."""
    return round(100.0 * part / whole, 3) if whole else 0.0


def size(look: Look, shape: Shape) -> int:
    """The size in bytes of the table with indexes, TOAST and partitions; on SQLite of the whole file."""
    if shape.pg:
        return look.row(f"SELECT {TREE_BYTES} AS n", {"name": shape.table}).integer("n")
    return look.row("SELECT page_count * page_size AS n FROM pragma_page_count, pragma_page_size").integer("n")


def forecast(totals: Totals, start: Start, *, seconds: float, bytes_now: int, wal: int) -> str:
    """The message of a pause: work done, rate, growth and WAL so far, and an extrapolation for the remaining rows."""
    seconds = max(seconds, 0.001)
    rest, grown = max(start.rows - totals.seen, 0), max(bytes_now - start.bytes, 0)
    factor = rest / max(totals.seen, 1)
    written = f", the server wrote {_bytes(wal)} of WAL" if wal else ""
    ahead = f", {_bytes(round(wal * factor))} of WAL" if wal else ""
    return (
        f"paused as the playbook asks, after {totals.batches} batches: {totals.written:,} rows written, "
        f"{totals.seen:,} of {start.rows:,} visited in {_span(seconds)} ({totals.seen / seconds:,.0f} rows/s); "
        f"it grew by {_bytes(grown)}{written}; the other {rest:,} rows take about {_span(seconds * factor)}{ahead} "
        f"and {_bytes(round(grown * factor))} of room at this rate"
    )


def rest_s(totals: Totals, start: Start, *, seconds: float) -> float:
    """The expected duration of the remaining rows, in seconds, at the rate so far."""
    return max(seconds, 0.001) * max(start.rows - totals.seen, 0) / max(totals.seen, 1)


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bytes(count: int) -> str:
    number, units = float(count), ("B", "kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.0f} {units[-1]}"
