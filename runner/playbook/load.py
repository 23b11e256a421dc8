"""Loads a playbook from YAML text. Reports all faults at once, each with file:line:column; executes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from runner.common.errors import BadInput
from runner.common.plain_data import Data
from runner.playbook import check_builder, digest, included, monitor_builder, programs
from runner.playbook import inputs as given
from runner.playbook.fill_data import fill_data
from runner.playbook.model import FORMAT, ID, NAME, Entry, LockPolicy, Playbook, Requirement, RetryPolicy, Timeouts
from runner.playbook.shapes import declared_shapes
from runner.playbook.sources import Place, Reader, Sources, from_disk, validated
from runner.playbook.yaml_reader import Fault, Faulty, Mark, YamlDocument, near, parse
from steps import registry
from steps.catalog.later_steps import Followed
from steps.contract import RESERVED, Model, Query, UsesFigures

_ABOUT = frozenset({"title", "description", "owner", "links", "revision", "reviewed", "review_after", "takes"})
_POLICY_KEYS = frozenset({"lock", "timeout", "retry"})
SHARED = _POLICY_KEYS | {
    "runbook",
    "schema",
    "search_path",
    "target",
    "owner",
    "links",
    "revision",
    "reviewed",
    "review_after",
    "inputs",
    "limits",
    "queries",
    "shapes",
    "contacts",
    "scope",
}
_FLOW = frozenset({"preconditions", "steps", "success_criteria", "monitors", "rollback"})
HEADER = SHARED | _ABOUT | _FLOW | {"name", "include", "requires", "removes", "window", "open"}
_CHECKED = frozenset({"preconditions", "success_criteria", "guards"})
COMMON = _POLICY_KEYS | _CHECKED | {"id", "type", "why", "when", "on_failure", "if_stopped_here"}


@dataclass(frozen=True)
class WrittenPlaybook:
    """A playbook beside the text that it was read from: its data with templates unfilled, and the place of each value."""

    playbook: Playbook
    data: Mapping[str, Data]
    sources: Sources


def load_file(path: Path, *, values: Mapping[str, str] | None = None) -> Playbook:
    """Load a playbook from a file, as `load_written_file` does."""
    return load_written_file(path, values=values).playbook


def load_written_file(path: Path, *, values: Mapping[str, str] | None = None) -> WrittenPlaybook:
    """Load a playbook from a file; values: inputs as typed.

    A symlink is resolved first: includes are relative to the real file, and a resume reads it again.
    Raises Faulty with all faults, or BadInput if the file can't be read.
    """
    real = _behind(path)
    linked = f" (the playbook {path} is a link to {real}, and its files lie beside that)" if real != path else ""
    return load_written(real.name, from_disk(real.parent, linked=linked), shown=str(real), values=values)


def _behind(path: Path) -> Path:
    """The file that a symlink points to, relative to the working directory if possible."""
    if not path.is_symlink():
        return path
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise BadInput(f"cannot read {str(path)!r}: it is a link that leads nowhere ({error})") from error
    here = Path.cwd()
    return real.relative_to(here) if real.is_relative_to(here) and not path.is_absolute() else real


def load(
    name: str,
    read: Reader,
    *,
    shown: str = "",
    values: Mapping[str, str] | None = None,
    kept: Mapping[str, str] | None = None,
) -> Playbook:
    """Load a playbook by file name through a reader (from disk, or the copy in a trail).

    kept: for a trail's copy, the recorded hashes of its programs; None: they are computed from the files.
    """
    return load_written(name, read, shown=shown, values=values, kept=kept).playbook


def load_written(
    name: str,
    read: Reader,
    *,
    shown: str = "",
    values: Mapping[str, str] | None = None,
    kept: Mapping[str, str] | None = None,
) -> WrittenPlaybook:
    """As `load`, with the text beside it."""
    sources = _read(name, read, shown=shown or name)
    sources.kept = kept is not None
    data = _merge(sources, read)
    sources.stop_if_faulty()
    _header(sources, data)
    _files(sources, data, read)
    inputs = given.resolve(sources, data, values)
    sources.stop_if_faulty()
    filled = fill_data(sources, data, (), {"inputs": inputs, **inputs})
    if not isinstance(filled, dict):
        raise TypeError("a mapping stays a mapping")
    return WrittenPlaybook(_playbook(sources, filled, data, inputs=inputs, kept=kept), data, sources)


# ─── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _read(name: str, read: Reader, *, shown: str) -> Sources:
    text = read(name)
    sources = Sources(parse(text, shown))
    sources.texts[name] = text
    return sources


def _merge(sources: Sources, read: Reader) -> dict[str, Data]:
    """Merge the playbook with its included files; a name defined twice is a fault."""
    main = sources.main.data
    if not isinstance(main, dict):
        sources.fault((), "cannot read this as a playbook: it must be a mapping that begins with `runbook: 1`")
        return {}
    data = dict(main)
    wanted = main.get("include", [])
    if not isinstance(wanted, str | list):
        sources.fault(("include",), "cannot read include: it must be a file name, or a list of them")
        return data
    for index, name in enumerate([wanted] if isinstance(wanted, str) else wanted):
        at: Place = ("include",) if isinstance(wanted, str) else ("include", index)
        try:
            text = read(str(name))
            document = parse(text, str(Path(sources.main.file).parent / str(name)))
        except Faulty as error:
            sources.faults.extend(error.faults)
            continue
        except BadInput as error:
            sources.fault(at, str(error))
            continue
        sources.texts[str(name)] = text
        sources.included.append(document)
        _take_in(sources, data, document)
    return data


def _take_in(sources: Sources, data: dict[str, Data], document: YamlDocument) -> None:
    included = document.data
    if not isinstance(included, dict):
        sources.faults.append(Fault(document.mark(()), "cannot include this: it must be a mapping"))
        return
    for key, value in included.items():
        if key not in SHARED:
            shares = f"an included file shares only {', '.join(sorted(SHARED))}"
            sources.faults.append(Fault(document.key_mark((key,)), f"cannot include {key!r}: {shares}"))
        elif key == "runbook":
            _format(sources, value, document.mark((key,)))
        elif key not in data:
            data[key] = value
            sources.origin[key] = document
        else:
            _join(sources, data, document, key)


def _join(sources: Sources, data: dict[str, Data], document: YamlDocument, key: str) -> None:
    """Merge a key that both define: two mappings are united if they have no name in common."""
    mine, theirs = data[key], document.data[key] if isinstance(document.data, dict) else None
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        there = document.mark((key,))
        sources.fault((key,), f"cannot define {key!r} twice: it stands in {there} already", key=True)
        return
    for name in sorted(set(theirs) & set(mine)):
        there = document.mark((key, name))
        sources.fault((key, name), f"cannot define {key}.{name} twice: it stands in {there} already", key=True)
    for name in set(theirs) - set(mine):
        sources.origin[f"{key}.{name}"] = document
    data[key] = {**theirs, **mine}


def _header(sources: Sources, data: dict[str, Data]) -> None:
    for key in data:
        if key not in HEADER:
            sources.fault((key,), f"unknown key {key!r}{near(key, HEADER)}", key=True)
    _format(sources, data.get("runbook"), sources.mark(("runbook",)))
    for key in ("name", "title", "steps"):
        if not data.get(key):
            sources.fault((), f"cannot run without `{key}:`")


def _format(sources: Sources, written: Data, mark: Mark) -> None:
    if written != FORMAT or isinstance(written, bool):
        message = f"cannot read format {written!r}: write `runbook: {FORMAT}` as the first line"
        sources.faults.append(Fault(mark, message))


def _files(sources: Sources, data: Data, read: Reader, path: Place = ()) -> None:
    """Replace every `{file: name.sql}` by that file's text, so that the text is part of the digest."""
    if isinstance(data, dict):
        for key, value in data.items():
            if isinstance(value, dict) and set(value) == {"file"} and isinstance(value["file"], str):
                try:
                    sources.files[*path, key] = value["file"]
                    data[key] = sources.texts[value["file"]] = read(value["file"])
                except BadInput as error:
                    sources.fault((*path, key), str(error))
            else:
                _files(sources, value, read, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            _files(sources, value, read, (*path, index))


# ─── building ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _playbook(
    sources: Sources,
    data: dict[str, Data],
    raw: dict[str, Data],
    *,
    inputs: Mapping[str, JsonValue],
    kept: Mapping[str, str] | None,
) -> Playbook:
    queries = named_queries(sources, data.get("queries", {}))
    shapes = declared_shapes(sources, data.get("shapes", {}), queries)
    limits = _mapping(data.get("limits"))
    builder = check_builder.Builder(sources, queries, limits=limits, inputs=inputs, shapes=shapes)
    builder.requires = tuple(_requires(sources, data.get("requires", [])))
    header: dict[str, Any] = {key: data[key] for key in data if key in _PLAIN}
    common = _policies(sources, data)
    built: dict[str, Any] = {
        **header,
        "db_schema": data.get("schema", "public"),
        "values": inputs,
        "queries": queries,
        "shapes": shapes,
        "requires": builder.requires,
        "preconditions": builder.checks(data.get("preconditions", []), ("preconditions",)),
        "entries": _entries(builder, data.get("steps", []), raw.get("steps", []), common),
        **_criteria(builder, data.get("success_criteria", [])),
        **_rollback(sources, data.get("rollback", "reverse")),
        "file": sources.main.file,
        "source": sources.texts,
    }
    asked = (*built["preconditions"], *built.get("success_criteria", ()))
    built["monitors"] = monitor_builder.monitors(builder, data.get("monitors", []), built["entries"], asked)
    builder.finish(built["entries"])
    builder.still(asked)
    _must_prove(sources, built)
    built |= _meaning(sources, raw, built, kept)
    playbook = validated(sources, Playbook, built, path=(), aliases={"db_schema": "schema"})
    _names(sources, data)
    sources.stop_if_faulty()
    if playbook is None:
        raise Faulty([])
    return playbook


