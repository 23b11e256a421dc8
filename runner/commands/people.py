"""The commands approve, settle, judge, note, tune and sql: actions of people on a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from runner.commands import complete, options
from runner.commands.look import meant, place_of_run
from runner.common import terminal
from runner.run.execute import RunOptions
from steps.contract import Value, cutting, seconds


@click.command("approve", short_help="Approve a gate, or give its evidence")
@click.argument("run", shell_complete=complete.runs)
@click.option("--step", default="", shell_complete=complete.steps_of_run, help="The gate; needed only if several wait.")
@options.by
@click.option("--role", default="", help="Your role; the gate lists the accepted ones.")
@options.reason
@click.option("--valid-for", metavar="TIME", help="How long it is valid, e.g. '12 h'; limited by the playbook.")
@click.option("--evidence", metavar="NAME", help="Give this piece of evidence instead of an approval.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file with the evidence; its SHA-256 is recorded.",
)
@options.target
@options.runs
@options.as_json
@options.pointing
def approve_command(  # noqa: PLR0913 - one parameter an option
    *,
    run: str,
    step: str,
    by: str,
    role: str,
    reason: str,
    valid_for: str | None,
    evidence: str | None,
    file: Path | None,
    target: str | None,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Approve a gate, or give its evidence. Works from any terminal with access to the runs directory.

    \b
    runbook approve latest --as ines --role dba --reason 'rehearsed on staging'
    runbook approve latest --evidence backup --file backup.log --reason 'restored and counted'
    """
    from runner.run import interventions

    run = meant(run, target=target, runs=runs)
    orders = RunOptions(place=place_of_run(run, target=target, runs=runs))
    if evidence:
        done = interventions.submit_evidence(run, orders, step=step, evidence=evidence, by=by, reason=reason, file=file)
    else:
        valid_s = time_given(valid_for) if valid_for else None
        done = interventions.approve(run, orders, step=step, by=by, role=role, reason=reason, valid_s=valid_s)
    options.print_outcome(done, as_json=as_json)


@click.command("settle", short_help="Decide whether a step in doubt was done")
@click.argument("run", shell_complete=complete.runs)
@click.argument("step", shell_complete=complete.steps_of_run)
@click.argument("answer", type=click.Choice(["done", "not-done"]))
@options.by
@options.reason
@options.target
@options.runs
@options.as_json
@options.pointing
def settle_command(  # noqa: PLR0913 - one parameter an option
    *, run: str, step: str, answer: str, by: str, reason: str, target: str | None, runs: Path | None, as_json: bool
) -> None:
    """Decide whether a step that was started and has no known outcome was done. Look at the database first.

    \b
    runbook settle latest send_mail done --as ines --reason 'all 40 are in the log'
    runbook settle latest send_mail not-done --as ines --reason 'the log is empty'
    """
    from runner.run import interventions

    run = meant(run, target=target, runs=runs)
    orders = RunOptions(place=place_of_run(run, target=target, runs=runs))
    done = interventions.settle(run, orders, step=step, done=answer == "done", by=by, reason=reason)
    options.print_outcome(done, as_json=as_json)


