"""The command init."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from runner.commands import complete, options
from runner.common import terminal

if TYPE_CHECKING:
    from runner.sandbox.first_playbook import Begun


@click.command("init", short_help="Write a first playbook, or copy an example")
@click.argument("name", required=False)
@options.target
@click.option(
    "--from",
    "example",
    default="",
    metavar="EXAMPLE",
    shell_complete=complete.examples,
    help="Copy this example instead.",
)
@click.option("--list", "only_list", is_flag=True, help="List the examples that --from takes.")
@options.as_json
def init_command(*, name: str | None, target: str | None, example: str, only_list: bool, as_json: bool) -> None:
    """Write NAME.yaml, a first playbook that runs without changes, and show the next commands.

    The playbook creates a small table and can undo that. Without a target, its first run uses a new SQLite file,
    NAME.sqlite. This command connects to no database and overwrites no file.

    \b
    runbook init first                                   for SQLite, with nothing at hand
    runbook init first -t postgresql://me@host/app       for PostgreSQL; the password is in ~/.pgpass
    runbook init first -t staging                        for a target of targets.yaml
    runbook init fill-it --from backfill                 a copy of an example
    runbook init --list                                  the examples
    """
    from runner.sandbox.first_playbook import init

    if only_list:
        _list(as_json=as_json)
        return
    if name is None:
        raise click.UsageError("cannot tell what the playbook is called: runbook init NAME, or --list")
    begun = init(name, target=target, example=example)
    if as_json:
        options.print_json(asdict(begun))
    else:
        _told(begun)


def _list(*, as_json: bool) -> None:
    from runner.sandbox.first_playbook import examples

    found = examples()
    if as_json:
        options.print_json([asdict(one) for one in found])
        return
    for one in found:
        terminal.say(f"{one.name:<20}{one.about}", hang=20)


def _told(begun: Begun) -> None:
    from runner.common.markdown import safe

    terminal.say(f"wrote {begun.file}{f', a copy of the example {begun.copied_from}' if begun.copied_from else ''}")
    if begun.database:
        terminal.say(f"its first run is on {begun.database}, a SQLite file; -t NAME|URL|FILE names another database")
    if begun.copied_from:
        terminal.say("its tables are the demo's: `demo --stay` has a database with them; or put in your own")
    terminal.say()
    terminal.say("next:")
    for line in begun.next:  # not wrapped to the terminal's width, because they are to be copied
        terminal.hand_over(f"  {safe(line)}\n")
