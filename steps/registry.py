"""The registry of step types and probes: those of this package, and those of other packages' entry points.

A type's module is imported when its kind is first looked up, so that a playbook with two step types loads two modules, not all.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import steps.probes
import steps.types
from steps.contract import Probe, Step

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T", Step, Probe)
U = TypeVar("U")
# The usual spelling. It is searched for first, because parsing every file would take longer than the rest of the start-up.
_USUAL = re.compile(r'^    kind: ClassVar\[str\] = "(\w+)"', re.MULTILINE)


class DuplicateKind(Exception):
    """Two types have the same kind; neither is loaded."""


class UnreadableKind(Exception):
    """A type's kind can't be read from its source, so the type could never be found."""


class Unloadable(Exception):
    """A type's module can't be imported."""


class Types(Mapping[str, type[T]]):
    """A lazy mapping of kind → type: it knows all kinds, and imports a type's module only on lookup."""

    def __init__(self, base: type[T], folder: Path, package: str, group: str) -> None:
        self._base: type[T] = base
        self._folder = folder
        self._package = package
        self._group = group
        self._found: dict[str, type[T]] = {}

    def __getitem__(self, word: str) -> type[T]:
        if word not in self._found:
            module = self._module(word)
            self._found[word] = self._ours(word, module) if module else self._theirs(word)
        return self._found[word]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._modules, *self._points}))

    def __len__(self) -> int:
        return len(self._modules) + len(self._points)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and (self._module(word) is not None or word in self._points)

    def _module(self, word: str) -> str | None:
        """The module that defines a type of this package; None for any other."""
        return self._usual.get(word) or self._modules.get(word)

    @cached_property
    def _sources(self) -> Mapping[str, str]:
        """Module → source, for every file below the folder."""
        return _read(self._folder, self._package)

    @cached_property
    def _usual(self) -> Mapping[str, str]:
        return {word: module for module, source in self._sources.items() for word in _USUAL.findall(source)}

    @cached_property
    def _modules(self) -> Mapping[str, str]:
        """Kind → module, by parsing the sources, so that any way to write `kind` is found; raises DuplicateKind."""
        modules: dict[str, str] = {}
        for module, source in self._sources.items():
            for word in kinds(source, module) if "kind" in source else ():
                if word in modules:
                    raise DuplicateKind(f"cannot load {module}: {word!r} is already in {modules[word]}")
                modules[word] = module
        return modules

    @cached_property
    def _points(self) -> Mapping[str, EntryPoint]:
        """Types of other packages; read only for a kind that is not ours, because scanning installed packages takes time."""
        from importlib.metadata import entry_points

        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group):
            if point.name in self._modules or point.name in found:
                raise DuplicateKind(f"cannot load {point.value!r}: {point.name!r} exists already")
            found[point.name] = point
        return found

    def _ours(self, word: str, module: str) -> type[T]:
        members = vars(_imported(module, lambda: importlib.import_module(module))).values()
        found = next((type_ for value in members if (type_ := self._fits(value, word)) is not None), None)
        if found is None:
            raise UnreadableKind(f"cannot load {module}: its class of kind {word!r} is no {self._base.__name__}")
        return found

    def _theirs(self, word: str) -> type[T]:
        point = self._points[word]
        found = self._fits(_imported(repr(point.value), point.load), word)
        if found is None:
            raise DuplicateKind(f"cannot load {point.value!r}: it is no {self._base.__name__} of kind {word!r}")
        return found

    def _fits(self, value: object, word: str) -> type[T] | None:
        if inspect.isclass(value) and issubclass(value, self._base) and value.__dict__.get("kind") == word:
            return value
        return None


def _imported(what: str, load: Callable[[], U]) -> U:
    """The result of `load`; raises Unloadable with the name of the module, so that the author of a type knows where to look."""
    try:
        return load()
    except Exception as error:
        raise Unloadable(f"cannot load {what}: {type(error).__name__}: {error}") from error


def _read(folder: Path, package: str) -> dict[str, str]:
    sources: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        module = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
        sources[module] = path.read_text(encoding="utf-8")
    return sources


def kinds(source: str, module: str) -> Iterator[str]:
    """The kinds that a module defines: the string that each class assigns to `kind`."""
    for defined in ast.walk(ast.parse(source, module)):
        for statement in defined.body if isinstance(defined, ast.ClassDef) else ():
            value = _assigned(statement)
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value
            elif value is not None and isinstance(defined, ast.ClassDef):
                raise UnreadableKind(
                    f"cannot load {module}, line {value.lineno}: `kind` of {defined.name} must be a string as it stands"
                )


def _assigned(statement: ast.stmt) -> ast.expr | None:
    """What a statement assigns to the class variable `kind`; None for any other statement, and for a field of that name."""
    if isinstance(statement, ast.Assign):
        names = [ast.unparse(target) for target in statement.targets]
        return statement.value if "kind" in names else None
    if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "kind":
        return statement.value if "ClassVar" in ast.unparse(statement.annotation) else None
    return None


@cache
def step_types() -> Types[Step]:
    """All step types, by the word behind `type:`."""
    return Types(Step, Path(steps.types.__path__[0]), "steps.types", "runbook.steps")


@cache
def probe_types() -> Types[Probe]:
    """All probes, by the word behind `check:`."""
    return Types(Probe, Path(steps.probes.__path__[0]), "steps.probes", "runbook.probes")
