"""What an observation means: when a monitor is broken, when it alerts, and what ends an alert."""

from __future__ import annotations

import pytest

from runner.monitor.history import sparkline
from runner.monitor.state import LookResult, after, judge, silenced
from runner.playbook.model import Check, Monitor
from runner.playbook.yaml_reader import Mark
from steps.contract import Answer
from steps.expressions.evaluate import parse
from steps.ledger.monitors import MonitorAct, Observation

DAY = 86400.0


def monitor(**keys: object) -> Monitor:
    that, alert, only = keys.pop("that", None), keys.pop("alert", None), keys.pop("record_only", "")
    check = Check(
        id="a", probe=None, that=parse(str(that)) if that else None, record_only=only, mark=Mark("x.yaml", 1, 1)
    )
    return Monitor(check=check, every="1 day", alert=parse(str(alert)) if alert else None, **keys)


def answered(answer: Answer, **names: float | None) -> LookResult:
    return LookResult(answer, "text", names)


def told(made: Monitor, readings: list[LookResult]) -> list[tuple[bool, float | None]]:
    """For each of the readings, one a day: whether it broke, and since which day it alerts."""
    history: list[Observation] = []
    for day, one in enumerate(readings):
        judged = judge(made, one)
        since = after(made, history, judged, day * DAY)
        history.insert(
            0,
            Observation(
                "r",
                "a",
                day * DAY,
                day * DAY,
                judged.answer,
                "",
                "{}",
                since.broken_since,
                since.alert_since,
                0.1,
                0,
                "h",
            ),
        )
    return [
        (one.broken_since is not None, None if one.alert_since is None else one.alert_since / DAY)
        for one in reversed(history)
    ]


P, F, U, E = (answered(one) for one in (Answer.PASS, Answer.FAIL, Answer.UNKNOWN, Answer.ERROR))


def test_what_does_not_pass_alerts_at_once_and_a_pass_ends_it():
    assert told(monitor(that="n == 0"), [P, F, F, P, F]) == [
        (False, None),
        (True, 1),
        (True, 1),
        (False, None),
        (True, 4),
    ]


@pytest.mark.parametrize("undecided", [U, E])
def test_undecided_is_no_pass(undecided: LookResult):
    assert told(monitor(that="n == 0"), [P, undecided, P]) == [(False, None), (True, 1), (False, None)]
    assert told(monitor(that="n == 0"), [F, undecided])[1] == (True, 0), "and it ends nothing"


def test_last_of_several_ignores_a_single_one():
    made = monitor(that="n == 0", last="2 of 3")
    assert [since for _, since in told(made, [F, P, P, F, P, F, P])] == [None, None, None, None, None, 5, None]


def test_for_needs_a_time_without_a_pass():
    made = monitor(that="n == 0", alert_for="2 days")
    assert [since for _, since in told(made, [F, F, P, F, F, F, F])] == [None, None, None, None, None, 5, 5]


def test_alert_has_a_bound_of_its_own_and_that_ends_it():
    """The target is 95, the alert comes under 90 and stays until the target is reached again."""
    made = monitor(that="pct >= 95", alert="pct < 90")
    readings = [(96, P), (93, F), (89, F), (93, F), (95, P)]
    seen = told(made, [LookResult(one.answer, "", {"pct": pct}) for pct, one in readings])
    assert seen == [(False, None), (False, None), (True, 2), (False, 2), (False, None)]


def test_alert_alone_ends_where_it_does_not_hold():
    made = monitor(alert="slower > 20")
    seen = told(
        made, [answered(Answer.PASS, slower=5), answered(Answer.PASS, slower=30), answered(Answer.UNKNOWN, slower=5)]
    )
    assert seen == [(False, None), (True, 1), (False, None)]
    assert judge(made, answered(Answer.PASS, slower=30)).answer is Answer.FAIL, "it isn't shown as a pass"


def test_alert_that_cannot_be_decided_is_broken():
    made = monitor(alert="slower > 20")
    assert told(made, [answered(Answer.PASS, slower=None), E]) == [(True, 0), (True, 0)]
    assert judge(made, answered(Answer.PASS, slower=None)).answer is Answer.UNKNOWN


def test_record_only_never_alerts():
    assert told(monitor(that="n == 0", record_only="to be seen"), [F, E]) == [(False, None), (False, None)]


def test_approval_is_of_one_alert_and_mute_of_a_time():
    approved = MonitorAct("a", "approve", "ines", "known", None, at=10)
    muted = MonitorAct("a", "mute", "ines", "moved", until=100, at=10)
    assert silenced("a", 5, [approved], now=20) is approved
    assert silenced("a", 11, [approved], now=20) is None, "a later alert"
    assert silenced("a", 50, [muted], now=99) is muted
    assert silenced("a", 50, [muted], now=101) is None
    ended = MonitorAct("a", "mute", "ines", "done", until=12, at=12)
    assert silenced("a", 50, [ended, muted], now=60) is None, "the newest counts"
    assert silenced("b", 5, [approved, muted], now=20) is None


def test_sparkline_shows_gaps():
    assert sparkline([90, 95, None, 100]) == "▁▅·█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([None]) == "·"
