"""How this command was invoked, so that printed commands work when they are pasted into the same shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """`runbook` if the shell's PATH leads to this very program, else its path, quoted for a shell."""
    found, mine = shutil.which("runbook"), Path(sys.argv[0]).absolute()
    if found is not None and Path(found).resolve() == mine.resolve():
        return "runbook"
    if not os.access(mine, os.X_OK) or mine.suffix == ".py":  # python -m
        return shlex.join([sys.executable, "-m", "runbook_entry"])
    return shown(mine)


def shown(path: Path) -> str:
    """A path relative to the working directory if it lies below it, quoted for a shell."""
    path = path.absolute()
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
