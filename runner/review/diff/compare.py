"""Compares two versions of a playbook: settings, checks and guards one by one, steps by their ids, and their order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from runner.plan import plan
from runner.playbook.check_text import question
from runner.playbook.model import Check, Entry, Guard, Monitor, Playbook
from runner.playbook.yaml_reader import Mark
from runner.review.diff import decide
from runner.review.diff.change import Direction, PlaybookChange, Reach
from runner.review.diff.fields import FieldDifference, Versions, differences, same_sql, sql_diff
from steps.catalog.shape import DeclaredShape
from steps.contract import Gate, Query, Value
from steps.expressions.evaluate import Expression, parse
from steps.expressions.grammar import BadExpression

_OWN = frozenset(
    {
        "entries",
        "preconditions",
        "success_criteria",
        "rollback",
        "rollback_steps",
        "limits",
        "queries",
        "shapes",
        "monitors",
    }
)
_OF_ENTRY = frozenset({"id", "step", "when", "preconditions", "success_criteria", "guards"})
_OF_CHECK = frozenset({"id", "probe"})


@dataclass(frozen=True)
class PlaybookPair:
    """Two versions of one playbook."""

    old: Playbook
    new: Playbook

    @property
    def versions(self) -> Versions:
        folders = (str(Path(self.old.file).parent), str(Path(self.new.file).parent))
        return Versions(_limits(self.old), _limits(self.new), folders)

    def change(
        self,
        direction: Direction,
        subject: str,
        old: str,
        new: str,
        *,
        where: str = "",
        mark: Mark | None = None,
        why: str = "",
    ) -> PlaybookChange:
        """A change in one place of this playbook."""
        return PlaybookChange(direction, subject, old, new, mark, (Reach(self.new.name, where, direction),), why)


def _limits(playbook: Playbook) -> Mapping[str, Value]:
    return {f"limits.{name}": cast("Value", value) for name, value in playbook.limits.items()}


def changes(old: Playbook, new: Playbook) -> Iterator[PlaybookChange]:
    """All changes of meaning from one version to the other; none where only text for people differs."""
    pair = PlaybookPair(old, new)
    yield from _settings(pair)
    yield from _checks(pair, old.preconditions, new.preconditions, "precondition")
    yield from _steps(pair)
    yield from _checks(pair, old.success_criteria, new.success_criteria, "criterion")
    yield from _asked_again(pair, old.monitors, new.monitors, "monitor")
    yield from _way_back(pair)
    yield from _named(pair)


# ─── the playbook's own settings ────────────────────────────────────────────────────────────────────────────────────
def _settings(pair: PlaybookPair) -> Iterator[PlaybookChange]:
    for found in differences(pair.old, pair.new, pair.versions, skip=_OWN):
        yield _change(pair, found, subject="", where="", mark=None)


def _change(
    pair: PlaybookPair, found: FieldDifference, *, subject: str, where: str, mark: Mark | None, idle: bool = False
) -> PlaybookChange:
    """idle: it is about a check that decides nothing in either version."""
    direction = Direction.NEUTRAL if idle else found.direction
    path = ".".join(found.path)
    words = " ".join(part for part in (subject, path) if part)
    change = pair.change(direction, words, found.old, found.new, where=where, mark=mark, why=found.why)
    return replace(change, lines=found.lines)


# ─── checks and guards ──────────────────────────────────────────────────────────────────────────────────────────────
def _checks(
    pair: PlaybookPair, old: Sequence[Check], new: Sequence[Check], role: str, step: str = ""
) -> Iterator[PlaybookChange]:
    before, after = ({one.id: one for one in checks} for checks in (old, new))
    for name in dict.fromkeys((*before, *after)):
        where = f"{f'step {step}, ' if step else ''}{role} {name}"
        if name not in after:
            yield _removed(pair, where, before[name], _decides(before[name]))
        elif name not in before:
            yield _added(pair, where, after[name], _decides(after[name]))
        else:
            yield from _check(pair, where, before[name], after[name])


def _decides(check: Check) -> bool:
    return not check.record_only and not check.due


def _removed(pair: PlaybookPair, where: str, check: Check, counts: bool) -> PlaybookChange:  # noqa: FBT001
    direction = Direction.WEAKENS if counts else Direction.NEUTRAL
    return pair.change(direction, where, question(check) or check.due, "", where=where)


def _added(pair: PlaybookPair, where: str, check: Check, counts: bool) -> PlaybookChange:  # noqa: FBT001
    direction = Direction.STRENGTHENS if counts else Direction.NEUTRAL
    return pair.change(direction, where, "", question(check) or check.due, where=where, mark=check.mark)


def _check(pair: PlaybookPair, where: str, old: Check, new: Check) -> Iterator[PlaybookChange]:
    idle = not _decides(old) and not _decides(new)
    for found in differences(old, new, pair.versions, skip=_OF_CHECK):
        yield _change(pair, found, subject=where, where=where, mark=new.mark, idle=idle)
    yield from _probe(pair, where, old, new, idle=idle)


def _probe(pair: PlaybookPair, where: str, old: Check, new: Check, *, idle: bool) -> Iterator[PlaybookChange]:
    if old.probe is None or new.probe is None or type(old.probe) is not type(new.probe):
        if old.probe != new.probe:
            direction = Direction.NEUTRAL if idle else Direction.CHANGES
            kinds = [one.probe.kind if one.probe is not None else "the step's own figures" for one in (old, new)]
            yield pair.change(direction, f"{where} check", kinds[0], kinds[1], where=where, mark=new.mark)
        return
    for found in differences(old.probe, new.probe, pair.versions):
        yield _change(pair, found, subject=where, where=where, mark=new.mark, idle=idle)


def _guards(pair: PlaybookPair, old: Entry, new: Entry) -> Iterator[PlaybookChange]:
    yield from _asked_again(pair, old.guards, new.guards, f"step {new.id}, guard")


def _asked_again(
    pair: PlaybookPair, old: Sequence[Guard | Monitor], new: Sequence[Guard | Monitor], role: str
) -> Iterator[PlaybookChange]:
    """Guards or monitors: checks that are asked again and again, by their ids."""
    before, after = ({one.check.id: one for one in asked} for asked in (old, new))
    for name in dict.fromkeys((*before, *after)):
        where = f"{role} {name}"
        if name not in after:
            yield _removed(pair, where, before[name].check, _decides(before[name].check))
        elif name not in before:
            yield _added(pair, where, after[name].check, _decides(after[name].check))
        else:
            yield from _asked_otherwise(pair, where, before[name], after[name])


def _asked_otherwise(
    pair: PlaybookPair, where: str, old: Guard | Monitor, new: Guard | Monitor
) -> Iterator[PlaybookChange]:
    idle = not _decides(old.check) and not _decides(new.check)
    yield from _check(pair, where, old.check, new.check)
    one_alert = isinstance(old, Monitor) and isinstance(new, Monitor) and (old.alert is None) != (new.alert is None)
    for found in differences(old, new, pair.versions, skip=frozenset({"check", *["alert"] * one_alert})):
        yield _change(pair, found, subject=where, where=where, mark=new.check.mark, idle=idle)
    if isinstance(old, Monitor) and isinstance(new, Monitor) and one_alert:
        yield _alert(pair, where, old, new, idle=idle)


def _alert(pair: PlaybookPair, where: str, old: Monitor, new: Monitor, *, idle: bool) -> PlaybookChange:
    """An expression for the alert that is new or gone: without one it alerts where the check doesn't pass."""
    silent = [_silent(one) for one in (old, new)]
    direction = Direction.CHANGES
    if silent[0] is not None and silent[1] is not None:
        direction = decide.compare(silent[0], silent[1], before=pair.versions.before, after=pair.versions.after)
    was, now = (one.alert.text if one.alert is not None else "where it does not pass" for one in (old, new))
    direction = Direction.NEUTRAL if idle else direction
    return pair.change(direction, f"{where} alert", was, now, where=where, mark=new.check.mark)


