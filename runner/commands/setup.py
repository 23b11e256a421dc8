"""demo and target: getting to know the product, and getting a database ready for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from runner.commands import options
from runner.common import terminal
from runner.target.workplace import Workplace


@click.command("demo", short_help="The whole mission on an embedded PostgreSQL")
@click.option(
    "--sessions",
    default=100_000,
    show_default=True,
    type=click.IntRange(2_000, 20_000_000),
    help="How many sessions the database has.",
)
@click.option(
    "--shape",
    type=click.Choice(["empty", "stored", "bad"]),
    default="empty",
    show_default=True,
    help="empty: no source_ip yet; stored: v16 filled it; bad: only 90 % can be covered, so a criterion must fail.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Leave runs here, and the server's data for a second look; with --stay again, the server starts with them.",
)
@click.option("--stay", is_flag=True, help="Leave the server up, and print lines to try on it: kill -9, resume, tune …")
@click.option("--stop", "end", is_flag=True, help="End the demo that stays.")
def demo_command(
    *, sessions: int, shape: Literal["empty", "stored", "bad"], keep: Path | None, stay: bool, end: bool
) -> None:
    """Start a private PostgreSQL, fill it with sessions, and run phases 1 to 4 with their gates.

    \b
    runbook demo                          the mission; the server ends with it
    runbook demo --stay                   its server stays up, to be tried out; one at a time
    runbook demo --stop                   ends that one; so does the end of its terminal
    runbook demo --keep DIR               leaves data and runs in DIR
    runbook demo --stay --keep DIR        starts that server again as it was
    """
    from runner.sandbox.demo import demo, stop

    if stay and end:
        raise click.UsageError("cannot both --stay and --stop: --stop ends the one that stays")
    sys.exit(stop() if end else demo(sessions=sessions, shape=shape, keep=keep, stay=stay))


@click.group("target", short_help="Check a target, or make the ledger in it")
def target_command() -> None:
    """Check a target, or make the ledger in it.

    \b
    runbook target check --target staging
    runbook target init --print --role runner
    """


@target_command.command("check", short_help="Whether all that a run needs is there")
@options.target
@options.as_json
def check(*, target: str | None, as_json: bool) -> None:
    """Python, drivers, server, identity, ledger and what this role may do there.

    \b
    runbook target check --target staging
    runbook target check --target app.sqlite --json
    """
    from runner.target.readiness import check as look

    found = look(Workplace(target))
    if as_json:
        options.print_json([one.__dict__ for one in found])
    else:
        for one in found:
            terminal.say(f"{'✓' if one.good else '✗'} {one.name}: {one.text}")
    if not all(one.good for one in found):
        sys.exit(3)


@target_command.command("init", short_help="Make the ledger, or print it for the DBA")
@options.target
@click.option("--print", "only_print", is_flag=True, help="Print the statements for the DBA instead of running them.")
@click.option("--role", default="", help="With --print: the role that will run playbooks, for its grants.")
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "sqlite"]),
    default="postgresql",
    help="With --print, without a target.",
)
def init(*, target: str | None, only_print: bool, role: str, dialect: str) -> None:
    """Make the ledger: the engine's own tables, in a schema `runbook` (SQLite: tables runbook_…).

    \b
    runbook target init --target staging
    runbook target init --print --role runner > ledger.sql
    """
    from runner.target import readiness

    if only_print:
        terminal.hand_over(readiness.statements(dialect, role))
        return
    terminal.say(readiness.init(Workplace(target)))
