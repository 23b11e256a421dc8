"""A step that runs a program. Its pid is committed to the ledger before it does anything, so that no orphan goes unnoticed.

A program can't commit with its ledger row: "started …" is committed before, "done" after. A start without an end is unknown,
and `applied_if` or a person must settle it.
"""

from __future__ import annotations

import re
import shlex
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from steps.contract import (
    Context,
    Effect,
    Look,
    Progress,
    RunPosition,
    Seconds,
    State,
    Step,
    StepError,
    StepResult,
    Timespan,
    Uses,
    cutting,
    pids,
    processes,
)
from steps.contract.direction import HIGHER, MORE
from steps.contract.pids import ProcessId
from steps.ledger import step_commits
from steps.sql.queries import ReadQuery

Argv = Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(min_length=1)]

DONE = "done"
PULSE_S = 1.0
END = 500  # characters of the end of the output that a failure shows
SHOWN = 4096  # characters of the end of the output that the result keeps
_STARTED = re.compile(r"^started pid=(\d+) start=([0-9.]+)(?: boot=(\S*) ns=(\S*) ticks=(\d+))? host=(.*)$")


class CommandResult(StepResult):
    """How the command ended; stdout and stderr: the end of its output."""

    exit_code: int
    seconds: float
    stdout: str = ""
    stderr: str = ""


class CommandBefore(BaseModel):
    """The process, as recorded before the command did anything."""

    pid: int
    started: float
    host: str


@dataclass(frozen=True)
class Started:
    """One start of a command, read from its label in the ledger or to be written as one."""

    process: ProcessId
    host: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def started(self) -> float:
        return self.process.started

    def label(self) -> str:
        one = self.process
        where = f"boot={one.boot} ns={one.namespace} ticks={one.ticks}"
        return f"started pid={one.pid} start={one.started:.3f} {where} host={self.host}"

    def running(self) -> bool | None:
        """Whether it still runs; None where this host can't tell."""
        return pids.alive(self.process)


class Command(Step[CommandBefore]):
    """Runs a program by its argv, without a shell.

    Whether it is done is decided by `applied_if` (a query whose single value is true when it is), else by the ledger: there a
    start without an end is unknown, and a person settles it.
    """

    kind: ClassVar[str] = "command"
    summary: ClassVar[str] = "run a program (argv, no shell) in a process group of its own"
    Result: ClassVar[type[StepResult]] = CommandResult

    argv: Argv
    takes_at_most: Annotated[Seconds, HIGHER] = Timespan(600)
    exit_codes: Annotated[tuple[int, ...], Field(min_length=1), MORE] = (0,)
    cwd: str | None = None
    env_from: tuple[str, ...] = ()
    database: bool = False
    applied_if: ReadQuery | None = None
    undo_argv: Argv | None = Field(default=None, alias="revert")

    def describe(self) -> str:
        return "run " + _shown(self.argv)

    def one_way(self) -> str:
        return "" if self.undo_argv else "it has no `revert:` command"

    def programs(self) -> tuple[Uses, ...]:
        return tuple(Uses(argv, self.cwd or "") for argv in (self.argv, self.undo_argv) if argv)

    def verify(self, look: Look) -> Effect:
        if self.applied_if is not None:
            return _asked(look, self.applied_if.text(look.dialect))
        return _from_ledger(look)

    def apply(self, ctx: Context) -> CommandResult:
        return self._run(ctx, self.argv)

    def revert(self, ctx: Context, before: CommandBefore) -> None:
        del before
        if self.undo_argv is None:
            raise StepError(f"cannot take back {self.describe()!r}: {self.one_way()}")
        if self.applied_if is not None and started(ctx.db.committed()):
            with ctx.db.look() as look:
                gone = self.verify(look).state is State.NOT_DONE
            if gone:
                return  # an earlier attempt completed, and was interrupted before it could record that
        self._run(ctx, self.undo_argv)

    def doubt(self, look: Look) -> str:
        labels = _labels(look, look.place, action="revert") if look.place and self.applied_if is None else []
        return "" if DONE in labels or not started(labels) else f"its way back: {_effect(labels).evidence}"

    def at_work(self, look: Look) -> str:
        labels = _labels(look, look.place, action="apply") if look.place else []
        pids = [str(one.pid) for one in started(labels) if one.running()]
        return (
            f"process {pids[0]} of {self.describe()!r} still runs; wait for it, or end it with `kill -- -{pids[0]}`"
            if pids
            else ""
        )

    def only_way_back_differs(self, before: Step) -> bool:
        return isinstance(before, Command) and self.model_copy(update={"undo_argv": None}) == before.model_copy(
            update={"undo_argv": None}
        )

    def _run(self, ctx: Context, argv: Argv) -> CommandResult:
        _refuse_orphan(ctx.db.committed())
        with ctx.db.look() as look:
            extra = look.environment() if self.database else None
        save = _files(ctx)
        finished = processes.run(
            argv,
            timeout_s=self.takes_at_most,
            env=processes.environment(names=self.env_from, extra=extra),
            cwd=self.cwd,
            on_start=lambda process: _record(ctx, Started(process, socket.gethostname())),
            stop=_pulses(ctx, _shown(argv)),
            save=save,
        )
        self._judge(argv, finished, save)
        for path in save or ():
            path.unlink(missing_ok=True)
        with ctx.db.commit(DONE):
            pass
        return CommandResult(
            exit_code=finished.exit_code,
            seconds=round(finished.seconds, 3),
            stdout=finished.stdout[-SHOWN:],
            stderr=finished.stderr[-SHOWN:],
        )

    def _judge(self, argv: Argv, finished: processes.Finished, save: tuple[Path, Path] | None) -> None:
        told = _told(finished, save)
        if finished.timed_out:
            raise StepError(
                f"cannot finish {_shown(argv)!r}: ended after {self.takes_at_most:g} s, with its process group; "
                f"what it had done is not known{told}"
            )
        if finished.exit_code not in self.exit_codes:
            raise StepError(f"cannot go on: {_shown(argv)!r} ended with exit code {finished.exit_code}{told}")


