"""Shared state of loading a playbook: its files, and the faults found so far, including translated pydantic errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from runner.common.errors import BadInput
from runner.playbook.yaml_reader import MAX_BYTES, MAX_FAULTS, Fault, Faulty, Mark, YamlDocument, decoded, near

Place = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

Reader = Callable[[str], str]
"""File name → text, from disk or from the copy in a trail."""


def from_disk(directory: Path, *, linked: str = "") -> Reader:
    """A reader for files in a playbook's directory; refuses files outside of it. linked: suffix of its error messages."""

    def read(name: str) -> str:
        beside = directory / name
        try:
            path = beside.resolve()
            if not path.is_relative_to(directory.resolve()):
                link = f": it is a link to {path}" if beside.is_symlink() else ""
                raise BadInput(f"cannot read {name!r}: it lies outside of the playbook's directory{link}{linked}")
            return _text(path, name, shown=str(beside), linked=linked)
        except OSError as error:
            raise BadInput(f"cannot read {name!r}: {error.strerror or error}{linked}") from error
        except (ValueError, RuntimeError) as error:  # a NUL in the name, a circle of links
            raise BadInput(f"cannot read {name!r}: {error}") from error

    return read


def _text(path: Path, name: str, *, shown: str, linked: str) -> str:
    if not path.is_file():
        raise BadInput(f"cannot read {name!r}: {'it is no file' if path.exists() else 'there is no such file'}{linked}")
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise BadInput(f"cannot read {name!r}: it has more than {MAX_BYTES:,} bytes; split it with `include`")
    return decoded(raw, shown)


@dataclass
class Sources:
    """All documents of one playbook, and their faults; maps a path in the merged data to file, line and column."""

    main: YamlDocument
    included: list[YamlDocument] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    origin: dict[str, YamlDocument] = field(default_factory=dict)  # "queries.coverage" → the document that defines it
    texts: dict[str, str] = field(default_factory=dict)  # file name → text
    files: dict[Place, str] = field(default_factory=dict)  # path in the data → the file whose text stands there
    secrets: set[str] = field(default_factory=set)  # names of secret inputs
    kept: bool = False  # loading a run's own copy: rules newer than the run must not prevent its rollback

    def document(self, path: Place) -> YamlDocument:
        """The document that defines this path of the merged data."""
        for depth in (2, 1):
            document = self.origin.get(".".join(str(part) for part in path[:depth]), self.main)
            if document is not self.main:
                return document
        return self.main

    def mark(self, path: Place, *, key: bool = False) -> Mark:
        document = self.document(path)
        return document.key_mark(path) if key else document.mark(path)

    def fault(self, path: Place, message: str, *, key: bool = False) -> None:
        self.faults.append(Fault(self.mark(path, key=key), message))

    def stop_if_faulty(self) -> None:
        if len(self.faults) > MAX_FAULTS:
            first = Faulty(self.faults).faults[:MAX_FAULTS]
            raise Faulty(
                [*first, Fault(first[-1].mark, f"cannot list all {len(self.faults)} faults: mend these first")]
            )
        if self.faults:
            raise Faulty(self.faults)


def validated(
    sources: Sources,
    model: type[M],
    values: object,
    *,
    path: Place,
    known: Mapping[str, Mapping[str, object]] | None = None,
    aliases: Mapping[str, str] | None = None,
    also: Collection[str] = (),
) -> M | None:
    """Validate a model; pydantic errors become faults with their places. None if there were any.

    known: the playbook's named queries and shapes, by the key under which they stand. also: further allowed keys, for suggestions.
    """
    try:
        return model.model_validate(
            values,
            context={**(known or {}), "directory": str(Path(sources.main.file).parent), "kept": sources.kept},
        )
    except ValidationError as error:
        for one in error.errors():
            location = tuple((aliases or {}).get(str(part), part) for part in one["loc"])
            near_keys = {*_fields(model), *also} if len(location) == 1 else set()
            _explain(sources, near_keys, path + location, one["type"], str(one["msg"]), dict(one.get("ctx") or {}))
        return None


def _fields(model: type[BaseModel]) -> set[str]:
    return {field.alias or key for key, field in model.model_fields.items()}


def _explain(sources: Sources, known: set[str], path: Place, kind: str, message: str, context: dict[str, Any]) -> None:
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        sources.fault(path, f"unknown key {name!r}{near(name, known)}", key=True)
    elif kind == "missing":
        sources.fault(path[:-1], f"cannot do without `{name}:`")
    elif kind == "value_error":
        sources.fault(path, str(context.get("error", message)))
    else:
        sources.fault(path, f"cannot use `{name}`: {message[0].lower() + message[1:]}")
