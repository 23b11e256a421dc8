"""close and recover: a run that nobody goes on with, and one whose folder is lost."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import click

from runner.commands import complete, options
from runner.commands.look import place_of_run
from runner.common import terminal
from runner.common.errors import RunbookError
from runner.run.execute import RunOptions
from runner.target.runs import find_run
from runner.target.workplace import Workplace, runs_of


@click.command("close", short_help="End a run as what it is")
@click.argument("run", shell_complete=complete.runs)
@options.by
@options.reason
@options.target
@options.runs
@options.pointing
def close_command(*, run: str, by: str, reason: str, target: str | None, runs: Path | None) -> None:
    """End an open run as what it is: nothing is taken back, and what stands is said. A new run may begin then.

    Where its folder is lost, give its whole name and --target.

    \b
    runbook close latest --reason 'what stands is wanted; the rest is done by another run'
    """
    from runner.run.close import ClosingDecision, close

    place = place_of_run(run, target=target, runs=runs)
    ended = close(run, RunOptions(place=place, operator=by), ClosingDecision(by, reason))
    terminal.say(f"closed: {ended.run}; nothing was taken back")
    if ended.note:
        terminal.labelled("", ended.note)
    terminal.labelled("stands", ", ".join(ended.stands) or "nothing")
    terminal.labelled("next", _on("report", ended.run, place))


@click.command("recover", short_help="Make a lost run's folder again")
@click.argument("run", shell_complete=complete.runs)
@options.target
@options.runs
@options.operator
def recover_command(*, run: str, target: str | None, runs: Path | None, operator: str | None) -> None:
    """Make the folder of a run again from the target's ledger, by its whole name; the trail says that it was recovered.

    What only the old trail had is gone: answers of checks, approvals, notes.

    \b
    runbook recover adr007-phase3-20261201-023000-1a2b --target staging
    """
    from runner.run.recover import recover

    place = Workplace(target, runs)
    again = recover(run, RunOptions(place=place, operator=operator))
    terminal.say(f"recovered: {again.run} ({again.state.replace('_', ' ')}), in {again.directory}")
    terminal.labelled("next", _on("status", again.run, place))


def _on(verb: str, run: str, place: Workplace) -> str:
    """A command on this run, with what it needs to find the run from here."""
    options = ""
    with contextlib.suppress(RunbookError):  # closed in the ledger alone: its folder is lost
        options = find_run(runs_of(place), run).options()
    return f"runbook {verb} {shlex.quote(run)} {options}".rstrip()
