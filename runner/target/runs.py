"""Finds, names and reads the runs in a runs directory."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from runner.common import private_files
from runner.common.errors import RunRefused, TrailBroken
from runner.target.workplace import Workplace, options_for
from runner.trail import trail
from runner.trail.events import Record, RunStarted
from runner.trail.status import RunStatus, fold
from runner.trail.trail import TrailExtent, Verification

LONGEST_FILE = 40  # maximum length in bytes of a file name in a run's folder


def new_run(name: str, now: datetime) -> str:
    """A name for a new run: playbook, time, and a random part that keeps names unique."""
    return f"{name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def refuse_too_long(directory: Path) -> None:
    """Raise RunRefused if paths of the run's files would exceed the system's limits."""
    there = next(path for path in directory.absolute().parents if os.path.lexists(path))
    name_max, path_max = os.pathconf(there, "PC_NAME_MAX"), os.pathconf(there, "PC_PATH_MAX")
    longest = max(len(os.fsencode(part)) for part in directory.parts)
    if longest > name_max or len(os.fsencode(directory.absolute())) + LONGEST_FILE > path_max:
        raise RunRefused(
            f"cannot make the run's folder: {directory.name[:60]!r} or the path to it is too long for this system",
            why=f"a name may have {name_max:,} bytes, a path {path_max:,}",
            state="nothing was begun",
            then="give the playbook a shorter name, or another folder with --runs",
        )


@dataclass(frozen=True)
class Found:
    """A run on disk. data: the trail's bytes, read once, so that what is verified is also what is folded."""

    directory: Path
    status: RunStatus
    data: bytes = field(default=b"", repr=False)

    @property
    def trail(self) -> Path:
        return self.directory / "trail.jsonl"

    def options(self) -> str:
        """The options that commands need to find this run from here."""
        started = self.status.started
        return options_for(self.directory, started.target if started else "", Workplace())

    @cached_property
    def chain(self) -> Verification:
        """The verification of the hash chain in these bytes."""
        return trail.check(self.data)

    @property
    def seen(self) -> TrailExtent:
        """The extent that an append must find unchanged."""
        return TrailExtent.of(self.data)

    @cached_property
    def records(self) -> list[Record]:
        """The complete records in these bytes."""
        return trail.parse(self.data, self.trail)


def find_trail(runs: Path, name: str) -> Path:
    """The trail of a run, by its name, an unambiguous prefix, or `latest` for the one started last.

    Raises RunRefused if no run, or more than one, matches.
    """
    known = _trails(runs)
    if name == "latest":
        fits = sorted(known, key=_began)[-1:]
    else:
        fits = [path for path in known if path.parent.name == name]
        fits = fits or sorted(path for path in known if path.parent.name.startswith(name))
    if len(fits) != 1:
        names = ", ".join(path.parent.name for path in fits[:5])
        what = f"{len(fits)} begin so: {names}" if fits else "there is none"
        raise RunRefused(
            f"cannot find the run {name!r} in {runs}: {what}",
            why=_hidden(runs),
            then=f"runbook runs --runs {shlex.quote(str(runs))}",
        )
    return fits[0]


def _began(path: Path) -> tuple[str, str]:
    """Sort key: the time of a run's first record, then its name."""
    with contextlib.suppress(OSError, ValidationError), path.open("rb") as file:
        return Record.model_validate_json(file.readline()).at, path.parent.name
    return "", path.parent.name


def _trails(runs: Path) -> list[Path]:
    """All trails that aren't empty: a run that was killed before its first record never started."""
    found = []
    for path in runs.glob("*/trail.jsonl"):
        with contextlib.suppress(OSError):  # a folder that this user can't access
            if path.stat().st_size:
                found.append(path)
    return found


def runs_that_remove(runs: Path, playbook: str) -> Iterator[Found]:
    """The runs whose playbook takes away what runs of this one made."""
    for path in _trails(runs):
        with contextlib.suppress(OSError, ValidationError, TrailBroken), path.open("rb") as file:
            event = Record.model_validate_json(file.readline()).event
            if isinstance(event, RunStarted) and playbook in event.removes:
                yield load_run(path.parent)


def begun_as(runs: Path, playbook: str) -> Iterator[Path]:
    """The folders of a playbook's runs, according to the first record of each trail."""
    for path in _trails(runs):
        with contextlib.suppress(OSError, ValidationError), path.open("rb") as file:
            event = Record.model_validate_json(file.readline()).event
            if isinstance(event, RunStarted) and event.playbook == playbook:
                yield path.parent


def _hidden(runs: Path) -> str:
    """Why some folder can't be read, since the run may be in it; "" if all can."""
    shut = [runs] if runs.is_dir() and not os.access(runs, os.R_OK | os.X_OK) else []
    if not shut and runs.is_dir():
        shut = [one for one in runs.iterdir() if one.is_dir() and not os.access(one, os.R_OK | os.X_OK)]
    return private_files.rights(shut[0] / "trail.jsonl", PermissionError()) if shut else ""


def find_run(runs: Path, name: str) -> Found:
    """Read a run by its name, an unambiguous prefix, or `latest`.

    Raises RunRefused if no run, or more than one, matches; TrailBroken if its trail can't be read.
    """
    return load_run(find_trail(runs, name).parent)


def load_run(directory: Path) -> Found:
    """Read a run from its trail; raises TrailBroken if it can't be read."""
    path = directory / "trail.jsonl"
    data = trail.load(path)
    status = fold(trail.parse(data, path))
    if status.started is None:
        raise TrailBroken(
            f"cannot read the run in {directory}: its trail does not begin with a start",
            state="nothing was sent before the first record",
            then=f"runbook trail verify {shlex.quote(str(path))}",
        )
    return Found(directory, status, data)


def all_runs(runs: Path) -> tuple[list[Found], list[TrailBroken]]:
    """Every run in the directory, newest first; and the errors of those that can't be read."""
    found: list[Found] = []
    broken: list[TrailBroken] = []
    for path in _trails(runs):
        try:
            found.append(load_run(path.parent))
        except TrailBroken as error:
            broken.append(error)
    return sorted(found, key=lambda one: one.status.started_at, reverse=True), broken
