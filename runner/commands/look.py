"""The commands status, runs, report and trail."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.commands import complete, from_ledger, options
from runner.common import terminal
from runner.common.durations import format_duration, when
from runner.common.errors import RunRefused, TrailBroken
from runner.plan import advice, next_commands
from runner.playbook.model import Entry, Playbook
from runner.record import removals
from runner.run import resume
from runner.run.opened_run import in_force
from runner.target.runs import Found, all_runs, find_run, find_trail
from runner.target.workplace import Workplace, connected, runs_of
from runner.trail.events import RunState
from runner.trail.status import RunStatus, StepStatus
from runner.trail.status_file import document_of
from steps.contract import cutting
from steps.ledger import skipped_rows

if TYPE_CHECKING:
    from runner.monitor.from_ledger import LedgerRun


def place_of_run(run: str, *, target: str | None, runs: Path | None) -> Workplace:
    """Where a command on a run works: without --target, on the target on which the run started."""
    place = Workplace(target, runs)
    if target is not None or place.environ.get("RUNBOOK_TARGET"):
        return place
    try:
        found = find_run(runs_of(place), run)
    except RunRefused:
        return place
    return replace(place, target=found.status.started.target) if found.status.started else place


def meant(run: str, *, target: str | None, runs: Path | None) -> str:
    """Resolve `latest` for a command that changes something: print its name and, on a terminal, ask for confirmation."""
    if run != "latest":
        return run
    status = find_run(runs_of(Workplace(target, runs)), run).status
    title = status.started.title if status.started else ""
    state = advice.state_word(status, living=advice.alive(status))
    terminal.warn(f"latest is {status.run}: {title}, begun {_time(status.started_at)}, {state}")
    if terminal.interactive() and not click.confirm("is that the one?", err=True):
        raise RunRefused("nothing was done: another run is meant", then="runbook runs, and give its name")
    return status.run


@click.command("status", short_help="Show the state of a run")
@click.argument("run", default="latest", shell_complete=complete.runs)
@options.target
@options.runs
@options.as_json
@options.pointing
def status_command(*, run: str, target: str | None, runs: Path | None, as_json: bool) -> None:
    """Show the state of a run: its steps, what it waits for, whether it is safe to leave, and the next command.

    With --target its alerts come from the target's ledger, too, and a run is found there whose folder lies elsewhere.

    \b
    runbook status
    runbook status adr007-phase3 --json
    runbook status adr007-phase3 --target production
    """
    place = Workplace(target, runs)
    ledger = from_ledger.asked(place)
    try:
        found = find_run(runs_of(place), run)
    except RunRefused:
        if not from_ledger.told(ledger, run, as_json=as_json):
            raise
        return
    if ledger is not None:
        ledger.bring_up(found.status)
    _tell(found, as_json=as_json)


def _tell(found: Found, *, as_json: bool) -> None:
    status, playbook = found.status, in_force(found)
    here = resume.here(found, options.inputs((), None))
    told = advice.stop(playbook, status, here)
    gone = removals.of_run(found, found.directory.parent)
    if as_json:
        options.print_json(document_of(status) | {"stop": told.__dict__, "alive": _alive(status), "removed_by": gone})
        return
    terminal.say(f"{status.run}  {playbook.title}")
    if status.started:
        who = status.started.process.operator
        terminal.say(
            f"target {status.started.target} · operator {who} · {_kind(status)}began {_time(status.started_at)}"
        )
    terminal.say()
    _tell_steps(playbook, status, here)
    terminal.say()
    if gone:
        terminal.labelled("effect", f"removed by run {gone}: no run can require it, resume it or take it back any more")
    if status.what and status.state not in {RunState.WAITING, RunState.SUCCEEDED}:
        terminal.labelled("last", "\n".join(part for part in (status.what, status.why) if part))
    for label, text in told.labelled():
        terminal.labelled(label, text)


def _tell_steps(playbook: Playbook, status: RunStatus, here: next_commands.Here) -> None:
    steps = {entry.id: status.steps.get(entry.id) for entry in playbook.entries}
    below = 4 + max(len(_word(step)) for step in steps.values())  # indentation of the lines below a step
    for entry in playbook.entries:
        step = steps[entry.id]
        needs = next_commands.waits_for(playbook, status, step, here.now) if step is not None else []
        for line in _step_lines(entry, status, step, needs, below=below):
            terminal.say(line, hang=below + 2)


def _word(step: StepStatus | None) -> str:
    if step is None:
        return "·"
    return step.reverted.words if step.reverted else step.word


def _step_lines(entry: Entry, status: RunStatus, step: StepStatus | None, needs: list[str], *, below: int) -> list[str]:
    """A step's state, followed by lines with details."""
    seconds = f" · {format_duration(step.seconds)}" if step is not None and step.seconds >= 0.05 else ""
    lines = [f"  {_word(step):<{below - 2}}{entry.id}: {entry.step.describe()}{seconds}"]
    if step is None:
        return lines
    back = ", ".join(f"{name} {value}" for name, value in step.back.items())
    more = [
        f"taken back: {back}" if back else "",
        f"by {step.left}" if step.left else "",
        step.error,
        *(_asked(entry, status) if step.gate or not step.finished else ()),
    ]
    if step.gate:
        more.append(f"waits for: {'; '.join(needs)}" if needs else "has all that it asks for")
    return lines + [f"{'':<{below}}{one}" for one in more if one]


