"""`runbook monitor once`: look at what is due, and carry what changed into the trails of the runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from runner.monitor.observe import Busy, Observer
from runner.monitor.standing import Round, Standing, due_now, survey
from runner.monitor.trail_notes import note_alerts
from runner.monitor.watched import Watched, census
from runner.playbook.model import Monitor
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected
from runner.trail import run_process

Clock = Callable[[], datetime]


def once(target: Connected, runs: Path, *, operator: str | None) -> Round:
    """Look at what is due now, record it, and carry alerts into the trails of those runs that lie here."""
    clock = server_clock(target.database)
    observer = Observer(target, run_process.this_process(operator))
    with target.database.look() as look:
        found = census(look)
    if found.watched:
        observer.prepare()
    looked = [
        _due(observer, watched, monitor, clock) for watched in found.watched for monitor in watched.playbook.monitors
    ]
    result = survey(target, clock(), looked)
    result.not_recorded = "" if observer.records else observer.why_not
    if observer.records:
        result.notes = note_alerts(target, runs, result)
    return result


def _due(observer: Observer, watched: Watched, monitor: Monitor, clock: Clock) -> Standing:
    said = observer.said(watched)
    due = due_now(watched, monitor, observer.history(watched, monitor), said, clock())
    if due is None:
        return Standing(watched, monitor)
    if (late := monitor.missed.skip_after) is not None and (clock() - due.at).total_seconds() > late:
        return Standing(watched, monitor, skipped=due)
    busy = observer.claim(watched, monitor)
    if isinstance(busy, Busy):
        return Standing(watched, monitor, busy=busy.who)
    history = observer.history(watched, monitor)  # nobody else looks from here on
    due = due_now(watched, monitor, history, said, clock())
    if due is None:
        observer.release(watched, monitor)
        return Standing(watched, monitor)
    seen = observer.look(watched, monitor, due, history, now=clock())
    before = history[0].alert_since if history else None
    return Standing(watched, monitor, seen=seen, fresh=seen is not None, before=before)
