"""Reads the shapes that a playbook, or a file that playbooks include, declares."""

from __future__ import annotations

from collections.abc import Mapping

from runner.common.plain_data import Data
from runner.playbook.sources import Sources, validated
from steps.catalog.shape import BadShape, Shape, ShapeSpec, resolve
from steps.contract import Query


def declared_shapes(sources: Sources, data: Data, queries: Mapping[str, Query]) -> dict[str, Shape]:
    """The shapes by name, each with what it has from its base; {} where one of them is faulty."""
    if not isinstance(data, dict):
        sources.fault(("shapes",), "cannot read shapes: it must be a mapping from a name to a shape")
        return {}
    specs: dict[str, ShapeSpec] = {}
    for name, one in data.items():
        spec = validated(sources, ShapeSpec, one, path=("shapes", name), known={"queries": queries})
        if spec is not None:
            specs[name] = spec
    try:
        return resolve(specs) if len(specs) == len(data) else {}
    except BadShape as bad:
        sources.fault(("shapes",), str(bad))
        return {}
