"""Fills templates into a playbook's data: any text where people read, quoted identifiers where SQL stands."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import cast

from runner.common.plain_data import Data
from runner.common.secrets import MASK
from runner.playbook.sources import Place, Sources
from runner.playbook.template import BadTemplate, fill, fill_sql
from runner.playbook.yaml_reader import near
from steps.contract.dialect import Dialect
from steps.sql.templates import has_template

_QUERIES = frozenset({"queries", "query", "source", "what", "a", "b", "applied_if"})
_STATEMENTS = frozenset({"statements", "sql", "text", "revert"})
_PARTS = frozenset(
    {
        "match",
        "where",
        "using",
        "check",
        "checks",
        "default",
        "of_type",
        "generated",
        "fires",
        "does",
        "that",
        "warn",
        "alert",
    }
)
SQL = _QUERIES | _STATEMENTS | _PARTS
SPOKEN = frozenset(
    {
        "title",
        "description",
        "why",
        "because",
        "counted",
        "message",
        "if_stopped_here",
        "owner",
        "takes",
        "record_only",
        "reason",
        "help",
    }
)


def fill_data(sources: Sources, data: Data, path: Place, values: Mapping[str, object]) -> Data:
    """Fill templates: with any text in fields for people, with quoted identifiers only in SQL."""
    if isinstance(data, dict):
        return {key: fill_data(sources, value, (*path, key), values) for key, value in data.items()}
    if isinstance(data, list):
        return [fill_data(sources, value, (*path, index), values) for index, value in enumerate(data)]
    if not isinstance(data, str) or not has_template(data) or path[0] == "shapes":
        return data
    named = path[0] == "queries"  # SQL, whatever the query's name
    spoken = not named and (path[-1] in SPOKEN or path[0] in {"contacts", "links"})
    bound = not named and "params" in path  # a bound parameter is never part of SQL, whatever its name
    environment = not named and path[-2:-1] == ("env",)  # text that only the child process sees
    where = ".".join(map(str, path))
    try:
        if not spoken and not bound and not environment:
            _refuse_secret(sources, data, where)
        whole = re.fullmatch(r"\{\{\s*([a-z][a-z0-9_.]*)\s*\}\}", data)
        if whole and not spoken and not environment and (bound or not is_sql(path)):
            return _typed(sources, path, whole[1], values)
        if spoken or bound or environment:
            return fill(data, _without_secrets(sources, values) if spoken else values, where=where)
        return fill_sql(data, values, where=where, dialects=_dialects(path))
    except BadTemplate as error:
        sources.fault(path, str(error))
        return data


def is_sql(path: Place) -> bool:
    """Whether SQL stands at this path; `columns` is SQL where it maps names to definitions, and else a list of names."""
    defined = any(one == "columns" and isinstance(two, str) for one, two in itertools.pairwise(path))
    return defined or bool(SQL & {str(part) for part in path})


def _dialects(path: Place) -> tuple[Dialect, ...]:
    """The dialects for which the SQL at this path is meant."""
    return (Dialect(str(path[-1])),) if len(path) > 2 and path[-1] in set(Dialect) else tuple(Dialect)


def _without_secrets(sources: Sources, values: Mapping[str, object]) -> Mapping[str, object]:
    """The template values for text that people read: secrets are masked."""
    hidden = dict.fromkeys(sources.secrets, MASK)
    return {**values, **hidden, "inputs": {**cast("Mapping[str, object]", values["inputs"]), **hidden}}


def _refuse_secret(sources: Sources, text: str, where: str) -> None:
    """Raise BadTemplate for a secret in a command line, identifier or name, where others could see it."""
    found = sources.secrets.intersection(re.findall(r"\{\{\s*(?:inputs\.)?([a-z][a-z0-9_]*)", text))
    if found:
        raise BadTemplate(
            where, f"the secret input {min(found)!r} would be seen here: bind it as a parameter (params:)"
        )


def _typed(sources: Sources, path: Place, name: str, values: Mapping[str, object]) -> Data:
    """The value of a scalar that consists of a single template: the input with its own type, not as text."""
    inputs = cast("Mapping[str, Data]", values["inputs"])
    key = name.removeprefix("inputs.")
    if key not in inputs and "." in name and key == name:
        return {"figure": name}  # of an earlier step or check; its existence is checked when the step is built
    if key not in inputs:
        sources.fault(path, f"unknown input {name!r}{near(key, inputs)}")
        return None
    return inputs[key]
