"""Finds the step types and probes: in this package, and in other packages' entry points."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

import steps
import steps.probes
from steps.base import Probe, Step

T = TypeVar("T", Step, Probe)


class DuplicateKind(Exception):
    """Two types answer to one name: nothing is loaded."""


@cache
def step_types() -> dict[str, type[Step]]:
    """Every step type by the word behind `type:`."""
    return _collect(Step, [*_modules(steps), *_plugins("runbook.steps")])


@cache
def probe_types() -> dict[str, type[Probe]]:
    """Every probe by the word behind `check:`."""
    return _collect(Probe, [*_modules(steps.probes), *_plugins("runbook.probes")])


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(package.__path__):
        if not info.ispkg:
            yield importlib.import_module(f"{package.__name__}.{info.name}")


def _plugins(group: str) -> Iterator[ModuleType]:
    for point in entry_points(group=group):
        yield importlib.import_module(point.module)


def _collect(base: type[T], modules: Iterable[ModuleType]) -> dict[str, type[T]]:
    found: dict[str, type[T]] = {}
    for module in modules:
        for value in vars(module).values():
            if not (inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__):
                continue
            kind = value.__dict__.get("kind")
            if kind is None:  # a shared base of a family
                continue
            if kind in found:
                raise DuplicateKind(f"cannot load {value!r}: {kind!r} is already {found[kind]!r}")
            found[kind] = value
    return dict(sorted(found.items()))