def _asked(look: Look, sql: str) -> Effect:
    rows = look.rows(sql)
    if not rows:
        return Effect(State.NOT_DONE, "applied_if gives no row")
    values = list(rows[0].values())
    if len(rows) > 1 or len(values) != 1:
        raise StepError(
            f"cannot read applied_if: it must give one value, not {len(rows)} rows of {len(values)} columns"
        )
    if values[0] is None:
        return Effect(State.UNKNOWN, "applied_if gives NULL")
    return Effect(State.DONE if values[0] else State.NOT_DONE, f"applied_if gives {values[0]!r}")


def _from_ledger(look: Look) -> Effect:
    if look.place is None:
        return Effect(State.NOT_DONE, "not yet run; without `applied_if` only a run's ledger can tell")
    undone = _effect(_labels(look, look.place, action="revert"))
    if undone.state is State.DONE:
        return Effect(State.NOT_DONE, f"taken back: {undone.evidence}")
    if undone.state is State.UNKNOWN:
        return undone
    if look.place.action == "revert" and started(_labels(look, look.place, action="apply")):
        return Effect(State.UNKNOWN, "it ran, and the ledger knows no start of its way back")
    return _effect(_labels(look, look.place, action="apply"))


def _labels(look: Look, place: RunPosition, *, action: str) -> list[str]:
    return step_commits.committed_labels(look, RunPosition(run=place.run, step=place.step, action=action))


def _effect(labels: list[str]) -> Effect:
    if DONE in labels:
        return Effect(State.DONE, "the ledger says that it ended well")
    starts = started(labels)
    if not starts:
        return Effect(State.NOT_DONE, "the ledger knows no start of it")
    last = starts[-1]
    now = {True: "still runs", False: "has ended", None: "can't be seen from here"}[last.running()]
    return Effect(
        State.UNKNOWN,
        f"started as process {last.pid} on {last.host} (start time {last.started:.3f}), which {now}; "
        "whether it succeeded is not known",
    )


def started(labels: list[str]) -> list[Started]:
    """The starts recorded among a step's labels, in order."""
    found = (_STARTED.match(label) for label in labels)
    return [
        Started(ProcessId(int(one[1]), one[3] or "", one[4] or "", int(one[5] or 0), float(one[2])), one[6])
        for one in found
        if one
    ]


def _refuse_orphan(labels: list[str]) -> None:
    for one in started(labels):
        if one.running():
            raise StepError(
                f"cannot start the command again: process {one.pid} of an earlier start still runs on this host; "
                f"wait for it, or end it with `kill -- -{one.pid}`"
            )


def _record(ctx: Context, start: Started) -> None:
    ctx.remember(CommandBefore(pid=start.pid, started=start.started, host=start.host))
    with ctx.db.commit(start.label()):
        pass


def _pulses(ctx: Context, shown: str) -> Callable[[], bool]:
    """A `stop` callback that reports about once a second; Stopped, raised by pulse, terminates the command's group."""
    began = last = time.monotonic()

    def stop() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last >= PULSE_S:
            last = now
            ctx.pulse(Progress(done=0, total=1, unit="commands", note=f"{shown} runs for {now - began:.0f} s"))
        return False

    return stop


def _shown(argv: tuple[str, ...]) -> str:
    return shlex.join(argv)


def _files(ctx: Context) -> tuple[Path, Path] | None:
    """The files for all that this start of the command prints; they stay where it fails."""
    with ctx.db.look() as look:
        place = look.place
    if ctx.folder is None or place is None:
        return None
    start = f"{place.step}.{place.action}.{len(started(ctx.db.committed())) + 1}"
    return ctx.folder / f"{start}.stdout", ctx.folder / f"{start}.stderr"


def _told(finished: processes.Finished, save: tuple[Path, Path] | None) -> str:
    """What the output tells of a failure: its first error, its end, and where all of it is.

    What fails first is the cause; what a program prints last is often only what followed from it.
    """
    end = cutting.last(finished.stderr.strip() or finished.stdout.strip(), END)
    first = finished.first_error
    parts = [first, cutting.MARK, end] if first and first not in end else [end]
    text = "\n".join(part for part in parts if part)
    kept = [str(path) for path in save or () if path.exists() and path.stat().st_size]
    where = f"\nall that it printed: {' and '.join(kept)}" if kept else ""
    return (f": {text}" if text else "") + where
