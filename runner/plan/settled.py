"""Whether an earlier run has settled: it has stood for so long, and its monitors looked and held meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime

from runner.common.durations import age, when
from runner.plan.open_runs import of_row
from runner.playbook.model import Monitor
from runner.playbook.schedule import latest_due
from runner.playbook.stored import stored
from steps.contract import Look
from steps.ledger import monitors as ledger
from steps.ledger import runs
from steps.ledger.runs import RunRow


def why_not(look: Look, row: RunRow, seconds: float | None) -> str:
    """Why the run has not stood for so long without an alert; "" if it has, or if nobody asks for that."""
    if seconds is None:
        return ""
    if row.age_s < seconds:
        return f"its run {row.run} succeeded {age(row.age_s)} ago, and must have stood for {age(seconds)}"
    playbook = of_row(row, stored)
    if playbook is None:
        return f"the playbook of its run {row.run} can't be read, so nobody knows which monitors it has"
    if not playbook.monitors:
        return ""
    alerts = ledger.alerts_since(look, run=row.run, within_s=seconds) if ledger.kept(look) else []
    if alerts:
        last = alerts[0]
        return f"{last.monitor} of its run {row.run} alerted within {age(seconds)} ({_when(last.at)}: {last.text})"
    return next((why for one in playbook.monitors if (why := _unseen(look, row, one, seconds))), "")


def _unseen(look: Look, row: RunRow, monitor: Monitor, seconds: float) -> str:
    """Why the monitor can't vouch for the time: it was due and nobody looked, or it was broken at last."""
    name = monitor.check.id
    ended = datetime.fromtimestamp(runs.ended_at(look, row.run), UTC)
    seen = ledger.observations(look, run=row.run, monitor=name, most=1) if ledger.kept(look) else []
    since = datetime.fromtimestamp(seen[0].due_at, UTC) if seen else ended
    now = datetime.fromtimestamp(ended.timestamp() + row.age_s, UTC)
    due = latest_due(monitor.every, anchor=ended, since=since, now=now)
    fresh = bool(seen) and seen[0].at >= now.timestamp() - seconds
    if due is not None and not (fresh and monitor.missed.skip_after is not None):
        return f"{name} of its run {row.run} was due at {when(due.at)}, and nobody looked: runbook monitor once"
    if seen and seen[0].broken_since is not None:
        return f"{name} of its run {row.run} is broken since {_when(seen[0].broken_since)}: {seen[0].text}"
    return ""


def _when(seconds: float) -> str:
    return when(datetime.fromtimestamp(seconds, UTC))
