"""Which runs are watched: of each playbook the newest run that succeeded, while its change stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from runner.common.errors import RunRefused
from runner.plan.open_runs import of_row
from runner.playbook.model import Monitor, Playbook
from runner.playbook.monitor_builder import steps_of_checks
from runner.playbook.scope import given
from runner.playbook.stored import stored
from runner.target import ledger_check
from steps.contract import INSUFFICIENT_PRIVILEGE, DatabaseFault, Look, Value
from steps.contract.values import decode_all
from steps.ledger import runs, tables
from steps.ledger.runs import RunRow

_SUCCEEDED = frozenset({"succeeded", "ended_unproven"})


@dataclass(frozen=True)
class Watched:
    """A run whose monitors are due at their times; ended: when it ended, by the server's clock."""

    row: RunRow
    playbook: Playbook
    ended: datetime

    @property
    def run(self) -> str:
        return self.row.run

    def monitor(self, name: str) -> Monitor:
        """The monitor of this id; raises RunRefused."""
        found = next((one for one in self.playbook.monitors if one.check.id == name), None)
        if found is None:
            known = ", ".join(one.check.id for one in self.playbook.monitors)
            raise RunRefused(f"cannot find the monitor {name!r} of {self.run}: it has {known}")
        return found

    @cached_property
    def given(self) -> dict[str, Value]:
        """The names that expressions of its monitors may use beside their own figures: limits, inputs, and the run's figures."""
        found = given(self.playbook)
        steps = steps_of_checks(self.playbook.entries)
        for name, figures in self.figures.items():
            for place in (name, *([f"{steps[name]}.{name}"] if name in steps else [])):
                found |= {f"run.{place}.{key}": value for key, value in figures.items()}
        return found

    @cached_property
    def figures(self) -> Mapping[str, Mapping[str, Value]]:
        """What the run's steps and checks had found."""
        return {name: decode_all(figures) for name, figures in json.loads(self.row.figures).items()}


@dataclass(frozen=True)
class Unwatched:
    """A run whose monitors are not asked (any more), and why. broken: it should be watched, but can't; older: long ago."""

    row: RunRow
    why: str
    broken: bool = False
    older: bool = False

    @property
    def run(self) -> str:
        return self.row.run


@dataclass
class Census:
    """The runs of a target as far as monitors are concerned."""

    watched: list[Watched] = field(default_factory=list)
    unwatched: list[Unwatched] = field(default_factory=list)

    @property
    def runs(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*(one.run for one in self.watched), *(one.run for one in self.unwatched)]))

    def find(self, name: str) -> Watched:
        """The watched run of this name, an unambiguous prefix, or `latest`; raises RunRefused."""
        if name == "latest" and self.watched:
            return max(self.watched, key=lambda one: one.ended)
        fits = [one for one in self.watched if one.run == name] or [
            one for one in self.watched if one.run.startswith(name)
        ]
        if len(fits) == 1:
            return fits[0]
        gone = next((one for one in self.unwatched if one.run == name), None)
        known = ", ".join(one.run for one in self.watched) or "none"
        raise RunRefused(
            f"cannot find a watched run {name!r} on this target" + (f": {gone.why}" if gone else ""),
            why=f"watched: {known}",
            then="runbook monitor list",
        )

    def past(self, look: Look, name: str) -> Watched:
        """Like `find`, also for a run that is not watched any more, by its full name."""
        gone = next((one.row for one in self.unwatched if one.run == name), None)
        playbook = of_row(gone, stored) if gone is not None else None
        if gone is None or playbook is None:
            return self.find(name)
        return _watched(look, gone, playbook)


def census(look: Look) -> Census:
    """Find the runs that are watched; raises RunRefused if the ledger can't be trusted or read."""
    try:
        found = Census()
        if ledger_check.refuse_bad(look).there:
            for name in runs.playbooks(look):
                _add(found, look, runs.latest_runs(look, playbook=name))
        return found
    except DatabaseFault as fault:
        if fault.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        raise RunRefused(
            "cannot tell which runs are watched: this role may not read the ledger",
            why=str(fault),
            then=f"GRANT USAGE ON SCHEMA {tables.SCHEMA} TO …; GRANT SELECT ON ALL TABLES IN SCHEMA {tables.SCHEMA} TO …",
        ) from fault


def _add(found: Census, look: Look, rows: list[RunRow]) -> None:
    ended = [row for row in rows if row.rolled_back or row.state in _SUCCEEDED]
    for number, row in enumerate(row for row in ended if "monitors" in row.source):
        if row is not ended[0]:
            why = f"its playbook has run again since: {ended[0].run}"
            found.unwatched.append(Unwatched(row, why, older=number > 1))
            continue
        playbook = of_row(row, stored)
        if playbook is None:
            found.unwatched.append(Unwatched(row, "its playbook can't be read by this version", broken=True))
        elif row.age_s < -tables.AHEAD_S:
            why = (
                "it ended later than the server's clock says, which has gone back; a new run of its playbook is watched"
            )
            found.unwatched.append(Unwatched(row, why, broken=True))
        elif playbook.monitors:
            if why := _gone(look, row, playbook):
                found.unwatched.append(Unwatched(row, why))
            else:
                found.watched.append(_watched(look, row, playbook))


def _watched(look: Look, row: RunRow, playbook: Playbook) -> Watched:
    return Watched(row, playbook, datetime.fromtimestamp(runs.ended_at(look, row.run), UTC))


def _gone(look: Look, row: RunRow, playbook: Playbook) -> str:
    """Why the run's change doesn't stand any more, or what it rests on; "" if it does."""
    if row.rolled_back:
        return "it was rolled back"
    if row.going_back:
        return "a part of it is taken back"
    return next(_rests_on_nothing(look, playbook, {playbook.name}), "")


def _rests_on_nothing(look: Look, playbook: Playbook, seen: set[str]) -> Iterator[str]:
    """The required runs that were taken back, directly or further below."""
    for requirement in playbook.requires:
        if requirement.playbook in seen:
            continue
        seen.add(requirement.playbook)
        rows = runs.latest_runs(look, playbook=requirement.playbook)
        row = next((row for row in rows if row.rolled_back or row.state in _SUCCEEDED), None)
        if row is None:
            continue
        if row.rolled_back or row.going_back:
            yield f"{row.run}, which it requires, was {'rolled back' if row.rolled_back else 'taken back in part'}"
        below = of_row(row, stored)
        if below is not None:
            yield from _rests_on_nothing(look, below, seen)
