"""The commands demo and target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from runner.commands import options
from runner.common import terminal
from runner.common.outcome import Outcome
from runner.target.workplace import Workplace


@click.command("demo", short_help="A complete demonstration on a private PostgreSQL")
@click.option(
    "--sessions",
    default=50_000,
    show_default=True,
    type=click.IntRange(2_000, 20_000_000),
    help="Number of sessions in the demo's database.",
)
@click.option(
    "--store",
    type=click.Choice(["raw", "enriched", "rich", "bad"]),
    default="enriched",
    show_default=True,
    help="raw: as v16 leaves it, so that phase 2 says what is missing; enriched: after an enricher; rich: v16 itself has filled"
    " snapshots; bad: only 90 % can be covered, so that a criterion fails.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the runs and the server's data here; --stay --keep DIR starts that server again.",
)
@click.option(
    "--stay", is_flag=True, help="Leave the server running, and print commands to try on it: kill -9, resume, tune …"
)
@click.option("--stop", "end", is_flag=True, help="Stop the server that --stay left running.")
def demo_command(
    *, sessions: int, store: Literal["raw", "enriched", "rich", "bad"], keep: Path | None, stay: bool, end: bool
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
    sys.exit(stop() if end else demo(sessions=sessions, store=store, keep=keep, stay=stay))


@click.group("target", short_help="Check a target, or create the ledger in it")
def target_command() -> None:
    """Check a target, or create the ledger in it.

    \b
    runbook target check --target staging
    runbook target init --print --role runner
    """


@target_command.command("check", short_help="Check that everything a run needs is there")
@options.target
@options.as_json
def check(*, target: str | None, as_json: bool) -> None:
    """Check Python, drivers, server, identity, ledger and the privileges of this role.

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


@target_command.command("init", short_help="Create the ledger, or print its SQL for the DBA")
@options.target
@click.option("--print", "only_print", is_flag=True, help="Print the SQL for the DBA instead of running it.")
@click.option("--role", default="", help="With --print: the role that will run playbooks, for the grants.")
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "sqlite"]),
    default="postgresql",
    help="With --print: the kind of database.",
)
@options.as_json
def init(*, target: str | None, only_print: bool, role: str, dialect: str, as_json: bool) -> None:
    """Create the ledger: the engine's own tables in the schema `runbook` (SQLite: tables runbook_…).

    \b
    runbook target init --target staging
    runbook target init --print --role runner > ledger.sql
    """
    from runner.target import readiness

    if only_print:
        text = readiness.statements(dialect, role)
        if as_json:
            options.print_json({"sql": text})
        else:
            terminal.hand_over(text)
        return
    options.print_outcome(Outcome(readiness.init(Workplace(target))), as_json=as_json)
