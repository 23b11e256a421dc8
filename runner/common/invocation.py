"""How this command can be typed again where it was typed: printed commands must work when they are pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command() -> str:
    """`runbook` where the shell finds this very one, else its path, quoted for a shell."""
    found, mine = shutil.which("runbook"), Path(sys.argv[0]).absolute()
    if found is not None and Path(found).resolve() == mine.resolve():
        return "runbook"
    if not os.access(mine, os.X_OK) or mine.suffix == ".py":  # python -m
        return shlex.join([sys.executable, "-m", "runbook_entry"])
    return shown(mine)


def shown(path: Path) -> str:
    """A path as short as it can be typed from here, quoted for a shell."""
    path = path.absolute()
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
