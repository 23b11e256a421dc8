"""Resolves a target (a name of targets.yaml, a URL, a file) and finds its password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.common.errors import BadInput
from runner.playbook.yaml_reader import near
from runner.target.targets_file import BadTarget, Keyring, Target, Targets, is_name, load_targets
from runner.target.url import BadUrl, Dialect, HoldsPassword, file_path, holds_password, parse_url, sqlite_url

TARGETS_FILE = "targets.yaml"
WAYS = """\
  a password file     host:port:database:user:password in ~/.pgpass (mode 0600), or passfile: FILE in targets.yaml
  the environment     password_env: NAME in targets.yaml, or PGPASSWORD
  the system keyring  keyring: {service: runbook, user: NAME} in targets.yaml, after `keyring set runbook NAME`"""
_SQLITE_HEADER = b"SQLite format 3\0"


class NoTarget(BadInput):
    """No target was named."""

    def __init__(self) -> None:
        super().__init__(
            "cannot tell which database is meant: name it in one of three ways\n"
            "  --target NAME|URL|FILE   for this command\n"
            "  RUNBOOK_TARGET           in the environment\n"
            f"  default: NAME            in {TARGETS_FILE}"
        )


class UnknownTarget(BadInput):
    """The word is neither a target's name, nor a URL, nor a file."""

    def __init__(self, word: str, *, known: tuple[str, ...]) -> None:
        self.word = word
        self.known = known
        # Only what looks like a name or path is repeated: anything else might be a URL with a password in it.
        shown = repr(word) if re.fullmatch(r"[\w./~ -]{1,200}", word) else "this target"
        names = f"targets.yaml has {', '.join(known)}" if known else "there is no targets.yaml with names here"
        super().__init__(
            f"cannot find {shown}{near(word, known)}: it is no target's name, no URL and no SQLite file; {names}"
        )


class PasswordSeen(BadInput):
    """A password was given where others can see it; the message never repeats it."""

    def __init__(self, seen: str) -> None:
        super().__init__(f"{seen}: change it, and then use one of\n{WAYS}")


class PasswordInArgv(PasswordSeen):
    """A password was given on the command line."""

    def __init__(self) -> None:
        super().__init__(
            "cannot take a password from the command line: it has been seen in the process list and in the shell's history"
        )


class PasswordInEnvironment(PasswordSeen):
    """A password was given in RUNBOOK_TARGET, which every child process inherits and many programs log."""

    def __init__(self) -> None:
        super().__init__(
            "cannot take the password from RUNBOOK_TARGET: it is handed to every program, and stands in their logs"
        )


class PasswordMissing(BadInput):
    """The password is not where the target says it is."""


@dataclass(frozen=True)
class ConnectArguments:
    """Everything needed to open a connection: libpq keywords for PostgreSQL, a path for SQLite."""

    url: str
    dialect: Dialect
    password: str | None = field(default=None, repr=False)
    libpq: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None


def resolve(option: str | None, *, environ: Mapping[str, str], cwd: Path) -> Target:
    """The target that is meant: `option`, else RUNBOOK_TARGET, else the default of targets.yaml.

    Raises:
        NoTarget: none of the three is given.
        UnknownTarget: it is no name of targets.yaml, no URL and no file.
        BadTarget: it cannot be used as given.
        PasswordInArgv, PasswordInEnvironment: it contains a password.
        Faulty: targets.yaml has faults.
    """
    if option is not None and not option.strip():  # a shell variable without a value must not mean the default
        raise BadTarget("cannot use an empty --target: leave it out, or name one")
    if word := option or environ.get("RUNBOOK_TARGET"):
        seen = PasswordInArgv if option else PasswordInEnvironment
        return _named(word, cwd=cwd, seen=seen)
    known = _load_if_there(cwd / TARGETS_FILE)
    if known and known.default:
        return known.targets[known.default]
    raise NoTarget


