"""Runs the command as a user does: a real process, its exit code, and what it printed."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RUNBOOK = Path(sys.executable).with_name("runbook")
KILLED = -signal.SIGKILL
LIMIT = 600  # seconds: it ends a test that hangs, and says nothing of speed, even where others take the machine


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


_OF_A_START = ("PYTHON", "LC_", "LANG")  # what only an interpreter that starts obeys


class _Loaded:
    """The process in which all is loaded (tests/support/loaded.py), started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()

    def run(self, words: tuple[str, ...], directory: Path, env: Mapping[str, str]) -> Done | None:
        """None while another thread's command goes."""
        if not self._turn.acquire(blocking=False):
            return None
        with contextlib.ExitStack() as stack:
            stack.callback(self._turn.release)
            out, err = (stack.enter_context(tempfile.NamedTemporaryFile()) for _ in range(2))
            asked = {"words": words, "cwd": str(directory), "env": dict(env), "out": out.name, "err": err.name}
            code = self._ask(json.dumps(asked))
            return Done(code, *(file.read().decode().replace("\r\n", "\n") for file in (out, err)))

    def _ask(self, line: str) -> int:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("loaded.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            atexit.register(self._end, self._process)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], LIMIT)[0], "the command did not end"
        return int(self._process.stdout.readline())

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.communicate()


_LOADED = _Loaded()


@dataclass(frozen=True)
class Cli:
    """A directory in which somebody works: playbooks, runs, a target."""

    directory: Path
    target: str

    def runbook(self, *words: str, fault: str = "", stdin: str | None = None, **env: str) -> Done:
        """`runbook WORDS` here, in a process of its own; `fault` names the point at which it is killed."""
        more = {"RUNBOOK_TARGET": self.target, **({"RUNBOOK_FAULT": fault} if fault else {}), **env}
        if stdin is None and not any(name.startswith(_OF_A_START) for name in env):
            done = _LOADED.run(words, self.directory, {**os.environ, **more})
            if done is not None:
                return done
        done = subprocess.run(
            [RUNBOOK, *words],
            check=False,
            cwd=self.directory,
            env={**os.environ, **more},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT,
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
