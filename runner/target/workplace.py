"""The environment of a command: its target, and the directory of its runs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.common.errors import BadInput, RunbookError, RunRefused, TargetUnreachable
from runner.common.secrets import Masks, SecretTooShort
from runner.target import identity, targets_file
from runner.target import resolve as targets
from runner.target.database import RunDatabase, Session
from runner.trail.events import Json
from runner.trail.trail import utc_now
from steps.contract import DatabaseFault, cutting


@dataclass(frozen=True)
class Workplace:
    """Target and runs directory as given by options and environment variables."""

    target: str | None = None
    runs: Path | None = None
    cwd: Path = field(default_factory=Path.cwd)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def resolve(self) -> targets_file.Target:
        return targets.resolve(self.target, environ=self.environ, cwd=self.cwd)

    def runs_directory(self, target: targets_file.Target | None = None) -> Path:
        """The runs directory: from --runs, RUNBOOK_RUNS, the target's `runs:`, or else ./runs."""
        named = self.environ.get("RUNBOOK_RUNS")
        if self.runs is not None:
            return self.runs
        if named:
            return Path(named)
        return target.runs if target is not None and target.runs is not None else self.cwd / "runs"


@dataclass
class Connected:
    """An open target: its database connection, identity and masks."""

    target: targets_file.Target
    database: RunDatabase
    arguments: targets.ConnectArguments
    identity: dict[str, Json]
    masks: Masks

    @property
    def name(self) -> str:
        return self.target.name or self.target.url

    def another(self, session: Session) -> RunDatabase:
        """A further, independent RunDatabase of the same target, for another thread."""
        return RunDatabase(self.arguments, schema=self.database.schema, session=session, path=self.database.path)

    def for_playbook(self, schema: str, path: Sequence[str], session: Session) -> RunDatabase:
        """A further RunDatabase of the same target, as a playbook with this schema and search_path sees it."""
        return RunDatabase(self.arguments, schema=schema, session=session, path=path)


@contextmanager
def connected(
    place: Workplace, *, schema: str = "public", path: Sequence[str] = (), masks: Masks | None = None
) -> Iterator[Connected]:
    """Open the target; from here on its password is masked in everything that is written.

    path: schemas of the search_path; (): those of an ordinary session of this role.

    Raises TargetUnreachable.
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
    """Mask secrets in errors that leave this block (and in their causes): they are shown to people and logged."""
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


def runs_of(place: Workplace) -> Path:
    """The runs directory, even if no target is configured."""
    try:
        return place.runs_directory(place.resolve())
    except BadInput:
        return place.runs_directory()


def options_for(directory: Path, target: str, place: Workplace) -> str:
    """The options with which a command finds the run in this directory and its target; "" if the defaults suffice."""
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
    """Add these options to the commands on this run that occur in a text."""
    if not options or options in text:
        return text
    return re.sub(rf"runbook [a-z]+ {re.escape(shlex.quote(run))}", lambda known: f"{known[0]} {options}", text)


def _same_target(place: Workplace, name: str) -> bool:
    try:
        found = place.resolve()
    except BadInput:
        return False
    return (found.name or found.url) == name


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


now = utc_now
