"""Compares two values of one field by the direction that the field declares, and walks through models field by field."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from runner.playbook.check_text import is_time, shown
from runner.review.diff import decide
from runner.review.diff.change import Direction
from runner.review.diff.locks import strongest
from steps.catalog.shape import DeclaredShape
from steps.contract import Query, Text
from steps.contract.dialect import Dialect
from steps.contract.direction import OTHER, Bound, Weaker
from steps.expressions.evaluate import Expression
from steps.sql.scanner import BadSql, scan

Members = tuple[object, ...] | dict[str, object]


class FieldDifference(NamedTuple):
    """One field that differs: its path below what was compared, direction, and both values in words.

    lines: a diff of texts too long to be shown in line. why: what makes it weaker, if the values don't show it.
    """

    path: tuple[str, ...]
    direction: Direction
    old: str
    new: str
    lines: tuple[str, ...] = ()
    why: str = ""


class Versions(NamedTuple):
    """What the values of either version depend on: its limits, by their names in expressions, and its folder."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    folders: tuple[str, str] = ("", "")


def differences(
    old: BaseModel, new: BaseModel, versions: Versions, *, skip: frozenset[str] = frozenset()
) -> Iterator[FieldDifference]:
    """What differs between two models of the same class. A named query counts by its name here: its text is told apart."""
    for name, field in type(new).model_fields.items():
        if name in skip:
            continue
        weaker = next((one for one in field.metadata if isinstance(one, Weaker)), OTHER)
        key = field.alias or name
        for found in _between(getattr(old, name), getattr(new, name), weaker, versions, time=is_time(field)):
            yield found._replace(path=(key, *found.path))


def _between(
    old: Any, new: Any, weaker: Weaker, versions: Versions, *, time: bool = False
) -> Iterator[FieldDifference]:
    if weaker.sense == "nothing" or (old == new and not isinstance(new, Expression)):
        return
    match old, new:
        case (Query(), Query()) | (Text(), Text()):
            yield from _sql(old, new)
        case Expression(), Expression():
            direction = decide.compare(old, new, before=versions.before, after=versions.after)
            if old.text != new.text:
                yield FieldDifference((), _reversed(direction, weaker), old.text, new.text)
        case BaseModel(), BaseModel() if type(old) is type(new):
            yield from _models(old, new, versions)
        case (tuple(), tuple()) | (dict(), dict()) if _named(old) and _named(new):
            yield from _members(_by_name(old), _by_name(new), weaker, versions)
        case (tuple(), tuple()) if _nameless(old) and _nameless(new):
            yield from _in_order(old, new, versions)
        case _:
            yield from _values(old, new, weaker, versions.folders, time=time)


def _models(old: Any, new: Any, versions: Versions) -> Iterator[FieldDifference]:
    if isinstance(old, Bound):
        yield FieldDifference((), covered(old.covers(new), new.covers(old)), _words(old), _words(new))
    else:
        yield from differences(old, new, versions)


def _values(old: Any, new: Any, weaker: Weaker, folders: tuple[str, str], *, time: bool) -> Iterator[FieldDifference]:
    if isinstance(old, DeclaredShape) and isinstance(new, DeclaredShape) and old.name == new.name != "":
        return  # a named shape is told once, with all that it reaches
    before, after = (_beside(value, folder) for value, folder in zip((old, new), folders, strict=True))
    if before != after:
        yield FieldDifference((), direction_of(old, new, weaker), _words(before, time=time), _words(after, time=time))


def _beside(value: Any, folder: str) -> Any:
    """A path beside the playbook as its author wrote it."""
    return value.removeprefix(f"{folder}/") if isinstance(value, str) and folder else value


def _reversed(direction: Direction, weaker: Weaker) -> Direction:
    """For an expression that makes something stop where it holds, such as `critical:`."""
    return direction.turned if weaker.sense == "tightened" else direction


# ─── members by name ────────────────────────────────────────────────────────────────────────────────────────────────
def _named(values: Members) -> bool:
    return isinstance(values, dict) or all(isinstance(one, BaseModel) and _name(one) for one in values)


def _name(one: object) -> str:
    return str(getattr(one, "id", "") or getattr(one, "name", "") or getattr(one, "playbook", ""))


def _by_name(values: Members) -> Mapping[str, object]:
    return values if isinstance(values, dict) else {_name(one): one for one in values}


def _members(
    old: Mapping[str, Any], new: Mapping[str, Any], weaker: Weaker, versions: Versions
) -> Iterator[FieldDifference]:
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            yield FieldDifference((name,), _gone(weaker), _words(old[name]), "")
        elif name not in old:
            yield FieldDifference((name,), _came(weaker), "", _words(new[name]))
        else:
            for found in _between(old[name], new[name], OTHER, versions):
                yield found._replace(path=(name, *found.path))


def _gone(weaker: Weaker) -> Direction:
    return {"fewer": Direction.WEAKENS, "more": Direction.STRENGTHENS}.get(weaker.sense, Direction.CHANGES)


def _came(weaker: Weaker) -> Direction:
    return {"fewer": Direction.STRENGTHENS, "more": Direction.WEAKENS}.get(weaker.sense, Direction.CHANGES)


# ─── members in their order ─────────────────────────────────────────────────────────────────────────────────────────
def _nameless(values: tuple[object, ...]) -> bool:
    """Whether these are statements or other parts that have no names, and count by their order."""
    return all(isinstance(one, BaseModel) for one in values)


