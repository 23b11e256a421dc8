"""What the samples of one guard come to: broken often and long enough, held until it is good again, hibernating, smaller."""

from __future__ import annotations

import pytest
from command import proven

from runner.common.errors import BadInput
from runner.playbook.load import load
from runner.playbook.model import Guard
from runner.run.guard_state import Level, Levels, Reading
from steps.contract import Answer

PASS, FAIL, UNKNOWN = Answer.PASS, Answer.FAIL, Answer.UNKNOWN


def guard(words: str, step: str = "type: analyze, table: t", head: str = "") -> Guard:
    text = f"runbook: 1\nname: one\ntitle: One\n{head}steps:\n  - {{id: s, {step}, guards: [{{id: g, {words}}}]}}\n"
    return load("one.yaml", lambda _name: proven(text)).entries[0].guards[0]


def of(words: str) -> Levels:
    step = "type: backfill, table: t, key: id, source: SELECT 1 AS n, match: source.n = target.id, fill: [n]"
    return Levels(guard(f"check: rows, table: t, that: rows <= 5, {words}", step))


def take(levels: Levels, at: float, answer: Answer, *, resume: bool | None = None, critical: bool = False) -> Levels:
    good = answer is PASS if resume is None else resume
    levels.take(Reading(answer, f"at {at:g}", good, critical), at, most_halvings=3)
    return levels


@pytest.mark.parametrize(("answers", "held"), [
    ([FAIL, PASS, PASS, FAIL], False),
    ([FAIL, PASS, FAIL], True),
    ([FAIL, FAIL], True),
    ([FAIL, PASS, UNKNOWN], True),
    ([FAIL], False),
])  # fmt: skip
def test_broken_is_so_many_of_the_last(answers: list[Answer], held: bool) -> None:
    levels = of("last: 2 of 3")
    for n, answer in enumerate(answers):
        take(levels, n, answer)
    assert bool(levels.hold) is held


def test_broken_for_so_long() -> None:
    levels = of("for: 1 min")
    take(levels, 0, FAIL)
    take(levels, 59, FAIL)
    assert not levels.hold
    take(levels, 70, PASS)
    take(levels, 80, FAIL)
    take(levels, 130, FAIL)
    assert not levels.hold, "the time begins anew after each pass"
    assert take(levels, 140, FAIL).hold


def test_hold_lasts_until_its_lower_level() -> None:
    """Between the two levels nothing changes, in either direction."""
    levels = of("resume: rows <= 2")
    assert not take(levels, 0, PASS, resume=False).hold
    assert take(levels, 1, FAIL).hold == "g answered fail: at 1"
    assert take(levels, 2, PASS, resume=False).hold
    assert not take(levels, 3, PASS).hold
    assert not take(levels, 4, PASS, resume=False).hold


@pytest.mark.parametrize("action", ["warn", "hold", "smaller_batches"])
def test_critical_twice_hibernates(action: str) -> None:
    """One reading alone does nothing; after the time `resume` is asked again. F: D04"""
    levels = of(f"else: {action}, for: 1 h, critical: rows > 50, hibernate: 5 min")
    assert take(levels, 0, FAIL, critical=True).suspected
    assert not take(levels, 1, FAIL).hold
    take(levels, 10, FAIL, critical=True)
    take(levels, 13, FAIL, critical=True)
    assert levels.level is Level.HIBERNATES and not levels.suspected
    assert "critical (rows > 50), asked twice: at 13; hibernates for at least 5 min" in levels.hold
    assert take(levels, 20, PASS).hold and take(levels, 312, PASS).hold
    assert not take(levels, 313, PASS).hold
    assert not levels.stop


def test_critical_ends_where_the_guard_ends() -> None:
    levels = of("else: abort, for: 1 h, critical: rows > 50")
    take(levels, 0, FAIL, critical=True)
    assert "is critical (rows > 50)" in take(levels, 3, FAIL, critical=True).stop


