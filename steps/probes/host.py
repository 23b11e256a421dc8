"""Probes on the disk and memory of a host; the result always says which host was measured."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from steps.contract import Look, Model, Probe, Seconds, StepError, Timespan, Unknown, Uses, cutting, processes
from steps.contract.dialect import Dialect
from steps.contract.direction import HIGHER
from steps.sql.queries import has_role

if TYPE_CHECKING:
    import psutil

NEAR_S = 5.0  # tolerance between a backend's start time as the server and as this host reports it
_LOCAL = frozenset({"df", "free"})  # programs that can only measure the host they run on
PAGE_BYTES = 20_000_000  # limit for an exporter's metrics page
_METRIC = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.eE+-]+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MEMORY = {"node_memory_MemAvailable_bytes": "available", "node_memory_MemTotal_bytes": "total"}


class _HostProbe(Probe):
    """host: which host to measure; command: a program (argv) that prints the figure; url: a node exporter's metrics page."""

    enforced: ClassVar[bool] = False

    host: Literal["database", "runner"]
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    url: str | None = None
    timeout: Annotated[Seconds, HIGHER] = Timespan(10)

    def programs(self) -> tuple[Uses, ...]:
        return (Uses(self.command),) if self.command else ()

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        """An empty address is none: an input that wasn't given."""
        url = url or None
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"cannot fetch {url!r}: a node exporter's page has an http:// or https:// address")
        if url is not None and "@" in url.split("/")[2]:
            raise ValueError("cannot use an address with a user or password in it: it would stand in every report")
        return url

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.command and self.url:
            raise ValueError("give either `command` or `url`")
        if self.host == "database" and self.command and Path(self.command[0]).name in _LOCAL:
            raise ValueError(
                f"cannot ask {self.command[0]!r} about the database's host: it measures the runner's; reach the other "
                "host first, e.g. [ssh, db1, df, -P, /var/lib/postgresql]"
            )
        return self

    def _printed(self) -> str:
        finished = processes.run(self.command or (), timeout_s=self.timeout, env=processes.environment())
        if finished.timed_out or finished.exit_code != 0:
            how = "did not end in time" if finished.timed_out else f"ended with exit code {finished.exit_code}"
            raise StepError(
                f"cannot measure: {' '.join(self.command or ())!r} {how}: {cutting.last(finished.stderr.strip(), 300)}"
            )
        return finished.stdout.strip()

    def _metrics(self) -> list[_Metric]:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(self.url or "", timeout=self.timeout) as page:  # noqa: S310 - http(s) only, above
                return list(_parse(page.read(PAGE_BYTES).decode(errors="replace")))
        except (urllib.error.URLError, TimeoutError) as fault:
            raise StepError(f"cannot measure: {self.url} does not answer: {fault}") from fault


class DiskResult(Model):
    """host: where it was measured; path: the directory or mount point; free: as available to an ordinary user."""

    free_pct: float
    free_bytes: int | None
    total_bytes: int | None
    host: str
    path: str


class Disk(_HostProbe):
    """Free space on the database's disk or on the runner's.

    The database's disk is measured directly only where its server provably runs on this host; otherwise by `command` (which
    prints the free percentage, or is `df -P`) or `url`. path: a directory of the runner, or the mount point on the page.
    """

    kind: ClassVar[str] = "disk"
    summary: ClassVar[str] = "free room on the database's disk or the runner's"
    Result: ClassVar[type[BaseModel]] = DiskResult

    path: str | None = None

    def observe(self, look: Look) -> DiskResult:
        if self.command:
            return _read_df(self._printed(), host=_command_name(self.command), path=self.path or "")
        if self.url:
            return _read_filesystem(self._metrics(), host=self.url, path=self.path)
        if self.host == "runner":
            return _measure(Path(self.path or "."), host="runner")
        return _measure(_database_directory(look), host="database (here)")


class MemoryResult(Model):
    """used_pct: memory not available to new programs; host: where it was measured."""

    used_pct: float
    available_bytes: int | None
    total_bytes: int | None
    host: str


