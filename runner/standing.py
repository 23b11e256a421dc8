"""Gates that an edit took away or weakened: as they stood when the run began, they stay in force."""

from __future__ import annotations

from collections.abc import Mapping

from runner.model import Check, Entry, Playbook
from steps.base import Gate, GateNeeds


def with_gates_of(playbook: Playbook, before: Playbook) -> Playbook:
    """The changed playbook with the gates of `before`: a removed one in its place again, a changed one beside the new one."""
    changed = {
        entry.id: entry
        for entry in before.entries
        if isinstance(entry.step, Gate) and not _same(entry, playbook, before)
    }
    if not changed:
        return playbook
    entries = list(playbook.entries)
    for name, gate in changed.items():
        if name not in {entry.id for entry in entries}:
            entries.insert(_place(name, before, [entry.id for entry in entries]), gate)
    fields = {name: getattr(playbook, name) for name in Playbook.model_fields}
    return Playbook.model_construct(**{**fields, "entries": tuple(entries), "kept_gates": changed})


def needs(entry: Entry, kept: Mapping[str, Entry]) -> list[GateNeeds]:
    """All that a gate waits for: as it is written now, and as it stood when the run began.

    Where it named who approves, their approval of what would be done now is what lifts the rest of the old one.
    """
    old = kept.get(entry.id)
    now = [entry.step.needs()] if isinstance(entry.step, Gate) and entry is not old else []
    if old is None or not isinstance(old.step, Gate):
        return now
    then = old.step.needs()
    return [*now, GateNeeds(approval=then.approval) if then.approval is not None else then]


def checks(entry: Entry, kept: Mapping[str, Entry]) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """The gate's checks as they are written now, and those that stay from when the run began."""
    old = kept.get(entry.id)
    now = (*entry.preconditions, *entry.success_criteria) if entry is not old else ()
    if old is None or not isinstance(old.step, Gate) or old.step.needs().approval is not None:
        return now, ()
    return now, (*old.preconditions, *old.success_criteria)


def can_shut(gate: Entry, kept: Mapping[str, Entry]) -> bool:
    """Whether a gate that was passed may have to be asked again; one that only looks back is not."""
    every = [check for group in checks(gate, kept) for check in group]
    asks = [one for one in needs(gate, kept) if one.approval is not None or one.evidence or one.not_after]
    return bool(asks) or any(check.still for check in every)


def _same(gate: Entry, playbook: Playbook, before: Playbook) -> bool:
    """Whether the gate asks for the same now, also by the limits that it names."""
    now = next((entry for entry in playbook.entries if entry.id == gate.id), None)
    if now is None or now.step != gate.step:
        return False
    mine, theirs = ([question(check) for check in (*one.preconditions, *one.success_criteria)] for one in (gate, now))
    return mine == theirs and all(playbook.limits.get(name) == before.limits.get(name) for name in _limits(gate))


def question(check: Check) -> object:
    """What a check asks, wherever it is written."""
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


def _place(name: str, before: Playbook, now: list[str]) -> int:
    """Where a removed gate stands: before the first of those that came after it, else after what came before it."""
    ids = [entry.id for entry in before.entries]
    index = ids.index(name)
    later = [now.index(one) for one in ids[index + 1 :] if one in now]
    earlier = [now.index(one) + 1 for one in ids[:index] if one in now]
    return min(later) if later else max(earlier, default=0)
