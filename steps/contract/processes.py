"""Runs child processes: in a process group of their own, with a timeout and bounded output, never through a shell."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from steps.contract import cutting, pids
from steps.contract.errors import StepError
from steps.contract.outputs import Recorder
from steps.contract.pids import ProcessId

KEPT_BYTES = 64 * 1024  # of each stream, from its end, where errors are reported
_HELD_BYTES = KEPT_BYTES + cutting.BESIDE  # a margin, so that a secret at the edge is masked before the text is cut
GRACE_S = 5.0  # between SIGTERM and SIGKILL
POLL_S = 0.02
SAFE_NAMES = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "SSH_AUTH_SOCK",
    "PGPASSFILE",
    "SSL_CERT_FILE",
)
"""The variables that every child inherits; none of them holds a secret."""

# The child blocks here, before it execs the command, until its pid is on disk. If this process dies first, the child
# reads end-of-file and the command never runs: otherwise a crash would leave a running program that nobody knows of.
# (A preexec_fn could do the same, but may deadlock in a process with threads.)
_GATE = (
    "import os,sys\n"
    "fd=int(sys.argv[1])\n"
    "go=os.read(fd,1)\n"
    "os.close(fd)\n"
    "go==b'g' or os._exit(125)\n"
    "os.execvp(sys.argv[2],sys.argv[2:])\n"
)


@dataclass(frozen=True)
class Finished:
    """The outcome of a child process; exit_code is minus the signal's number where a signal ended it."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False
    stopped: bool = False
    first_error: str = ""  # the first line that tells of an error, of stderr if it has one


@dataclass(frozen=True)
class _Limits:
    """When to terminate a child: after timeout_s seconds, or as soon as `stop` returns True."""

    timeout_s: float
    stop: Callable[[], bool] | None


def environment(*, names: Sequence[str] = (), extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A child's environment: the safe variables, those in `names`, and `extra` (see Look.environment)."""
    wanted = {*SAFE_NAMES, *names}
    kept = {name: value for name, value in os.environ.items() if name in wanted or name.startswith("LC_")}
    return {**kept, **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str],
    cwd: str | None = None,
    on_start: Callable[[ProcessId], None] | None = None,
    stop: Callable[[], bool] | None = None,
    save: tuple[Path, Path] | None = None,
) -> Finished:
    """Run a program until it exits, times out or is stopped; its whole process group is terminated with it.

    on_start: called with the child's identity before the command does anything, so that the caller can record it durably;
        if it raises, the command never runs.
    stop: polled some fifty times a second; it may also raise.
    save: files for all of stdout and stderr, masked; they are on disk while the program runs.
    Raises StepError where the program can't be started.
    """
    _must_exist(argv, env=env, cwd=cwd)
    recorders = [
        Recorder(path) for path in save or (None, None)
    ]  # before there is a child that a full disk could leave behind
    began = time.monotonic()
    child, release = _start(argv, env=env, cwd=cwd, gated=on_start is not None)
    streams = zip((child.stdout, child.stderr), recorders, strict=True)
    tails = [_Tail(stream, recorder) for stream, recorder in streams if stream is not None]
    timed_out = stopped = False
    try:
        if on_start is not None and release is not None:
            on_start(pids.identify(child.pid))
            _let_go(release)
        timed_out, stopped = _wait(child, _Limits(timeout_s, stop))
    finally:
        if release is not None:
            os.close(release)
        _end(child)
    stdout, stderr = (tail.text() for tail in tails)
    first = next((one for one in (tail.first_error for tail in reversed(tails)) if one), "")
    return Finished(child.returncode, stdout, stderr, time.monotonic() - began, timed_out, stopped, first)


def _must_exist(argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None) -> None:
    if not argv:
        raise StepError("cannot run a command: argv is empty")
    program = argv[0]
    if cwd is not None and not Path(cwd).is_dir():
        raise StepError(f"cannot run {program!r}: the directory {cwd!r} does not exist")
    found: object = shutil.which(program, path=env.get("PATH", os.defpath))
    if os.sep in program:
        path = Path(cwd or ".") / program
        found = path.is_file() and os.access(path, os.X_OK)
    if not found:
        raise StepError(f"cannot run {program!r}: no such program; give its path, or a PATH that has it")


def _start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None, gated: bool
) -> tuple[subprocess.Popen[bytes], int | None]:
    if not gated:
        return _popen(list(argv), env=env, cwd=cwd), None
    reading, writing = os.pipe()
    try:
        gate = [sys.executable, "-I", "-S", "-c", _GATE, str(reading), *argv]
        return _popen(gate, env=env, cwd=cwd, pass_fds=(reading,)), writing
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)


def _popen(
    argv: list[str], *, env: Mapping[str, str], cwd: str | None, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as fault:
        raise StepError(f"cannot run {argv[0]!r}: {fault.strerror}") from fault


def _let_go(release: int) -> None:
    try:
        os.write(release, b"g")
    except BrokenPipeError:  # the child was killed while it waited; its exit code says so
        return


def _wait(child: subprocess.Popen[bytes], limits: _Limits) -> tuple[bool, bool]:
    """Wait for the child or its limits; returns (timed out, stopped)."""
    until = time.monotonic() + limits.timeout_s
    while not _exited(child):
        if time.monotonic() >= until:
            return True, False
        if limits.stop is not None and limits.stop():
            return False, True
        time.sleep(POLL_S)
    return False, False


def _exited(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has exited, without reaping it: until it is reaped, its pid can't become another group's id."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return child.poll() is not None
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Terminate what is left of the process group, then reap the leader.

    Only a group whose leader is not reaped is certainly still ours to signal.
    """
    if child.returncode is not None:
        return
    if not _exited(child):
        _signal(child.pid, signal.SIGTERM)
        _wait(child, _Limits(GRACE_S, None))
    _signal(child.pid, signal.SIGKILL)
    child.wait()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # already gone, or (macOS) only zombies are left
        return


class _Tail:
    """Reads a stream to its end in a thread, so that the child never blocks on a full pipe; keeps only the last bytes."""

    def __init__(self, stream: IO[bytes], recorder: Recorder) -> None:
        self._stream, self._recorder = stream, recorder
        self._kept = bytearray()
        self._cut = False
        self._thread = threading.Thread(target=self._read, name="child-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream, contextlib.closing(self._recorder):
            while chunk := os.read(self._stream.fileno(), 64 * 1024):
                self._kept += chunk
                self._recorder.take(chunk)
                if len(self._kept) > _HELD_BYTES:
                    self._cut = True
                    del self._kept[:-_HELD_BYTES]

    @property
    def first_error(self) -> str:
        return self._recorder.first_error

    def text(self) -> str:
        """The end of what was read so far, masked where it was cut."""
        self._thread.join(timeout=1.0)  # bounded: a daemon that left the process group may keep the stream open
        text = bytes(self._kept).decode(errors="replace")
        whole = cutting.masked(text)[cutting.EDGE :] if self._cut else text
        kept = cutting.last(whole, KEPT_BYTES)
        return kept if kept is text else f"{cutting.MARK} (cut)\n{kept}"
