"""A monitor's state: what an observation means, given the earlier ones. Pure: no clock, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.playbook.model import Monitor
from steps.contract import Answer, Value
from steps.expressions.evaluate import BadOperand, Evaluation, Expression, UnknownName, evaluate, explain
from steps.ledger.monitors import MonitorAct, Observation
from steps.ledger.tables import AHEAD_S


@dataclass(frozen=True)
class LookResult:
    """What one look found. operands: of the check's own `that:`. names: what the monitor's expressions may use; {} for nothing."""

    answer: Answer
    text: str
    names: Mapping[str, Value] = field(default_factory=dict)
    operands: Mapping[str, Value] = field(default_factory=dict)


class Judgement(NamedTuple):
    """What a reading means. broken: it counts towards an alert; mended: it ends one."""

    answer: Answer
    text: str
    broken: bool
    mended: bool
    operands: dict[str, Value]


def judge(monitor: Monitor, reading: LookResult) -> Judgement:
    """Decide by `alert:` where there is one, else by the check. What can't be decided is broken: nobody knows that it holds."""
    passed, own = reading.answer is Answer.PASS, dict(reading.operands)
    if monitor.check.record_only:
        return Judgement(reading.answer, reading.text, broken=False, mended=True, operands=own)
    if monitor.alert is None:
        return Judgement(reading.answer, reading.text, broken=not passed, mended=passed, operands=own)
    alert, text, operands = _evaluated(monitor.alert, reading)
    answer = reading.answer
    if passed and alert is not False:
        answer = Answer.UNKNOWN if alert is None else Answer.FAIL
    words = "; ".join(part for part in (reading.text, text) if part)
    mended = alert is False and (passed or monitor.check.that is None)
    return Judgement(answer, words, broken=alert is not False, mended=mended, operands={**own, **operands})


def _evaluated(alert: Expression, reading: LookResult) -> tuple[bool | None, str, dict[str, Value]]:
    """Whether the alert's expression is true (None: it can't be decided), what is to be said, and its operands."""
    if not reading.names:
        return None, "", {}
    try:
        found = evaluate(alert, reading.names)
    except (UnknownName, BadOperand) as error:
        return None, str(error), {}
    more = tuple((name, value) for name, value in found.operands if name not in reading.operands)
    words = found.reason if found.value is None else explain(Evaluation(None, more, ""))
    return found.value, words, dict(found.operands)


class Since(NamedTuple):
    """Since when a monitor is broken, and since when it alerts; None: it isn't, it doesn't."""

    broken_since: float | None
    alert_since: float | None


def after(monitor: Monitor, history: Sequence[Observation], judged: Judgement, at: float) -> Since:
    """The state after a further observation. history: the earlier ones, newest first."""
    window = history[: max(monitor.last.samples - 1, 1)]
    earlier = [one.broken_since for one in window if one.broken_since is not None]
    broken_since = min([*earlier, at]) if judged.broken else None
    alert_since = history[0].alert_since if history and not judged.mended else None
    if alert_since is None and broken_since is not None:
        often = sum(one.broken_since is not None for one in history[: monitor.last.samples - 1]) + 1
        if often >= monitor.last.broken and at - broken_since >= monitor.alert_for:
            alert_since = at
    return Since(broken_since, alert_since)


def silence_over(monitor: str, seen: Observation, acts: Sequence[MonitorAct], *, now: float) -> float | None:
    """When a silence over the alert of this newest observation ended, of which no later look has told; None where none did."""
    ends = [
        act.until for act in acts if act.monitor == monitor and act.until is not None and seen.at < act.until <= now
    ]
    if seen.alert_since is None or not ends or silenced(monitor, seen.alert_since, acts, now=now) is not None:
        return None
    return max(ends)


def silenced(monitor: str, alert_since: float, acts: Sequence[MonitorAct], *, now: float) -> MonitorAct | None:
    """The act of a person by which this alert calls nobody: the monitor is muted, or this very alert was approved.

    acts: newest first; of each kind the newest counts, unless it is from later than the server's clock: it would never end.
    """
    for kind in ("mute", "approve"):
        act = next((one for one in acts if (one.monitor, one.act) == (monitor, kind)), None)
        fits = act is not None and (kind == "mute" or act.at >= alert_since)
        if act is not None and fits and act.at <= now + AHEAD_S and (act.until is None or act.until > now):
            return act
    return None
