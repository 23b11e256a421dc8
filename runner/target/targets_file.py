"""Reads targets.yaml: names of databases, their addresses, and where their passwords are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runner.common.errors import BadInput
from runner.common.plain_data import Data
from runner.playbook import yaml_reader
from runner.playbook.yaml_reader import Fault, Faulty, YamlDocument, near
from runner.target.url import BadUrl, Dialect, HoldsPassword, Url, file_path, parse_url

MAX_BYTES = 1024 * 1024

_KEYS = ("url", "service", "password_env", "passfile", "keyring", "runs", "environment")
_PASSWORD_KEYS = ("password_env", "passfile", "keyring")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PASSWORD_HERE = (
    "refused: whoever can read this file, or its history, has seen the password: change it, and then use "
    "password_env, passfile or keyring"
)
_T = TypeVar("_T")


class BadTarget(BadInput):
    """A target cannot be used as given."""


@dataclass(frozen=True)
class Keyring:
    """An entry in the system's keyring."""

    service: str
    user: str


@dataclass(frozen=True)
class Target:
    """A database to run against; never contains a password.

    `name` is None for a bare URL or file. At most one of `passfile`, `password_env` and `keyring` is set; if none is,
    libpq uses its defaults (PGPASSWORD, ~/.pgpass).
    """

    name: str | None
    address: Url
    passfile: Path | None = None
    password_env: str | None = None
    keyring: Keyring | None = None
    runs: Path | None = None
    environment: str | None = None

    @property
    def url(self) -> str:
        return self.address.text

    @property
    def dialect(self) -> Dialect:
        return self.address.dialect

    @property
    def service(self) -> str | None:
        return self.address.service


@dataclass(frozen=True)
class Targets:
    """The content of a targets.yaml."""

    file: Path
    targets: Mapping[str, Target]
    default: str | None = None


def is_name(word: str) -> bool:
    """Whether `word` is a valid name of a target."""
    return _NAME.fullmatch(word) is not None


def load_targets(file: Path) -> Targets:
    """Read a targets.yaml; relative paths in it are relative to its directory.

    Raises:
        Faulty: with all faults and their places.
        BadTarget: it cannot be read.
    """
    try:
        raw = file.read_bytes()
    except OSError as bad:
        raise BadTarget(f"cannot read {str(file)!r}: {bad.strerror}") from bad
    faults: list[Fault] = []
    top = _Mapping(_parse(raw, str(file)), (), faults)
    top.know(("default", "targets"))
    targets = _read_targets(top, base=file.resolve().parent)
    default = top.text("default")
    if default is not None and default not in targets:
        top.fault("default", f"cannot find the target {default!r}{near(default, targets)}")
    if faults:
        raise Faulty(faults)
    return Targets(file, {name: target for name, target in targets.items() if target}, default)


def _parse(raw: bytes, file: str) -> YamlDocument:
    try:
        return yaml_reader.parse(raw, file, max_bytes=MAX_BYTES)
    except Faulty as faulty:
        lines = raw.decode(errors="replace").splitlines()
        raise Faulty(_without_values(fault, lines) for fault in faulty.faults) from None


def _without_values(fault: Fault, lines: list[str]) -> Fault:
    """Hide values in a fault: messages about YAML errors quote what can't be read, which may be a password here."""
    line = lines[fault.mark.line - 1] if fault.mark.line <= len(lines) else ""
    words = [word.strip("\"'{}[],")[:20] for word in line.partition(":")[2].split()]
    if any(len(word) > 1 and word in fault.message for word in words):
        return Fault(fault.mark, "cannot read this line (not shown: a password may stand in it): quote its value")
    return fault


