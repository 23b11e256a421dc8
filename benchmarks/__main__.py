"""Runs the benchmarks and prints a table for each: `python benchmarks [NAME…]`, or `./dev bench [NAME…]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from measuring import Broken, Options, Report, Skipped, stolen

NAMES = ("startup", "noop", "lint", "peers", "backfill", "traffic", "mission")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="Measures Runbook against a yardstick in the same run; each benchmark's file says how.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all when none is named")
    parser.add_argument("--pairs", type=int, help="how often each side is measured, in turns")
    parser.add_argument("--rows", type=int, help="backfill, mission: sessions (default 100,000; 20,000)")
    parser.add_argument(
        "--full", action="store_true", help="backfill, mission: all 1,682,827 sessions; takes long, needs 30 GB"
    )
    parser.add_argument(
        "--pg", type=int, help="backfill, mission: PostgreSQL's major version (default: the newest here)"
    )
    parser.add_argument(
        "--store", choices=("enriched", "rich"), help="mission: the store that is made (default: enriched)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured value there too")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a limit is missed")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(NAMES)}")
    return given


def main() -> int:
    """Exit code: 0; 2 when a benchmark broke; 1 for a missed limit, with --strict only."""
    given = _arguments()
    options = Options(full=given.full, pairs=given.pairs, rows=given.rows, pg=given.pg, store=given.store)
    print(f"{_machine()['python']}, {_machine()['system']}, {os.cpu_count()} CPUs, load {_load()}")
    reports: dict[str, Report] = {}
    broken = False
    for name in given.names or NAMES:
        module = importlib.import_module(name)
        print(f"\n{name}: {str(module.__doc__).splitlines()[0]}", flush=True)
        began, before = time.monotonic(), stolen()
        try:
            reports[name] = module.run(options)
            taken = (stolen() - before) / (time.monotonic() - began)
            reports[name].notes.append(f"in all the machine's host took away {taken:.1%} of a core")
            print(reports[name].table())
        except Skipped as why:
            print(f"skipped: {why}")
        except Broken as why:
            print(f"broken: {why}")
            broken = True
    print(f"\nload at the end {_load()}")
    if given.json:
        given.json.write_text(json.dumps(_document(reports), indent=1) + "\n")
    missed = any(figure.reached is False for report in reports.values() for figure in report.figures)
    return 2 if broken else int(given.strict and missed)


def _document(reports: dict[str, Report]) -> dict[str, object]:
    found = {
        name: {"figures": [figure.document() for figure in report.figures], "notes": report.notes}
        for name, report in reports.items()
    }
    return {"machine": _machine(), "benchmarks": found}


def _machine() -> dict[str, object]:
    return {
        "python": f"Python {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
    }


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