def _asked(entry: Entry, status: RunStatus) -> list[str]:
    """The last answer of each check of a step."""
    last = {one.id: one for one in status.checks if one.step == entry.id}
    return [f"{one.answer}: {one.id}: {one.text}" for one in last.values()]


def _alive(status: RunStatus) -> bool | None:
    return advice.alive(status) if status.state is RunState.RUNNING else None


def _kind(status: RunStatus) -> str:
    return f"{status.started.kind} · " if status.started and status.started.kind != "real" else ""


def _time(at: str) -> str:
    return when(datetime.fromisoformat(at)) if at else "-"


@click.command("runs", short_help="List the runs in the runs directory, and those of a target")
@options.target
@options.runs
@options.as_json
def runs_command(*, target: str | None, runs: Path | None, as_json: bool) -> None:
    """List the runs in the runs directory, newest first. A target may have its own runs directory.

    With --target the target's ledger is asked, too: for alerts, and for runs whose folder lies elsewhere.

    \b
    runbook runs
    runbook runs --target production --json
    """
    place = Workplace(target, runs)
    directory = runs_of(place)
    found, broken = all_runs(directory)
    for error in broken:
        terminal.warn(error.what)
    ledger = from_ledger.asked(place)
    if ledger is not None:
        for one in found:
            ledger.bring_up(one.status)
    others = [one for one in ledger.runs if not os.path.lexists(directory / one.row.run)] if ledger is not None else []
    every = [one.status for one in found if one.status.started and one.status.started.removes]
    if as_json:
        options.print_json(
            [document_of(one.status) | {"removed_by": removals.remover(one.status, every)} for one in found]
            + [from_ledger.document(one) for one in others]
        )
        return
    if not found and not others:
        terminal.say(f"no runs in {directory}; `runbook exec PLAYBOOK` makes one")
        return
    _table([_line(one, every) for one in found] + [_line_elsewhere(one) for one in others])


_Line = tuple[str, str, str, str]  # run, time, state, target


def _line(one: Found, every: list[RunStatus]) -> _Line:
    status = one.status
    state = (
        advice.state_word(status, living=advice.alive(status))
        + (" · held" if status.holds else "")
        + (f" · effect removed by {by}" if (by := removals.remover(status, every)) else "")
    )
    return status.run, _time(status.started_at), state, status.started.target if status.started else "?"


def _line_elsewhere(one: LedgerRun) -> _Line:
    gone = f" · effect removed by {one.row.removed_by}" if one.row.removed_by else ""
    state = f"{from_ledger.state_word(one)}{gone} · {from_ledger.elsewhere(one)}"
    return one.row.run, when(one.at), state, one.row.target


def _table(lines: list[_Line]) -> None:
    width, wide = max(len(run) for run, *_ in lines), max(len(state) for _, _, state, _ in lines)
    for run, began, state, shown in lines:
        if sys.stdout.isatty() and terminal.columns() <= width + len(began) + wide + 4:  # no room for a table
            terminal.say(run)
            terminal.say(f"  {began} · {state} · {shown}", hang=2)
        else:
            terminal.say(f"{run:<{width}}  {began}  {state:<{wide}}  {shown}")


