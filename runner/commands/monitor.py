"""The commands monitor once, list, history, units, approve and mute."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.common.durations import when
from runner.common.errors import MonitorAlert
from runner.common.outcome import Outcome
from runner.target.workplace import Workplace, connected

if TYPE_CHECKING:
    from runner.monitor.standing import Round, Standing
    from runner.trail.events import Json
    from steps.ledger.monitors import Act

_WIDTH = 24  # of a monitor's name; longer ones only move the rest of the line


@click.group("monitor", short_help="Look again at what runs have left, when it is due")
def monitor_command() -> None:
    """Monitors of a playbook: checks that go on being asked after its run succeeded, for as long as its change stands.

    Nothing runs by itself: cron, a systemd timer or a CronJob calls `runbook monitor once` (see `monitor units`).

    \b
    runbook monitor once --target production
    runbook monitor list --target production
    """


@monitor_command.command("once", short_help="Look at what is due now")
@options.target
@options.runs
@options.operator
@click.option("--quiet", is_flag=True, help="Print only what has changed, as for cron, which mails it.")
@options.as_json
def once_command(*, target: str | None, runs: Path | None, operator: str | None, quiet: bool, as_json: bool) -> None:
    """Look at what is due on this target, and record it in the ledger. Call it as often as you like.

    The exit code is 14 while a monitor alerts that nobody has approved or muted.

    \b
    runbook monitor once --target production
    runbook monitor once --target production --quiet
    """
    from runner.monitor.once import once

    place = Workplace(target, runs)
    with connected(place) as there:
        found = once(there, place.runs_directory(there.target), operator=operator)
    if as_json:
        options.print_json(_document(found))
    else:
        _tell(found, quiet=quiet)
    if quiet and not as_json and not any(one.news for one in found.alerts) and not found.broken:
        sys.exit(MonitorAlert.exit_code if found.calls else 0)  # said already when it was seen
    found.raise_if_alerting()


@monitor_command.command("list", short_help="Show how all monitors of a target stand")
@options.target
@options.as_json
def list_command(*, target: str | None, as_json: bool) -> None:
    """Show how all monitors of a target stand, without looking again.

    \b
    runbook monitor list --target production
    runbook monitor list --target production --json
    """
    from runner.monitor.standing import look_on

    with connected(Workplace(target)) as there:
        found = look_on(there)
    if as_json:
        options.print_json(_document(found))
        return
    if not found.standing and not found.census.unwatched:
        terminal.say(f"no run on {found.target} is watched")
    _tell_standing(found.standing)
    _tell_unwatched(found)


@monitor_command.command("history", short_help="Show what a monitor has seen")
@click.argument("run", shell_complete=complete.runs)
@click.argument("monitor", required=False)
@click.option("--most", default=60, show_default=True, type=click.IntRange(1, 10_000), help="Show the latest so many.")
@options.target
@options.as_json
def history_command(*, run: str, monitor: str | None, most: int, target: str | None, as_json: bool) -> None:
    """Show what a run's monitors have seen, with a sparkline of the figure that each decides by.

    \b
    runbook monitor history adr007-phase4 --target production
    runbook monitor history adr007-phase4 coverage_daily --most 90
    """
    from runner.monitor import history
    from runner.monitor.watched import census
    from runner.plan.plan import monitor_words

    with connected(Workplace(target)) as there:
        with there.database.look() as look:
            watched = census(look).past(look, run)
        chosen = [watched.monitor(monitor)] if monitor else list(watched.playbook.monitors)
        read = {one.check.id: history.read(there, watched.run, one.check.id, most=most) for one in chosen}
    if as_json:
        options.print_json({name: history.document(*told) for name, told in read.items()})
        return
    for one in chosen:
        terminal.say(f"{one.check.id} of {watched.run}: {monitor_words(one)}")
        for line in history.lines(one, *read[one.check.id]) or ["nothing yet"]:
            terminal.say(f"  {line}", hang=6)


@monitor_command.command("units", short_help="Write what calls `monitor once` regularly")
@click.option(
    "--every", default="15 min", show_default=True, help="How often it is called; what is due stands in the playbooks."
)
@click.option("--image", default="runbook", show_default=True, help="The container image of the CronJob.")
@click.option(
    "--write",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the files there instead of printing them.",
)
@options.target
@options.runs
@options.as_json
def units_command(
    *, every: str, image: str, write: Path | None, target: str | None, runs: Path | None, as_json: bool
) -> None:
    """Write a systemd timer and service, a line for cron, and a Kubernetes CronJob that call `runbook monitor once`.

    \b
    runbook monitor units --target production
    runbook monitor units --target production --every '5 min' --write units
    """
    from runner.monitor import units

    place = Workplace(target, runs)
    resolved = place.resolve()
    directory = place.runs_directory(resolved).absolute()
    call = units.Call(resolved.name or resolved.url, directory, place.cwd, _minutes(every), image)
    texts = units.files(call)
    if write is not None:
        wrote = units.written(texts, write)
        if as_json:
            options.print_json({"wrote": [str(path) for path in wrote]})
        else:
            for path in wrote:
                terminal.say(f"wrote {path}")
        return
    if as_json:
        options.print_json(texts)
        return
    terminal.hand_over("\n".join(f"# ── {name}\n{text}" for name, text in texts.items()))


def _minutes(every: str) -> int:
    from runner.monitor.units import minutes_of
    from steps.contract import seconds

    try:
        return minutes_of(float(str(seconds(every))))
    except ValueError as error:
        raise click.UsageError(f"cannot call it every {every!r}: {error}") from error


@monitor_command.command("approve", short_help="Accept an alert that stands")
@click.argument("run", shell_complete=complete.runs)
@click.argument("monitor")
@click.option("--for", "for_", metavar="TIME", help="For how long, e.g. '3 days'. Default: until the alert ends.")
@options.by
@options.reason
@options.target
@options.runs
@options.as_json
def approve_command(  # noqa: PLR0913 - one parameter an option
    *,
    run: str,
    monitor: str,
    for_: str | None,
    by: str,
    reason: str,
    target: str | None,
    runs: Path | None,
    as_json: bool,
) -> None:
    """Accept an alert that stands: it no longer keeps the change open. A later alert of the same monitor is a new one.

    \b
    runbook monitor approve adr007-phase4 speed_weekly --for '3 days' --reason 'the index is being rebuilt'
    """
    _say(run, monitor, "approve", (by, reason, for_), (target, runs), as_json=as_json)


@monitor_command.command("mute", short_help="Let a monitor call nobody for a time")
@click.argument("run", shell_complete=complete.runs)
@click.argument("monitor")
@click.option("--for", "for_", metavar="TIME", required=True, help="For how long, e.g. '3 days'; '0 s' ends it.")
@options.by
@options.reason
@options.target
@options.runs
@options.as_json
def mute_command(  # noqa: PLR0913 - one parameter an option
    *, run: str, monitor: str, for_: str, by: str, reason: str, target: str | None, runs: Path | None, as_json: bool
) -> None:
    """Let a monitor call nobody for a time. It goes on looking, and its alerts stand in its history.

    \b
    runbook monitor mute adr007-phase4 coverage_daily --for '3 days' --reason 'the enricher is being moved'
    """
    _say(run, monitor, "mute", (by, reason, for_), (target, runs), as_json=as_json)


def _say(
    run: str,
    monitor: str,
    act: Act,
    words: tuple[str, str, str | None],
    where: tuple[str | None, Path | None],
    *,
    as_json: bool,
) -> None:
    from runner.commands.people import time_given
    from runner.monitor.acts import Word, say

    by, reason, for_ = words
    place = Workplace(*where)
    word = Word(act, by, reason, time_given(for_) if for_ else None)
    with connected(place) as there:
        standing, notes = say(there, place.runs_directory(there.target), word, run=run, name=monitor)
    done = f"{act}d: {_standing_words(standing)}"
    options.print_outcome(Outcome(done, standing.watched.run), as_json=as_json)
    for note in notes:
        terminal.warn(note)


# ─── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _tell(found: Round, *, quiet: bool) -> None:
    _tell_standing(
        [one for one in found.standing if one.news or (not quiet and (one.fresh or one.busy or one.skipped))]
    )
    if not quiet:
        _tell_unwatched(found)
    if found.not_recorded:
        terminal.warn(f"looked, and recorded nothing: this role may not write to the ledger ({found.not_recorded})")
        terminal.warn(
            "what it saw stays due; runbook target init, as the ledger's owner, makes tables that are missing"
        )
    for note in found.notes:
        terminal.warn(note)
    if not quiet and not found.standing:
        terminal.say(f"no run on {found.target} is watched")
    elif not quiet and not any(one.fresh or one.busy or one.skipped for one in found.standing):
        following = min((one.next_at for one in found.standing if one.next_at is not None), default=None)
        terminal.say(f"nothing is due on {found.target}" + (f"; next at {when(following)}" if following else ""))


def _tell_standing(chosen: list[Standing]) -> None:
    """By run: two playbooks may have monitors of the same name."""
    for run in dict.fromkeys(one.watched.run for one in chosen):
        terminal.say(run)
        for one in chosen:
            if one.watched.run == run:
                terminal.say(f"  {_standing_words(one)}", hang=6)


def _tell_unwatched(found: Round) -> None:
    for gone in found.census.unwatched:
        if not gone.older:
            terminal.say(f"{gone.run}: not watched: {gone.why}")


def _standing_words(one: Standing) -> str:
    from runner.monitor.history import missed_words

    mark = {"ok": "✓", "alert": "✗"}.get(one.state, "·")
    words = f"{mark} {one.name:<{_WIDTH}} {one.state}"
    if one.seen is not None:
        since = one.seen.alert_since or one.seen.broken_since
        words += f" since {_time(since)}" if since is not None else ""
        words += f": {one.seen.text}; seen {_time(one.seen.at)}"
        words += f"; {missed_words(one.seen.missed)}" if one.seen.missed else ""
    if one.silence is not None:
        until = f" until {_time(one.silence.until)}" if one.silence.until is not None else ""
        words += f"; {one.silence.act}d{until} by {one.silence.by}: {one.silence.reason}"
    if one.skipped is not None:
        words += f"; skipped: it was due at {when(one.skipped.at)}, which is too long ago"
    if one.busy:
        words += f"; {one.busy} is looking at it now"
    return words + (f"; next {when(one.next_at)}" if one.next_at is not None else "")


def _time(seconds: float) -> str:
    return when(datetime.fromtimestamp(seconds, UTC))


def _document(found: Round) -> Json:
    monitors: list[Json] = [
        {
            "run": one.watched.run,
            "monitor": one.name,
            "state": one.state,
            "answer": one.seen.answer if one.seen else None,
            "text": one.seen.text if one.seen else "",
            "seen_at": _iso(one.seen.at if one.seen else None),
            "broken_since": _iso(one.seen.broken_since if one.seen else None),
            "alert_since": _iso(one.seen.alert_since if one.seen else None),
            "alerts": one.alerts,
            "fresh": one.fresh,
            "busy": one.busy,
            "skipped": one.skipped.at.isoformat() if one.skipped else None,
            "next_at": one.next_at.isoformat() if one.next_at else None,
        }
        for one in found.standing
    ]
    gone: list[Json] = [{"run": one.run, "why": one.why} for one in found.census.unwatched]
    return {"target": found.target, "monitors": monitors, "not_watched": gone, "not_recorded": found.not_recorded}


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