class Memory(_HostProbe):
    """Memory in use on the database's host or the runner's; `command` prints the used percentage."""

    kind: ClassVar[str] = "memory"
    summary: ClassVar[str] = "memory in use on the database's host or the runner's"
    Result: ClassVar[type[BaseModel]] = MemoryResult

    def observe(self, look: Look) -> MemoryResult:
        if self.command:
            used = _percentage(self._printed())
            return MemoryResult(used_pct=used, available_bytes=None, total_bytes=None, host=_command_name(self.command))
        if self.url:
            found = {_MEMORY[one.name]: int(one.value) for one in self._metrics() if one.name in _MEMORY}
            if len(found) != len(_MEMORY):
                raise Unknown(f"{self.url} has no {' and no '.join(_MEMORY)}")
            return _memory(found["available"], found["total"], host=self.url)
        if self.host == "database" and look.dialect is not Dialect.SQLITE:
            _backend_here(look)
        import psutil

        here = psutil.virtual_memory()
        return _memory(here.available, here.total, host="runner" if self.host == "runner" else "database (here)")


class ServerMemoryResult(Model):
    """used_pct: of the host's memory that the server's processes use, memory that they share counted once; processes: how many."""

    used_pct: float
    used_bytes: int
    total_bytes: int
    processes: int


class ServerMemory(Probe):
    """Memory of PostgreSQL's own processes, while `memory` is about the whole host.

    Measured where the server provably runs on this host and this user may look into its processes; unknown elsewhere.
    """

    kind: ClassVar[str] = "server_memory"
    summary: ClassVar[str] = "memory that PostgreSQL's own processes use"
    only: ClassVar[str] = "postgresql"
    enforced: ClassVar[bool] = False
    Result: ClassVar[type[BaseModel]] = ServerMemoryResult

    def observe(self, look: Look) -> ServerMemoryResult:
        import psutil

        backend = psutil.Process(_backend_here(look))
        postmaster = backend.parent()
        if postmaster is None:
            raise Unknown("the server's first process can't be seen from here")
        sizes = [_proportional(one) for one in (postmaster, *postmaster.children(recursive=True))]
        used, total = sum(size for size in sizes if size is not None), psutil.virtual_memory().total
        return ServerMemoryResult(
            used_pct=round(100 * used / total, 2), used_bytes=used, total_bytes=total, processes=len(sizes)
        )


def _proportional(process: psutil.Process) -> int | None:
    """Bytes of a process, with its part of what it shares; None if it has ended meanwhile."""
    import psutil

    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return None
    except (psutil.AccessDenied, AttributeError) as fault:
        raise Unknown(
            "this user may not look into the server's processes: run as the server's user, or use `memory`"
        ) from fault


def _command_name(argv: tuple[str, ...]) -> str:
    return "command " + shlex.join(argv)


# ─── does the server run on this host? ──────────────────────────────────────────────────────────────────────────────
def _database_directory(look: Look) -> Path:
    if look.dialect is Dialect.SQLITE:
        path = look.row("SELECT file FROM pragma_database_list WHERE name = 'main'").text("file")
        return Path(path).parent if path else Path()
    backend = _backend_here(look)
    settings = look.rows("SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'")
    directory = Path(settings[0].text("setting")) if settings else _working_directory(backend)
    if directory is not None and _reachable(directory):
        return directory
    if not settings and not has_role(look, "pg_read_all_settings"):
        raise Unknown(
            "this role can't see data_directory: GRANT pg_read_all_settings to it, or give `command` or `url`"
        )
    raise Unknown(f"the server's directory {str(directory)!r} can't be reached from here: give `command` or `url`")


def _backend_here(look: Look) -> int:
    """The pid of our own backend, if it is a process of this host; else Unknown.

    Pid and start time must both agree. An address proves nothing, since a tunnel makes any server look local.
    """
    import psutil

    row = look.row(
        """SELECT pid, extract(epoch FROM backend_start) AS started FROM pg_catalog.pg_stat_activity
           WHERE pid = pg_catalog.pg_backend_pid()"""
    )
    pid = row.integer("pid")
    try:
        process = psutil.Process(pid)
        if "postgres" in process.name() and abs(process.create_time() - row.number("started")) < NEAR_S:
            return pid
    except psutil.Error:
        pass
    raise Unknown(
        "the database's server does not run on this machine (or behind a connection pool or in a container): give "
        "`command`, e.g. [ssh, db1, df, -P, /var/lib/postgresql], or `url` of its node exporter"
    )


