"""Where the command `runbook` begins: our own packages are imported, whatever PYTHONPATH holds under their names.

A project with folders called `steps` or `runner` is common, and PYTHONPATH goes before installed packages. This module
has a name that nobody else gives, imports nothing of ours before it has looked, and stands alone for that reason.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

OURS = ("runner", "steps", "playbooks")


def main() -> None:
    """Drop what shadows us, say so, and run the command."""
    dropped = _drop_shadows()
    from runner import cli
    from runner.common import terminal

    terminal.prepare()
    for entry, names in dropped:
        terminal.warn(f"left {entry} of PYTHONPATH out: its {' and '.join(names)} would stand for runbook's own")
    try:
        cli.main()
    finally:
        gc.freeze()  # the process ends: the system takes all memory back at once, and looking through it takes time


def _drop_shadows() -> list[tuple[str, list[str]]]:
    """The entries of PYTHONPATH that held packages of our names, now gone from sys.path; our own place goes before the rest."""
    here = str(Path(__file__).resolve().parent)
    given = {os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    dropped = []
    for entry in list(sys.path):
        place = os.path.realpath(entry)
        names = [] if place == here else _shadowing(entry)
        if names and place in given:
            sys.path.remove(entry)
            dropped.append((entry or ".", names))
        elif names:  # the current folder, as with `python -m`: not the user's wish, and not ours to take away
            sys.path.insert(0, here)
    return dropped


def _shadowing(entry: str) -> list[str]:
    """Which of our packages Python would import from there; a folder without a module in it shadows nothing."""
    found = ((name, PathFinder.find_spec(name, [entry or str(Path.cwd())])) for name in OURS)
    return [name for name, spec in found if spec is not None and spec.origin is not None]


if __name__ == "__main__":
    main()
