"""The oracle of `diff` is behaviour: a value that passes the new check and failed the old one means weaker.

Every number in every expression and every limit of the shipped playbooks is raised and lowered, and the directions that diff
tells are held against what the two versions answer for sampled values. Likewise the typed fields of probes.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import BaseModel

from runner.plan.window import _closes
from runner.playbook.find import read_playbook
from runner.playbook.model import Calendar, Monitor, OfLast, Playbook, TargetNeeds
from runner.review.diff import decide
from runner.review.diff.change import Direction
from runner.review.diff.compare import _every, changes
from runner.review.diff.fields import Versions, covered, differences, direction_of
from steps.contract import Answer, Probe
from steps.contract.direction import OTHER
from steps.expressions.evaluate import BadOperand, Expression, evaluate, parse
from steps.registry import probe_types

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
SHIPPED = [path for path in sorted(PLAYBOOKS.glob("adr007-*.yaml")) if "\nsteps:" in path.read_text()]
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def shipped() -> list[Playbook]:
    return [read_playbook(path) for path in SHIPPED]


def limits(playbook: Playbook) -> dict[str, object]:
    return {f"limits.{name}": value for name, value in playbook.limits.items()}


def passes(expression: Expression, scope: dict[str, object]) -> bool:
    try:
        return evaluate(expression, scope).value is True
    except BadOperand:
        return False


def sampled(
    rng: random.Random, names: set[str], numbers: set[Decimal], texts: set[str], *, truths: bool
) -> dict[str, object]:
    """A value for each name: near a number that occurs, far from it, one of the texts, or a truth value."""
    found: dict[str, object] = {}
    for name in names:
        near = rng.choice(sorted(numbers)) if numbers else Decimal(0)
        choices = [near, near + Decimal(rng.randint(-3, 3)), near * Decimal(rng.choice(["0.5", "0.999", "1.001", "2"]))]
        found[name] = rng.choice([*choices, *choices, *sorted(texts), *([True, False] if truths else [])])
    return found


def behaviour(old: Expression, new: Expression, before: dict, after: dict) -> tuple[bool, bool]:
    """Whether sampled values passed only the new, and only the old one."""
    rng = random.Random(old.text + new.text)
    every = f"{old.text} {new.text}"
    truths = bool(re.search(r"\b(True|False)\b", every))
    numbers = {Decimal(one) for one in NUMBER.findall(every)}
    numbers |= {Decimal(str(one)) for one in (*before.values(), *after.values()) if isinstance(one, int | float)}
    texts = set(re.findall(r"'([^']*)'", every))
    names = {name for name in (*old.names, *new.names) if not name.startswith("limits.")}
    weaker = stricter = False
    for _ in range(150):
        scope = sampled(rng, names, numbers, texts, truths=truths)
        was, now = passes(old, {**scope, **before}), passes(new, {**scope, **after})
        weaker, stricter = weaker or (now and not was), stricter or (was and not now)
    return weaker, stricter


def agrees(told: Direction, weaker: bool, stricter: bool) -> bool:
    """Nothing that was seen may be contradicted: an observed weakening is never called anything else."""
    if told is Direction.CHANGES:
        return True  # it counts as a weakening
    allowed = {
        Direction.WEAKENS: not stricter,
        Direction.STRENGTHENS: not weaker,
        Direction.NEUTRAL: not (weaker or stricter),
    }
    return allowed[told]


def edits(text: str) -> Iterator[str]:
    """The expression with one of its numbers raised or lowered, a comparison widened or narrowed, or a part left out."""
    for found in NUMBER.finditer(text):
        for other in (Decimal(found[0]) * 2 + 1, max(Decimal(found[0]) / 2 - 1, Decimal(0))):
            yield f"{text[: found.start()]}{other.normalize():f}{text[found.end() :]}"
    for old, new in (
        (">=", ">"),
        ("<=", "<"),
        (" > ", " >= "),
        (" < ", " <= "),
        ("==", ">="),
        (" and ", " or "),
        (" or ", " and "),
    ):
        if old in text:
            yield text.replace(old, new)
    for part in text.split(" and "):
        if part != text and part.count("(") == part.count(")"):
            yield part


def test_every_expression_loosened_and_tightened(shipped: list[Playbook]):
    tried = decided = 0
    for playbook in shipped:
        scope = limits(playbook)
        for _where, check, guard in _every(playbook):
            ours = [check.that, check.warn, *(guard.expressions if guard is not None else ())]
            for expression in {one for one in ours if one is not None}:
                for text in edits(expression.text):
                    try:
                        edited = parse(text)
                    except Exception:  # an edit that is no expression any more
                        continue
                    for old, new in ((expression, edited), (edited, expression)):
                        told = decide.compare(old, new, before=scope, after=scope)
                        weaker, stricter = behaviour(old, new, scope, scope)
                        assert agrees(told, weaker, stricter), (
                            playbook.name,
                            old.text,
                            new.text,
                            told,
                            weaker,
                            stricter,
                        )
                        tried, decided = tried + 1, decided + (told is not Direction.CHANGES)
    assert tried > 200 and decided > tried * 0.6, (tried, decided)


def asked_at(playbook: Playbook, place: str) -> Iterator[tuple[Expression, bool]]:
    """The expressions of the check at this place, and whether each stops or alerts where it holds."""
    for where, check, more in _every(playbook):
        if where == place and check.that is not None:
            yield check.that, False
        if where == place and isinstance(more, Monitor) and more.alert is not None:
            yield more.alert, True


def test_every_limit_raised_and_lowered(shipped: list[Playbook]):
    seen = set()
    for playbook in shipped:
        for name, value in playbook.limits.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or name in playbook.idle.get("limits", ()):
                continue
            for other in (value * 2 + 1, value / 2):
                edited = playbook.model_copy(update={"limits": {**playbook.limits, name: other}})
                for change in changes(playbook, edited):
                    assert change.subject == f"limit {name}"
                    seen.add((name, change.direction))
                    for reach in change.reaches:
                        for expression, stops in asked_at(playbook, reach.where):
                            if f"limits.{name}" not in expression.names:
                                continue
                            weaker, stricter = behaviour(expression, expression, limits(playbook), limits(edited))
                            if stops:  # an alert: where it holds more often, the monitor is stricter
                                weaker, stricter = stricter, weaker
                            assert agrees(reach.direction, weaker, stricter), (name, value, other, reach)
    assert {direction for _, direction in seen} >= {Direction.WEAKENS, Direction.STRENGTHENS}
    assert len({name for name, _ in seen}) > 10


def test_unchanged_meaning_gives_an_empty_diff(shipped: list[Playbook], tmp_path: Path):
    for playbook, path in zip(shipped, SHIPPED, strict=True):
        assert list(changes(playbook, read_playbook(path))) == []


# ─── typed fields of probes ─────────────────────────────────────────────────────────────────────────────────────────
def results(kind: str) -> Iterator[dict[str, object]]:
    match kind:
        case "rows":
            yield from ({"rows": n} for n in range(12))
        case "columns":
            names = [("a", "text"), ("b", "integer"), ("c", "text")]
            for mask in range(8):
                yield {"columns": {name: of for bit, (name, of) in enumerate(names) if mask >> bit & 1}}
        case "plan":
            for nodes in (("Seq Scan",), ("Index Scan",), ("Index Scan", "Sort"), ("Seq Scan", "Sort"), ()):
                for indexes in ((), ("i",)):
                    yield {"nodes": nodes, "indexes": indexes, "tables": (), "cost": 1.0, "text": ""}


TYPED = [
    ("rows", {"table": "t"}, [{"at_least": 3}, {"at_least": 5}, {"at_most": 4}, {"at_most": 8}, {"exactly": 5}, {"exactly": 6}]),
    ("rows", {"table": "t"}, [{"at_least": 2, "at_most": 4}, {"at_least": 3, "at_most": 4}, {"at_least": 2, "at_most": 9}]),
    ("plan", {"query": "SELECT a FROM t"}, [{"has": ["Sort"]}, {"has": ["Sort", "Index Scan"]}, {"lacks": ["Seq Scan"]},
              {"lacks": ["Seq Scan", "Sort"]}, {"has": ["Index Scan"], "uses": "i"}, {"has": ["Index Scan"]}]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "keys", "versions"), TYPED, ids=["rows", "rows-both", "plan"])
def test_typed_fields_against_the_probes_own_verdicts(kind: str, keys: dict, versions: list[dict]):
    probes = [probe_types()[kind].model_validate({**keys, **one}, context={"queries": {}}) for one in versions]
    for old in probes:
        for new in probes:
            told = worst_of(old, new)
            answers = [(good(old, one), good(new, one)) for one in results(kind)]
            weaker, stricter = (
                any(now and not was for was, now in answers),
                any(was and not now for was, now in answers),
            )
            assert agrees(told, weaker, stricter and not weaker), (old, new, told, weaker, stricter)


def worst_of(old: Probe, new: Probe) -> Direction:
    found = {one.direction for one in differences(old, new, Versions({}, {}))}
    if {Direction.WEAKENS, Direction.STRENGTHENS} <= found:
        return Direction.CHANGES  # both are told, and the weakening counts
    return min(found, key=lambda one: one.order, default=Direction.NEUTRAL)


def good(probe: Probe, result: dict[str, object]) -> bool:
    verdict = probe.verdict(probe.Result.model_validate(result))
    return verdict is not None and verdict.answer is Answer.PASS


# ─── fields that mean something only together ───────────────────────────────────────────────────────────────────────
def told(old: BaseModel, new: BaseModel) -> Direction:
    return covered(old.covers(new), new.covers(old))


def by_behaviour(old: frozenset, new: frozenset) -> Direction:
    """By all that each lets pass."""
    return covered(old >= new, new >= old)


WEEK = [datetime(2026, 3, 2, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(7 * 48)]


def test_calendars_against_the_windows_that_they_open():
    """Also across midnight, where an earlier end makes a longer window."""
    times, found = ["00:00", "01:00", "05:00", "22:00", "23:30"], {}
    for since, to, days in itertools.product(times, times, ["Mon-Sun", "Fri", "Fri-Sat"]):
        calendar = Calendar.model_validate({"from": since, "to": to, "days": days, "zone": "UTC"})
        found[calendar] = frozenset(now for now in WEEK if _closes(calendar, now) is not None)
    for old, new in itertools.product(found, found):
        assert told(old, new) is by_behaviour(found[old], found[new]), (old, new)


def test_of_last_against_all_series_of_samples():
    """How many of the last samples must be broken: one that fires whenever the other did, and sooner, is stricter."""

    def fires(rule: OfLast, series: tuple[bool, ...]) -> bool:
        return any(sum(series[max(0, end - rule.samples) : end]) >= rule.broken for end in range(1, len(series) + 1))

    rules = [OfLast(broken=k, samples=n) for n in range(1, 6) for k in range(1, n + 1)]
    every = list(itertools.product((False, True), repeat=9))
    silent = {
        (one.broken, one.samples): frozenset(n for n, series in enumerate(every) if not fires(one, series))
        for one in rules
    }
    for old, new in itertools.product(rules, rules):
        expected = by_behaviour(silent[old.broken, old.samples], silent[new.broken, new.samples])
        assert told(old, new) is expected, (old, new)


def test_targets_against_the_databases_that_they_admit():
    needs = [
        TargetNeeds(**one)
        for one in ({}, {"postgresql": ">=14"}, {"sqlite": ">=3"}, {"postgresql": ">=14", "sqlite": ">=3"})
    ]
    kinds = {
        one: frozenset(kind for kind, bound in one if bound) or frozenset({"postgresql", "sqlite", "more"})
        for one in needs
    }
    for old, new in itertools.product(needs, needs):
        assert told(old, new) is by_behaviour(kinds[old], kinds[new]), (old, new)
    assert told(needs[1], TargetNeeds(postgresql=">=9")) is Direction.CHANGES


@pytest.mark.parametrize("value", [("a",), "a", 7, True, {"a": 1}])
def test_undeclared_field_is_never_called_stricter(value: object):
    """What nobody declared a direction for is another effect, whether it is new, gone or another."""
    for old, new in ((None, value), (value, None), ((), value), (value, ())):
        assert direction_of(old, new, OTHER) is Direction.CHANGES
