"""Finds and reads shapes outside of a playbook: in files that playbooks include."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from runner.common.errors import BadInput, PlaybookFaulty
from runner.common.plain_data import Data
from runner.playbook.load import named_queries
from runner.playbook.shapes import declared_shapes
from runner.playbook.sources import Sources, from_disk
from runner.playbook.yaml_reader import Faulty, parse
from steps.catalog.shape import DeclaredShape


class ShapeFile(NamedTuple):
    """The shapes that a file declares, and the schema in which their tables are."""

    path: Path
    shapes: Mapping[str, DeclaredShape]
    schema: str


def has_steps(path: Path) -> bool:
    """Whether a file is a playbook, and not only a part that playbooks include; True where it can't be read as YAML."""
    try:
        data = _data(path)
    except BadInput:
        return True
    return not _only_shapes(data)


def _only_shapes(data: Data) -> bool:
    return isinstance(data, dict) and "shapes" in data and "steps" not in data


def _data(path: Path) -> Data:
    return parse(from_disk(path.parent)(path.name), str(path)).data


def read_shapes(path: Path) -> ShapeFile:
    """Read a file of shapes; raises PlaybookFaulty with every fault."""
    try:
        document = parse(from_disk(path.parent)(path.name), str(path))
        sources = Sources(document)
        data = document.data if isinstance(document.data, dict) else {}
        shapes = declared_shapes(sources, data.get("shapes", {}), named_queries(sources, data.get("queries", {})))
        sources.stop_if_faulty()
    except (BadInput, Faulty) as error:
        raise PlaybookFaulty(
            f"cannot read the shapes in {path}: {error}", state="nothing was run", then="mend what is named above"
        ) from error
    return ShapeFile(path, shapes, str(data.get("schema", "public")))


def shape_files(cwd: Path) -> tuple[list[ShapeFile], list[PlaybookFaulty]]:
    """The files of shapes here and in playbooks/, and the errors of those that have faults."""
    found: list[ShapeFile] = []
    faulty: list[PlaybookFaulty] = []
    for path in sorted([*cwd.glob("*.yaml"), *(cwd / "playbooks").glob("*.yaml")]):
        try:
            if _only_shapes(_data(path)):
                found.append(read_shapes(path.relative_to(cwd)))
        except BadInput as error:
            faulty.append(PlaybookFaulty(f"cannot read {path}: {error}"))
        except PlaybookFaulty as error:
            faulty.append(error)
    return found, faulty
