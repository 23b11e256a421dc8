"""The commands exec, resume and rollback."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.common.errors import EXIT_CODES
from runner.playbook.find import find_playbook
from runner.run.execute import RunOptions, View, execute
from runner.target.runs import find_run
from runner.target.workplace import Workplace, runs_of
from runner.trail.events import Event, RunState
from steps.contract import Progress

if TYPE_CHECKING:
    from runner.report.live_view import Lines


def _view(*, verbose: bool, as_json: bool) -> View:
    from runner.report.live_view import JsonLines, Lines

    if as_json:
        view = View(heard=JsonLines(sys.stdout).heard)
    else:
        shown = Lines(sys.stdout, verbose=verbose)
        ask = shown.ask if sys.stdin.isatty() and sys.stdout.isatty() else None
        view = View(heard=shown.heard, progress=shown.progress, begun=shown.begun, say=shown.say, ask=ask)
    log = terminal.log()
    return view if log is None else _also(view, Lines(log, verbose=True))


def _also(view: View, log: Lines) -> View:
    """The view, of which a log takes note too."""

    def heard(event: Event) -> None:
        view.heard(event)
        log.heard(event)

    def progress(step: str, told: Progress) -> None:
        view.progress(step, told)
        log.progress(step, told)

    def begun(run: str, directory: Path) -> None:
        view.begun(run, directory)
        log.begun(run, directory)

    def say(text: str) -> None:
        view.say(text)
        log.say(text)

    return View(heard=heard, progress=progress, begun=begun, say=say, ask=view.ask)


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
@options.recording
@click.option(
    "--from",
    "begin_at",
    default="",
    shell_complete=complete.checkpoints,
    metavar="CHECKPOINT",
    help="Start here; the steps before it must be done already.",
)
@click.option(
    "--to",
    "until",
    default="",
    shell_complete=complete.checkpoints,
    metavar="CHECKPOINT",
    help="Stop before this checkpoint.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show plan and preconditions against the target. Changes nothing, writes no trail.",
)
@click.option(
    "--run-probes", is_flag=True, help="With --dry-run: also evaluate preconditions that run a program or tests."
)
@click.option("-v", "--verbose", is_flag=True, help="Show more detail.")
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
    status_name: str,
    begin_at: str,
    until: str,
    dry_run: bool,
    run_probes: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run playbooks in order, gated and recorded; stop at the first that does not succeed.

    PLAYBOOK is a file, or the name of one in playbooks/.

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
            status_name=status_name,
            view=_view(verbose=verbose, as_json=as_json),
        )
        run = execute(path, orders)
        if not as_json:
            _well(place, run)


@click.command("resume", short_help="Continue a run")
@click.argument("run", shell_complete=complete.runs)
@options.target
@options.runs
@options.operator
@click.option("-i", "--input", "given", multiple=True, metavar="KEY=VALUE", help="Secret inputs must be given again.")
@click.option("--accept-changes", is_flag=True, help="Accept changes of the playbook in steps that have not started.")
@click.option("--outside-window", is_flag=True, help="Continue although the run's window is closed; needs --reason.")
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    callback=options.own_words,
    help="Why; needed with --accept-changes and --outside-window.",
)
@click.option("--dead", is_flag=True, help="Retry the rows that a backfill set aside; also for a run that succeeded.")
@options.recording
@click.option("-v", "--verbose", is_flag=True, help="Show more detail.")
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
    status_dir: Path | None,
    status_name: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Continue a run where it stopped. The database is asked what is done; finished steps are not run again.

    RUN is a run's name, an unambiguous prefix of it, or `latest`.

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
        status_dir=status_dir,
        status_name=status_name,
        view=_view(verbose=verbose, as_json=as_json),
    )
    name = resume(run, orders, accepted=Accepted(reason, changes=accept_changes, outside=outside_window), dead=dead)
    if not as_json:
        _well(orders.place, name)


@click.command("rollback", short_help="Undo what a run changed")
@click.argument("run", shell_complete=complete.runs)
@options.target
@options.runs
@options.operator
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    callback=options.own_words,
    help="Why; recorded in the trail. Needed with --leave, --accept-changes and --despite-later-runs.",
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
    help="Don't undo this step; repeatable.",
)
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Accept corrections of the undo in the playbook (revert, rollback).",
)
@click.option(
    "--despite-later-runs", is_flag=True, help="Undo it although what later runs built on it (`requires`) still stands."
)
@options.recording
@click.option("-v", "--verbose", is_flag=True, help="Show more detail.")
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
    despite_later_runs: bool,
    status_dir: Path | None,
    status_name: str,
    verbose: bool,
    as_json: bool,
) -> None:
    """Undo the run's steps in reverse order, from what each of them saved.

    Only rows of this run are restored, and only those that nobody changed since. The exit code is 9 if rows were refused
    or a step was left in place; the run is then rolled back in part.

    \b
    runbook rollback latest --reason 'the figures are wrong'
    runbook rollback latest --to go
    runbook rollback latest --leave pair_index --reason 'it does no harm'
    """
    from runner.commands.look import meant
    from runner.run.way_back import Asked, rollback

    if (leave or accept_changes or despite_later_runs) and not reason:
        needs = "--leave, --accept-changes and --despite-later-runs need --reason"
        raise click.UsageError(f"{needs}: it stands in the trail")
    run = meant(run, target=target, runs=runs)
    orders = RunOptions(
        place=_place(target, runs, run),
        operator=operator,
        status_dir=status_dir,
        status_name=status_name,
        view=_view(verbose=verbose, as_json=as_json),
    )
    asked = Asked(reason or "asked by the operator", after, leave, accept_changes, despite_later_runs)
    back = rollback(run, orders, asked)
    if not as_json:
        _well(orders.place, back.run, back.words)


def _place(target: str | None, runs: Path | None, run: str) -> Workplace:
    """The place of a run; without --target, the target on which it started."""
    from runner.commands.look import place_of_run

    return place_of_run(run, target=target, runs=runs)


def _well(place: Workplace, name: str, more: str = "") -> None:
    """Print how a run ended that did not fail, and the next command."""
    found = find_run(runs_of(place), name)
    how = f"{found.status.state.replace('_', ' ')}:"
    terminal.say()
    terminal.say(f"{how} {name}", mark=how, colour="green" if found.status.state in _GOOD else "yellow")
    if more:
        terminal.labelled("state", more)
    terminal.labelled("next", f"runbook report {shlex.quote(name)} {found.options()}".rstrip())
