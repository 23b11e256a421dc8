"""Words that outlive a version, in trails, ledgers and playbooks: what is on the list stays, and what is new joins it.

    python tests/test_persisted_words.py        adds what is new; whatever is gone, it leaves on the list

A word that must change all the same is read under its old name as well: runner/old_words.py, steps/ledger_form.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from runner import errors, events, schema
from steps import ledger, passes
from steps.base import Answer, State
from steps.dialect import Dialect
from steps.ledger_form import wanted_columns
from steps.registry import probe_types, step_types

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).parent / "support" / "persisted_words.json"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
Words = dict[str, dict[str, list[str]]]


def persisted() -> Words:
    """What the code writes down today, or takes from a playbook."""
    kinds = get_args(events.Event)
    return {
        "events": {_kind(one): sorted(one.model_fields) for one in kinds},
        "values": {
            "kind of a run": sorted(events.Kind),
            "state of a run": sorted(events.RunState),
            "outcome of a step": sorted(events.Outcome),
            "state of a change": sorted(State),
            "answer of a check": sorted(Answer),
            "action of a skipped row": sorted([passes.DEFERRED, passes.DEAD_ACTION, passes.AGAIN, passes.REFUSED]),
        },
        "ledger": {
            name: sorted(wanted_columns(Dialect.POSTGRESQL, name)) for name in ledger.columns(Dialect.POSTGRESQL)
        },
        "playbook": {path: sorted(keys) for path, keys in sorted(_playbook().items())},
        "figures": {
            name: sorted(one.Result.model_fields) for name, one in sorted({**step_types(), **probe_types()}.items())
        },
        "exit codes": {
            str(code): sorted({one.title for one in _errors() if one.exit_code == code})
            for code in sorted({one.exit_code for one in _errors()})
        },
    }


def _kind(event: type[Any]) -> str:
    return str(event.model_fields["event"].default)


def _errors() -> list[type[errors.RunbookError]]:
    return [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.RunbookError)]


def _playbook() -> dict[str, set[str]]:
    """Each object that may stand in a playbook, by its place, and its keys."""
    whole = schema.schema()
    found: dict[str, set[str]] = {}
    for path, keys in _keys(whole, whole["$defs"], "playbook"):
        found.setdefault(path, set()).update(keys)
    for name, shape in whole["$defs"].items():
        if not _by_class(name):
            for path, keys in _keys(shape, whole["$defs"], name):
                found.setdefault(path, set()).update(keys)
    return found


def _by_class(name: str) -> bool:
    """A part of the schema that is named after a class; the others are named in the playbook's own words."""
    return name[0].isupper()


def _keys(shape: Any, parts: Mapping[str, Any], path: str) -> Iterator[tuple[str, set[str]]]:
    if not isinstance(shape, Mapping):
        return
    name = str(shape.get("$ref", "")).rpartition("/")[2]
    if name and _by_class(name):
        yield from _keys(parts[name], {key: one for key, one in parts.items() if key != name}, path)
    properties = shape.get("properties", {})
    if properties:
        yield path, set(properties)
    for key, inner in properties.items():
        yield from _keys(inner, parts, f"{path}.{key}")
    several = [one for key in ("anyOf", "oneOf", "allOf") for one in shape.get(key, ())]
    for inner in (*several, shape.get("items"), shape.get("additionalProperties")):
        yield from _keys(inner, parts, path)


def flat(words: Words) -> set[str]:
    return {
        f"{group}: {name}: {word}"
        for group, each in words.items()
        for name, listed in each.items()
        for word in [*listed, ""]
    }


def test_no_word_on_the_list_has_gone():
    gone = flat(json.loads(LIST.read_text())) - flat(persisted())
    assert not gone, f"trails, ledgers or playbooks of before have these: {sorted(gone)}"


def test_every_word_is_on_the_list():
    new = flat(persisted()) - flat(json.loads(LIST.read_text()))
    assert not new, f"add them, with `python tests/test_persisted_words.py`: {sorted(new)}"


@pytest.mark.parametrize("group", ["events", "ledger", "values"])
def test_glossary_explains_them(group: str):
    words = persisted()[group]
    names = [word for each in words.values() for word in each] if group == "values" else list(words)
    assert not [one for one in names if f"| `{one}`" not in GLOSSARY]


def test_glossary_names_nothing_else():
    """Each row of its tables is about a word that there is."""
    words = persisted()
    known = {*words["events"], *words["ledger"], *(word for each in words["values"].values() for word in each)}
    known |= {*words["exit codes"], "0"}
    assert not [one for one in re.findall(r"^\| `([^`]+)`", GLOSSARY, re.MULTILINE) if one not in known]


if __name__ == "__main__":
    kept: Words = json.loads(LIST.read_text()) if LIST.exists() else {}
    for group, words in persisted().items():
        for name, listed in words.items():
            before = kept.setdefault(group, {}).get(name, [])
            kept[group][name] = sorted({*before, *listed})
    groups = [
        f" {json.dumps(group)}: {{\n"
        + ",\n".join(f"  {json.dumps(n)}: {json.dumps(w)}" for n, w in each.items())
        + "\n }"
        for group, each in kept.items()
    ]
    LIST.write_text("{\n" + ",\n".join(groups) + "\n}\n")