def _criteria(builder: check_builder.Builder, data: Data) -> dict[str, Any]:
    """Read success_criteria: a list of checks, or {none: reason}."""
    if isinstance(data, dict):
        reason = data.get("none")
        if set(data) != {"none"} or not isinstance(reason, str) or not reason.strip():
            builder.sources.fault(
                ("success_criteria",), "cannot read success_criteria: write a list of checks, or {none: the reason}"
            )
        return {"unproven": str(reason or "-")}
    return {"success_criteria": builder.checks(data, ("success_criteria",))}


def _must_prove(sources: Sources, built: Mapping[str, Any]) -> None:
    """Require a success criterion that decides, or an explicit `none`; reported only if there are no other faults."""
    every = [*built.get("success_criteria", ()), *(one for entry in built["entries"] for one in entry.success_criteria)]
    decides = any(not check.record_only and not check.due for check in every)
    if decides and built.get("unproven"):
        sources.fault(("success_criteria",), "cannot say `none` here: a step has success criteria")
    if not decides and not built.get("unproven") and not sources.kept and not sources.faults:
        sources.fault(
            (),
            "cannot tell whether this playbook has done what it is for: it has no success criterion that decides; write "
            "one under `success_criteria:`, or `success_criteria: {none: the reason}`, and it ends as unproven",
        )