def _in_order(old: tuple[Any, ...], new: tuple[Any, ...], versions: Versions) -> Iterator[FieldDifference]:
    if len(old) != len(new):
        before, after = ("\n".join(map(_words, values)) for values in (old, new))
        yield FieldDifference((), Direction.CHANGES, f"{len(old)}", f"{len(new)}", sql_diff({"": before}, {"": after}))
        return
    for number, (one, other) in enumerate(zip(old, new, strict=True), start=1):
        for found in _between(one, other, OTHER, versions):
            yield found._replace(path=(str(number), *found.path))


# ─── one value ──────────────────────────────────────────────────────────────────────────────────────────────────────
def direction_of(old: Any, new: Any, weaker: Weaker) -> Direction:
    """What it means that `new` stands where `old` stood."""
    match weaker.sense:
        case "set" | "on":
            return _by(bool(new) - bool(old))
        case "off":
            return _by(bool(old) - bool(new))
        case "later":
            return _on_ladder(str(old), str(new), weaker.ladder)
        case "higher" | "lower":
            return _by(_rank(new, weaker) - _rank(old, weaker))
        case "more" | "fewer":
            return _of_sets(old, new, weaker)
        case "unset" | "loosened" | "tightened":
            return _by_absence(old, new)
        case _:
            return Direction.CHANGES


def covered(old_covers: bool, new_covers: bool) -> Direction:  # noqa: FBT001 - a pair of answers
    """The direction by whether the old version lets pass all that the new one does, and the other way round."""
    if old_covers and new_covers:
        return Direction.NEUTRAL
    return Direction.STRENGTHENS if old_covers else Direction.WEAKENS if new_covers else Direction.CHANGES


def _by(weaker: float) -> Direction:
    """The direction for a number that is positive where the new value is weaker."""
    return Direction.WEAKENS if weaker > 0 else Direction.STRENGTHENS if weaker < 0 else Direction.NEUTRAL


def _by_absence(old: Any, new: Any) -> Direction:
    if not _given(new):
        return Direction.WEAKENS
    return Direction.CHANGES if _given(old) else Direction.STRENGTHENS


def _given(value: Any) -> bool:
    return value is not None and value not in ("", (), {}, [])


def _on_ladder(old: str, new: str, steps: tuple[str, ...]) -> Direction:
    if old not in steps or new not in steps:
        return Direction.CHANGES
    return _by(steps.index(new) - steps.index(old))


_INFINITE = 1e300


def _rank(value: Any, weaker: Weaker) -> float:
    """How weak a number or a time of day is: the greater, the weaker."""
    if not _given(value) or value == weaker.unbounded:
        return _INFINITE if weaker.absent == "weakest" else -_INFINITE
    rank = float(value) if isinstance(value, int | float) else _clock(str(value))
    return rank if weaker.sense == "higher" else -rank


def _clock(text: str) -> float:
    """A time of day, '22:00', as a number."""
    hour, _, minute = text.partition(":")
    return float(hour) * 60 + float(minute or 0) if hour.isdigit() else 0.0


def _of_sets(old: Any, new: Any, weaker: Weaker) -> Direction:
    before, after = _entries(old), _entries(new)
    if not before or not after:
        emptied = weaker.absent == "weakest"
        return Direction.WEAKENS if (not after) == emptied else Direction.STRENGTHENS
    if before == after:
        return Direction.NEUTRAL
    less, more = before > after, before < after
    if not (less or more):
        return Direction.CHANGES
    return Direction.WEAKENS if less == (weaker.sense == "fewer") else Direction.STRENGTHENS


def _entries(value: Any) -> frozenset[str]:
    if isinstance(value, Mapping):
        return frozenset(f"{key} {one}" for key, one in value.items())
    return frozenset(map(str, value or ()))


def _words(value: Any, *, time: bool = False) -> str:
    return "none" if not _given(value) else shown(value, time=time)


# ─── SQL ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _sql(old: Query | Text, new: Query | Text) -> Iterator[FieldDifference]:
    names = [one.name if isinstance(one, Query) else "" for one in (old, new)]
    if (names[0] and names[0] == names[1]) or same_sql(old.texts, new.texts):
        return  # a named query is told once, with all that it reaches
    lines = () if any(names) else sql_diff(old.texts, new.texts)
    direction, why = (Direction.CHANGES, "") if isinstance(new, Query) else _of_locks(old.texts, new.texts)
    yield FieldDifference((), direction, names[0] or _words(old), names[1] or _words(new), lines, why)


def _of_locks(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Direction, str]:
    """What statements mean for others: a stronger or longer lock, or something gone for good, is weaker."""
    before, after = (strongest(texts.get("postgresql") or texts.get("", "")) for texts in (old, new))
    if before is None or after is None or before == after:
        return Direction.CHANGES, ""
    weaker = after.strength > before.strength or (after.one_way and not before.one_way)
    return Direction.WEAKENS if weaker else Direction.CHANGES, f"on others: {before} → {after}"


def same_sql(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Whether SQL is the same for each dialect, but for comments, white space and the case of keywords."""
    return all(_meaning(old, dialect) == _meaning(new, dialect) for dialect in Dialect)


def _meaning(texts: Mapping[str, str], dialect: Dialect) -> tuple[str, ...] | None:
    text = texts.get(str(dialect)) or texts.get("")
    if text is None:
        return None
    try:
        return tuple(token.keyword or token.text for token in scan(text, dialect) if token.means_something)
    except BadSql:
        return (text,)


def sql_diff(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """A line by line diff of the texts, without a heading."""
    found: list[str] = []
    for dialect in dict.fromkeys((*old, *new)):
        before, after = (texts.get(dialect, "").strip().splitlines() for texts in (old, new))
        if before != after:
            found += [f"on {dialect}"] if dialect else []
            found += [
                line
                for line in difflib.unified_diff(before, after, lineterm="", n=2)
                if not line.startswith(("---", "+++", "@@"))
            ]
    return tuple(found)
