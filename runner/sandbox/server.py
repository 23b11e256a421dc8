"""A private PostgreSQL server in its own directory, for the demo, rehearsals and tests.

The pip package's own launcher is not used, because as root it adds a system user and opens root's home to everybody. Here
root enters a user namespace or, if the system refuses that, becomes nobody. The server listens on a Unix socket in a
directory of mode 0700, and on no TCP port.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

from runner.sandbox.binaries import (
    Account,
    ServerUnavailable,
    choose_binaries,
    copy_package,
    default_account,
    environment,
    usable,
)

USER = "owner"
VERSION = "version"  # file with the major version; written when the database cluster is complete
RECORD = "server.json"  # file with the pids of server and owner; written at the start, removed by stop()
LOG = "server.log"
SOCKET_LIMIT = 100  # bytes; a socket address holds 108 on Linux and 104 on macOS
START_SECONDS = 60.0  # includes crash recovery after kill()
ENDINGS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))  # fast, immediate, kill


class Server:
    """A private PostgreSQL server; as a context manager it runs inside the block and keeps its directory.

    `directory` is created if missing and contains everything. What can't be there (a socket whose path is too long, data
    that the server's account can't access) is put into a temporary directory, with a symlink to it. `settings` apply to
    every start. The server dies with the process that started it; if the system can't do that, the next start in the same
    directory ends it, or `reap`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        major: int | None = None,
        settings: Mapping[str, str] | None = None,
        account: Account | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self.settings = dict(settings or {})
        self.account = account or default_account()
        self.binaries = choose_binaries(major or _major_of(self.directory))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def version(self) -> tuple[int, ...]:
        return self.binaries.version

    @property
    def pid(self) -> int:
        """The postmaster's pid; raises ServerUnavailable if the server doesn't run."""
        if self._process is None:
            raise ServerUnavailable(f"no server is running in {str(self.directory)!r}: start it first")
        return self._process.pid

    @property
    def data(self) -> Path:
        return (self.directory / "data").resolve()

    @property
    def socket(self) -> Path:
        """The directory of the Unix socket, which is libpq's `host`."""
        link = self.directory / "socket"
        return link.readlink() if link.is_symlink() else link

    def url(self, database: str = "postgres") -> str:
        """A URL for SQLAlchemy and libpq; no password is needed."""
        return f"postgresql://{USER}@/{quote(database, safe='')}?host={quote(str(self.socket), safe='/')}"

    def conninfo(self, database: str = "postgres") -> str:
        """A connection string of keywords and values for psycopg and libpq."""
        parts = {"host": str(self.socket), "user": USER, "dbname": database}
        return " ".join("{}='{}'".format(key, re.sub(r"(['\\])", r"\\\1", value)) for key, value in parts.items())

    def start(self) -> None:
        """Create the database cluster if there is none, start the server and wait until it accepts connections.

        Raises ServerUnavailable with the end of the server's log if it doesn't start.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        reap(self.directory)
        self._place("socket", fits=lambda path: _short_enough(path) and self.account.can_use(path))
        self._place("data", fits=self.account.can_use)
        self._make_usable()
        if _major_of(self.directory) is None or not any(self.data.iterdir()):
            self._initdb()
        self._launch()
        self._await_ready()

    def stop(self) -> None:
        """Shut down the server (fast: sessions are ended, their transactions rolled back). Does nothing if it doesn't run."""
        if self._process is None:
            return
        for number, seconds in ENDINGS:
            self._process.send_signal(number)  # does nothing once the process has ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        self._forget()

    def restart(self) -> None:
        self.stop()
        self.start()

    def running(self) -> bool:
        """Whether the server that this object started still runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill the server's processes with SIGKILL, as if the machine had crashed; the next start() recovers."""
        import psutil

        process = psutil.Process(self.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()  # else it could start further processes before it is killed
            children = [(child.pid, child.create_time()) for child in process.children(recursive=True)]
            for pid, _ in ((process.pid, 0), *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _await_end(children)
        self._forget()

    def discard(self) -> None:
        """Stop the server and remove everything that it has created, in its directory and elsewhere."""
        self.stop()
        for name in ("socket", "data", "binaries"):
            path = self.directory / name
            shutil.rmtree(path.resolve(), ignore_errors=True)
            if path.is_symlink():
                path.unlink()
        for name in (VERSION, RECORD, LOG):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # fails if others have files in it
            self.directory.rmdir()

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait()
        self._process = None
        (self.directory / RECORD).unlink(missing_ok=True)

    def _place(self, name: str, *, fits: Callable[[Path], bool]) -> None:
        """Create the directory `name`, or a symlink to a temporary one if ours doesn't fit its purpose."""
        path = self.directory / name
        if path.is_symlink() and not path.exists():
            path.unlink()  # the system has cleaned up its temporary files
        if path.exists():
            return
        path.mkdir(mode=0o700)
        self.account.own(path)
        if not fits(path):
            path.rmdir()
            elsewhere = Path(tempfile.mkdtemp(prefix="runbook-"))
            self.account.own(elsewhere)
            path.symlink_to(elsewhere)

    def _make_usable(self) -> None:
        """Make sure that the account can run the programs: copy them if the package is in an inaccessible home."""
        why = usable(self.binaries, self.account)
        if why and self.binaries.origin == "package":
            self._place("binaries", fits=self.account.can_use)
            self.binaries = copy_package(self.binaries, (self.directory / "binaries").resolve())
            why = usable(self.binaries, self.account)
        if why:
            raise ServerUnavailable(f"cannot run PostgreSQL from {str(self.binaries.directory)!r}: {why}")

    def _initdb(self) -> None:
        options = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        if self.settings.get("fsync") == "off":
            options.append("--no-sync")
        done = self.account.run(self.binaries.tool("initdb"), "-D", self.data, *options)
        if done.returncode != 0:
            raise ServerUnavailable(f"cannot make a database cluster in {str(self.data)!r}: {done.stderr.strip()}")
        (self.directory / VERSION).write_text(f"{self.binaries.major}\n")

    def _launch(self) -> None:
        settings = {"timezone": "UTC", "log_timezone": "UTC", **self.settings}
        settings |= {"listen_addresses": "", "unix_socket_directories": f'"{self.socket}"'}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self.binaries.tool("postgres")), "-D", str(self.data), *options]
        with (self.directory / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [*self.account.prefix, *_leash(), *command],
                user=self.account.uid,
                group=self.account.gid,
                extra_groups=None if self.account.uid is None else [],
                env=environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # ^C in the terminal is for the run, which then stops the server itself
            )
        _note(self.directory / RECORD, pid=self._process.pid)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _ready(self.data / "postmaster.pid", pid=self.pid):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                lines = (self.directory / LOG).read_text(errors="replace").splitlines()[-5:]
                raise ServerUnavailable("cannot start PostgreSQL: " + " | ".join(lines))
            time.sleep(0.01)


