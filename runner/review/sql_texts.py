"""Every piece of SQL in a playbook, with its place, its use, and a map from positions in it to places in the file."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from runner.common.plain_data import Data
from runner.playbook.load import WrittenPlaybook
from runner.playbook.sources import Place
from runner.playbook.yaml_reader import Mark
from runner.review.places import place_in_scalar, place_in_text
from steps import registry
from steps.contract import Query, Text
from steps.contract.dialect import Dialect


class Role(StrEnum):
    """What a piece of SQL is for."""

    QUERY = "query"  # a single SELECT
    STATEMENT = "statement"
    REVERT = "revert"  # statements of the way back
    CONDITION = "condition"  # what stands behind WHERE or ON
    VALUE = "value"  # an expression


class Use(NamedTuple):
    """Where a piece of SQL is used: at which step or check, of which kind, under which key."""

    group: str  # "steps", "preconditions", "success_criteria", "guards", "monitors"
    kind: str  # of the step or probe
    name: str  # id of the step or check
    key: str
    decides: bool  # a check that isn't only recorded


@dataclass(frozen=True)
class SqlText:
    """A piece of SQL as it is written, with templates. dialect: the one that it is for, "" for both."""

    path: Place
    text: str
    dialect: str
    role: Role
    uses: tuple[Use, ...]
    written: WrittenPlaybook = field(repr=False, compare=False)

    @property
    def step(self) -> str:
        """The id of the step or check that has it, "" for one that several share."""
        return self.uses[0].name if len(self.uses) == 1 else ""

    def mark(self, position: int = 0) -> Mark:
        """The place in the YAML or SQL file of a position in this text."""
        sources = self.written.sources
        if (name := sources.files.get(self.path)) is not None:
            return place_in_text(str(Path(sources.main.file).parent / name), self.text, position)
        document = sources.document(self.path)
        return place_in_scalar(document.mark(self.path), document.text, self.text, position)


_ROLES = {"revert": Role.REVERT, "default": Role.VALUE, "generated": Role.VALUE, "using": Role.VALUE}
_ROLES |= {"match": Role.CONDITION, "where": Role.CONDITION, "check": Role.CONDITION}
_ROLES |= {"checks": Role.CONDITION}
_NO_SQL = frozenset(
    {"of_type", "columns", "fires", "does"}
)  # parts of a definition, which are no statement by themselves
_CHECKS = ("preconditions", "success_criteria", "guards", "monitors")


def texts_of(written: WrittenPlaybook) -> Iterator[SqlText]:
    """All SQL of a playbook; a named query once, with all its uses. What an include has and it doesn't use is left out."""
    collector = _Collector(written)
    for group in _CHECKS:
        collector.checks(written.data.get(group), (group,), group)
    steps = written.data.get("steps")
    for index, step in enumerate(steps if isinstance(steps, list) else []):
        if isinstance(step, dict):
            collector.step(step, ("steps", index))
    yield from collector.found
    queries = written.data.get("queries")
    for name, text in queries.items() if isinstance(queries, dict) else ():
        path = ("queries", name)
        uses = tuple(collector.uses.get(name, ()))
        if uses or written.sources.document(path) is written.sources.main:
            yield from collector.leaves(text, path, Role.QUERY, uses)


class _Collector:
    """Walks the steps and checks, and collects SQL in place and the uses of named queries."""

    def __init__(self, written: WrittenPlaybook) -> None:
        self.written = written
        self.queries = written.playbook.queries
        self.found: list[SqlText] = []
        self.uses: dict[str, list[Use]] = {}

    def step(self, data: Mapping[str, Data], path: Place) -> None:
        kind = str(data.get("type"))
        self._fields(registry.step_types()[kind], data, path, Use("steps", kind, str(data.get("id")), "", decides=True))
        for group in _CHECKS:
            self.checks(data.get(group), (*path, group), group)

    def checks(self, data: Data, path: Place, group: str) -> None:
        for index, one in enumerate(data if isinstance(data, list) else []):
            if isinstance(one, dict) and isinstance(kind := one.get("check"), str):
                decides = "record_only" not in one and "due" not in one
                use = Use(group, kind, str(one.get("id")), "", decides=decides)
                self._fields(registry.probe_types()[kind], one, (*path, index), use)

    def leaves(
        self, data: Data, path: Place, role: Role, uses: tuple[Use, ...], dialect: str = ""
    ) -> Iterator[SqlText]:
        """The texts of a value: one, one for each dialect, or a list of them."""
        if isinstance(data, str):
            yield SqlText(path, data, dialect, role, uses, self.written)
        elif isinstance(data, list):
            for index, one in enumerate(data):
                yield from self.leaves(one, (*path, index), role, uses, dialect)
        elif isinstance(data, dict):
            for key, one in data.items():
                of = key if key in set(Dialect) else dialect
                yield from self.leaves(one, (*path, key), _ROLES.get(key, role), uses, of)

    def _fields(self, kind: type[BaseModel], data: Mapping[str, Data], path: Place, use: Use) -> None:
        for key, query in _sql_fields(kind).items():
            value = data.get(key)
            if value is None or key in _NO_SQL:
                continue
            here = use._replace(key=key)
            if query and isinstance(value, str) and value in self.queries:
                self.uses.setdefault(value, []).append(here)
                continue
            role = Role.QUERY if query else _ROLES.get(key, Role.STATEMENT)
            self.found += self.leaves(value, (*path, key), role, (here,))


@functools.cache
def _sql_fields(kind: type[BaseModel]) -> Mapping[str, bool]:
    """Key → whether it is a query, for the fields of a step type or probe that hold SQL."""
    found = {field.alias or name: _holds(field.annotation) for name, field in kind.model_fields.items()}
    return {key: query for key, query in found.items() if query is not None}


def _holds(annotation: Any) -> bool | None:
    """Whether a type holds a query (True) or other SQL (False); None where it holds no SQL."""
    if annotation is Query:
        return True
    if annotation is Text:
        return False
    inner = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not inner:
        inner = tuple(one.annotation for one in annotation.model_fields.values())
    held = [one for one in map(_holds, inner) if one is not None]
    return held[0] if held else None
