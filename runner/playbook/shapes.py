"""Reads the shapes that a playbook, or a file that playbooks include, declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.common.plain_data import Data
from runner.playbook.sources import Place, Sources, validated
from steps.catalog.shape import BadShape, DeclaredShape, ShapeSpec, declared
from steps.contract import Query
from steps.contract.dialect import Dialect


def declared_shapes(sources: Sources, data: Data, queries: Mapping[str, Query]) -> dict[str, DeclaredShape]:
    """The shapes by name; {} where one of them is faulty."""
    if not isinstance(data, dict):
        sources.fault(("shapes",), "cannot read shapes: it must be a mapping from a name to a shape")
        return {}
    written: dict[str, dict[str, ShapeSpec]] = {}
    faults = len(sources.faults)
    for name, one in data.items():
        specs = {
            key: validated(sources, ShapeSpec, value, path=path, known={"queries": queries})
            for key, path, value in _variants(name, one)
        }
        written[name] = {key: spec for key, spec in specs.items() if spec is not None}
    if len(sources.faults) > faults:
        return {}
    try:
        return declared(written)
    except BadShape as bad:
        sources.fault(("shapes",), str(bad))
        return {}


def _variants(name: str, data: Data) -> Iterator[tuple[str, Place, Data]]:
    """(dialect, place, data) of what is written for each kind of database; ("", …) for both."""
    if isinstance(data, dict) and data and set(data) <= set(map(str, Dialect)):
        yield from ((key, ("shapes", name, key), value) for key, value in data.items())
    else:
        yield "", ("shapes", name), data
