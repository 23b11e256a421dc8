"""The commands close and recover."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import click

from runner.commands import complete, options
from runner.commands.look import place_of_run
from runner.common.errors import RunbookError
from runner.common.outcome import Fact, Outcome
from runner.run.execute import RunOptions
from runner.target.runs import find_run
from runner.target.workplace import Workplace, runs_of


@click.command("close", short_help="End an open run without undoing anything")
@click.argument("run", shell_complete=complete.runs)
@options.by
@options.reason
@options.target
@options.runs
@options.as_json
@options.pointing
def close_command(*, run: str, by: str, reason: str, target: str | None, runs: Path | None, as_json: bool) -> None:
    """End an open run in its current state: nothing is undone, and the steps still in place are listed.

    A new run of the playbook may then start. If the run's folder is lost, give its full name and --target.

    \b
    runbook close latest --reason 'what stands is wanted; the rest is done by another run'
    """
    from runner.run.close import ClosingDecision, close

    place = place_of_run(run, target=target, runs=runs)
    ended = close(run, RunOptions(place=place, operator=by), ClosingDecision(by, reason))
    facts: dict[str, Fact] = {"note": ended.note, "stands": ended.stands}
    done = f"closed: {ended.run}; nothing was taken back"
    options.print_outcome(Outcome(done, ended.run, facts, _on("report", ended.run, place)), as_json=as_json)


@click.command("recover", short_help="Recreate a lost run's folder")
@click.argument("run", shell_complete=complete.runs)
@options.target
@options.runs
@options.operator
@options.as_json
def recover_command(*, run: str, target: str | None, runs: Path | None, operator: str | None, as_json: bool) -> None:
    """Recreate the folder of a run from the target's ledger. RUN is its full name; the trail records the recovery.

    What only the old trail had is lost: answers of checks, approvals, notes.

    \b
    runbook recover adr007-phase3-20261201-023000-1a2b --target staging
    """
    from runner.run.recover import recover

    place = Workplace(target, runs)
    again = recover(run, RunOptions(place=place, operator=operator))
    done = f"recovered: {again.run} ({again.state.replace('_', ' ')}), in {again.directory}"
    options.print_outcome(Outcome(done, again.run, next=_on("status", again.run, place)), as_json=as_json)


def _on(verb: str, run: str, place: Workplace) -> tuple[str, ...]:
    """A command on this run, with the options that find it from here."""
    options = ""
    with contextlib.suppress(RunbookError):  # closed in the ledger alone, because its folder is lost
        options = find_run(runs_of(place), run).options()
    return (f"runbook {verb} {shlex.quote(run)} {options}".rstrip(),)
