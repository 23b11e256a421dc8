"""How the monitors of a target stand: their newest observations, their alerts, and what people said about them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from runner.common.durations import when
from runner.common.errors import MonitorAlert
from runner.monitor.state import silence_over, silenced
from runner.monitor.watched import Census, Watched, census
from runner.playbook.model import Monitor
from runner.playbook.schedule import Due, latest_due, next_due
from runner.target.server_clock import server_clock
from runner.target.workplace import Connected
from steps.contract import Look
from steps.ledger import monitors as ledger
from steps.ledger.monitors import MonitorAct, Observation


@dataclass(frozen=True)
class Standing:
    """How one monitor stands. seen: its newest observation, None for none yet; silence: why its alert calls nobody."""

    watched: Watched
    monitor: Monitor
    seen: Observation | None = None
    fresh: bool = False  # looked at by this command
    before: float | None = None  # since when it alerted before this command looked
    busy: str = ""  # who is looking at it now
    skipped: Due | None = None  # due, but too late, and its playbook says that it is skipped then
    silence: MonitorAct | None = None
    next_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.monitor.check.id

    @property
    def alerts(self) -> bool:
        """Whether it alerts, and nobody has approved or muted that."""
        return self.seen is not None and self.seen.alert_since is not None and self.silence is None

    @property
    def news(self) -> bool:
        """Whether this command has found it broken, with nobody's word that it calls nobody, or an alert of it over."""
        seen = self.seen if self.fresh and self.silence is None else None
        return seen is not None and (seen.broken_since is not None or seen.alert_since != self.before)

    @property
    def state(self) -> str:
        """Its state in a word."""
        if self.seen is None:
            return "not looked at yet"
        if self.seen.alert_since is not None:
            return "alert" if self.silence is None else f"{self.silence.act}d"
        if self.seen.broken_since is not None:
            return "broken"
        return "ok" if self.seen.answer == "pass" else self.seen.answer


@dataclass
class Round:
    """What one call of `monitor once` did, or what `monitor list` shows. not_recorded: why the ledger has nothing of it."""

    target: str
    now: datetime
    census: Census
    standing: list[Standing] = field(default_factory=list)
    not_recorded: str = ""
    notes: list[str] = field(default_factory=list)  # what could not be noted in a trail

    @property
    def alerts(self) -> list[Standing]:
        return [one for one in self.standing if one.alerts]

    def of(self, run: str, monitor: str) -> Standing:
        """How this monitor stands."""
        return next(one for one in self.standing if (one.watched.run, one.name) == (run, monitor))

    @property
    def broken(self) -> list[str]:
        """Runs that should be watched, and can't be."""
        return [f"{one.run}: {one.why}" for one in self.census.unwatched if one.broken]

    @property
    def calls(self) -> bool:
        """Whether anybody has to be called: an alert stands that nobody has approved or muted, or a run can't be watched."""
        return bool(self.alerts or self.broken)

    def raise_if_alerting(self) -> None:
        """Raise MonitorAlert if anybody has to be called."""
        if not self.calls:
            return
        what = [f"{one.name} of {one.watched.run}: {one.seen.text}" for one in self.alerts if one.seen is not None]
        first = self.alerts[0] if self.alerts else None
        then = (
            f"runbook monitor history {first.watched.run} {first.name} --target {shlex.quote(self.target)}"
            if first
            else "runbook monitor list"
        )
        since = ", ".join(
            f"{one.name} since {_when(one.seen.alert_since)}" for one in self.alerts if one.seen is not None
        )
        raise MonitorAlert("; ".join([*what, *self.broken]), why=since, state="this command only looked", then=then)


def look_on(target: Connected) -> Round:
    """How all monitors stand, without looking again."""
    return survey(target, server_clock(target.database)())


def survey(target: Connected, now: datetime, looked: Sequence[Standing] = ()) -> Round:
    """The state of all monitors according to the ledger, together with what this command has just seen."""
    with target.database.look() as look:
        found = census(look)
        kept = ledger.kept(look)
        acts = ledger.acts(look, [one.run for one in found.watched]) if kept else {}
        fresh = {(one.watched.run, one.name): one for one in looked}
        result = Round(target.name, now, found)
        for watched in found.watched:
            for monitor in watched.playbook.monitors:
                known = fresh.get((watched.run, monitor.check.id), Standing(watched, monitor))
                result.standing.append(_standing(look, known, acts.get(watched.run, []), now, kept=kept))
    return result


def _standing(look: Look, known: Standing, acts: Sequence[MonitorAct], now: datetime, *, kept: bool) -> Standing:
    watched, monitor, seen = known.watched, known.monitor, known.seen
    newest = ledger.observations(look, run=watched.run, monitor=known.name, most=1) if kept else []
    if newest and (seen is None or newest[0].due_at >= seen.due_at):
        seen = newest[0]  # as the ledger rounds its times
    alert, broken = (seen.alert_since, seen.broken_since) if seen is not None else (None, None)
    since = (
        alert if alert is not None else math.inf if broken is not None else None
    )  # what has not begun is not approved
    silence = silenced(known.name, since, acts, now=now.timestamp()) if since is not None else None
    following = next_due(monitor.every, anchor=watched.ended, now=now)
    return replace(known, seen=seen, silence=silence, next_at=following)


def _when(seconds: float | None) -> str:
    return when(datetime.fromtimestamp(seconds, UTC)) if seconds is not None else "-"


def due_now(
    watched: Watched, monitor: Monitor, history: Sequence[Observation], acts: Sequence[MonitorAct], now: datetime
) -> Due | None:
    """The due time that nobody has looked at yet, if there is one: by the schedule, or the end of a silence over an alert."""
    since = datetime.fromtimestamp(history[0].due_at, UTC) if history else watched.ended
    due = latest_due(monitor.every, anchor=watched.ended, since=since, now=now)
    if due is None and history:
        ended = silence_over(monitor.check.id, history[0], acts, now=now.timestamp())
        due = Due(datetime.fromtimestamp(ended, UTC), 0) if ended is not None else None
    return due
