"""`demo --stay`: a separate process (the keeper) runs the demo's server until it is stopped or its terminal is closed.

The demo forks the keeper before it does anything else. The keeper starts the server and sends its address over a socket
pair; the demo fills the database, runs its phases and finally sends "stay". If the demo is killed earlier, its end of the
pair closes and the keeper ends the server. A file lock on the keeper's record shows whether a server stays up: the system
releases it with the process, so a record left by a killed keeper does no harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner.common.errors import RunRefused
from runner.common.invocation import command
from runner.sandbox.binaries import ServerUnavailable
from runner.sandbox.server import Server, reap

STAY = b"stay"
LOOK_MS = 500  # polling interval for the server's process
STOP_S = 90.0  # stopping the server takes at most 80
START_S = 90.0
_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Staying:
    """A server that stays up, or is starting. kept: its data is not removed when it stops."""

    pid: int
    directory: str
    kept: bool
    url: str = ""  # of the database `postgres`; "" until the server is up
    version: str = ""


# ─── the record ─────────────────────────────────────────────────────────────────────────────────────────────────────
def record() -> Path:
    """The path of the user's record; in a folder that is verified to be the user's own, since /tmp is shared."""
    folder = Path(tempfile.gettempdir()) / f"runbook-stays-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if folder.is_symlink() or not folder.is_dir() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RunRefused(
            f"cannot use {folder}",
            why="it is not a folder that you alone can write",
            then=f"TMPDIR=DIR {command()} demo --stay",
        )
    return folder / "demo.json"


def staying() -> Staying | None:
    """The server that stays up now; None if there is none."""
    path = record()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(handle)
    return None


def stop() -> Staying | None:
    """Stop the server that stays up and wait until it is down; None if there is none."""
    told: Staying | None = None
    deadline = time.monotonic() + STOP_S
    while (found := staying()) is not None:
        if told is None and found.pid:
            told = found
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            raise RunRefused(
                f"cannot stop the demo in {(told or found).directory}",
                why=f"its process {(told or found).pid} was told to end {STOP_S:g} s ago",
                state="its server is running",
                then=f"kill -9 {(told or found).pid}",
            )
        time.sleep(0.05)
    return told


def _read(path: Path) -> Staying:
    """The content of the record; empty if its writer has only just started."""
    try:
        return Staying(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return Staying(0, "", kept=False)


def _locked(path: Path) -> int:
    """Open and lock the record, until this process ends; raises RunRefused if another process has locked it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise already(_read(path)) from None
    return handle


def already(found: Staying) -> RunRefused:
    """The refusal of a second server: `--stop` must know which one is meant."""
    return RunRefused(
        "cannot start another demo that stays: one stays already",
        why=f"process {found.pid} keeps its server in {found.directory}",
        state="it goes on as it is; nothing was begun",
        then=f"{command()} demo --stop",
    )


# ─── the demo's side ────────────────────────────────────────────────────────────────────────────────────────────────
@contextlib.contextmanager
def kept_up(directory: Path, *, kept: bool) -> Iterator[tuple[Staying, Callable[[], None]]]:
    """A server in its own process, and a function that lets it stay up; otherwise it ends with this block."""
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _keep(theirs, directory, kept=kept)
    theirs.close()
    stays: list[bool] = []

    def stay() -> None:
        try:
            ours.sendall(STAY)
        except OSError:
            raise RunRefused(
                "cannot leave the demo's server up",
                why="it was ended while the demo ran",
                then=f"{command()} demo --stay",
            ) from None
        stays.append(True)

    try:
        yield _answer(ours), stay
    finally:
        ours.close()
        if not stays:
            os.waitpid(pid, 0)


def _answer(ours: socket.socket) -> Staying:
    """The keeper's answer: its server, or raises the error that prevented it from starting."""
    ours.settimeout(START_S)
    with ours.makefile("r", encoding="utf-8") as lines:
        said = json.loads(lines.readline() or '{"what": "the process that holds the server has gone"}')
    if "what" in said:
        raise (ServerUnavailable if said.pop("unavailable", False) else RunRefused)(**said)
    return Staying(**said)


# ─── the keeper's side ──────────────────────────────────────────────────────────────────────────────────────────────
def _keep(theirs: socket.socket, directory: Path, *, kept: bool) -> None:
    """The main function of the keeper process; never returns."""
    code = 1
    try:
        bell = _listen()
        _leave_terminal()
        code = _hold(theirs, bell, directory, kept=kept)
    except RunRefused as error:
        _say(theirs, {"what": error.what, "why": error.why, "state": error.state, "then": error.then})
    except ServerUnavailable as error:
        _say(
            theirs,
            {"unavailable": True, "what": error.what, "why": error.why, "state": error.state, "then": error.then},
        )
    except OSError as error:
        _say(theirs, {"what": f"cannot start a server in {directory}", "why": str(error), "state": "nothing was begun"})
    finally:
        os._exit(code)  # a forked child must not run its parent's cleanup handlers


def _hold(theirs: socket.socket, bell: int, directory: Path, *, kept: bool) -> int:
    path = record()
    left = _read(path) if path.exists() else None
    handle = _locked(path)
    if left is not None and left.directory and not left.kept and Path(left.directory) != directory:
        _tidy(Path(left.directory))
    found = Staying(os.getpid(), str(directory), kept)
    _write(handle, found)
    server = Server(directory / "server")
    try:
        server.start()
        found = replace(found, url=server.url("postgres"), version=".".join(map(str, server.version)))
        _write(handle, found)
        _say(theirs, asdict(found))
        _wait(theirs, bell, server)
    finally:
        server.stop() if kept else server.discard()
        os.ftruncate(handle, 0)
    return 0


def _tidy(directory: Path) -> None:
    """Clean up after a killed keeper: end its server if it still runs, and remove its data."""
    if (directory / "server").is_dir():
        with contextlib.suppress(OSError, ServerUnavailable):
            reap(directory / "server")
            Server(directory / "server").discard()


def _listen() -> int:
    """Let signals write to a pipe instead of ending the process, so that the server can be shut down in order.

    Returns the reading end of the pipe.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(writing, False)
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup: stay without a terminal
            signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing)
    return reading


def _leave_terminal() -> None:
    """Leave the process group, so that ^C does not reach us, and close the output: readers would wait for our end of it."""
    os.setpgid(0, 0)
    nobody = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nobody, number)
    os.close(nobody)


def _wait(theirs: socket.socket, bell: int, server: Server) -> None:
    """Wait until the demo dies without "stay", a signal comes, the terminal is closed, or the server dies."""
    watched = select.poll()
    watched.register(bell, select.POLLIN)
    watched.register(theirs, select.POLLIN)
    terminal = _terminal()
    if terminal is not None:
        watched.register(terminal, 0)  # POLLHUP is always reported
    while server.running():
        for handle, what in watched.poll(LOOK_MS):
            if handle == theirs.fileno() and theirs.recv(len(STAY)) == STAY:
                watched.unregister(theirs)
            elif handle == terminal and not what & select.POLLHUP:
                watched.unregister(terminal)  # this system can't report a hang-up
            else:
                return


def _terminal() -> int | None:
    """The controlling terminal, to be watched for its end: we get no SIGHUP, being no job of the shell any more."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return None
    try:
        return os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _say(theirs: socket.socket, said: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        theirs.sendall(json.dumps(said).encode() + b"\n")


def _write(handle: int, found: Staying) -> None:
    text = json.dumps(asdict(found)).encode()
    os.pwrite(handle, text, 0)
    os.ftruncate(handle, len(text))
