"""The same small playbook in Ansible and in the Chaos Toolkit: a column renamed on SQLite, checked before and after.

The three texts lie in rename/. Each peer has a virtual environment of its own in the user's cache directory, made by
the first run and kept; it is left out when it can't be installed within five minutes. Wall and CPU are of the whole
command, in turns, each time on a fresh copy of the database, which afterwards must have the new name. Ours does more
in that time: it makes its ledger, takes the lease, syncs its trail, and asks the database whether the change arrived.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from measuring import RUNBOOK, Broken, Figure, Options, Report, Spent, progress, spend, workplace

ROUNDS = 5
INSTALL_SECONDS = 300
TEXTS = Path(__file__).with_name("rename")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runbook-benchmarks"


@dataclass(frozen=True)
class Tool:
    """`command` starts with the name of a program in the tool's environment; DATABASE names the file."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]


PEERS = (
    Tool("Ansible", ("ansible-core",), ("ansible-playbook", "-i", "localhost,", str(TEXTS / "ansible.yaml"))),
    Tool(
        "Chaos Toolkit",
        ("chaostoolkit", "chaostoolkit-lib"),
        ("chaos", "--no-version-check", "run", "--journal-path", "journal.json", str(TEXTS / "chaos.json")),
    ),
)


def run(options: Options) -> Report:
    report, commands = Report(), {"Runbook": (RUNBOOK, "exec", str(TEXTS / "runbook.yaml"), "-t", "sessions.db")}
    for tool in PEERS:
        where, why = _installed(tool)
        if why:
            report.notes.append(f"{tool.name} is left out: {why}")
        else:
            commands[tool.name] = (str(where / "bin" / tool.command[0]), *tool.command[1:])
    with workplace() as directory:
        for argv in commands.values():
            _renamed(directory, argv)  # compiles what is to be compiled
        progress("the same playbook in turns")
        rounds = [[_renamed(directory, argv) for argv in commands.values()] for _ in range(options.pairs or ROUNDS)]
    by_tool = dict(zip(commands, zip(*rounds, strict=True), strict=True))
    for name, spent in by_tool.items():
        report.figures.append(Figure(f"{name}: wall", [one.wall for one in spent], "s"))
        report.figures.append(Figure(f"{name}: CPU", [one.cpu for one in spent], "s"))
    for name in list(by_tool)[1:]:
        pairs = list(zip(by_tool[name], by_tool["Runbook"], strict=True))
        report.figures.append(Figure(f"{name} / Runbook: wall", [peer.wall / ours.wall for peer, ours in pairs], "×"))
        report.figures.append(Figure(f"{name} / Runbook: CPU", [peer.cpu / ours.cpu for peer, ours in pairs], "×"))
    return report


def _renamed(directory: Path, argv: tuple[str, ...]) -> Spent:
    """One run on a fresh database; raises Broken where the column doesn't have its new name afterwards."""
    shutil.rmtree(directory)
    directory.mkdir()
    file = directory / "sessions.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE sessions (id INTEGER PRIMARY KEY, ip_types TEXT, note TEXT)")
    env = {
        "DATABASE": str(file), "PYTHONPATH": str(TEXTS), "HOME": str(directory), "LC_ALL": "C.UTF-8",
        "ANSIBLE_HOME": str(directory / "ansible"), "ANSIBLE_LOCALHOST_WARNING": "false",
    }  # fmt: skip
    spent = spend(argv, cwd=directory, env=env)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
    if names != ["id", "ip_type", "note"]:
        raise Broken(f"{argv[0]} ended well, but the columns are {names}")
    return spent


def _installed(tool: Tool) -> tuple[Path, str]:
    """The tool's environment, and why it isn't there."""
    where = CACHE / f"{tool.packages[0]}-{sys.version_info.major}.{sys.version_info.minor}"
    if (where / "complete").exists():
        return where, ""
    progress(f"installing {tool.name} into {where}")
    shutil.rmtree(where, ignore_errors=True)
    pip = [str(where / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for argv in ([sys.executable, "-m", "venv", str(where)], [*pip, *tool.packages]):
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            return where, f"not installed after {INSTALL_SECONDS} s"
        except (OSError, subprocess.CalledProcessError) as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()
            return where, f"cannot be installed: {said[-1]}"
    (where / "complete").touch()
    return where, ""
