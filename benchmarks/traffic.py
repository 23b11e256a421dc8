"""The backfill beside an application that updates 200 rows a second, on a private PostgreSQL with fsync on.

Each window is one run of the step over a fresh copy, with the application at work from some seconds before it to its
end. The application's latency in the seconds before is the yardstick: idle. One kind of window has the controller alone
(`throttle: none`: smaller batches while others work), the other the default throttle, which rests between batches too.
Quiet speed is the step's without the application, on copies of their own, in turns with the rest.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backfill import FULL_ROWS, Ear, playbook_in
from measuring import RUNBOOK, Figure, Options, Report, progress, spend, workplace
from prepared import Prepared, prepared

ROWS, WINDOWS, RATE, IDLE_S, SETTLE_S = 200_000, 5, 200, 8.0, 2.0
KINDS = {"controller": {"throttle": "none"}, "throttle": {}}


@dataclass
class Window:
    """Milliseconds at the 99th percentile of the application's updates, alone and beside the step; rows a second."""

    idle: float
    beside: float
    speed: float


@dataclass
class Bench:
    database: Prepared
    directory: Path
    quiet: list[float] = field(default_factory=list)
    windows: dict[str, list[Window]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def round(self, number: int) -> None:
        for kind in KINDS:
            progress(f"window {number + 1}: {kind}")
            with self.database.copy(), self._application() as latencies:
                began = time.time() + SETTLE_S
                time.sleep(SETTLE_S + IDLE_S)
                middle = time.time()
                seconds = self._step(kind)
                ended = time.time()
            idle = [took for due, took in latencies if began <= due < middle]
            beside = [took for due, took in latencies if ended - seconds <= due < ended]
            self.windows[kind].append(Window(_p99(idle), _p99(beside), self.database.rows / seconds))
        progress(f"window {number + 1}: quiet")
        with self.database.copy():
            self.quiet.append(self.database.rows / self._step("controller"))

    @contextlib.contextmanager
    def _application(self) -> Iterator[list[tuple[float, float]]]:
        """Its latencies are there once it has ended."""
        argv = [sys.executable, str(Path(__file__).with_name("writers.py")), self.database.url, str(RATE)]
        latencies: list[tuple[float, float]] = []
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield latencies
            finally:
                out, _ = process.communicate()
        latencies += [(due, took) for due, took in json.loads(out)]

    def _step(self, kind: str) -> float:
        ear = Ear()
        file = str(self.directory / f"{kind}.yaml")
        argv = [RUNBOOK, "exec", file, "-t", self.database.url, "--runs", str(self.directory / "runs"), "--json"]
        spend(argv, cwd=self.directory, heard=ear.heard)
        return ear.seconds


def _p99(latencies: list[float]) -> float:
    return 1000 * statistics.quantiles(latencies, n=100)[98]


def run(options: Options) -> Report:
    rows = options.rows or (FULL_ROWS if options.full else ROWS)
    with workplace() as directory, prepared(directory / "server", rows=rows, major=options.pg) as database:
        for kind, fields in KINDS.items():
            playbook_in(directory, kind, **fields)
        bench = Bench(database, directory)
        for number in range(options.pairs or WINDOWS):
            bench.round(number)
    return _report(bench)


def _report(bench: Bench) -> Report:
    figures = [Figure("quiet speed", bench.quiet, "rows/s")]
    for kind, limit in (("controller", 1.7), ("throttle", 1.2)):
        windows = bench.windows[kind]
        share = [one.speed / quiet for one, quiet in zip(windows, bench.quiet, strict=True)]
        figures += [
            Figure(f"{kind}: p99 of updates, idle", [one.idle for one in windows], "ms"),
            Figure(f"{kind}: p99 of updates, beside the step", [one.beside for one in windows], "ms"),
            Figure(f"{kind}: beside / idle", [one.beside / one.idle for one in windows], "×", limit),
            Figure(f"{kind}: speed / quiet speed", share, "×", 0.6 if kind == "controller" else None, at_least=True),
        ]
    words = (
        f"{bench.database.rows:,} sessions, {RATE} updates a second, fsync on, {len(bench.quiet)} windows of each kind"
    )
    return Report(figures, [words])
