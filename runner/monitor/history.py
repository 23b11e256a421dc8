"""A monitor's observations for people: a line for each, and a sparkline of its figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from runner.common.durations import when
from runner.playbook.model import Monitor
from runner.target.workplace import Connected
from runner.trail.events import Json
from steps.contract import Value
from steps.contract.values import decode_all, readable_all
from steps.ledger import monitors as ledger
from steps.ledger.monitors import MonitorAct, Observation

_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"  # no figure: the check could not be answered
_GIVEN = ("limits.", "inputs.", "run.")


def read(target: Connected, run: str, name: str, *, most: int) -> tuple[list[Observation], list[MonitorAct]]:
    """A monitor's latest observations, oldest first, and what people said about it."""
    with target.database.look() as look:
        if not ledger.kept(look):
            return [], []
        seen = ledger.observations(look, run=run, monitor=name, most=most, ahead=True)
        acts = [one for one in ledger.acts(look, [run])[run] if one.monitor == name]
    return seen[::-1], acts[::-1]


def lines(monitor: Monitor, seen: Sequence[Observation], acts: Sequence[MonitorAct]) -> list[str]:
    """The history as text: the sparkline, then observations and acts in the order in which they came."""
    told = [(one.at, _observed(one)) for one in seen] + [(one.at, _said(one)) for one in acts]
    return [*_spark(monitor, seen), *(text for _, text in sorted(told, key=lambda one: one[0]))]


def document(seen: Iterable[Observation], acts: Iterable[MonitorAct]) -> dict[str, Json]:
    """The history as JSON."""
    return {
        "observations": [
            {**vars(one), "figures": readable_all(decode_all(json.loads(one.figures))), **_times(one)} for one in seen
        ],
        "acts": [{**vars(one), "at": _iso(one.at), "until": _iso(one.until)} for one in acts],
    }


def _times(one: Observation) -> dict[str, Json]:
    return {name: _iso(getattr(one, name)) for name in ("due_at", "at", "broken_since", "alert_since")}


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _observed(one: Observation) -> str:
    state = "ALERT" if one.alert_since is not None else "broken" if one.broken_since is not None else ""
    missed = f"; {missed_words(one.missed)}" if one.missed else ""
    words = " ".join(part for part in (f"{one.answer:<7}", f"{state:<6}", one.text) if part)
    return f"{_when(one.at)}  {words}{missed} ({one.host})"


def missed_words(missed: int) -> str:
    """How many due times passed before an observation without one."""
    return f"nobody looked at {missed} due time{'' if missed == 1 else 's'} before it"


def _said(act: MonitorAct) -> str:
    until = f" until {_when(act.until)}" if act.until is not None else ""
    return f"{_when(act.at)}  {act.act}d by {act.by}{until}: {act.reason}"


def _when(seconds: float) -> str:
    return when(datetime.fromtimestamp(seconds, UTC))


# ─── the sparkline ──────────────────────────────────────────────────────────────────────────────────────────────────
def figure_of(monitor: Monitor) -> str:
    """The figure that the monitor decides by: the first one of `alert:`, else of `that:`; "" for none."""
    expressions = (monitor.alert, monitor.check.that)
    names = [name for one in expressions if one is not None for name in one.names]
    return next((name for name in names if not name.startswith(_GIVEN)), "")


def _spark(monitor: Monitor, seen: Sequence[Observation]) -> list[str]:
    name = figure_of(monitor)
    values = [_number(one, name) for one in seen]
    known = [value for value in values if value is not None]
    if not known:
        return []
    low, high = min(known), max(known)
    return [f"{name}  {sparkline(values)}  {low:g} to {high:g}"]


def sparkline(values: Iterable[float | None]) -> str:
    """One sign for each value, between the lowest and the highest; None is a dot."""
    values = list(values)
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_NOTHING if value is None else _BARS[round((value - low) / step)] for value in values)


def _number(one: Observation, name: str) -> float | None:
    recorded = json.loads(one.figures)
    found: Value = None
    for group in ("operands", "figures"):
        values = decode_all(recorded.get(group, {}))
        found = values.get(name) if found is None else found
    return float(found) if isinstance(found, int | float | Decimal) and not isinstance(found, bool) else None