def test_unknown_ends_nothing() -> None:
    """It holds, and the run goes on or ends when there is an answer. F: D03"""
    levels = of("else: abort")
    take(levels, 0, UNKNOWN)
    assert levels.hold == "g answered unknown: at 0" and not levels.stop
    assert not take(levels, 1, PASS).hold
    take(levels, 2, UNKNOWN)
    assert take(levels, 3, FAIL).stop == "g answered fail: at 3"
    assert not take(of("else: warn"), 0, UNKNOWN).hold


def test_acknowledged_until_it_has_passed() -> None:
    """A person's go: it does not hold again for the same, but for worse, and after it was good."""
    levels = of("critical: rows > 50")
    take(levels, 0, FAIL)
    levels.acknowledge()
    assert not levels.hold and not take(levels, 1, FAIL).hold
    take(levels, 2, FAIL, critical=True)
    assert take(levels, 3, FAIL, critical=True).level is Level.HIBERNATES
    levels.acknowledge()
    take(levels, 4, FAIL, critical=True)
    assert not take(levels, 5, FAIL, critical=True).hold
    take(levels, 6, PASS)
    assert take(levels, 7, FAIL).hold


def test_batches_shrink_and_come_back() -> None:
    """Once at first, then once a period, down to the least and up again, one step at a time."""
    levels = of("else: smaller_batches, every: 10 s, resume: rows <= 2")
    seen = [take(levels, at, FAIL).halvings for at in (0, 5, 10, 20, 30, 40)]
    assert seen == [1, 1, 2, 3, 3, 3]
    assert take(levels, 50, PASS, resume=False).halvings == 3
    assert [take(levels, at, PASS).halvings for at in (60, 65, 70, 80, 90)] == [2, 2, 1, 0, 0]
    assert not levels.hold


@pytest.mark.parametrize(("words", "fault"), [
    ("check: rows, table: t, that: rows <= 5, resume: rws <= 2", "unknown name 'rws'"),
    ("check: rows, table: t, that: rows <= 5, critical: 'rows >'", "cannot read expression"),
    ("check: rows, table: t, that: grown.row <= 5", "unknown name 'grown.row'"),
    ("check: columns, table: t, has: [a], that: grown.missing == 5", "unknown name 'grown.missing'"),
    ("check: rows, table: t, that: rows <= 5, last: 4 of 3", "cannot read '4 of 3'"),
    ("check: rows, table: t, that: rows <= 5, every: 0 s", "cannot use `every`"),
    ("check: rows, table: t, that: rows <= 5, for: 5", "cannot read 5 as a time span"),
    ("check: rows, table: t, that: rows <= 5, hibernate: 5 min", "cannot use `hibernate` here"),
    ("check: rows, table: t, that: rows <= 5, else: abort, resume: rows <= 2", "cannot use `resume` here"),
    ("check: rows, table: t, that: rows <= 5, else: smaller_batches", "analyze has no batches"),
    ("that: visited > 5", "unknown name 'visited'"),
    ("that: per_min.eta > 5", "unknown name 'per_min.eta'"),
])  # fmt: skip
def test_guard_that_says_nothing_is_refused(words: str, fault: str) -> None:
    with pytest.raises(BadInput, match=fault.replace("(", r"\(")):
        guard(words)


@pytest.mark.parametrize("words", [
    "check: rows, table: t, that: grown.rows <= 5 and per_min.rows <= limits.most, critical: rows > 100",
    "check: query, query: n, that: grown.n <= 5, resume: per_min.n <= 1 and n < 3",
    "that: elapsed_s <= 60 and eta_s <= window_left_s and grown.done >= 0, for: 5 min, else: warn",
])  # fmt: skip
def test_names_of_a_guard(words: str) -> None:
    assert guard(words, head="limits: {most: 5}\nqueries: {n: SELECT 1 AS n}\n").every == 5.0