def password(target: Target, environ: Mapping[str, str]) -> str | None:
    """The target's password; None if libpq finds it by itself, or none is needed.

    Raises:
        PasswordMissing: it is not where the target says it is.
    """
    if target.password_env is not None:
        if found := environ.get(target.password_env):
            return found
        raise PasswordMissing(f"cannot find the password: the environment has no {target.password_env!r}")
    if target.keyring is not None:
        return _from_keyring(target.keyring)
    if target.dialect == "postgresql" and target.passfile is None:
        return environ.get("PGPASSWORD") or None
    return None


def connect_arguments(target: Target, environ: Mapping[str, str]) -> ConnectArguments:
    """The arguments for opening a connection; the password is kept apart, so that the URL can be shown.

    Raises:
        PasswordMissing: the password (file) is not where the target says it is, or others can read the file.
        BadTarget: PGPASSWORD would take precedence over the target's own password file.
    """
    libpq = dict(target.address.libpq)
    if target.passfile is not None:
        if environ.get("PGPASSWORD"):  # libpq takes it before any file
            raise BadTarget("cannot use the target's passfile while PGPASSWORD is set: unset it")
        _check_passfile(target.passfile)
        libpq["passfile"] = str(target.passfile)
    return ConnectArguments(
        url=target.url,
        dialect=target.dialect,
        password=password(target, environ),
        libpq=libpq,
        path=target.address.path,
    )


def _named(word: str, *, cwd: Path, seen: type[PasswordSeen]) -> Target:
    """Resolve what the user typed; a name takes precedence over a file of the same name."""
    if "://" in word or word.startswith("service="):
        return _by_url(word, cwd=cwd, seen=seen)
    path = _existing(word, cwd=cwd)
    if path is None and holds_password(word):
        raise seen
    known = _load_if_there(cwd / TARGETS_FILE) if is_name(word) else None
    if known and word in known.targets:
        return known.targets[word]
    if path is not None:
        return _by_file(path)
    raise UnknownTarget(word, known=tuple(known.targets) if known else ())


def _existing(word: str, *, cwd: Path) -> Path | None:
    try:
        path = file_path(word, base=cwd)
        return path if path.is_file() else None
    except (OSError, BadUrl):  # too long for a file name, or ~user with an unknown user
        return None


def _by_url(word: str, *, cwd: Path, seen: type[PasswordSeen]) -> Target:
    try:
        return Target(None, parse_url(word, base=cwd))
    except HoldsPassword:
        raise seen from None
    except BadUrl as bad:
        raise BadTarget(bad.reason) from None


def _by_file(path: Path) -> Target:
    try:
        with path.open("rb") as opened:
            header = opened.read(len(_SQLITE_HEADER))
    except OSError as bad:
        raise BadTarget(f"cannot read {str(path)!r}: {bad.strerror}") from bad
    if header not in {_SQLITE_HEADER, b""}:  # an empty file is an empty database
        raise BadTarget(f"cannot use {str(path)!r} as a target: it is not a SQLite file")
    return Target(None, sqlite_url(path))


def _load_if_there(file: Path) -> Targets | None:
    return load_targets(file) if file.exists() else None


def _from_keyring(entry: Keyring) -> str:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        raise PasswordMissing(
            "cannot read the keyring: the package keyring is not installed; pip install 'runbook-engine[keyring]'"
        ) from None
    try:
        found = keyring.get_password(entry.service, entry.user)
    except KeyringError as bad:
        raise PasswordMissing(f"cannot read the keyring: {bad}") from bad
    if not found:
        raise PasswordMissing(
            f"cannot find the password: the keyring has none for {entry.service!r}, {entry.user!r}; "
            f"run `keyring set {entry.service} {entry.user}`"
        )
    return found


def _check_passfile(path: Path) -> None:
    """Check the password file ourselves: libpq only warns, and the connection then fails for another reason."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError as bad:
        raise PasswordMissing(f"cannot read the password file {str(path)!r}: {bad.strerror}") from bad
    if mode & 0o077:
        raise PasswordMissing(
            f"cannot use the password file {str(path)!r}: others can read it (mode {mode:04o}); chmod 600 it"
        )