def _working_directory(pid: int) -> Path | None:
    """A backend's working directory, which is its data directory; None unless we are its user or root."""
    import psutil

    try:
        return Path(psutil.Process(pid).cwd())
    except psutil.Error:
        return None


def _reachable(directory: Path) -> bool:
    try:
        return directory.is_dir()
    except PermissionError:
        return False


# ─── figures ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _measure(directory: Path, *, host: str) -> DiskResult:
    try:
        usage = shutil.disk_usage(directory)
    except OSError as fault:
        raise StepError(f"cannot measure {str(directory)!r}: {fault.strerror}") from fault
    return _disk(usage.free, usage.total, host=host, path=str(directory.absolute()))


def _disk(free: int, total: int, *, host: str, path: str) -> DiskResult:
    if total <= 0:
        raise Unknown(f"{path!r} on {host} has no size")
    return DiskResult(free_pct=round(100 * free / total, 2), free_bytes=free, total_bytes=total, host=host, path=path)


def _memory(available: int, total: int, *, host: str) -> MemoryResult:
    if total <= 0:
        raise Unknown(f"{host} says no size of its memory")
    used = round(100 * (1 - available / total), 2)
    return MemoryResult(used_pct=used, available_bytes=available, total_bytes=total, host=host)


def _read_df(printed: str, *, host: str, path: str) -> DiskResult:
    """Parse the last line of `df -P` (1,024-byte blocks, or 512 if the header says so), or a bare percentage."""
    lines = printed.splitlines()
    head, last = (lines[0] if lines else ""), (lines[-1].split() if lines else [])
    if len(lines) > 1 and "blocks" in head and len(last) >= 6 and last[1].isdigit() and last[3].isdigit():
        unit = 512 if "512-blocks" in head else 1024
        return _disk(int(last[3]) * unit, int(last[1]) * unit, host=host, path=" ".join(last[5:]))
    return DiskResult(free_pct=_percentage(printed), free_bytes=None, total_bytes=None, host=host, path=path)


def _percentage(printed: str) -> float:
    try:
        value = float(printed.removesuffix("%").strip())
    except ValueError:
        raise StepError(f"cannot read {cutting.shortened(printed, 200)!r}: expected a percentage") from None
    if not 0 <= value <= 100:
        raise StepError(f"cannot read {cutting.shortened(printed, 200)!r}: a percentage lies between 0 and 100")
    return value


@dataclass(frozen=True)
class _Metric:
    name: str
    labels: dict[str, str]
    value: float


def _parse(page: str) -> Iterator[_Metric]:
    for name, labels, value in _METRIC.findall(page):
        yield _Metric(name, dict(_LABEL.findall(labels)), float(value))


def _read_filesystem(metrics: list[_Metric], *, host: str, path: str | None) -> DiskResult:
    if path is None:
        raise Unknown("a node exporter's page has many disks: give `path`, the directory of the data")
    sizes: dict[str, dict[str, int]] = {}
    for one in metrics:
        if one.name in {"node_filesystem_avail_bytes", "node_filesystem_size_bytes"}:
            sizes.setdefault(one.labels.get("mountpoint", ""), {})[one.name] = int(one.value)
    mounts = [mount for mount in sizes if mount and Path(path).is_relative_to(mount)]
    if not mounts:
        raise Unknown(f"{host} has no disk for {path!r}: it knows {', '.join(sorted(sizes)) or 'none'}")
    mount = max(mounts, key=len)
    found = sizes[mount]
    if len(found) != 2:
        raise Unknown(f"{host} does not say both size and room of {mount!r}")
    return _disk(found["node_filesystem_avail_bytes"], found["node_filesystem_size_bytes"], host=host, path=mount)
