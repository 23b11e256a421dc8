"""Creates run folders and files that only user and group can access, and explains permission problems."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

DIRECTORY = 0o770
FILE = 0o660


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents with mode 0770, whatever the umask; keep an inherited set-group-id bit."""
    if path.is_dir():
        return
    make_directory(path.parent) if path.parent != path else None
    try:
        path.mkdir()
    except FileExistsError:  # another process created it first
        if not path.is_dir():
            raise
        return
    inherited = path.stat().st_mode & stat.S_ISGID
    path.chmod(DIRECTORY | inherited)


def open_to_append(path: Path, *, create: bool) -> BinaryIO:
    """Open a file for reading and appending, unbuffered; refuse a symlink. A new file gets mode 0660."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    if create:
        # O_EXCL first: only the process that really creates the file sets its mode.
        with contextlib.suppress(FileExistsError):
            return _appending(_created(path, flags))
    return _appending(os.open(path, flags))


def write(path: Path, text: str) -> None:
    """Write a file with mode 0660, replacing any that exists."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(_created(path, os.O_WRONLY | os.O_CLOEXEC), "w", encoding="utf-8") as file:
        file.write(text)


def _created(path: Path, flags: int) -> int:
    # Created private and then opened to the group, because the umask would silently drop the group's bits.
    handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(handle, FILE)
    return handle


def _appending(handle: int) -> BinaryIO:
    return os.fdopen(handle, "ab+", buffering=0)


def unusable(directory: Path) -> str:
    """Why nothing can be created in this directory (or in its nearest existing parent); "" if it can."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        return f"{there} is no folder"
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    return f"{_described(there)}; you are {_name_of_user(os.geteuid())} in {_own_groups()}"


def rights(path: Path, error: OSError) -> str:
    """Owner and mode of a file and its folder, if `error` is a permission error; else ""."""
    if not isinstance(error, PermissionError):
        return ""
    known = [text for one in (path.parent, path) if (text := _described(one))]
    if not known:  # a folder further up can't be entered
        known = [text for one in path.parents if (text := _described(one))][:1]
    return f"{'; '.join(known)}; you are {_name_of_user(os.geteuid())} in {_own_groups()}"


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