def _meaning(
    sources: Sources, raw: Mapping[str, Data], built: Mapping[str, Any], kept: Mapping[str, str] | None
) -> dict[str, Any]:
    """The playbook's digest, its programs, and the included names that it doesn't use."""
    idle = included.unused(raw, included=sources.origin, spoken=digest.SPOKEN)
    probes = [*built["preconditions"], *built.get("success_criteria", ())]
    uses = [one for entry in built["entries"] for one in programs.of_entry(entry)] + programs.used((), probes)
    files = programs.beside(uses, Path(sources.main.file).parent) if kept is None else kept
    meant = included.without({key: value for key, value in raw.items() if key != "include"}, idle)
    return {
        "digest": digest.of_playbook(meant, files),
        "programs": files,
        "idle": {key: frozenset(names) for key, names in idle.items()},
    }


_PLAIN = _ABOUT | {
    "name",
    "contacts",
    "window",
    "open",
    "scope",
    "target",
    "limits",
    "inputs",
    "search_path",
    "removes",
}


def _policies(sources: Sources, data: Mapping[str, Data]) -> dict[str, Data]:
    """The playbook's lock, timeout and retry, which steps may override in part. Faults are reported once, here."""
    kinds: dict[str, type[Model]] = {"lock": LockPolicy, "timeout": Timeouts, "retry": RetryPolicy}
    return {
        key: data[key]
        for key, kind in kinds.items()
        if key in data and validated(sources, kind, data[key], path=(key,)) is not None
    }


def _policy(common: Data, own: Data) -> Data:
    return {**common, **own} if isinstance(common, dict) and isinstance(own, dict) else own


def _entries(builder: check_builder.Builder, steps: Data, written: Data, common: dict[str, Data]) -> tuple[Entry, ...]:
    if not isinstance(steps, list):
        builder.sources.fault(("steps",), "cannot read steps: it must be a list")
        return ()
    raw = written if isinstance(written, list) else []
    entries = []
    for index, step in enumerate(steps):
        entry = _entry(builder, step, raw[index], ("steps", index), common)
        if entry is not None:
            entries.append(entry)
    for n, entry in enumerate(entries):
        if isinstance(entry.step, Followed):
            entry.step.followed_by([one.step for one in entries[n + 1 :]])
    return tuple(entries)