def _silent(monitor: Monitor) -> Expression | None:
    """What holds for as long as it doesn't alert; None where typed fields of its probe decide that, too."""
    if monitor.alert is None:
        probe = monitor.check.probe
        return None if probe is not None and probe.decides() else monitor.check.that
    try:
        return parse(f"not ({monitor.alert.text})")
    except BadExpression:  # longer than an expression may be
        return None


# ─── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _steps(pair: PlaybookPair) -> Iterator[PlaybookChange]:
    before, after = ({entry.id: entry for entry in one.entries} for one in (pair.old, pair.new))
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            yield _step_gone(pair, before[name])
        elif name not in before:
            yield _step_new(pair, after[name])
        else:
            yield from _step(pair, before[name], after[name])
    yield from _order(pair)


def _step_gone(pair: PlaybookPair, entry: Entry) -> PlaybookChange:
    direction = Direction.WEAKENS if isinstance(entry.step, Gate) else Direction.CHANGES
    what = "gate" if isinstance(entry.step, Gate) else "step"
    return pair.change(direction, f"{what} {entry.id}", entry.step.describe(), "")


def _step_new(pair: PlaybookPair, entry: Entry) -> PlaybookChange:
    gate = isinstance(entry.step, Gate)
    direction = Direction.STRENGTHENS if gate else Direction.CHANGES
    subject = f"{'gate' if gate else 'step'} {entry.id}"
    return pair.change(direction, subject, "", entry.step.describe(), mark=entry.mark)