@click.command("judge", short_help="Answer a check that could not decide")
@click.argument("run", shell_complete=complete.runs)
@click.argument("check")
@click.argument("answer", type=click.Choice(["pass", "fail"]))
@options.by
@click.option("--role", default="", help="Your role; the playbook lists those that may judge.")
@options.reason
@options.target
@options.runs
@options.as_json
@options.pointing
def judge_command(  # noqa: PLR0913 - one parameter an option
    *,
    run: str,
    check: str,
    answer: str,
    by: str,
    role: str,
    reason: str,
    target: str | None,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Answer a check that came out as unknown, if the playbook allows it with `judge:`.

    \b
    runbook judge latest looks_right pass --as ines --role dba --reason 'compared ten by hand'
    """
    from runner.run import interventions
    from steps.contract import Answer

    orders = RunOptions(place=place_of_run(run, target=target, runs=runs))
    done = interventions.judge(run, orders, check=check, answer=Answer(answer), by=by, role=role, reason=reason)
    options.print_outcome(done, as_json=as_json)


@click.command("note", short_help="Add a note to a run's timeline")
@click.argument("run", shell_complete=complete.runs)
@click.argument("text")
@options.by
@options.target
@options.runs
@options.as_json
@options.pointing
def note_command(*, run: str, text: str, by: str, target: str | None, runs: Path | None, as_json: bool) -> None:
    """Add a note to a run's timeline, which the report shows.

    \b
    runbook note latest 'the replica was restarted at 02:40' --as ines
    """
    from runner.run import interventions

    orders = RunOptions(place=place_of_run(run, target=target, runs=runs))
    options.print_outcome(interventions.note(run, orders, text=text, by=by), as_json=as_json)


@click.command("tune", short_help="Hold, release, stop or re-tune a running run")
@click.argument("run", shell_complete=complete.runs)
@click.argument("orders", nargs=-1, required=True, metavar="ORDER…")
@options.by
@options.reason
@options.target
@options.runs
@options.as_json
@options.pointing
def tune_command(
    *, run: str, orders: tuple[str, ...], by: str, reason: str, target: str | None, runs: Path | None, as_json: bool
) -> None:
    """Control a running run from another terminal. It obeys at its next safe point; orders are recorded in the trail.

    \b
    runbook tune latest hold --reason 'replica is behind'
    runbook tune latest go --reason 'it caught up'
    runbook tune latest batch=100ms rows=2000 --reason 'gentler'
    runbook tune latest rest=0.5 --reason 'the application can bear more'
    runbook tune latest limits.lag_s=30 --reason 'nobody reads there tonight'

    \b
    ORDER: hold, go, stop
           batch=TIME, rows=N    maximum duration, and number of rows, of a batch
           workers=N             number of workers of a backfill
           rest=N                pause N times as long as a batch took while other sessions are busy
           limits.NAME=N         a limit, for guards only; criteria use the approved one
    """
    from runner.run import interventions

    run = meant(run, target=target, runs=runs)
    place = place_of_run(run, target=target, runs=runs)
    done = interventions.tune(run, RunOptions(place=place), order=_order(orders), by=by, reason=reason)
    options.print_outcome(done, as_json=as_json)


def _order(words: tuple[str, ...]) -> dict[str, Value]:
    order: dict[str, Value] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if key in {"hold", "go", "stop"} and not sign:
            order[key] = True
        elif key == "batch" and sign:
            order["batch_seconds"] = time_given(value)
        elif key in {"rows", "workers"} and value.isdigit() and int(value) > 0:
            order["max_rows" if key == "rows" else key] = int(value)
        elif key == "rest" and re.fullmatch(r"\d{1,2}(\.\d{1,3})?|100", value):
            order[key] = float(value)
        elif key.startswith("limits.") and re.fullmatch(r"-?\d+(\.\d+)?", value):
            order[key] = float(value) if "." in value else int(value)
        else:
            known = "hold, go, stop, batch=250ms, rows=1000, workers=2, rest=9 or limits.NAME=10"
            raise click.UsageError(f"cannot read {word!r}: write {known}")
    return order


def time_given(text: str) -> float:
    """A time span as typed, in seconds."""
    try:
        return float(str(float(seconds(text))))  # type: ignore[arg-type] # seconds() gives a Timespan or raises
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@click.command("sql", short_help="Send SQL by hand within a run (break-glass)")
@click.argument("run", shell_complete=complete.runs)
@click.option("-c", "--command", "text", metavar="SQL", help="The statements. Default: read from standard input.")
@options.by
@options.reason
@options.target
@options.runs
@options.as_json
@options.pointing
def sql_command(
    *, run: str, text: str | None, by: str, reason: str, target: str | None, runs: Path | None, as_json: bool
) -> None:
    """Send SQL statements by hand under the run's name and timeouts; each is recorded in the trail.

    Each statement is committed before the next is sent. The number of rows is shown, the rows are not.

    \b
    runbook sql latest -c 'ANALYZE session_summaries' --reason 'plans went bad'
    runbook sql latest --reason 'as the incident says' < mend.sql
    """
    from runner.run import interventions

    run = meant(run, target=target, runs=runs)
    orders = RunOptions(place=place_of_run(run, target=target, runs=runs))
    text = text if text is not None else sys.stdin.read()
    done = interventions.sql(run, orders, text=text, by=by, reason=reason)
    if as_json:
        options.print_json(
            {"statements": [{"sql": one.sql, "rows": one.rows if one.rows >= 0 else None} for one in done]}
        )
        return
    for sent in done:
        rows = f"{sent.rows:,} row{'' if sent.rows == 1 else 's'}" if sent.rows >= 0 else "done"
        terminal.say(f"{rows}: {cutting.on_one_line(sent.sql, 100)}")
