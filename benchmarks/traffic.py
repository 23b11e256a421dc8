"""The backfill beside an application that updates 200 rows a second, on a private PostgreSQL with fsync on.

Each window is one run of the step over a fresh copy, with the application at work from some seconds before it to its
end. The application's latency in the seconds before is the yardstick: idle. One kind of window has the controller alone
(`throttle: none`: smaller batches while others work), the other the default throttle, which rests between batches too.
Quiet speed is the step's without the application, on copies of their own, in turns with the rest.

The machine has a share in it: where few cores are, a session that touches no table makes others wait too. So a third kind of
window has, in the step's place, a session that only computes, as long at a time as a message of batches, and rests as long. And
each window also says what the 99th percentile is without the time for which an update was ready to run and had no core: what is
left are locks, WAL and the disk. Where the machine is a virtual one its host may take the
cores away for a while: a window in which that took more than a hundredth is measured again.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from backfill import FULL_ROWS, Ear, playbook_in
from measuring import RUNBOOK, Figure, Options, Report, progress, spend, stolen, workplace
from prepared import COPY, Prepared, prepared
from writers import Update

ROWS, WINDOWS, RATE, IDLE_S, SETTLE_S = 100_000, 5, 200, 20.0, 2.0
BURST_S, GAP_S, COMPUTING_S = 0.5, 0.125, 12.0  # a message of batches, the rest after it, a window's length
STOLEN = 0.01  # of a core's time, by the machine's host
TRIES = 3  # windows until one has less; else the best of them counts
COMPUTE = "SELECT sum(sqrt(i)) FROM generate_series(1, %s) AS i"
KINDS = {"controller": {"throttle": "none"}, "throttle": {}}


@dataclass
class Window:
    """Milliseconds at the 99th percentile of the application's updates, alone and beside the step; rows a second.

    running: the same two without what an update waited for a core; stolen: seconds of a core that the host took away, in
    each second.
    """

    idle: float
    beside: float
    running: tuple[float, float]
    speed: float
    stolen: float


@dataclass
class Bench:
    database: Prepared
    directory: Path
    quiet: list[float] = field(default_factory=list)
    computing: list[Window] = field(default_factory=list)
    again: int = 0  # windows that were measured again
    windows: dict[str, list[Window]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def round(self, number: int) -> None:
        for kind in KINDS:
            progress(f"window {number + 1}: {kind}")
            self.windows[kind].append(self._window(lambda kind=kind: self._step(kind)))  # type: ignore[misc]  # kind is bound
        progress(f"window {number + 1}: computing")
        self.computing.append(self._window(self._compute))
        progress(f"window {number + 1}: quiet")
        with self.database.copy():
            self.quiet.append(self.database.rows / self._step("controller"))

    def _window(self, act: Callable[[], float]) -> Window:
        """Measured until the host leaves us alone."""
        found = [self._once(act)]
        while found[-1].stolen > STOLEN and len(found) < TRIES:
            self.again += 1
            progress(f"again: the host took {found[-1].stolen:.1%} of a core away")
            found.append(self._once(act))
        return min(found, key=lambda one: one.stolen)

    def _once(self, act: Callable[[], float]) -> Window:
        """`act` beside the application; it says how many seconds of its end count."""
        with self.database.copy(), self._application() as latencies:
            began = time.time() + SETTLE_S
            time.sleep(SETTLE_S + IDLE_S)
            middle, before = time.time(), stolen()
            seconds = act()
            ended, taken = time.time(), stolen() - before
        idle = [one for one in latencies if began <= one[0] < middle]
        beside = [one for one in latencies if ended - seconds <= one[0] < ended]
        return Window(
            idle=_p99(took for _, took, _ in idle),
            beside=_p99(took for _, took, _ in beside),
            running=(
                _p99(took - waited for _, took, waited in idle),
                _p99(took - waited for _, took, waited in beside),
            ),
            speed=self.database.rows / seconds,
            stolen=taken / (ended - middle),
        )

    def _compute(self) -> float:
        with psycopg.connect(self.database.server.conninfo(COPY), autocommit=True) as connection:
            connection.execute("SELECT set_config('jit', 'off', false)")
            began = time.perf_counter()
            connection.execute(COMPUTE, [100_000])
            rows = int(100_000 * BURST_S / (time.perf_counter() - began))
            until = time.perf_counter() + COMPUTING_S
            while time.perf_counter() < until:
                connection.execute(COMPUTE, [rows])
                time.sleep(GAP_S)
        return COMPUTING_S

    @contextlib.contextmanager
    def _application(self) -> Iterator[list[Update]]:
        """Its latencies are there once it has ended."""
        argv = [sys.executable, str(Path(__file__).with_name("writers.py")), self.database.url, str(RATE)]
        latencies: list[Update] = []
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield latencies
            finally:
                out, _ = process.communicate()
        latencies += [(due, took, waited) for due, took, waited in json.loads(out)]

    def _step(self, kind: str) -> float:
        ear = Ear()
        file = str(self.directory / f"{kind}.yaml")
        argv = [RUNBOOK, "exec", file, "-t", self.database.url, "--runs", str(self.directory / "runs"), "--json"]
        spend(argv, cwd=self.directory, heard=ear.heard)
        return ear.seconds


def _p99(latencies: Iterable[float]) -> float:
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


def _running(windows: list[Window]) -> list[float]:
    ratios = [beside / idle for idle, beside in (one.running for one in windows)]
    return [one for one in ratios if not math.isnan(one)]


def _report(bench: Bench) -> Report:
    figures = [Figure("quiet speed", bench.quiet, "rows/s")]
    for kind, limit in (("controller", 1.7), ("throttle", 1.2)):
        windows = bench.windows[kind]
        share = [one.speed / quiet for one, quiet in zip(windows, bench.quiet, strict=True)]
        figures += [
            Figure(f"{kind}: p99 of updates, idle", [one.idle for one in windows], "ms"),
            Figure(f"{kind}: p99 of updates, beside the step", [one.beside for one in windows], "ms"),
            Figure(f"{kind}: beside / idle", [one.beside / one.idle for one in windows], "×", limit),
            Figure(f"{kind}: beside / idle, but for cores", _running(windows), "×"),
            Figure(f"{kind}: speed / quiet speed", share, "×", 0.6 if kind == "controller" else None, at_least=True),
        ]
    figures += [
        Figure("a computing session: p99 of updates, beside it", [one.beside for one in bench.computing], "ms"),
        Figure("a computing session: beside / idle", [one.beside / one.idle for one in bench.computing], "×"),
        Figure("a computing session: but for cores", _running(bench.computing), "×"),
    ]
    words = (
        f"{bench.database.rows:,} sessions, {RATE} updates a second, fsync on, {len(bench.quiet)} windows of each kind"
    )
    every = [*bench.computing, *(one for windows in bench.windows.values() for one in windows)]
    most = max((one.stolen for one in every), default=0.0)
    taken = f"the host took away at most {most:.1%} of a core in a window; {bench.again} were measured again"
    return Report(figures, [words, taken])