def _step(pair: PlaybookPair, old: Entry, new: Entry) -> Iterator[PlaybookChange]:
    where = f"step {new.id}"
    for found in differences(old, new, pair.versions, skip=_OF_ENTRY):
        yield _change(pair, found, subject=where, where=where, mark=new.mark)
    if type(old.step) is not type(new.step):
        kinds = old.step.kind, new.step.kind
        yield pair.change(Direction.CHANGES, f"{where} type", kinds[0], kinds[1], where=where, mark=new.mark)
    else:
        for found in differences(old.step, new.step, pair.versions):
            yield _change(pair, found, subject=where, where=where, mark=new.mark)
    yield from _condition(pair, where, old.when, new.when)
    yield from _one_way(pair, where, old, new)
    yield from _checks(pair, old.preconditions, new.preconditions, "precondition", new.id)
    yield from _guards(pair, old, new)
    yield from _checks(pair, old.success_criteria, new.success_criteria, "criterion", new.id)


def _condition(pair: PlaybookPair, where: str, old: Check | None, new: Check | None) -> Iterator[PlaybookChange]:
    """Whether a step is carried out at all: what decides that is never harmless."""
    if old is not None and new is not None:
        for one in _check(pair, f"{where}, condition", old, new):
            yield replace(one, direction=one.direction.undecided, reaches=tuple(_undecided(one.reaches)))
    elif old is not None or new is not None:
        was, now = (question(one) if one is not None else "always" for one in (old, new))
        yield pair.change(Direction.CHANGES, f"{where} when", was, now, where=where)


def _undecided(reaches: Sequence[Reach]) -> Iterator[Reach]:
    yield from (replace(one, direction=one.direction.undecided) for one in reaches)


def _one_way(pair: PlaybookPair, where: str, old: Entry, new: Entry) -> Iterator[PlaybookChange]:
    before, after = plan.one_way(old), plan.one_way(new)
    if bool(before) != bool(after):
        direction = Direction.WEAKENS if after else Direction.STRENGTHENS
        was, now = (f"one way: {reason}" if reason else "yes" for reason in (before, after))
        yield pair.change(direction, f"{where} taking back", was, now, where=where, mark=new.mark)


def _order(pair: PlaybookPair) -> Iterator[PlaybookChange]:
    """Steps that stand elsewhere among those that both versions have; a change that left a gate behind it is weaker."""
    both = [name for name in pair.new.ids if name in pair.old.ids]
    stayed = _longest_common([name for name in pair.old.ids if name in both], both)
    for name in both:
        entry, where = pair.new.entry(name), f"step {name}"
        passed = _gates_passed(pair, name) if entry.step.changes else ""
        if passed:
            was, now, direction = f"after {passed}", f"before {passed}", Direction.WEAKENS
        elif name not in stayed:
            was, now = (f"after {_before(one.ids, name)}" for one in (pair.old, pair.new))
            direction = Direction.STRENGTHENS if _gate_only_earlier(pair, name) else Direction.CHANGES
        else:
            continue
        yield pair.change(direction, f"{where} order", was, now, where=where, mark=entry.mark)


