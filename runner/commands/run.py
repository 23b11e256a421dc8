"""exec, resume and rollback."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.common.errors import EXIT_CODES
from runner.playbook.find import find_playbook
from runner.run.execute import RunOptions, View, execute
from runner.target.runs import find_run
from runner.target.workplace import Workplace, runs_of
from runner.trail.events import RunState


def _view(*, verbose: bool, as_json: bool) -> View:
    if as_json:
        from runner.report.live_view import JsonLines

        lines = JsonLines(sys.stdout)
        return View(heard=lines.heard)
    from runner.report.live_view import Lines

    shown = Lines(sys.stdout, verbose=verbose)
    ask = shown.ask if sys.stdin.isatty() and sys.stdout.isatty() else None
    return View(heard=shown.heard, progress=shown.progress, begun=shown.begun, say=shown.say, ask=ask)


_GOOD = {RunState.SUCCEEDED, RunState.ROLLED_BACK}
_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {words}" for code, words in EXIT_CODES.items())


@click.command("exec", short_help="Run a playbook on a target", epilog=_CODES)
@click.argument("playbooks", nargs=-1, required=True, metavar="PLAYBOOK…", shell_complete=complete.playbooks)
@options.target
@options.runs
@options.operator
@click.option(
    "-i", "--input", "given", multiple=True, metavar="KEY=VALUE", help="An input of the playbook; repeatable."
)
@click.option(
    "--inputs-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Inputs from a YAML file."
)
@click.option(
    "--status-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep a second status.json here, for monitors.",
)
@click.option(
    "--from",
    "begin_at",
    default="",
    shell_complete=complete.checkpoints,
    metavar="CHECKPOINT",
    help="Begin here; the steps before it must be done already.",
)
@click.option(
    "--to",
    "until",
    default="",
    shell_complete=complete.checkpoints,
    metavar="CHECKPOINT",
    help="Stop before this checkpoint.",
)
@click.option("--dry-run", is_flag=True, help="Only look: preconditions and plan against the target. Writes no trail.")
@click.option("--run-probes", is_flag=True, help="With --dry-run: also ask preconditions that run a program or tests.")
@click.option("-v", "--verbose", is_flag=True, help="Tell more of what the database said.")
@options.as_json
def exec_command(  # noqa: PLR0913 - one parameter an option
    *,
    playbooks: tuple[str, ...],
    target: str | None,
    runs: Path | None,
    operator: str | None,
    given: tuple[str, ...],
    inputs_file: Path | None,
    status_dir: Path | None,
    begin_at: str,
    until: str,
    dry_run: bool,
    run_probes: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run playbooks in order, each gated and recorded; the first that does not succeed ends it.

    A playbook is a file, or the name of one in playbooks/.

    \b
    runbook exec adr007-phase1.yaml --target staging
    runbook exec adr007-phase1 adr007-phase2 --target prod --operator dana
    runbook exec adr007-phase3.yaml --dry-run
    """
    place = Workplace(target, runs)
    values = options.inputs(given, inputs_file)
    paths = [find_playbook(name, place.cwd) for name in playbooks]
    if dry_run:
        from runner.commands.review import dry_runs

        looking = RunOptions(place=place, inputs=values, operator=operator, until=until, begin_at=begin_at)
        dry_runs(paths, looking, as_json=as_json, run_probes=run_probes)
        return
    for path in paths:
        orders = RunOptions(
            place=place,
            inputs=values,
            operator=operator,
            until=until,
            begin_at=begin_at,
            status_dir=status_dir,
            view=_view(verbose=verbose, as_json=as_json),
        )
        run = execute(path, orders)
        if not as_json:
            _well(place, run)


