"""Where a command works: the target that it reaches, and the directory in which its runs lie."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from runner import identity, targets, targets_file
from runner.common import private_files
from runner.common.errors import BadInput, RunbookError, RunRefused, TargetUnreachable, TrailBroken
from runner.common.secrets import Masks, SecretTooShort
from runner.database import RunDatabase, Session
from runner.trail import trail
from runner.trail.events import Json, Record, RunStarted
from runner.trail.status import RunStatus, fold
from runner.trail.trail import Seen, Verification, utc_now
from steps.contract import DatabaseFault, cutting

LONGEST_FILE = 40  # bytes of what may lie in a run's folder


@dataclass(frozen=True)
class Place:
    """What the options and the environment say of where to work."""

    target: str | None = None
    runs: Path | None = None
    cwd: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def resolve(self) -> targets_file.Target:
        return targets.resolve(self.target, environ=self.environ, cwd=self.cwd)

    def runs_directory(self, target: targets_file.Target | None = None) -> Path:
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

    target: targets_file.Target
    database: RunDatabase
    arguments: targets.ConnectArguments
    identity: dict[str, Json]
    masks: Masks

    @property
    def name(self) -> str:
        return self.target.name or self.target.url

    def another(self, session: Session) -> RunDatabase:
        """A second way in, for a thread of its own."""
        return RunDatabase(self.arguments, schema=self.database.schema, session=session, path=self.database.path)


@contextmanager
def connected(
    place: Place, *, schema: str = "public", path: Sequence[str] = (), masks: Masks | None = None
) -> Iterator[Connected]:
    """Open the target; its password is masked from here on in all that is written.

    path: the schemas in which names are looked up, where they aren't those of the database's own sessions.

    Raises TargetUnreachable where it can't be reached.
    """
    target = place.resolve()
    arguments = targets.connect_arguments(target, place.environ)
    masks = masks or Masks()
    with told_masked(masks):
        _mask_password(masks, arguments.password)
        with _opened(target, arguments, lambda: RunDatabase(arguments, schema=schema, path=path), masks) as there:
            yield there


def _mask_password(masks: Masks, password: str | None) -> None:
    if not password:
        return
    try:
        masks.add(password)
    except SecretTooShort as error:
        raise RunRefused(f"cannot use this password: {error}", then="give the role a longer one") from error


@contextmanager
def told_masked(masks: Masks) -> Iterator[None]:
    """What leaves this block as an error is shown to people and written to logs, so it is masked as the trail is."""
    try:
        with cutting.masked_by(masks.mask):
            yield
    except Exception as error:
        link: BaseException | None = error
        while link is not None:
            _mask_error(link, masks)
            link = link.__cause__ or link.__context__
        raise


def _mask_error(error: BaseException, masks: Masks) -> None:
    error.args = tuple(masks.mask(one) if isinstance(one, str) else one for one in error.args)
    if isinstance(error, RunbookError):
        error.what, error.why, error.state, error.then = map(
            masks.mask, (error.what, error.why, error.state, error.then)
        )
        error.stop = tuple((label, masks.mask(line)) for label, line in error.stop)


@contextmanager
def _opened(
    target: targets_file.Target, arguments: targets.ConnectArguments, reach: Callable[[], RunDatabase], masks: Masks
) -> Iterator[Connected]:
    shown = target.name or target.url
    if arguments.path is not None and not arguments.path.exists():
        raise TargetUnreachable(
            f"cannot reach {shown}: there is no file {arguments.path}",
            state="nothing was changed by this command",
            then="give --target a file that is there; then runbook target check",
        )
    try:
        database = reach()
    except DatabaseFault as fault:
        raise TargetUnreachable(
            f"cannot reach {shown}: {fault}", state="nothing was changed by this command", then="runbook target check"
        ) from fault
    try:
        _mask_password(masks, database.password)
        known = identity.of_target(database, name=shown, arguments=arguments)
        yield Connected(target, database, arguments, known, masks)
    finally:
        database.close()


def runs_of(place: Place) -> Path:
    """The runs directory, also where no target is configured."""
    try:
        return place.runs_directory(place.resolve())
    except BadInput:
        return place.runs_directory()


def options_for(directory: Path, target: str, place: Place) -> str:
    """What a command needs, beside a run's name, to find the run in this directory and its target; "" where the defaults do."""
    plain = replace(place, target=None, runs=None)
    words: list[str] = []
    if place.environ.get("RUNBOOK_TARGET") and not _same_target(plain, target):
        plain, words = replace(plain, target=target), ["--target", target]
    if not _same(runs_of(plain), directory.parent):
        if _same(runs_of(replace(plain, target=target)), directory.parent):
            words = ["--target", target]
        else:
            words += ["--runs", str(directory.parent)]
    return shlex.join(words)


def pointed(text: str, run: str, options: str) -> str:
    """The text, its commands on this run with the options that find it."""
    if not options or options in text:
        return text
    return re.sub(rf"runbook [a-z]+ {re.escape(shlex.quote(run))}", lambda known: f"{known[0]} {options}", text)


def _same_target(place: Place, name: str) -> bool:
    try:
        found = place.resolve()
    except BadInput:
        return False
    return (found.name or found.url) == name


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


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

    def options(self, place: Place | None = None) -> str:
        """What commands on this run need to find it from here."""
        started = self.status.started
        return options_for(self.directory, started.target if started else "", place or Place())

    @cached_property
    def chain(self) -> Verification:
        """What a check of the chain finds in these bytes."""
        return trail.check(self.data)

    @property
    def seen(self) -> Seen:
        """What an append must find before it."""
        return Seen.of(self.data)

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


now = utc_now