class _Mapping:
    """Reads one mapping of the file key by key; adds faults to `faults`."""

    def __init__(self, document: YamlDocument, path: tuple[str, ...], faults: list[Fault]) -> None:
        self.document = document
        self.path = path
        self.faults = faults
        data: Data = document.data
        for part in path:
            data = data.get(part) if isinstance(data, dict) else None
        self.broken = not isinstance(data, dict)
        self.data: dict[str, Data] = data if isinstance(data, dict) else {}
        if self.broken:
            self.faults.append(Fault(document.mark(path), "cannot read this: keys with values are expected"))

    def know(self, known: tuple[str, ...]) -> None:
        """Report every key that is not known."""
        for key in self.data:
            if key == "password":
                self.fault_at_key(key, _PASSWORD_HERE)
            elif key not in known:
                self.fault_at_key(key, f"cannot use the key {key!r}{near(key, known)}")

    def inner(self, key: str) -> _Mapping:
        return _Mapping(self.document, (*self.path, key), self.faults)

    def text(self, key: str) -> str | None:
        if key not in self.data:
            return None
        value = self.data[key]
        if isinstance(value, str) and value:
            return value
        self.fault(key, f"cannot use this as {key!r}: a text is expected")
        return None

    def converted(self, key: str, convert: Callable[[str], _T]) -> _T | None:
        """The converted text under `key`; ValueError and BadUrl of `convert` become faults."""
        text = self.text(key)
        if text is None:
            return None
        try:
            return convert(text)
        except HoldsPassword:
            self.fault(key, _PASSWORD_HERE)
        except (ValueError, BadUrl) as bad:
            self.fault(key, str(bad))
        return None

    def fault(self, key: str, message: str) -> None:
        self.faults.append(Fault(self.document.mark((*self.path, key)), message))

    def fault_at_key(self, key: str, message: str) -> None:
        self.faults.append(Fault(self.document.key_mark((*self.path, key)), message))

    def fault_here(self, message: str) -> None:
        self.faults.append(Fault(self.document.key_mark(self.path), message))


def _read_targets(top: _Mapping, *, base: Path) -> dict[str, Target | None]:
    """All targets by name; None for one that has faults."""
    if "targets" not in top.data:
        if not top.broken:
            top.fault_here("cannot find the key 'targets'")
        return {}
    all_targets = top.inner("targets")
    for name in all_targets.data:
        if not is_name(name):
            all_targets.fault_at_key(name, "cannot use this as a target's name: a letter, then letters, digits, _ . -")
    return {name: _read_target(name, all_targets.inner(name), base=base) for name in all_targets.data}


def _read_target(name: str, entry: _Mapping, *, base: Path) -> Target | None:
    def path(text: str) -> Path:
        return file_path(text, base=base)

    entry.know(_KEYS)
    address = _address(entry, base=base)
    _check_password_keys(entry, address)
    target = Target(
        name,
        address or Url("", "postgresql"),
        passfile=entry.converted("passfile", path),
        password_env=entry.converted("password_env", _variable),
        keyring=_keyring(entry),
        runs=entry.converted("runs", path),
        environment=entry.text("environment"),
    )
    return target if address else None


def _address(entry: _Mapping, *, base: Path) -> Url | None:
    given = [key for key in ("url", "service") if key in entry.data]
    if len(given) != 1:
        if not entry.broken:
            entry.fault_here("cannot tell where this target is: give it one of 'url' and 'service'")
        return None
    key = given[0]

    return entry.converted(key, lambda text: parse_url(text if key == "url" else f"service={text}", base=base))


def _check_password_keys(entry: _Mapping, address: Url | None) -> None:
    kept = [key for key in _PASSWORD_KEYS if key in entry.data]
    if kept and address and address.dialect == "sqlite":
        entry.fault_at_key(kept[0], f"cannot use {kept[0]!r} here: a SQLite file has no password")
    elif kept and address and "passfile" in address.libpq:
        entry.fault_at_key(kept[0], f"cannot use {kept[0]!r} beside the passfile in the URL: keep one")
    elif len(kept) > 1:
        entry.fault_at_key(kept[1], f"cannot use {kept[1]!r} beside {kept[0]!r}: keep one")


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):  # the text is not quoted in the message: it may be the password itself
        raise ValueError("cannot use this as the name of an environment variable: letters, digits and _")
    return text


def _keyring(entry: _Mapping) -> Keyring | None:
    if "keyring" not in entry.data:
        return None
    parts = entry.inner("keyring")
    parts.know(("service", "user"))
    service, user = parts.text("service"), parts.text("user")
    if service is not None and user is not None:
        return Keyring(service, user)
    if not parts.broken:
        parts.fault_here("cannot use this entry of the keyring: it needs 'service' and 'user'")
    return None
