"""Finds the step types and probes: in this package, and in other packages' entry points.

A type's module is imported when its word is first used, so that a playbook of two step types loads two families and not all.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import steps.probes
import steps.types
from steps.contract import Probe, Step

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T", Step, Probe)
_KIND = '\n    kind: ClassVar[str] = "'


class DuplicateKind(Exception):
    """Two types answer to one word: nothing is loaded."""


class Types(Mapping[str, type[T]]):
    """Every type by its word; knows all words, and imports a type's module only when it is asked for."""

    def __init__(self, base: type[T], folder: Path, package: str, group: str) -> None:
        self._base: type[T] = base
        self._group = group
        self._places = _places(folder, package)
        self._found: dict[str, type[T]] = {}

    def __getitem__(self, word: str) -> type[T]:
        if word not in self._found:
            self._found[word] = self._ours(word) if word in self._places else self._theirs(word)
        return self._found[word]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._places, *self._points}))

    def __len__(self) -> int:
        return len(self._places) + len(self._points)

    def __contains__(self, word: object) -> bool:
        return word in self._places or word in self._points

    @cached_property
    def _points(self) -> Mapping[str, EntryPoint]:
        """Other packages' types; looked up only for a word that isn't ours, because looking through all packages takes time."""
        from importlib.metadata import entry_points

        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group):
            if point.name in self._places or point.name in found:
                raise DuplicateKind(f"cannot load {point.value!r}: {point.name!r} exists already")
            found[point.name] = point
        return found

    def _ours(self, word: str) -> type[T]:
        module = importlib.import_module(self._places[word])
        return next(found for value in vars(module).values() if (found := self._fits(value, word)) is not None)

    def _theirs(self, word: str) -> type[T]:
        found = self._fits(self._points[word].load(), word)
        if found is None:
            raise DuplicateKind(
                f"cannot load {self._points[word].value!r}: it is no {self._base.__name__} of kind {word!r}"
            )
        return found

    def _fits(self, value: object, word: str) -> type[T] | None:
        if inspect.isclass(value) and issubclass(value, self._base) and value.__dict__.get("kind") == word:
            return value
        return None


def _places(folder: Path, package: str) -> dict[str, str]:
    """Word → module, read from the source: `kind: ClassVar[str] = "word"` is how a type names itself."""
    places: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for rest in path.read_text(encoding="utf-8").split(_KIND)[1:]:
            word = rest.partition('"')[0]
            if word in places:
                raise DuplicateKind(f"cannot load {path.name}: {word!r} is already in {places[word]}")
            places[word] = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
    return places


@cache
def step_types() -> Types[Step]:
    """Every step type by the word behind `type:`."""
    return Types(Step, Path(steps.types.__path__[0]), "steps.types", "runbook.steps")


@cache
def probe_types() -> Types[Probe]:
    """Every probe by the word behind `check:`."""
    return Types(Probe, Path(steps.probes.__path__[0]), "steps.probes", "runbook.probes")
