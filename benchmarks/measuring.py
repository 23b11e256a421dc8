"""What all benchmarks share: a child process measured by wait4, figures with a median, a spread and a limit, a table."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
RUNBOOK = str(Path(sys.executable).with_name("runbook"))
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in one unit of ru_maxrss


class Broken(Exception):
    """A benchmark could not be carried out; not that a limit was missed."""


class Skipped(Exception):
    """A benchmark that needs something which isn't here."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for; None: the benchmark's own default."""

    full: bool = False
    pairs: int | None = None
    rows: int | None = None
    pg: int | None = None
    store: str | None = None


@dataclass(frozen=True)
class Spent:
    """What one process took: seconds of wall and of CPU (user + system, its own children's too), peak memory in MB."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True)
class Figure:
    """One measured figure: `limit` is the most that it may be, or the least. No values: it could not be measured."""

    name: str
    values: Sequence[float]
    unit: str = ""
    limit: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def reached(self) -> bool | None:
        """None where nothing is demanded."""
        if self.limit is None:
            return None
        if self.median is None:
            return False
        return self.median >= self.limit if self.at_least else self.median <= self.limit

    def cells(self) -> tuple[str, str, str, str]:
        measured = "not measured" if self.median is None else self._number(self.median)
        if len(self.values) > 1:
            measured += f" ({self._number(min(self.values))}–{self._number(max(self.values))})"
        sign = "≥" if self.at_least else "≤"
        limit = "" if self.limit is None else f"{sign} {self.limit:g} {self.unit}".rstrip()
        reached = {None: "", True: "yes", False: "NO"}[self.reached]
        return self.name, f"{measured} {self.unit}".rstrip(), limit, reached

    def _number(self, value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"

    def document(self) -> dict[str, object]:
        return {
            "figure": self.name, "unit": self.unit, "median": self.median, "values": list(self.values),
            "limit": self.limit, "at_least": self.at_least, "reached": self.reached,
        }  # fmt: skip


@dataclass
class Report:
    """One benchmark's figures, and what must be said beside them."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [("figure", "median (min–max)", "limit", "reached"), *(figure.cells() for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.notes])


def spend(
    argv: Sequence[str],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    heard: Callable[[int, str], None] | None = None,
) -> Spent:
    """Run a command to its end and say what it took; `heard` gets its pid and each line that it prints, at once.

    The peak memory is never less than this process's own, which the child was forked from: so this one stays small.
    Raises Broken, with what it said last, when it fails.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        out = subprocess.PIPE if heard else said
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment(env), stdin=subprocess.DEVNULL, stdout=out, stderr=said
        )
        if heard and process.stdout:
            with process.stdout as lines:
                for line in lines:
                    heard(process.pid, line.decode())
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            tail = said.read().decode(errors="replace")[-1500:]
            raise Broken(f"{' '.join(argv)} ended with {process.returncode}:\n{tail}")
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * RSS_UNIT / 1e6)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without what would keep bytecode from being written, or choose a target."""
    unwanted = {"PYTHONDONTWRITEBYTECODE", "RUNBOOK_TARGET", "RUNBOOK_RUNS"}
    return {key: value for key, value in os.environ.items() if key not in unwanted} | dict(more or {})


def stolen() -> float:
    """Seconds of a core that the host of a virtual machine has taken away so far; 0 where nobody counts them."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """An empty directory in the checkout: the system's one for temporary files can be memory, where fsync is free."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "build") as name:
        yield Path(name)


def progress(text: str) -> None:
    """For whoever waits; on stderr, so that the tables stay alone on stdout."""
    print(f"  … {text}", file=sys.stderr, flush=True)
