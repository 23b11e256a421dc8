"""The words that outlive a version: in trails, in the ledger, in playbooks, and as exit codes; taken from the code.

`./dev generate` adds new ones to the frozen list, tests/persisted_words.json. What is on that list never changes or goes: a
trail, a ledger and a playbook of an earlier version must be read by every later one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from documents import ROOT, Page

from runner.common import errors
from runner.format.json_schema import schema
from runner.plan.advice import Stop
from runner.target.targets_file import _KEYS as TARGET_KEYS
from runner.trail import events
from runner.trail.status import Holding, RunStatus, StepStatus
from runner.trail.status_file import StatusFile
from steps.contract import Answer, Progress
from steps.contract.dialect import Dialect
from steps.ledger import form, tables
from steps.registry import probe_types, step_types
from steps.types.backfill import store

LIST = Path(__file__).with_name("persisted_words.json")
Words = dict[str, Any]  # names of groups and words, down to a word that says what kind of thing it stands for


def derived() -> Words:
    """All persisted words as the code has them."""
    return {
        "events": _events(),
        "values": _values(),
        "ledger": {name: form.wanted_columns(Dialect.POSTGRESQL, name) for name in tables.columns(Dialect.POSTGRESQL)},
        "yaml": _yaml(),
        "figures": _figures(),
        "status.json": _status_file(),
        "targets.yaml": dict.fromkeys(TARGET_KEYS, "key"),
        "exit codes": {str(code): words.partition(":")[0] for code, words in errors.EXIT_CODES.items()},
    }  # fmt: skip


# ─── events ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _definitions() -> dict[str, Any]:
    """The JSON schema of each event, of what stands in them, and of a record, by the name of the class."""
    found = events.Record.model_json_schema()
    return {**found["$defs"], "Record": {key: found[key] for key in ("type", "properties")}}


def _events() -> Words:
    defs = _definitions()
    named = {one["properties"]["event"]["const"]: one for one in defs.values() if "const" in _event(one)}
    parts = {name.lower(): defs[name] for name in ("Record", "Process")}
    return {
        name: {key: _type(node) for key, node in one["properties"].items()} for name, one in {**named, **parts}.items()
    }


def _event(definition: dict[str, Any]) -> dict[str, Any]:
    return definition.get("properties", {}).get("event", {})


def _type(node: dict[str, Any]) -> str:
    if "$ref" in node:
        return node["$ref"].rpartition("/")[2]
    if "anyOf" in node:
        return " or ".join(_type(one) for one in node["anyOf"])
    if "oneOf" in node:
        return "event"
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if node.get("type") == "object":
        more = node.get("additionalProperties")
        return f"{{name: {_type(more)}}}" if isinstance(more, dict) else "object"
    return str(node.get("type", "any"))


def _values() -> Words:
    """The words that a field may hold, where these are few and fixed."""
    set_aside = (store.DEFERRED, store.DEAD_ACTION, store.AGAIN, store.REFUSED)
    found: Words = {"action of a row that was set aside": dict.fromkeys(set_aside, "value")}
    for name, one in _definitions().items():
        if "enum" in one:
            found[name] = dict.fromkeys(one["enum"], "value")
        for key, node in one.get("properties", {}).items():
            if "enum" in node and "const" in _event(one):
                found[f"{_event(one)['const']}.{key}"] = dict.fromkeys(node["enum"], "value")
    return found


def _figures() -> Words:
    """What expressions may name of a step or probe; criteria and guards of old playbooks do."""
    groups = (("step", step_types()), ("check", probe_types()))
    return {
        f"{group} {kind}": dict.fromkeys(model.Result.model_fields, "figure")
        for group, kinds in groups
        for kind, model in kinds.items()
    }


def _status_file() -> Words:
    """The keys of the file that monitors read, with their paths."""
    step, hold = StepStatus("a"), Holding("", "2026-12-01T00:00:00+00:00")
    alert = events.AlertRaised(monitor="a", since="2026-12-01T00:00:00+00:00", answer=Answer.FAIL, text="")
    status = RunStatus(steps={step.id: step}, holds={"guard a": hold}, alerts={alert.monitor: alert})
    stop = {one.name: "" for one in fields(Stop)}
    before = set(threading.enumerate())
    with tempfile.TemporaryDirectory() as directory:
        made = StatusFile((Path(directory) / "status.json",), status, lambda: {"stop": stop})
        made.progress(step.id, Progress(1, 2, "rows"))
        made.write()
        made.close()
        for thread in set(threading.enumerate()) - before:  # its own, which may still be writing
            thread.join()
        written = json.loads((Path(directory) / "status.json").read_text())
    return dict.fromkeys(sorted(_paths(written)), "key")


def _paths(data: Any, path: str = "") -> Iterator[str]:
    for one in data if isinstance(data, list) else [data]:
        for key, value in one.items() if isinstance(one, dict) else ():
            yield f"{path}{key}"
            yield from _paths(value, f"{path}{key}.")


# ─── YAML ───────────────────────────────────────────────────────────────────────────────────────────────────────────
Keys = dict[str, Words]  # the path of a key → the words that may stand behind it, where these are few and fixed
_APART = {"check", "criterion", "guard", "monitor", "step", "SQL", "query"}  # have groups of their own


def _yaml() -> Words:
    """Where a key stands → the keys with their paths; those that every step, check or guard has stand once."""
    whole = schema()
    defs = whole["$defs"]
    found: dict[str, Keys] = {"playbook": _keys(whole, defs), "SQL": _keys(defs["SQL"], defs)}
    for group, every in (("step", "every step"), ("check", "every check")):
        each = {name.replace(".", " "): _keys(one, defs) for name, one in defs.items() if name.startswith(f"{group}.")}
        shared = set.intersection(*map(set, each.values())) - {"check", "type"}
        found[every] = {key: words for key, words in next(iter(each.values())).items() if key in shared}
        found |= {name: {key: one for key, one in keys.items() if key not in shared} for name, keys in each.items()}
    for group in ("guard", "monitor"):
        own = {name.partition(".")[2]: one for name, one in defs.items() if name.startswith(f"{group}s.")}
        found[f"every {group}"] = _keys({"properties": own}, defs)
    return {place: dict(sorted(keys.items())) for place, keys in found.items()}


def _keys(node: Any, defs: dict[str, Any], path: str = "", seen: tuple[str, ...] = ()) -> Keys:
    name = node.get("$ref", "").rpartition("/")[2]
    if name:
        return {} if name in {*seen, *_APART} else _keys(defs[name], defs, path, (*seen, name))
    found: Keys = {}
    for key, one in node.get("properties", {}).items():
        found |= {f"{path}{key}": _fixed(one, defs), **_keys(one, defs, f"{path}{key}.", seen)}
    for one in _below(node, "items", "additionalProperties"):
        found |= _keys(one, defs, path, seen)
    return found


def _fixed(node: Any, defs: dict[str, Any]) -> Words:
    """The words that may be written for a value."""
    name = node.get("$ref", "").rpartition("/")[2]
    if name:
        return {} if name in _APART else _fixed(defs[name], defs)
    found = {str(word): "value" for word in [*node.get("enum", []), *([node["const"]] if "const" in node else [])]}
    for one in _below(node, "items"):
        found |= _fixed(one, defs)
    return found


def _below(node: Any, *keys: str) -> list[Any]:
    return [one for key in ("anyOf", "oneOf") for one in node.get(key, [])] + [
        node[key] for key in keys if isinstance(node.get(key), dict)
    ]


# ─── the frozen list ────────────────────────────────────────────────────────────────────────────────────────────────
def frozen() -> Words:
    """The committed list."""
    return json.loads(LIST.read_text()) if LIST.exists() else {}


def singles(words: Words) -> dict[str, set[str]]:
    """Each group of the glossary → the words that it explains, each once wherever it stands."""
    return {
        "Events": set(words["events"]),
        "Fields of events": {name for one in words["events"].values() for name in one},
        "Values": {name for one in words["values"].values() for name in one},
        "Ledger tables": set(words["ledger"]),
        "Ledger columns": {name for one in words["ledger"].values() for name in one},
        "Playbook keys": {path.rpartition(".")[2] for one in words["yaml"].values() for path in one},
        "Keys of status.json": {path.rpartition(".")[2] for path in words["status.json"]},
        "Keys of targets.yaml": set(words["targets.yaml"]),
        "Exit codes": set(words["exit codes"]),
    }


def lost(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """What is in the old list, and is gone or another thing now."""
    if not isinstance(old, dict):
        if old != new:
            yield f"{path}: {old} → {new}"
        return
    for key, one in old.items():
        there = f"{path} › {key}" if path else key
        if not isinstance(new, dict) or key not in new:
            yield f"{there} is gone"
        else:
            yield from lost(one, new[key], there)


def unexplained(words: Words) -> list[str]:
    """What the glossary lacks, and what it explains in vain."""
    page = Page.read(ROOT / "docs/glossary.md")
    found = []
    for group, wanted in singles(words).items():
        told = page.table(group)
        found += [f"{group}: {word} has no line" for word in sorted(wanted - {one for one in told if told[one]})]
        found += [f"{group}: {word} is no word any more" for word in sorted(set(told) - wanted)]
    return found


def main(arguments: list[str]) -> int:
    """Write the list anew: with new words, or (--again, before the first release) as the code has them."""
    now = derived()
    gone = [] if "--again" in arguments else list(lost(frozen(), now))
    if gone:
        sys.stderr.write("".join(f"{one}\n" for one in gone))
        sys.stderr.write("cannot write the list: what is on it never changes (before the first release: --again)\n")
        return 1
    LIST.write_text(f"{json.dumps(now, indent=1, ensure_ascii=False)}\n")
    sys.stderr.write("".join(f"docs/glossary.md: {one}\n" for one in unexplained(now)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
