"""Carries alerts from the ledger into the trails of the runs that lie here, so that runs, status and report show them.

The ledger is the authority. What a trail lacks is appended at the next call, so a kill between the two loses nothing; and
who shows a run while its ledger can be read gives the run's status the same events (`bring_up`), without writing any.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from runner.common.errors import RunbookError, TrailBroken
from runner.monitor.standing import Round, Standing
from runner.record import trust
from runner.run.opened_run import OpenedRun
from runner.target.runs import load_run
from runner.target.workplace import Connected
from runner.trail.events import AlertEnded, AlertRaised
from runner.trail.status import RunStatus, alerted
from steps.contract import Answer
from steps.ledger.monitors import Observation

ATTEMPTS = 50  # a run has few monitors, each with at most two events to note


def note_alerts(target: Connected, runs: Path, found: Round) -> list[str]:
    """Append what the trails lack; returns what could not be appended, in words."""
    told: list[str] = []
    for run in found.census.runs:
        if (runs / run / "trail.jsonl").is_file():
            try:
                _note(target, runs / run, found)
            except (RunbookError, OSError) as error:
                told.append(f"cannot note the alerts of {run} in its trail: {error}")
    return told


def bring_up(status: RunStatus, found: Round) -> None:
    """Give a run's status the alerts that the ledger has and its trail lacks; a run that the ledger doesn't watch keeps its own."""
    if status.run in found.census.runs:
        for event in [*_missing(status, found)]:
            alerted(status, event)


def alerts_of(run: str, found: Round) -> dict[str, AlertRaised]:
    """The alerts of a run that stand, by monitor."""
    return {one.name: _raised(one, seen) for one in found.alerts if one.watched.run == run and (seen := one.seen)}


def _note(target: Connected, directory: Path, found: Round) -> None:
    """Append one event after the other, each to the trail as it is then: others may append, too, and to the same end."""
    for attempt in range(1, ATTEMPTS + 1):
        run = load_run(directory)
        event = next(_missing(run.status, found), None)
        if event is None:
            return
        verdict = trust.trusted(run, target.database)
        if verdict.answer is trust.RecordTrust.CONTRADICTED:
            raise trust.refusal(run, verdict, "note an alert in")
        opened = OpenedRun(run, target.masks, target, verdict.answer.value)
        try:
            opened.write(event.model_copy(update={"trust": opened.trust}), what="an alert")
        except TrailBroken:
            if attempt == ATTEMPTS:
                raise


def _missing(status: RunStatus, found: Round) -> Iterator[AlertRaised | AlertEnded]:
    """The events that bring a trail to what the ledger says."""
    gone = {one.run: one.why for one in found.census.unwatched}
    mine = {one.name: one for one in found.standing if one.watched.run == status.run}
    for name, raised in status.alerts.items():
        one = mine.get(name)
        if one is not None and one.seen is None:
            continue  # the ledger has lost what it had seen: only an observation ends an alert, never silence
        if one is None or not one.alerts or _since(one) != raised.since:
            yield _ended(name, one, gone.get(status.run, "its playbook has it no more"))
    for name, alert in alerts_of(status.run, found).items():
        if name not in status.alerts or status.alerts[name].since != alert.since:
            yield alert


def _raised(one: Standing, seen: Observation) -> AlertRaised:
    return AlertRaised(monitor=one.name, since=_since(one), answer=Answer(seen.answer), text=seen.text)


def _ended(name: str, one: Standing | None, gone: str) -> AlertEnded:
    if one is None or one.seen is None:
        return AlertEnded(monitor=name, text=f"not watched any more: {gone}")
    if one.silence is not None:
        act = one.silence
        until = f" until {datetime.fromtimestamp(act.until, UTC).isoformat(timespec='minutes')}" if act.until else ""
        return AlertEnded(monitor=name, text=f"{act.act}d{until}: {act.reason}", by=act.by)
    return AlertEnded(monitor=name, text="it had passed meanwhile" if one.alerts else one.seen.text)


def _since(one: Standing) -> str:
    since = one.seen.alert_since if one.seen is not None else None
    return datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds") if since is not None else ""
