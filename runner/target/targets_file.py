"""Reads targets.yaml: names of databases, their addresses, and where their passwords are kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, ValidationError

from runner.common.errors import BadInput
from runner.common.plain_data import Data
from runner.playbook import yaml_reader
from runner.playbook.yaml_reader import Fault, Faulty, YamlDocument, near
from runner.target.url import BadUrl, Dialect, HoldsPassword, Url, file_path, parse_url
from steps.contract import Model

MAX_BYTES = 1024 * 1024

_PASSWORD_KEYS = ("password_env", "passfile", "keyring")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PASSWORD_HERE = (
    "cannot take the password from here: whoever can read this file, or its history, has seen it: change it, and then use "
    "password_env, passfile or keyring"
)
_Path: TypeAlias = tuple[str, ...]


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
    faults = _Faults(_parse(raw, str(file)))
    base = file.resolve().parent
    named = _named(faults.document)
    _check_names(faults, named)
    addresses: dict[str, Url] = {}
    for name, entry in named.items():
        if isinstance(entry, dict):
            address = _address(faults, ("targets", name), entry, base=base)
            _check_password_keys(faults, ("targets", name), entry, address)
            addresses |= {name: address} if address else {}
    written = _validated(faults)
    if written is None or faults.found:
        raise Faulty(faults.found)
    targets = {name: _target(name, one, addresses[name], base=base) for name, one in written.targets.items()}
    return Targets(file, targets, written.default or None)


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


class _Faults:
    """What is wrong in the document, each thing with its place."""

    def __init__(self, document: YamlDocument) -> None:
        self.document = document
        self.found: list[Fault] = []

    def at(self, path: _Path, message: str) -> None:
        self._add(Fault(self.document.mark(path), message))

    def at_key(self, path: _Path, message: str) -> None:
        self._add(Fault(self.document.key_mark(path), message))

    def _add(self, fault: Fault) -> None:
        if fault not in self.found:
            self.found.append(fault)


# ─── each key by itself ─────────────────────────────────────────────────────────────────────────────────────────────
def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):  # the text is not quoted in the message: it may be the password itself
        raise ValueError("cannot use this as the name of an environment variable: letters, digits and _")
    return text


def _has_home(text: str) -> str:
    try:
        file_path(text, base=Path())
    except BadUrl as bad:
        raise ValueError(bad.reason) from None
    return text


_Word = Annotated[str, Field(min_length=1)]
_FileWord = Annotated[_Word, AfterValidator(_has_home)]


class _Written(Model):
    """A mapping as it is written; "" where a key is left out. No error shows its input: it may be a password."""

    model_config = ConfigDict(hide_input_in_errors=True)


class _WrittenKeyring(_Written):
    service: _Word
    user: _Word


class _WrittenTarget(_Written):
    url: _Word = ""
    service: _Word = ""
    password_env: Annotated[_Word, AfterValidator(_variable)] = ""
    passfile: _FileWord = ""
    keyring: _WrittenKeyring = _WrittenKeyring.model_construct(service="", user="")
    runs: _FileWord = ""
    environment: _Word = ""


class _WrittenFile(_Written):
    default: _Word = ""
    targets: dict[str, _WrittenTarget]


_KEYS = tuple(_WrittenTarget.model_fields)
_MODELS: dict[int, type[_Written]] = {1: _WrittenFile, 3: _WrittenTarget, 4: _WrittenKeyring}  # by how deep a key lies


def _validated(faults: _Faults) -> _WrittenFile | None:
    """The file's keys and their values, each by itself; None where something is wrong."""
    try:
        return _WrittenFile.model_validate(faults.document.data)
    except ValidationError as error:
        for one in sorted(error.errors(include_input=False), key=lambda one: one["type"] != "extra_forbidden"):
            path = tuple(str(part) for part in one["loc"])
            _explain(faults, path, one["type"], reason=str(one.get("ctx", {}).get("error", "")))
        return None


def _explain(faults: _Faults, path: _Path, kind: str, *, reason: str) -> None:
    """One of pydantic's errors in our words."""
    key = path[-1] if path else ""
    in_keyring = len(path) == 4
    if kind == "extra_forbidden":
        near_by = near(key, _MODELS[len(path)].model_fields)
        faults.at_key(path, _PASSWORD_HERE if key == "password" else f"cannot use the key {key!r}{near_by}")
    elif kind == "value_error":
        faults.at(path, reason)
    elif kind in {"string_type", "string_too_short"}:
        faults.at(path, f"cannot use this as {key!r}: a text is expected")
    elif kind == "missing" and not in_keyring:
        faults.at_key(path[:-1], f"cannot find the key {key!r}")
    elif kind != "missing":
        faults.at(path, "cannot read this: keys with values are expected")
    if in_keyring and kind != "extra_forbidden":
        faults.at_key(path[:-1], "cannot use this entry of the keyring: it needs 'service' and 'user'")


# ─── what keys mean together ────────────────────────────────────────────────────────────────────────────────────────
def _named(document: YamlDocument) -> dict[str, Data]:
    """Every target as it stands there, also in a file with faults: all faults are told at once."""
    targets = document.data.get("targets") if isinstance(document.data, dict) else None
    return targets if isinstance(targets, dict) else {}


def _check_names(faults: _Faults, names: Collection[str]) -> None:
    for name in names:
        if not is_name(name):
            faults.at_key(
                ("targets", name), "cannot use this as a target's name: a letter, then letters, digits, _ . -"
            )
    default = faults.document.data.get("default") if isinstance(faults.document.data, dict) else None
    if isinstance(default, str) and default and default not in names:
        faults.at(("default",), f"cannot find the target {default!r}{near(default, names)}")


def _address(faults: _Faults, path: _Path, entry: Mapping[str, Data], *, base: Path) -> Url | None:
    given = [key for key in ("url", "service") if key in entry]
    if len(given) != 1:
        faults.at_key(path, "cannot tell where this target is: give it one of 'url' and 'service'")
        return None
    [key] = given
    text = entry[key]
    if not isinstance(text, str) or not text:
        return None
    try:
        return parse_url(text if key == "url" else f"service={text}", base=base)
    except HoldsPassword:
        faults.at((*path, key), _PASSWORD_HERE)
    except BadUrl as bad:
        faults.at((*path, key), bad.reason)
    return None


def _check_password_keys(faults: _Faults, path: _Path, entry: Mapping[str, Data], address: Url | None) -> None:
    kept = [key for key in _PASSWORD_KEYS if key in entry]
    if kept and address and address.dialect == "sqlite":
        faults.at_key((*path, kept[0]), f"cannot use {kept[0]!r} here: a SQLite file has no password")
    elif kept and address and "passfile" in address.libpq:
        faults.at_key((*path, kept[0]), f"cannot use {kept[0]!r} beside the passfile in the URL: keep one")
    elif len(kept) > 1:
        faults.at_key((*path, kept[1]), f"cannot use {kept[1]!r} beside {kept[0]!r}: keep one")


def _target(name: str, written: _WrittenTarget, address: Url, *, base: Path) -> Target:
    def path(text: str) -> Path | None:
        return file_path(text, base=base) if text else None

    kept = written.keyring
    return Target(
        name,
        address,
        passfile=path(written.passfile),
        password_env=written.password_env or None,
        keyring=Keyring(kept.service, kept.user) if kept.service else None,
        runs=path(written.runs),
        environment=written.environment or None,
    )
