"""Run folders and files: private to user and group whatever the umask is, and what is wrong where they can't be used."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

DIRECTORY = 0o770
FILE = 0o660


def make_directory(path: Path) -> None:
    """This directory and what is missing above it, for user and group; a set-group-id bit from above is kept."""
    if path.is_dir():
        return
    make_directory(path.parent) if path.parent != path else None
    try:
        path.mkdir()
    except FileExistsError:  # another process was faster
        if not path.is_dir():
            raise
        return
    inherited = path.stat().st_mode & stat.S_ISGID
    path.chmod(DIRECTORY | inherited)


def open_to_append(path: Path, *, create: bool) -> BinaryIO:
    """A file for reading and appending; a new one is for user and group alone."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    if create:
        with contextlib.suppress(FileExistsError):
            return _appending(_created(path, flags))
    return _appending(os.open(path, flags))


def write(path: Path, text: str) -> None:
    """A new file for user and group alone, or an old one's new content."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(_created(path, os.O_WRONLY | os.O_CLOEXEC), "w", encoding="utf-8") as file:
        file.write(text)


def _created(path: Path, flags: int) -> int:
    handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(handle, FILE)
    return handle


def _appending(handle: int) -> BinaryIO:
    return os.fdopen(handle, "ab+", buffering=0)


def unusable(directory: Path) -> str:
    """Why nothing can be made in this directory, or in what of it is there; "" where it can."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        return f"{there} is no folder"
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    return f"{_described(there)}; you are {_name_of_user(os.geteuid())} in {_own_groups()}"


def rights(path: Path, error: OSError) -> str:
    """Whose the folder and the file are and what they allow, where that is what is in the way; else ""."""
    if not isinstance(error, PermissionError):
        return ""
    found = [words for one in (path.parent, path) if (words := _described(one))]
    if not found:  # a folder further up is shut
        found = [words for one in path.parents if (words := _described(one))][:1]
    return f"{'; '.join(found)}; you are {_name_of_user(os.geteuid())} in {_own_groups()}"


def _described(path: Path) -> str:
    try:
        one = path.stat()
    except OSError:
        return ""
    owner, group = _name_of_user(one.st_uid), _name_of_group(one.st_gid)
    return f"{path} belongs to {owner}:{group} with {stat.filemode(one.st_mode)}"


def _own_groups() -> str:
    return ", ".join(sorted({_name_of_group(number) for number in (os.getegid(), *os.getgroups())}))


def _name_of_user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _name_of_group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
