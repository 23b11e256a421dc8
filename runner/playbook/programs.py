"""Finds and hashes the programs and scripts that a playbook executes: an approval covers them, too."""

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
_READERS = {"psql": ".sql", "sqlite3": ".sql"}  # for other programs such a file may be an output
_INTERPRETERS = ("sh", "bash", "dash", "zsh", "python", "perl", "ruby", "node", "awk", "sed", "env")
_OF_SUITES = frozenset({".py", ".ini", ".sql"})
_PIECE = 1 << 20


def used(entries: Iterable[Entry], checks: Iterable[Check]) -> list[Uses]:
    """The programs that these steps and checks execute."""
    things: list[object] = [entry.step for entry in entries]
    things += [check.probe for check in checks]
    return [one for thing in things if isinstance(thing, RunsPrograms) for one in thing.programs()]


def of_entry(entry: Entry) -> list[Uses]:
    """The programs that a step executes, including its checks and guards."""
    guards = tuple(guard.check for guard in entry.guards)
    return used([entry], (*entry.preconditions, *entry.success_criteria, *guards))


def beside(uses: Iterable[Uses], directory: Path) -> dict[str, str]:
    """File → SHA-256, for files in the playbook's repository (or folder), which belong to the playbook."""
    files = (one for use in uses for one in _files(use, directory))
    return {one.label: _sha256(one.path) for one in files if one.own}


def elsewhere(uses: Iterable[Uses], directory: Path) -> dict[str, str]:
    """Path → SHA-256, for programs of this machine: recorded and compared, but not part of the playbook's digest."""
    files = (one for use in uses for one in _files(use, directory))
    return {str(one.path): _sha256(one.path) for one in files if not one.own}


def named(uses: Iterable[Uses], directory: Path) -> set[str]:
    """The names of all files, as `beside` and `elsewhere` use them."""
    return {*beside(uses, directory), *elsewhere(uses, directory)}


def exchanged(uses: Iterable[Uses], directory: Path, known: Mapping[str, str]) -> list[str]:
    """Names of the files whose content, as it would be executed now, differs from the known hashes."""
    files = (one for use in uses for one in _files(use, directory, as_run=True))
    names = {one.label if one.own or one.label in known else str(one.path): one.path for one in files}
    return sorted(name for name, path in names.items() if known.get(name) != _sha256(path))


# ─── which files ────────────────────────────────────────────────────────────────────────────────────────────────────
class _File(NamedTuple):
    """A file with the name that the playbook uses for it; own: whether it belongs to the playbook."""

    label: str
    path: Path
    own: bool


def _files(use: Uses, directory: Path, *, as_run: bool = False) -> Iterator[_File]:
    """The files of one use. as_run: resolve names as the system would; else relative to the playbook first, which is
    independent of the working directory.
    """
    home = _home(directory)
    if use.suite:
        yield from _suite(use, directory, home)
        return
    program = Path(use.words[0]).name
    awaited = program.startswith(_INTERPRETERS)  # the first file after an interpreter is the script
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
    """Program and arguments, each with whether it is a whole argument; a shell line (`sh -c …`) is split into words."""
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
    """The first existing file of this name in these folders (an absolute path ignores them)."""
    paths = (_absolute(place / word) for place in places)
    return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - no error for whatever word


def _suite(use: Uses, directory: Path, home: Path) -> Iterator[_File]:
    """The files of a test suite: its own, pytest's settings, and each conftest.py up to the playbook's repository."""
    path = _absolute(Path(use.words[0].partition("::")[0]))
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.suffix in _OF_SUITES]
    folder = path if path.is_dir() else path.parent
    for one in (folder, *folder.parents):
        if one.is_relative_to(home):
            files += [one / name for name in ("conftest.py", "pytest.ini") if (one / name).is_file()]
    for one in sorted(set(files)):
        yield _File(os.path.relpath(one, directory.absolute()), one, own=one.is_relative_to(home))


def _home(directory: Path) -> Path:
    """The root of the repository that contains the playbook, else the playbook's folder."""
    folder = _absolute(directory)
    return next((one for one in (folder, *folder.parents) if (one / ".git").exists()), folder)


def _absolute(path: Path) -> Path:
    """An absolute path without `..`, with symlinks unresolved: a link beside a playbook counts as a file there."""
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
