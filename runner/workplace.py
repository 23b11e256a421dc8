"""Where a command works: the target that it reaches, and the directory in which its runs lie."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from runner import identity, targets
from runner.database import RunDatabase, Session
from runner.errors import RunRefused, TargetUnreachable
from runner.events import Json
from runner.masks import Masks, SecretTooShort
from runner.status import RunStatus, fold
from runner.trail import read, utc_now
from steps.base import DatabaseFault


@dataclass(frozen=True)
class Place:
    """What the options and the environment say of where to work."""

    target: str | None = None
    runs: Path | None = None
    cwd: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def resolve(self) -> targets.Target:
        return targets.resolve(self.target, environ=self.environ, cwd=self.cwd)

    def runs_directory(self, target: targets.Target | None = None) -> Path:
        """--runs, RUNBOOK_RUNS, the target's `runs:`, or ./runs."""
        named = self.environ.get("RUNBOOK_RUNS")
        if self.runs is not None:
            return self.runs
        if named:
            return Path(named)
        return target.runs if target is not None and target.runs is not None else self.cwd / "runs"


@dataclass
class Connected:
    """An open target."""

    target: targets.Target
    database: RunDatabase
    arguments: targets.ConnectArguments
    identity: dict[str, Json]
    masks: Masks

    @property
    def name(self) -> str:
        return self.target.name or self.target.url

    def another(self, session: Session) -> RunDatabase:
        """A second way in, for a thread of its own."""
        return RunDatabase(self.arguments, schema=self.database.schema, session=session)


@contextmanager
def connected(place: Place, *, schema: str = "public", masks: Masks | None = None) -> Iterator[Connected]:
    """Open the target; its password is masked from here on in all that is written.

    Raises TargetUnreachable where it can't be reached.
    """
    target = place.resolve()
    arguments = targets.connect_arguments(target, place.environ)
    masks = masks or Masks()
    for secret in (arguments.password, place.environ.get("PGPASSWORD")):
        if secret:
            try:
                masks.add(secret)
            except SecretTooShort as error:
                raise RunRefused(f"cannot use this password: {error}", then="give the role a longer one") from error
    shown = target.name or target.url
    if arguments.path is not None and not arguments.path.exists():
        raise TargetUnreachable(
            f"cannot reach {shown}: there is no file {arguments.path}",
            state="nothing was changed",
            then="check --target",
        )
    try:
        database = RunDatabase(arguments, schema=schema)
    except DatabaseFault as fault:
        raise TargetUnreachable(
            f"cannot reach {shown}: {masks.mask(str(fault))}", state="nothing was changed", then="runbook target check"
        ) from fault
    try:
        yield Connected(
            target, database, arguments, identity.of_target(database, name=shown, arguments=arguments), masks
        )
    finally:
        database.close()


def new_run(name: str, now: datetime) -> str:
    """A run's name: playbook, time, and enough chance that two never meet."""
    return f"{name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Found:
    """A run on disk."""

    directory: Path
    status: RunStatus

    @property
    def trail(self) -> Path:
        return self.directory / "trail.jsonl"


def find_run(runs: Path, name: str) -> Found:
    """The run of this name, an unambiguous beginning of one, or `latest`.

    Raises RunRefused where there is none or more than one.
    """
    known = sorted(
        (path.parent for path in runs.glob("*/trail.jsonl")), key=lambda path: (path / "trail.jsonl").stat().st_mtime
    )
    if name == "latest":
        fits = known[-1:]
    else:
        fits = [path for path in known if path.name == name] or [path for path in known if path.name.startswith(name)]
    if len(fits) != 1:
        what = "there is none" if not fits else f"{len(fits)} begin so: {', '.join(path.name for path in fits[:5])}"
        raise RunRefused(f"cannot find the run {name!r} in {runs}: {what}", then=f"runbook runs --runs {runs}")
    return load_run(fits[0])


def load_run(directory: Path) -> Found:
    """Read a run from its trail."""
    return Found(directory, fold(read(directory / "trail.jsonl")))


def all_runs(runs: Path) -> list[Found]:
    """Every run in the directory, the newest first."""
    found = [load_run(path.parent) for path in runs.glob("*/trail.jsonl")]
    return sorted(found, key=lambda one: one.status.started_at, reverse=True)


now = utc_now
