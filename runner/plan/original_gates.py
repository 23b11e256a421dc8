"""Keeps gates in force as they were when the run started, even if an edit removed or weakened them."""

from __future__ import annotations

from collections.abc import Mapping

from runner.playbook.model import Check, Entry, Playbook
from steps.contract import Gate, GateNeeds


def with_gates_of(playbook: Playbook, before: Playbook) -> Playbook:
    """The edited playbook with the gates of `before`: removed ones reinserted, changed ones required as well as the new ones.

    Requirements of `before` are kept, too.
    """
    entries = list(playbook.entries)
    gates = [entry for entry in before.entries if isinstance(entry.step, Gate)]
    for gate in gates:
        _put(gate, entries, before)
    changed = {gate.id: gate for gate in gates if not _same(gate, playbook, before)}
    required = (*playbook.requires, *(one for one in before.requires if one not in playbook.requires))
    if not changed and [entry.id for entry in entries] == list(playbook.ids) and required == playbook.requires:
        return playbook
    fields = {name: getattr(playbook, name) for name in Playbook.model_fields}
    kept = {"entries": tuple(entries), "kept_gates": changed, "requires": required}
    return Playbook.model_construct(**{**fields, **kept})


def replaced(playbook: Playbook, before: Playbook) -> list[str]:
    """The gates of `before` whose ids are now used by other kinds of steps."""
    now = {entry.id: entry for entry in playbook.entries}
    gates = [entry.id for entry in before.entries if isinstance(entry.step, Gate)]
    return [name for name in gates if name in now and not isinstance(now[name].step, Gate)]


def needs(entry: Entry, kept: Mapping[str, Entry]) -> list[GateNeeds]:
    """All needs of a gate: as written now, and as it was when the run started.

    If the original gate needed an approval, that approval, given for the edited playbook, replaces its other needs.
    """
    old = kept.get(entry.id)
    now = [entry.step.needs()] if isinstance(entry.step, Gate) and entry is not old else []
    if old is None or not isinstance(old.step, Gate):
        return now
    then = old.step.needs()
    return [*now, GateNeeds(approval=then.approval) if then.approval is not None else then]


def checks(entry: Entry, kept: Mapping[str, Entry]) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """The gate's current checks, and the original ones that stay in force."""
    old = kept.get(entry.id)
    now = (*entry.preconditions, *entry.success_criteria) if entry is not old else ()
    if old is None or not isinstance(old.step, Gate) or old.step.needs().approval is not None:
        return now, ()
    return now, (*old.preconditions, *old.success_criteria)


def can_shut(gate: Entry, kept: Mapping[str, Entry]) -> bool:
    """Whether a passed gate can close again, so that it must be asked again."""
    every = [check for group in checks(gate, kept) for check in group]
    asks = [one for one in needs(gate, kept) if one.approval is not None or one.evidence or one.not_after]
    return bool(asks) or any(check.still for check in every)


def _same(gate: Entry, playbook: Playbook, before: Playbook) -> bool:
    """Whether the gate is unchanged: its needs, checks, the limits that they use, and its on_failure."""
    now = next((entry for entry in playbook.entries if entry.id == gate.id), None)
    if now is None or now.step != gate.step or now.on_failure != gate.on_failure or not _same_condition(gate, now):
        return False
    mine, theirs = ([question(check) for check in (*one.preconditions, *one.success_criteria)] for one in (gate, now))
    return mine == theirs and all(playbook.limits.get(name) == before.limits.get(name) for name in _limits(gate))


def _same_condition(gate: Entry, now: Entry) -> bool:
    mine, theirs = (question(one.when) if one.when is not None else None for one in (gate, now))
    return mine == theirs


def question(check: Check) -> object:
    """What a check asks, independent of its place in the file."""
    return (
        check.model_dump(include={"id", "due", "record_only", "judge", "within", "still"}),
        check.probe,
        check.that,
        check.warn,
    )


def _limits(gate: Entry) -> set[str]:
    expressions = [check.that for check in (*gate.preconditions, *gate.success_criteria) if check.that is not None]
    names = {name for one in expressions for name in one.names if name.startswith("limits.")}
    return {name.removeprefix("limits.") for name in names}


def _put(gate: Entry, entries: list[Entry], before: Playbook) -> None:
    """Reinsert a removed gate; move one that was moved behind a step it guards back in front of that."""
    now = next((entry for entry in entries if entry.id == gate.id), None)
    others = [entry for entry in entries if entry.id != gate.id]
    guarded, place = _place(gate, others, before)
    if now is not None and (not guarded or entries.index(now) <= place):
        place = entries.index(now)
    others.insert(place, _in_force(gate, now))
    entries[:] = others


def _in_force(gate: Entry, now: Entry | None) -> Entry:
    """The gate to use: the current one, but with the original on_failure if no approval can lift the original.

    An edit may take away its condition, but neither add one nor change it: a skipped gate asks nobody.
    """
    if now is None or not isinstance(gate.step, Gate) or not isinstance(now.step, Gate):
        return now or gate
    kept: dict[str, object] = {}
    if gate.step.needs().approval is None and now.on_failure != gate.on_failure:
        kept["on_failure"] = gate.on_failure
    if now.when is not None and not _same_condition(gate, now):
        kept["when"] = gate.when
    return now.model_copy(update=kept) if kept else now


def _place(gate: Entry, others: list[Entry], before: Playbook) -> tuple[bool, int]:
    """The index of a gate among the other steps, and whether a step that it guards determines it.

    A gate with an approval also guards new steps. One with criteria only does not: a new step may make these true.
    """
    index = before.ids.index(gate.id)
    ahead, behind = set(before.ids[:index]), set(before.ids[index + 1 :])
    approved = isinstance(gate.step, Gate) and gate.step.needs().approval is not None
    steps = [(n, one.id) for n, one in enumerate(others) if not isinstance(one.step, Gate)]
    guarded = [n for n, name in steps if name in behind or (approved and name not in ahead)]
    if guarded:
        return True, min(guarded)
    return False, max((n + 1 for n, one in enumerate(others) if one.id in ahead), default=0)