def _gates_passed(pair: PlaybookPair, name: str) -> str:
    """Gates that stood before this step, and stand after it now."""
    passed = (_gates_before(pair.old, name) - _gates_before(pair.new, name)) & set(pair.new.ids)
    return ", ".join(gate for gate in pair.old.ids if gate in passed)


def _gate_only_earlier(pair: PlaybookPair, name: str) -> bool:
    """Whether this is a gate that stands before all that it stood before, and before further steps now."""
    before, after = (set(one.ids[: one.ids.index(name)]) for one in (pair.old, pair.new))
    return isinstance(pair.new.entry(name).step, Gate) and after & set(pair.old.ids) <= before


def _gates_before(playbook: Playbook, name: str) -> set[str]:
    before = playbook.ids[: playbook.ids.index(name)]
    return {one for one in before if isinstance(playbook.entry(one).step, Gate)}


def _before(ids: Sequence[str], name: str) -> str:
    index = ids.index(name)
    return ids[index - 1] if index else "the beginning"


def _longest_common(old: Sequence[str], new: Sequence[str]) -> set[str]:
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return {name for block in blocks for name in new[block.b : block.b + block.size]}


# ─── the way back ───────────────────────────────────────────────────────────────────────────────────────────────────
def _way_back(pair: PlaybookPair) -> Iterator[PlaybookChange]:
    old, new = (_taken_back(one) for one in (pair.old, pair.new))
    kept = [name for name in old if name not in new and name in pair.new.ids]
    gained = [name for name in new if name not in old and name in pair.old.ids]
    direction = Direction.WEAKENS if kept else Direction.STRENGTHENS if gained else Direction.CHANGES
    both = [[name for name in names if name in old and name in new] for names in (old, new)]
    if kept or gained or both[0] != both[1]:
        why = f"a rollback leaves {', '.join(kept)} standing" if kept else ""
        yield pair.change(direction, "rollback", _rollback(pair.old), _rollback(pair.new), why=why)


def _taken_back(playbook: Playbook) -> list[str]:
    """The steps that a rollback undoes, in its order."""
    if playbook.rollback == "none":
        return []
    order = playbook.rollback_steps or tuple(reversed(playbook.ids))
    return [name for name in order if plan.taking_back(playbook.entry(name)).startswith("yes")]


def _rollback(playbook: Playbook) -> str:
    return (
        "none"
        if playbook.rollback == "none"
        else f"[{', '.join(playbook.rollback_steps)}]"
        if playbook.rollback_steps
        else "reverse"
    )


# ─── named limits and queries, told once with all that they reach ───────────────────────────────────────────────────
def _named(pair: PlaybookPair) -> Iterator[PlaybookChange]:
    for name in dict.fromkeys((*pair.old.limits, *pair.new.limits)):
        if pair.old.limits.get(name) != pair.new.limits.get(name):
            yield from _limit(pair, name)
    for name, query in pair.new.queries.items():
        before = pair.old.queries.get(name)
        if before is not None and not same_sql(before.texts, query.texts):
            yield from _query(pair, name, before, query)
    for name, shape in pair.new.shapes.items():
        declared = pair.old.shapes.get(name)
        if declared is not None and declared != shape:
            yield from _shape(pair, name, declared, shape)


def _limit(pair: PlaybookPair, name: str) -> Iterator[PlaybookChange]:
    """The checks of the new version that name this limit, with what its new value means in each; nothing if none does."""
    before, after = (
        {**pair.versions.after, f"limits.{name}": one.get(name)} for one in (pair.old.limits, pair.new.limits)
    )
    reaches = []
    known = {(where, key, expression.text) for where, _, key, expression in _expressions(pair.old)}
    for where, check, key, expression in _expressions(pair.new):
        # one that reads otherwise now was compared with each version's own limits
        if f"limits.{name}" in expression.names and _decides(check) and (where, key, expression.text) in known:
            direction = decide.compare(expression, expression, before=before, after=after)
            reaches.append(Reach(pair.new.name, where, _MEANS[key](direction)))
    if reaches:
        direction = min((one.direction for one in reaches), key=lambda one: one.order)
        was, now = (str(one.get(name, "")) for one in (pair.old.limits, pair.new.limits))
        yield PlaybookChange(direction, f"limit {name}", was, now, None, tuple(reaches))


