"""What the engine adds to a step: one that does nothing, with its two fsynced records, against two bare fsynced appends.

The step is a checkpoint that asks for nothing, in a playbook that changes nothing, so that neither the database nor a
ledger takes part: StepStarted and StepEnded go to the trail, and all else (status, status.json, the terminal's lines)
is the engine's own work. The times are the trail's own. Right after each run the same lines are appended to a file beside the
trail, each with a write and an fsync. Both are cut into blocks of twenty steps, and the median block counts: an fsync
that waits for somebody else's is no matter of the engine's. Linear means: the median block of the last tenth takes as
long as that of the first.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from measuring import RUNBOOK, Figure, Options, Report, Spent, progress, spend, workplace

SMALL, LARGE = 1_000, 10_000
PAIRS, LARGE_PAIRS = 5, 3
BLOCK = 20
HOPELESS = 3.0  # times the first tenth's cost, at 1,000 steps: 10,000 would take hours
NONE = "success_criteria: {none: nothing is done}\n"


@dataclass(frozen=True)
class Measured:
    """One run and its yardstick, in ms a step; `growth`: the last tenth's cost by the first one's."""

    step: float
    bare: float
    growth: float
    spent: Spent


def run(options: Options) -> Report:
    with workplace() as directory:
        sqlite3.connect(directory / "empty.db").close()
        small = [_measure(directory, SMALL)]
        hopeless = small[0].growth > HOPELESS
        pairs = 0 if hopeless else options.pairs or PAIRS
        small += [_measure(directory, SMALL) for _ in range(pairs - 1)]
        large = [_measure(directory, LARGE) for _ in range(min(pairs, LARGE_PAIRS))]
    figures = [*_figures(small, SMALL, rss=80), *_figures(large, LARGE, rss=300)]
    note = (
        f"{LARGE:,} steps were left out: at {SMALL:,} the last tenth costs more than {HOPELESS:g} × the first already"
    )
    return Report(figures, [note] if hopeless else [])


def _figures(found: list[Measured], steps: int, *, rss: float) -> list[Figure]:
    return [
        Figure(f"{steps:,} steps: a step", [one.step for one in found], "ms"),
        Figure(f"{steps:,} steps: two bare fsynced appends", [one.bare for one in found], "ms"),
        Figure(f"{steps:,} steps: step / two bare appends", [one.step / one.bare for one in found], "×", 2.0),
        Figure(f"{steps:,} steps: last tenth / first tenth", [one.growth for one in found], "×", 1.15),
        Figure(f"{steps:,} steps: CPU a step, start included", [1e3 * one.spent.cpu / steps for one in found], "ms"),
        Figure(f"{steps:,} steps: peak memory", [one.spent.rss for one in found], "MB", rss),
    ]


def _measure(directory: Path, steps: int) -> Measured:
    progress(f"{steps:,} steps")
    playbook, runs = directory / f"noop-{steps}.yaml", directory / "runs"
    entries = "".join(f"  - {{id: s{number:05}, type: checkpoint}}\n" for number in range(steps))
    playbook.write_text(f"runbook: 1\nname: noop\ntitle: Steps that do nothing\nsteps:\n{entries}{NONE}")
    spent = spend([RUNBOOK, "exec", str(playbook), "-t", "empty.db", "--runs", str(runs)], cwd=directory)
    trail = max(runs.glob("*/trail.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = [line for line in trail.read_bytes().splitlines(keepends=True) if b'"event":{"event":"step_' in line]
    blocks = _blocks([_at(line) for line in lines])
    bare = statistics.median(_blocks(_append(trail.with_name("bare.jsonl"), lines)))
    tenth = len(blocks) // 10
    growth = statistics.median(blocks[-tenth:]) / statistics.median(blocks[:tenth])
    return Measured(statistics.median(blocks), bare, growth, spent)


def _at(line: bytes) -> float:
    return datetime.fromisoformat(json.loads(line)["at"]).timestamp()


def _blocks(times: list[float]) -> list[float]:
    """Of the times of all records, two a step: what a step took in each block, in ms."""
    ends = times[:: 2 * BLOCK]
    return [1e3 * (end - start) / BLOCK for start, end in itertools.pairwise(ends)]


def _append(path: Path, lines: list[bytes]) -> list[float]:
    """The yardstick: the same bytes, each line written and synced, and nothing else; when each was begun, in seconds."""
    times = []
    with path.open("ab+", buffering=0) as file:
        for line in lines:
            times.append(time.perf_counter())
            os.write(file.fileno(), line)
            os.fsync(file.fileno())
    return times
