"""The files and programs that a playbook runs: what an approval covers beside the playbook's own text."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from runner.playbook.model import Check, Entry
from steps.contract import RunsPrograms, Uses

_SCRIPTS = frozenset({".py", ".sh", ".bash", ".zsh", ".pl", ".rb", ".js", ".awk", ".sed", ".lua", ".r", ".ps1", ".php"})
_READERS = {"psql": ".sql", "sqlite3": ".sql"}  # elsewhere such a file may be what is written
_INTERPRETERS = ("sh", "bash", "dash", "zsh", "python", "perl", "ruby", "node", "awk", "sed", "env")
_OF_SUITES = frozenset({".py", ".ini", ".sql"})
_PIECE = 1 << 20


def used(entries: Iterable[Entry], checks: Iterable[Check]) -> list[Uses]:
    """What these steps and checks run."""
    things: list[object] = [entry.step for entry in entries]
    things += [check.probe for check in checks]
    return [one for thing in things if isinstance(thing, RunsPrograms) for one in thing.programs()]


def of_entry(entry: Entry) -> list[Uses]:
    """What a step runs, with its checks and guards."""
    guards = tuple(guard.check for guard in entry.guards)
    return used([entry], (*entry.preconditions, *entry.success_criteria, *guards))


def beside(uses: Iterable[Uses], directory: Path) -> dict[str, str]:
    """File → SHA-256 of all that lies below the playbook's folder or its repository: it belongs to the playbook."""
    files = (one for use in uses for one in _files(use, directory))
    return {one.label: _sha256(one.path) for one in files if one.own}


def elsewhere(uses: Iterable[Uses], directory: Path) -> dict[str, str]:
    """Path → SHA-256 of the programs of this machine: recorded and compared, but no part of what the playbook means."""
    files = (one for use in uses for one in _files(use, directory))
    return {str(one.path): _sha256(one.path) for one in files if not one.own}


def named(uses: Iterable[Uses], directory: Path) -> set[str]:
    """The names of all their files, as `beside` and `elsewhere` have them."""
    return {*beside(uses, directory), *elsewhere(uses, directory)}


def exchanged(uses: Iterable[Uses], directory: Path, known: Mapping[str, str]) -> list[str]:
    """Those that, as they would be run now, aren't what is known of them."""
    files = (one for use in uses for one in _files(use, directory, as_run=True))
    names = {one.label if one.own or one.label in known else str(one.path): one.path for one in files}
    return sorted(name for name, path in names.items() if known.get(name) != _sha256(path))


# ─── which files ────────────────────────────────────────────────────────────────────────────────────────────────────
class _File(NamedTuple):
    """A file with the name by which the playbook means it; own: it belongs to the playbook."""

    label: str
    path: Path
    own: bool


def _files(use: Uses, directory: Path, *, as_run: bool = False) -> Iterator[_File]:
    """as_run: where the system would look; else where the playbook lies, so that it means the same from everywhere."""
    home = _home(directory)
    if use.suite:
        yield from _suite(use, directory, home)
        return
    program = Path(use.words[0]).name
    awaited = program.startswith(_INTERPRETERS)  # the first file after an interpreter is what it reads
    for index, (word, whole) in enumerate(_words(use.words)):
        if not index and "/" not in word:
            found = shutil.which(word)
            yield from [_File(word, _absolute(Path(found)), own=False)] if found else []
            continue
        path = _found(word, [*([] if as_run else [directory]), Path(use.cwd or ".")])
        if path is None:
            continue
        script = path.suffix.lower() in _SCRIPTS or path.suffix.lower() == _READERS.get(program, "-")
        if not index or script or (awaited and whole) or os.access(path, os.X_OK):
            yield _File(word, path, own=path.is_relative_to(home))
        awaited = awaited and not index


def _words(argv: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """The program, then what is given to it, each whole or not: a line for a shell (`sh -c …`) by its own words."""
    yield argv[0], True
    for word in argv[1:]:
        if not any(char.isspace() for char in word):
            yield word, True
            continue
        try:
            parts = shlex.split(word)
        except ValueError:
            parts = word.split()
        yield from ((part, False) for part in parts)


def _found(word: str, places: Iterable[Path]) -> Path | None:
    """The first file of this name; an absolute one is the same from everywhere."""
    paths = (_absolute(place / word) for place in places)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - no error for whatever word


def _suite(use: Uses, directory: Path, home: Path) -> Iterator[_File]:
    """The suite's own files, the settings of pytest, and each conftest.py from there up to the playbook's home."""
    path = _absolute(Path(use.words[0].partition("::")[0]))
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.suffix in _OF_SUITES]
    folder = path if path.is_dir() else path.parent
    for one in (folder, *folder.parents):
        if one.is_relative_to(home):
            files += [one / name for name in ("conftest.py", "pytest.ini") if (one / name).is_file()]
    for one in sorted(set(files)):
        yield _File(os.path.relpath(one, directory.absolute()), one, own=one.is_relative_to(home))


def _home(directory: Path) -> Path:
    """The repository in which the playbook lies, else its folder."""
    folder = _absolute(directory)
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), folder)


def _absolute(path: Path) -> Path:
    """Without `..`, and with its links: what lies beside a playbook as a link is meant to lie there."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the links


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return digest.hexdigest()