def _entry(
    builder: check_builder.Builder, data: Data, written: Data, path: Place, common: dict[str, Data]
) -> Entry | None:
    sources = builder.sources
    if not isinstance(data, dict):
        sources.fault(path, "cannot read this step: it must be a mapping with `id:` and `type:`")
        return None
    builder.claim(data.get("id"), path)
    kinds = registry.step_types()
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        sources.fault(
            (*path, "type"), f"unknown step type {kind!r}{near(str(kind), kinds)}; `runbook steps` lists them"
        )
        return None
    own = {key: value for key, value in data.items() if key not in COMMON}
    step = validated(sources, kinds[kind], own, path=path, known={"queries": builder.queries}, also=COMMON)
    for figure in _figures_of(step):
        builder.must_know(figure, (*path, "params"))
    policies = ("lock", "timeout", "retry")
    shared: dict[str, Any] = {**common, **{key: _policy(common.get(key), data[key]) for key in policies if key in data}}
    shared |= {key: data[key] for key in ("why", "on_failure", "if_stopped_here") if key in data}
    earlier = builder.step_names(kinds[kind])
    entry = {
        **shared,
        "id": data.get("id"),
        "step": step,
        "when": builder.condition(data["when"], (*path, "when"), step=str(data.get("id"))) if "when" in data else None,
        "preconditions": builder.checks(data.get("preconditions", []), (*path, "preconditions")),
        "success_criteria": builder.checks(data.get("success_criteria", []), (*path, "success_criteria"), own=earlier),
        "guards": builder.guards(data.get("guards", []), (*path, "guards"), kinds[kind]),
        "mark": sources.mark(path),
        "digest": digest.of_step(written),
    }
    builder.done(str(data.get("id")), kinds[kind])
    return validated(sources, Entry, entry, path=path) if step is not None else None


def _figures_of(step: object) -> tuple[str, ...]:
    return step.figures() if isinstance(step, UsesFigures) else ()


def named_queries(sources: Sources, data: Data) -> dict[str, Query]:
    queries: dict[str, Query] = {}
    for name, text in _mapping(data).items():
        if isinstance(text, str):
            queries[name] = Query(name=name, texts={"": text})
        elif (
            isinstance(text, dict)
            and text
            and set(text) <= {"postgresql", "sqlite"}
            and all(isinstance(t, str) for t in text.values())
        ):
            queries[name] = Query(name=name, texts={key: str(value) for key, value in text.items()})
        else:
            sources.fault(
                ("queries", name),
                f"cannot read query {name!r}: write SQL, or one text for each of postgresql and sqlite",
            )
    return queries


def _requires(sources: Sources, data: Data) -> list[Requirement]:
    found: list[Requirement] = []
    for index, one in enumerate(data if isinstance(data, list) else []):
        requirement = validated(sources, Requirement, one, path=("requires", index))
        if requirement is not None:
            if requirement.short in RESERVED and not sources.kept:
                sources.fault(("requires", index), f"cannot use `as: {requirement.short}`: the word is reserved")
            if requirement.short and requirement.short in {one.short for one in found}:
                sources.fault(("requires", index), f"cannot use `as: {requirement.short}` for two playbooks")
            found.append(requirement)
    if not isinstance(data, list):
        sources.fault(("requires",), "cannot read requires: it must be a list of playbook names")
    return found


def _rollback(sources: Sources, data: Data) -> dict[str, Any]:
    if data == "reverse":
        return {"rollback": "reverse"}
    if isinstance(data, dict) and set(data) == {"none"} and isinstance(data["none"], str) and data["none"].strip():
        return {"rollback": "none", "rollback_reason": data["none"]}
    if isinstance(data, list) and all(isinstance(one, str) for one in data):
        return {"rollback": "reverse", "rollback_steps": tuple(str(one) for one in data)}
    sources.fault(("rollback",), "cannot read rollback: write `reverse`, a list of step ids, or {none: the reason}")
    return {}


def _names(sources: Sources, data: dict[str, Data]) -> None:
    if isinstance(name := data.get("name"), str) and not re.match(NAME, name):
        sources.fault(
            ("name",), f"cannot use the name {name!r}: small letters, digits and hyphens, beginning with a letter"
        )
    for key in ("limits", "queries", "shapes", "inputs"):
        for one in _mapping(data.get(key)):
            if not re.match(ID, one):
                sources.fault(
                    (key, one),
                    f"cannot use the name {one!r}: small letters, digits and _, so that `that:` can say it",
                    key=True,
                )
    for one in RESERVED.intersection(_mapping(data.get("inputs"))) if not sources.kept else ():
        sources.fault(("inputs", one), f"cannot use the name {one!r}: the word is reserved", key=True)
    ids = (
        {step.get("id") for step in steps if isinstance(step, dict)}
        if isinstance(steps := data.get("steps"), list)
        else set()
    )
    for index, step in enumerate(order if isinstance(order := data.get("rollback"), list) else []):
        if step not in ids:
            sources.fault(("rollback", index), f"cannot find the step {step!r}{near(str(step), {str(i) for i in ids})}")


def _mapping(data: Data) -> dict[str, Data]:
    return data if isinstance(data, dict) else {}
