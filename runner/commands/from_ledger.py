"""What the ledger of the target that was given with --target adds to `runs`, `status` and `report`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from runner.commands import options
from runner.common import terminal
from runner.common.durations import when
from runner.common.errors import RunbookError
from runner.target.workplace import Workplace, connected
from runner.trail.events import RunState
from steps.contract import DatabaseFault

if TYPE_CHECKING:
    from runner.monitor.from_ledger import LedgerRun, LedgerView
    from runner.trail.events import Json


def asked(place: Workplace) -> LedgerView | None:
    """The ledger of the target that the command line names; None without --target, or where it can't be read, which is said.

    These commands must work while the database is away: nobody is kept waiting for it who didn't ask for it.
    """
    if place.target is None:
        return None
    from runner.monitor import from_ledger

    try:
        with connected(place) as there:
            return from_ledger.read(there)
    except (RunbookError, DatabaseFault) as error:
        terminal.warn(f"shown without the ledger of {place.target}: {error}")
        return None


def elsewhere(one: LedgerRun) -> str:
    """Where the rest of what is known of this run lies."""
    return f"folder not here: it was begun on {one.row.host}"


def state_word(one: LedgerRun) -> str:
    """The state in a few words, as of a run that is read from its trail."""
    words = _state(one).replace("_", " ")
    return words + (f", alert since {_since(one)}" if one.alerts else "")


def _state(one: LedgerRun) -> str:
    return RunState.ROLLED_BACK.value if one.row.rolled_back else one.row.state


def _since(one: LedgerRun) -> str:
    from datetime import datetime

    return when(datetime.fromisoformat(min(alert.since for alert in one.alerts.values())))


def document(one: LedgerRun) -> Json:
    """A run as JSON, with the keys of `status --json` as far as the ledger has them; elsewhere: the host on which it was begun."""
    row = one.row
    return {
        "run": row.run,
        "playbook": row.playbook,
        "kind": row.kind,
        "target": row.target,
        "state": _state(one),
        "alerts": [
            {"monitor": alert.monitor, "since": alert.since, "answer": alert.answer, "text": alert.text}
            for alert in one.alerts.values()
        ],
        "trail": {"head": row.trail_head, "length": row.trail_length},
        "removed_by": row.removed_by,
        "elsewhere": row.host,
    }


def told(ledger: LedgerView | None, run: str, *, as_json: bool) -> bool:
    """Show a run of which nothing but the ledger is here; False where there is none."""
    one = ledger.find(run) if ledger is not None else None
    if one is None or ledger is None:
        return False
    if as_json:
        options.print_json(document(one))
    else:
        _tell(one, ledger.target)
    return True


def _tell(one: LedgerRun, target: str) -> None:
    row = one.row
    terminal.say(f"{row.run}  {elsewhere(one)}; this is what the ledger has")
    terminal.say(f"target {target} · operator {row.operator} · {when(one.at)}")
    terminal.say()
    if row.removed_by:
        terminal.labelled("effect", f"removed by run {row.removed_by}")
    texts = [f"{alert.monitor}: {alert.text}" for alert in one.alerts.values()]
    terminal.labelled("state", "; ".join([state_word(one), *texts]))
    terminal.labelled("next", "\n".join(_next(one, target)))


def _next(one: LedgerRun, target: str) -> list[str]:
    run, here = shlex.quote(one.row.run), f"--target {shlex.quote(target)}"
    if one.alerts:
        name = shlex.quote(next(iter(one.alerts)))
        accept = f"runbook monitor approve {run} {name} --for '3 days' --reason '…' {here}"
        return [
            f"runbook monitor history {run} {name} {here}",
            f"mend what it shows, and the next `runbook monitor once` ends the alert; or accept it: `{accept}`",
        ]
    return [f"runbook status {run}, on {one.row.host}; or, where its folder is lost, runbook recover {run} {here}"]
