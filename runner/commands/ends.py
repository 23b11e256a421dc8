"""close and recover: a run that nobody goes on with, and one whose folder is lost."""

from __future__ import annotations

from pathlib import Path

import click

from runner.commands import options
from runner.commands.look import place_of_run
from runner.workflow import Orders
from runner.workplace import Place


@click.command("close", short_help="End a run as what it is")
@click.argument("run")
@options.by
@options.reason
@options.target
@options.runs
def close_command(*, run: str, by: str, reason: str, target: str | None, runs: Path | None) -> None:
    """End an open run as what it is: nothing is taken back, and what stands is said. A new run may begin then.

    Where its folder is lost, give its whole name and --target.
    """
    from runner.closing import Word, close

    ended = close(run, Orders(place=place_of_run(run, target=target, runs=runs), operator=by), Word(by, reason))
    note = f"\n           {ended.note}" if ended.note else ""
    click.echo(f"closed: {ended.run}; nothing was taken back{note}")
    click.echo(f"stands     {', '.join(ended.stands) or 'nothing'}\nnext       runbook report {ended.run}")


@click.command("recover", short_help="Make a lost run's folder again")
@click.argument("run")
@options.target
@options.runs
@options.operator
def recover_command(*, run: str, target: str | None, runs: Path | None, operator: str | None) -> None:
    """Make the folder of a run again from the target's ledger, by its whole name; the trail says that it was recovered.

    What only the old trail had is gone: answers of checks, approvals, notes.
    """
    from runner.recovering import recover

    again = recover(run, Orders(place=Place(target, runs), operator=operator))
    click.echo(f"recovered: {again.run} ({again.state.replace('_', ' ')}), in {again.directory}")
    click.echo(f"next       runbook status {again.run}")