@click.command("resume", short_help="Go on with a run")
@click.argument("run", shell_complete=complete.runs)
@options.target
@options.runs
@options.operator
@click.option("-i", "--input", "given", multiple=True, metavar="KEY=VALUE", help="Secret inputs must be given again.")
@click.option(
    "--accept-changes", is_flag=True, help="The playbook was changed in steps that have not begun, and that is meant."
)
@click.option(
    "--outside-window", is_flag=True, help="Go on although the run's window is shut; --reason stands in the trail."
)
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    callback=options.own_words,
    help="Why; needed with --accept-changes and --outside-window.",
)
@click.option(
    "--dead", is_flag=True, help="Try again the rows that a backfill set aside; also of a run that succeeded."
)
@click.option("-v", "--verbose", is_flag=True, help="Tell more of what the database said.")
@options.as_json
@options.pointing
def resume_command(  # noqa: PLR0913 - one parameter an option
    *,
    run: str,
    target: str | None,
    runs: Path | None,
    operator: str | None,
    given: tuple[str, ...],
    accept_changes: bool,
    outside_window: bool,
    reason: str,
    dead: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Go on where the run stands: the database is asked, finished steps are not run again.

    RUN is a run's name, an unambiguous beginning of it, or `latest`.

    \b
    runbook resume latest
    runbook resume latest --accept-changes --reason 'the lock may wait longer'
    runbook resume latest --dead
    """
    from runner.commands.look import meant
    from runner.run.resume import Accepted, resume

    if accept_changes and not reason:
        raise click.UsageError("--accept-changes needs --reason: it voids approvals, and stands in the trail")
    if outside_window and not reason:
        raise click.UsageError("--outside-window needs --reason: it stands in the trail")
    run = meant(run, target=target, runs=runs)
    orders = RunOptions(
        place=_place(target, runs, run),
        inputs=options.inputs(given, None),
        operator=operator,
        view=_view(verbose=verbose, as_json=as_json),
    )
    name = resume(run, orders, accepted=Accepted(reason, changes=accept_changes, outside=outside_window), dead=dead)
    if not as_json:
        _well(orders.place, name)


@click.command("rollback", short_help="Take back what a run changed")
@click.argument("run", shell_complete=complete.runs)
@options.target
@options.runs
@options.operator
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    callback=options.own_words,
    help="Why; it stands in the trail. Needed with --leave and --accept-changes.",
)
@click.option(
    "--to",
    "after",
    default="",
    shell_complete=complete.steps_of_run,
    metavar="STEP",
    help="Keep this step and those before it.",
)
@click.option(
    "--leave",
    multiple=True,
    shell_complete=complete.steps_of_run,
    metavar="STEP",
    help="Leave this step standing; repeatable.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="The way back was mended in the playbook (revert, rollback), and that is meant.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell more of what the database said.")
@options.as_json
@options.pointing
def rollback_command(  # noqa: PLR0913 - one parameter an option
    *,
    run: str,
    target: str | None,
    runs: Path | None,
    operator: str | None,
    reason: str,
    after: str,
    leave: tuple[str, ...],
    accept_changes: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Take back the run's steps in reverse order, from what each remembered; only this run's rows, and none changed since.

    It ends with 9 where rows were refused or a step is left standing; the run is then rolled back in part.

    \b
    runbook rollback latest --reason 'the figures are wrong'
    runbook rollback latest --to go
    runbook rollback latest --leave pair_index --reason 'it does no harm'
    """
    from runner.commands.look import meant
    from runner.run.way_back import Asked, rollback

    if (leave or accept_changes) and not reason:
        raise click.UsageError("--leave and --accept-changes need --reason: it stands in the trail")
    run = meant(run, target=target, runs=runs)
    orders = RunOptions(
        place=_place(target, runs, run), operator=operator, view=_view(verbose=verbose, as_json=as_json)
    )
    back = rollback(run, orders, Asked(reason or "asked by the operator", after, leave, accept_changes))
    if not as_json:
        _well(orders.place, back.run, back.words)


def _place(target: str | None, runs: Path | None, run: str) -> Workplace:
    """Without --target, a run goes on where it began."""
    from runner.commands.look import place_of_run

    return place_of_run(run, target=target, runs=runs)


def _well(place: Workplace, name: str, more: str = "") -> None:
    """How a run ended that ended well, in the word of its state."""
    found = find_run(runs_of(place), name)
    how = f"{found.status.state.replace('_', ' ')}:"
    terminal.say()
    terminal.say(f"{how} {name}", mark=how, colour="green" if found.status.state in _GOOD else "yellow")
    if more:
        terminal.labelled("state", more)
    terminal.labelled("next", f"runbook report {shlex.quote(name)} {found.options()}".rstrip())
