"""Builds a playbook's monitors: checks that are asked after the run, and may name its figures as run.x."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.common.durations import age
from runner.common.plain_data import Data
from runner.playbook.check_builder import Builder, changing_names, kinds_of
from runner.playbook.model import Check, Entry, Monitor
from runner.playbook.schedule import shortest_s
from runner.playbook.sources import Place, validated
from steps.contract import Probe

KEYS = ("every", "alert", "for", "last", "against", "missed", "takes_at_most")
CHANGE = "change_pct"  # change_pct.x: by how many per cent x is more than in the run
_FIELDS = {"for": "alert_for"}  # where the key is no name for a field
_NOT_HERE = {"due": "a monitor decides here", "still": "it belongs to checks of a checkpoint"}


def monitors(
    builder: Builder, data: Data, entries: tuple[Entry, ...], criteria: tuple[Check, ...]
) -> tuple[Monitor, ...]:
    """Build the list under `monitors:`."""
    if not isinstance(data, list):
        builder.sources.fault(("monitors",), "cannot read monitors: it must be a list of checks")
        return ()
    steps = steps_of_checks(entries)
    asked = {check.id: check for check in (*_of_steps(entries), *criteria)}
    found = [_monitor(builder.after_the_run(steps), one, ("monitors", index), asked) for index, one in enumerate(data)]
    return tuple(one for one in found if one is not None)


def steps_of_checks(entries: tuple[Entry, ...]) -> dict[str, str]:
    """Each check of a step → the step: a monitor may name its figures as run.STEP.CHECK.x, too."""
    return {check.id: entry.id for entry in entries for check in (*entry.preconditions, *entry.success_criteria)}


def _of_steps(entries: tuple[Entry, ...]) -> Iterator[Check]:
    return (check for entry in entries for check in (*entry.preconditions, *entry.success_criteria))


def _monitor(later: Builder, data: Data, path: Place, asked: Mapping[str, Check]) -> Monitor | None:
    if not isinstance(data, dict):
        later.sources.fault(path, "cannot read this monitor: it must be a mapping with `id:`, `check:` and `every:`")
        return None
    for key in sorted(_NOT_HERE.keys() & data.keys()):
        later.sources.fault((*path, key), f"cannot use `{key}` here: {_NOT_HERE[key]}", key=True)
    changes = (CHANGE,) if "against" in data else ()
    plain = {key: value for key, value in data.items() if key not in KEYS and key not in _NOT_HERE}
    check = later.check(plain, path, own=None, changes=changes, sampled="a monitor", decided="alert" in data)
    if check is None or not isinstance(check.probe, Probe):
        return None
    names = changing_names(check.probe, later.own_names(check.probe), changes)
    values: dict[str, object] = {_FIELDS.get(key, key): data[key] for key in KEYS if key in data}
    if "alert" in data:
        values["alert"] = later.expression(data, "alert", path, names, kinds_of(check.probe.Result))
    values["against"] = _against(later, data.get("against", ""), path, check.probe, asked)
    made = validated(later.sources, Monitor, {"check": check, **values}, path=path, aliases={"alert_for": "for"})
    if made is not None:
        for key, why in _faults(made, check.probe):
            later.sources.fault((*path, key), why, key=key == "check")
    return made


def _against(later: Builder, written: Data, path: Place, probe: Probe, asked: Mapping[str, Check]) -> str:
    """The step or check of the run to compare with: `run` means the check that asks the same."""
    if written == "":
        return ""
    if written == "run":
        same = [name for name, check in asked.items() if check.probe == probe]
        if same:
            return same[0]
        later.sources.fault(
            (*path, "against"),
            "cannot compare with the run: no check of it asks the same; write run.ID for another one",
        )
        return ""
    name = str(written).removeprefix("run.").rpartition(".")[2]
    if not str(written).startswith("run.") or not later.knows(f"run.{name}"):
        later.sources.fault(
            (*path, "against"), f"cannot compare with {written!r}: write run, or run.ID of a step or check"
        )
        return ""
    return name


def _faults(monitor: Monitor, probe: Probe) -> Iterator[tuple[str, str]]:
    if probe.runs_programs:
        yield (
            "check",
            f"cannot monitor with {probe.kind}: it runs a program, and monitors are read from the ledger, which has none",
        )
    shortest = shortest_s(monitor.every)
    if monitor.takes_at_most >= shortest:
        key = "takes_at_most" if "takes_at_most" in monitor.model_fields_set else "every"
        most, often = age(monitor.takes_at_most), age(shortest)
        yield (
            key,
            f"cannot look for up to {most} (takes_at_most) every {often}: it would still look when it is due again",
        )


def share(monitor: Monitor) -> str:
    """How much of the time the monitor may take, in words for validate and plan."""
    shortest = shortest_s(monitor.every)
    percent = 100 * monitor.takes_at_most / shortest
    return f"takes at most {age(monitor.takes_at_most)} of {age(shortest)} ({percent:.2g} %)"