def reap(directory: Path) -> bool:
    """End the server that a dead process has left behind in `directory`; returns whether there was one.

    Raises ServerUnavailable if the process that started it is alive, so that it is in use.
    """
    record = directory / RECORD
    try:
        note = json.loads(record.read_text())
        server, owner = (int(note["pid"]), float(note["started"])), (int(note["owner"]), float(note["owner_started"]))
    except (FileNotFoundError, ValueError, KeyError):
        return False
    running = _alive(*server)
    if running and _alive(*owner):
        raise ServerUnavailable(
            f"cannot take {str(directory)!r}: process {owner[0]} runs server {server[0]} there",
            then="end that process, or name another directory",
        )
    if running:
        _end(server[0])
    record.unlink(missing_ok=True)
    return running


def _major_of(directory: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((directory / VERSION).read_text())
    return None


def _short_enough(directory: Path) -> bool:
    return len(os.fsencode(directory / ".s.PGSQL.5432")) < SOCKET_LIMIT


def _leash() -> tuple[str, ...]:
    """A command prefix that makes the kernel send SIGINT (fast shutdown) to the server when we die.

    The setting depends on the thread that starts the server, so only the main thread may use it. It must come last in the
    chain of commands, because a change of user resets it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return ()
    return (setpriv, "--pdeathsig", "INT", "--")


def _note(record: Path, *, pid: int) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):  # it failed immediately; the log says why
        started, ours = psutil.Process(pid).create_time(), psutil.Process().create_time()
        record.write_text(json.dumps({"pid": pid, "started": started, "owner": os.getpid(), "owner_started": ours}))


def _alive(pid: int, started: float) -> bool:
    """Whether process `pid` is alive and was started at `started` (pids are reused)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _await_end(processes: list[tuple[int, float]]) -> None:
    deadline = time.monotonic() + 10.0
    while any(_alive(*each) for each in processes) and time.monotonic() < deadline:
        time.sleep(0.005)


def _end(pid: int) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for number, seconds in ENDINGS:
            process.send_signal(number)
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(seconds)
                return


def _ready(pidfile: Path, *, pid: int) -> bool:
    """Whether the server is ready, according to line 8 of postmaster.pid, which it keeps up to date."""
    try:
        lines = pidfile.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
