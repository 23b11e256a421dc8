"""What people say about a monitor: an alert that stands is approved, or the monitor is muted for a time. Both are records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.common import person_names
from runner.common.errors import RunRefused
from runner.monitor.observe import MAY_NOT
from runner.monitor.standing import Standing, look_on
from runner.monitor.trail_notes import note_alerts
from runner.target.workplace import Connected
from runner.trail import run_process
from steps.contract import DatabaseFault
from steps.ledger import monitors as ledger
from steps.ledger.monitors import Act, Person


@dataclass(frozen=True)
class Word:
    """What a person says: for_s is for how long it holds, None for no end."""

    act: Act
    by: str
    reason: str
    for_s: float | None


def say(target: Connected, runs: Path, word: Word, *, run: str, name: str) -> tuple[Standing, list[str]]:
    """Record a person's word in the ledger, and in the run's trail where it silences an alert.

    Returns how the monitor stands then, and what could not be noted in a trail.
    """
    found = look_on(target)
    watched = found.census.find(run)
    watched.monitor(name)
    _refuse_idle(found.of(watched.run, name), word)
    _record(target, watched.run, name, word)
    after = look_on(target)
    return after.of(watched.run, name), note_alerts(target, runs, after)


def _refuse_idle(standing: Standing, word: Word) -> None:
    if word.act == "approve" and (standing.seen is None or standing.seen.alert_since is None):
        run, name = standing.watched.run, standing.name
        raise RunRefused(
            f"cannot approve {name} of {run}: it does not alert",
            state="nothing was recorded",
            then=f"runbook monitor mute {run} {name} --for '3 days' --reason '…', where one is to be expected",
        )


def _record(target: Connected, run: str, name: str, word: Word) -> None:
    mask = target.masks.mask
    by = person_names.named(word.by)
    process = run_process.this_process(by)
    person = Person(mask(by), process.user, process.host)
    try:
        with target.database.own(fenced=False) as work:
            if not ledger.kept(work):
                ledger.keep(work)
            ledger.add_act(
                work, run=run, monitor=name, act=word.act, by=person, reason=mask(word.reason), for_s=word.for_s
            )
    except DatabaseFault as fault:
        if fault.sqlstate not in MAY_NOT:
            raise
        raise RunRefused(
            f"cannot {word.act} {name}: this role may not record it",
            why=str(fault),
            state="nothing was recorded",
            then="do it with the role of the runs",
        ) from fault