_MEANS: Mapping[str, Callable[[Direction], Direction]] = {
    "that": lambda direction: direction,
    "warn": lambda direction: direction,
    "resume": lambda direction: direction,
    "critical": lambda direction: direction.turned,
    "alert": lambda direction: direction.turned,
    "when": lambda direction: direction.undecided,
}


def _expressions(playbook: Playbook) -> Iterator[tuple[str, Check, str, Expression]]:
    """Every expression, with its place, its check and its key."""
    for where, check, more in _every(playbook):
        condition = where.endswith(", condition")
        found = {"when" if condition else "that": check.that, "warn": check.warn}
        if isinstance(more, Monitor):
            found |= {"alert": more.alert}
        elif more is not None:
            found |= {"resume": more.resume, "critical": more.critical}
        yield from ((where, check, key, one) for key, one in found.items() if one is not None)


def _every(playbook: Playbook) -> Iterator[tuple[str, Check, Guard | Monitor | None]]:
    yield from ((f"precondition {one.id}", one, None) for one in playbook.preconditions)
    for entry in playbook.entries:
        yield from ((f"step {entry.id}, condition", one, None) for one in (entry.when,) if one is not None)
        yield from ((f"step {entry.id}, precondition {one.id}", one, None) for one in entry.preconditions)
        yield from ((f"step {entry.id}, guard {one.check.id}", one.check, one) for one in entry.guards)
        yield from ((f"step {entry.id}, criterion {one.id}", one, None) for one in entry.success_criteria)
    yield from ((f"criterion {one.id}", one, None) for one in playbook.success_criteria)
    yield from ((f"monitor {one.check.id}", one.check, one) for one in playbook.monitors)


def _query(pair: PlaybookPair, name: str, old: Query, new: Query) -> Iterator[PlaybookChange]:
    reaches = _users(pair, lambda value: isinstance(value, Query) and value.name == name)
    yield from _told_once(f"query {name}", reaches, sql_diff(old.texts, new.texts))


def _shape(pair: PlaybookPair, name: str, old: DeclaredShape, new: DeclaredShape) -> Iterator[PlaybookChange]:
    reaches = _users(pair, lambda value: isinstance(value, DeclaredShape) and value.name == name)
    before, after = (
        {f"on {dialect}: {part}: {part.wanted}" for dialect, one in shape.shapes.items() for part in one.parts.values()}
        for shape in (old, new)
    )
    lines = (*(f"-{line}" for line in sorted(before - after)), *(f"+{line}" for line in sorted(after - before)))
    yield from _told_once(f"shape {name}", reaches, lines or ("what must not be there, or what the data must hold",))


def _users(pair: PlaybookPair, uses: Callable[[object], bool]) -> tuple[Reach, ...]:
    """The checks and steps of the new version that use something named."""
    checks = [
        Reach(pair.new.name, where, Direction.CHANGES if _decides(check) else Direction.NEUTRAL)
        for where, check, _ in _every(pair.new)
        if check.probe is not None and _contains(check.probe, uses)
    ]
    steps = [
        Reach(pair.new.name, f"step {entry.id}", Direction.CHANGES)
        for entry in pair.new.entries
        if _contains(entry.step, uses)
    ]
    return (*checks, *steps)


def _contains(value: object, uses: Callable[[object], bool]) -> bool:
    """Whether it stands in this value, however deep."""
    if uses(value):
        return True
    if isinstance(value, BaseModel):
        return any(_contains(one, uses) for _, one in value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return any(_contains(one, uses) for one in parts)


def _told_once(subject: str, reaches: tuple[Reach, ...], lines: tuple[str, ...]) -> Iterator[PlaybookChange]:
    if reaches:
        direction = min((one.direction for one in reaches), key=lambda one: one.order)
        yield PlaybookChange(direction, subject, "", "", None, reaches, lines=lines)
