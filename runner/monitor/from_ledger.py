"""What a target's ledger says of its runs, for commands that show them: alerts that a trail lacks, and runs whose folder lies elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.monitor.standing import Round, look_on
from runner.monitor.trail_notes import alerts_of, bring_up
from runner.target.workplace import Connected
from runner.trail.events import AlertRaised
from runner.trail.status import RunStatus
from steps.ledger import tables
from steps.ledger.runs import RunRow, all_runs


@dataclass(frozen=True)
class LedgerRun:
    """A run as the ledger has it. at: when it ended (or began, where it hasn't ended), by the server's clock."""

    row: RunRow
    at: datetime
    alerts: dict[str, AlertRaised]  # by monitor


@dataclass(frozen=True)
class LedgerView:
    """The runs on a target, newest first, and how its monitors stand."""

    target: str
    runs: list[LedgerRun]
    round: Round

    def bring_up(self, status: RunStatus) -> None:
        """Give a status, as read from a trail, the alerts that the ledger has."""
        bring_up(status, self.round)

    def find(self, name: str) -> LedgerRun | None:
        """The run of this name, an unambiguous prefix, or `latest`; None where there is none."""
        if name == "latest":
            return self.runs[0] if self.runs else None
        fits = [one for one in self.runs if one.row.run == name]
        fits = fits or [one for one in self.runs if one.row.run.startswith(name)]
        return fits[0] if len(fits) == 1 else None


def read(target: Connected) -> LedgerView:
    """Read the ledger; raises RunRefused if it can't be trusted or read."""
    found = look_on(target)
    with target.database.look() as look:
        rows = all_runs(look) if tables.exists(look) else []
    now = found.now.astimezone(UTC)
    runs = [LedgerRun(row, now - timedelta(seconds=row.age_s), alerts_of(row.run, found)) for row in rows]
    return LedgerView(found.target, runs, found)