@click.command("report", short_help="Show what a run did and proved")
@click.argument("run", default="latest", shell_complete=complete.runs)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of standard output.",
)
@click.option(
    "--rows",
    type=click.Choice(list(skipped_rows.KINDS)),
    help="Instead, list these rows of the run's backfills, as CSV.",
)
@options.target
@options.runs
@options.as_json
@options.pointing
def report_command(
    *, run: str, output: Path | None, rows: str | None, target: str | None, runs: Path | None, as_json: bool
) -> None:
    """Show what a run did and proved: change cards, checks with their values, timeline, and the trail's anchor.

    The output is plain text on a terminal, Markdown with -o or when redirected.

    \b
    runbook report latest
    runbook report latest -o report.md
    runbook report latest --rows refused
    """
    from runner.report import report

    place = Workplace(target, runs)
    found = find_run(runs_of(place), run)
    if not rows and (ledger := from_ledger.asked(place)) is not None:
        ledger.bring_up(found.status)
    if rows:
        with connected(place_of_run(run, target=target, runs=runs)) as there:
            text = report.rows(there.database, found.status.run, kind=rows, as_json=as_json)
    elif as_json:
        options.print_json(
            document_of(found.status) | {"checks": [one.model_dump(mode="json") for one in found.status.checks]}
        )
        return
    else:
        text = report.markdown(found, in_force(found), resume.here(found, options.inputs((), None)))
    if output is None and sys.stdout.isatty():
        from runner.common.markdown import plain
        from runner.common.terminal_markdown import rendered

        terminal.hand_over(plain(text, lines=True) if rows else rendered(text))
    elif output is not None:
        output.write_text(text, encoding="utf-8")
        terminal.say(f"wrote {output}")
    else:
        terminal.hand_over(text)


@click.group("trail", short_help="Show or verify a trail")
def trail_command() -> None:
    """Show a run's trail, or verify its hash chain.

    \b
    runbook trail show latest
    runbook trail verify latest --against-target
    """


@trail_command.command("show")
@click.argument("run", default="latest", shell_complete=complete.runs)
@options.target
@options.runs
@options.as_json
@options.pointing
def show(*, run: str, target: str | None, runs: Path | None, as_json: bool) -> None:
    """Show all records in order; with --json, the lines of the trail itself.

    \b
    runbook trail show latest
    runbook trail show latest --json
    """
    from runner.trail.trail import read

    found = find_run(runs_of(Workplace(target, runs)), run)
    if as_json:
        terminal.hand_over(terminal.machine_text(found.trail.read_text(encoding="utf-8")))
        return
    for record in read(found.trail):
        fields = record.event.model_dump(
            mode="json", exclude={"event", "source", "process", "identity", "versions"}, exclude_defaults=True
        )
        words = "  ".join(f"{key}={value}" for key, value in fields.items())
        terminal.say(f"{record.n:>5}  {_time(record.at)}  {record.event.event:<16} {cutting.shortened(words, 300)}")


@trail_command.command("verify")
@click.argument("run", default="latest", shell_complete=complete.runs)
@click.option("--against-target", is_flag=True, help="Also compare the chain with the anchors in the target's ledger.")
@options.target
@options.runs
@options.as_json
@options.pointing
def verify(*, run: str, against_target: bool, target: str | None, runs: Path | None, as_json: bool) -> None:
    """Verify the hash chain of a trail. RUN is a run or a trail file.

    The chain alone can't show that its end was cut off. With --against-target it is compared with the target's ledger,
    which stores the chain's head at the end of each step.

    \b
    runbook trail verify latest --against-target
    runbook trail verify runs/adr007-phase1-20261201-023000-1a2b/trail.jsonl
    """
    from runner.record import anchors, trust
    from runner.report.report import clocks
    from runner.trail.status import fold
    from runner.trail.trail import check, load

    path = Path(run) if Path(run).is_file() else find_trail(runs_of(Workplace(target, runs)), run)
    data = load(path)
    found = check(data)
    known = anchors.records(data, up_to=found.records)
    vouched, fault = anchors.in_trail(known), found.fault
    name = anchors.run_of(known, path)
    if path.name == "trail.jsonl" and not fault and path.absolute().parent.name != name:
        fault = f"the folder {path.absolute().parent.name} holds the trail of {name}"
    unfit = ""
    if against_target:
        with connected(place_of_run(name, target=target, runs=runs)) as there:
            ledgers, unfit = trust.against(there.database, known, run=name)
        vouched += ledgers
    word, order = anchors.compare(found, vouched), fold(known)
    fault = fault or word.fault or unfit
    if as_json:
        options.print_json(
            {
                "records": found.records,
                "head": found.head,
                "torn": found.torn,
                "fault": fault,
                "out_of_order": order.out_of_order,
                "vouched_up_to": word.up_to,
                "vouched_by": word.by,
            }
        )
    else:
        terminal.say(f"{path}: {found.records} records, head {found.head[:16]}…")
        told = [
            "" if found.fault else word.text,
            f"times go backwards {clocks(order)}" if order.out_of_order else "",
            "the last line is torn: a kill left it half written; resume cuts it off" if found.torn else "",
        ]
        for line in filter(None, told):
            terminal.say(line)
    if fault:
        more = "" if against_target else f"runbook trail verify {shlex.quote(name)} --against-target; then "
        raise TrailBroken(
            f"the trail does not verify: {fault}",
            state="the database was not touched; what the run committed stands",
            then=f"{more}put the run's folder back as it was",
        )
