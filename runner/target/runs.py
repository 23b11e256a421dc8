"""The runs in a directory: found by name, read, and named."""

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

LONGEST_FILE = 40  # bytes of what may lie in a run's folder


def new_run(name: str, now: datetime) -> str:
    """A run's name: playbook, time, and enough chance that two never meet."""
    return f"{name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def refuse_too_long(directory: Path) -> None:
    """Raise RunRefused where the system can't name a run's files: the playbook's name or the runs directory is too long."""
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
    """A run on disk. data: the trail's bytes, from one reading, so that what was checked is what is folded."""

    directory: Path
    status: RunStatus
    data: bytes = field(default=b"", repr=False)

    @property
    def trail(self) -> Path:
        return self.directory / "trail.jsonl"

    def options(self) -> str:
        """What commands on this run need to find it from here."""
        started = self.status.started
        return options_for(self.directory, started.target if started else "", Workplace())

    @cached_property
    def chain(self) -> Verification:
        """What a check of the chain finds in these bytes."""
        return trail.check(self.data)

    @property
    def seen(self) -> TrailExtent:
        """What an append must find before it."""
        return TrailExtent.of(self.data)

    @cached_property
    def records(self) -> list[Record]:
        """The whole records in these bytes."""
        return trail.parse(self.data, self.trail)


def find_trail(runs: Path, name: str) -> Path:
    """The trail of the run of this name, of an unambiguous beginning of one, or of `latest`: the one that began last.

    Raises RunRefused where there is none or more than one.
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
    """When a run began, as its first record says; its name decides where two began in the same millisecond."""
    with contextlib.suppress(OSError, ValidationError), path.open("rb") as file:
        return Record.model_validate_json(file.readline()).at, path.parent.name
    return "", path.parent.name


def _trails(runs: Path) -> list[Path]:
    """All trails with something in them: a run that was killed before its first record had not begun."""
    found = []
    for path in runs.glob("*/trail.jsonl"):
        with contextlib.suppress(OSError):  # a folder into which this user may not look
            if path.stat().st_size:
                found.append(path)
    return found


def begun_as(runs: Path, playbook: str) -> Iterator[Path]:
    """The folders of the runs of a playbook, by the first record of each trail."""
    for path in _trails(runs):
        with contextlib.suppress(OSError, ValidationError), path.open("rb") as file:
            event = Record.model_validate_json(file.readline()).event
            if isinstance(event, RunStarted) and event.playbook == playbook:
                yield path.parent


def _hidden(runs: Path) -> str:
    """Which folders can't be looked into, and why: a run may be there all the same."""
    shut = [runs] if runs.is_dir() and not os.access(runs, os.R_OK | os.X_OK) else []
    if not shut and runs.is_dir():
        shut = [one for one in runs.iterdir() if one.is_dir() and not os.access(one, os.R_OK | os.X_OK)]
    return private_files.rights(shut[0] / "trail.jsonl", PermissionError()) if shut else ""


def find_run(runs: Path, name: str) -> Found:
    """The run of this name, an unambiguous beginning of one, or `latest`.

    Raises RunRefused where there is none or more than one, TrailBroken where its trail can't be read.
    """
    return load_run(find_trail(runs, name).parent)


def load_run(directory: Path) -> Found:
    """Read a run from its trail; raises TrailBroken where that can't be done."""
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
    """Every run in the directory, the newest first; and what is wrong with those that can't be read."""
    found: list[Found] = []
    broken: list[TrailBroken] = []
    for path in _trails(runs):
        try:
            found.append(load_run(path.parent))
        except TrailBroken as error:
            broken.append(error)
    return sorted(found, key=lambda one: one.status.started_at, reverse=True), broken
