"""The command without a process of its own, for tests in which none has to die: ten times faster than a start."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

import psycopg
from command import LIMIT, Cli, Done
from databases import Database

from runner.cli import main
from runner.trail import trail
from runner.trail.status import RunStatus, fold


@dataclass(frozen=True)
class InProcessCli(Cli):
    """A desk whose commands run in this process, unless a fault is to kill them."""

    def runbook(self, *words: str, fault: str = "", stdin: str | None = None, **env: str) -> Done:
        if fault or stdin is not None:
            return super().runbook(*words, fault=fault, stdin=stdin, **env)
        out, err = io.StringIO(), io.StringIO()
        code = 0
        here = contextlib.chdir(self.directory), _environment({"RUNBOOK_TARGET": self.target, **env})
        with here[0], here[1], contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(list(words))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        return Done(code, out.getvalue(), err.getvalue())

    def kill(self, *words: str, fault: str) -> Done:
        """The command in a process that dies at this point."""
        return super().runbook(*words, fault=fault)

    @property
    def newest(self) -> Path:
        """The trail of the run that was written to last."""
        return max((self.directory / "runs").glob("*/trail.jsonl"), key=lambda path: path.stat().st_mtime_ns)

    def events(self, kind: str, path: Path | None = None) -> list[Any]:
        """What the trail has of one kind, in order."""
        return [one.event for one in trail.read(path or self.newest) if one.event.event == kind]

    def status(self, path: Path | None = None) -> RunStatus:
        """How the run stands."""
        return fold(trail.read(path or self.newest))

    def reached(self, kind: str, *, count: int = 1, seconds: float = 120) -> None:
        """Wait until a running command has written so many records of this kind."""
        until(
            lambda: bool(list((self.directory / "runs").glob("*/trail.jsonl"))) and len(self.events(kind)) >= count,
            seconds,
        )


def until(true: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until something is so, and return it; an assertion fails when it never is."""
    end = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def written(desk: Cli, steps: str, head: str = "", *, name: str = "change") -> str:
    """A playbook with these steps; its file name."""
    return desk.playbook(name, f"runbook: 1\nname: {name}\ntitle: A change\n{head}steps:\n{indent(steps, '  ')}\n")


@contextlib.contextmanager
def session(database: Database, sql: str, **settings: str) -> Iterator[psycopg.Connection]:
    """Somebody else's open transaction."""
    with contextlib.closing(psycopg.connect(database.url, **settings)) as connection:
        connection.execute(sql)
        yield connection


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Within: `act` in a thread; what it raises is raised at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(act)
        yield
        future.result(LIMIT)


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
