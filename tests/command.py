"""Runs the command as a user does: a real process, its exit code, and what it printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RUNBOOK = Path(sys.executable).with_name("runbook")
KILLED = -signal.SIGKILL


HOLDS = "success_criteria: [{id: always, check: query, query: SELECT 1 AS one, that: one == 1}]\n"


def proven(text: str) -> str:
    """A playbook's text with a criterion that always holds, unless it has its own or is no playbook: without one it is refused."""
    if not re.search("^steps:", text, re.MULTILINE) or "success_criteria" in text:
        return text
    return f"{text.rstrip()}\n{HOLDS}"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Desk:
    """A directory in which somebody works: playbooks, runs, a target."""

    directory: Path
    target: str

    def runbook(self, *words: str, fault: str = "", stdin: str | None = None, **env: str) -> Done:
        """`runbook WORDS` here; `fault` names the point at which the process is killed."""
        more = {"RUNBOOK_TARGET": self.target, **({"RUNBOOK_FAULT": fault} if fault else {}), **env}
        done = subprocess.run(
            [RUNBOOK, *words],
            check=False,
            cwd=self.directory,
            env={**os.environ, **more},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """The same in the background."""
        return subprocess.Popen(
            [RUNBOOK, *words], cwd=self.directory, env={**os.environ, "RUNBOOK_TARGET": self.target, **env},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def playbook(self, name: str, text: str) -> str:
        """Write a playbook, with a criterion where it has none; its file name."""
        (self.directory / f"{name}.yaml").write_text(proven(text))
        return f"{name}.yaml"

    @property
    def trail(self) -> Path:
        """The only run's trail."""
        (found,) = (self.directory / "runs").glob("*/trail.jsonl")
        return found
