"""Options shared by several commands."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from runner.commands import complete
from runner.common.errors import BadInput, RunbookError
from runner.common.outcome import Outcome

# Prefix of environment variables for inputs; secrets must be given this way, not in a command line that others can see.
INPUT = "RUNBOOK_INPUT_"

PRINTED = "printed"  # of --json: the command's document is on standard output already

F = TypeVar("F", bound=Callable[..., Any])


def _typed(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Remember command and options as typed, for the next command in an error message (runner.report.failure)."""
    if isinstance(context.obj, dict):
        context.obj["command"] = f"runbook {context.command_path.partition(' ')[2]}"
        if value is not None and option.name is not None:
            context.obj[option.name] = str(value)
    return value


def target(function: F) -> F:
    """Add -t/--target."""
    return click.option(
        "-t",
        "--target",
        metavar="TARGET",
        shell_complete=complete.targets,
        callback=_typed,
        help="A name in targets.yaml, a URL without password, or a SQLite file. Default: RUNBOOK_TARGET, then targets.yaml's default.",
    )(function)


def runs(function: F) -> F:
    """Add --runs, the runs directory."""
    return click.option(
        "--runs",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        callback=_typed,
        help="The runs directory. Default: RUNBOOK_RUNS, the target's `runs:`, ./runs.",
    )(function)


def operator(function: F) -> F:
    """Add --operator, the claimed name of the operator."""
    return click.option("--operator", metavar="NAME", help="Your name; recorded together with the system user.")(
        function
    )


def recording(function: F) -> F:
    """Add the files that a run may write besides its own folder: --log, --status-dir and --status-name."""
    for option in (
        click.option(
            "--log",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            callback=_keep_log,
            expose_value=False,
            help="Also append what is shown to this file, each line with its time.",
        ),
        click.option(
            "--status-name",
            default="",
            metavar="NAME",
            callback=_file_name,
            help="With --status-dir: call the file NAME_TIME.json instead of status.json.",
        ),
        click.option(
            "--status-dir",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Also write the run's status to this directory, for monitoring.",
        ),
    ):
        function = option(function)
    return function


def _keep_log(_context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        from runner.common import terminal
        from runner.common.log_file import LogFile

        terminal.keep_log(LogFile(path))


def _file_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    if "/" in name or name.startswith("."):
        raise click.UsageError(f"cannot use --status-name {name[:40]!r}: it is the beginning of a file's name")
    return name


def pointing(function: F) -> F:
    """Decorator for commands on a run: complete the next command of errors with the options that find the run."""

    @functools.wraps(function)
    def command(*args: Any, **given: Any) -> Any:
        try:
            return function(*args, **given)
        except RunbookError as error:
            _point(error, str(given.get("run")), given.get("target"), given.get("runs"))
            raise

    return cast("F", command)


def _point(error: RunbookError, name: str, target: str | None, runs: Path | None) -> None:
    if error.stop:
        return  # the stop message is complete already
    from runner.target.runs import find_run
    from runner.target.workplace import Workplace, pointed, runs_of

    with contextlib.suppress(RunbookError, BadInput, OSError):
        found = find_run(runs_of(Workplace(target, runs)), name)
        error.then = pointed(error.then, found.status.run, found.options())


def as_json(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def reason(function: F) -> F:
    """Add a required --reason."""
    return click.option(
        "--reason", required=True, metavar="TEXT", callback=own_words, help="Why; recorded in the trail."
    )(function)


def own_words(_context: click.Context, _option: click.Parameter, given: str) -> str:
    """Check a --reason: refuse an empty one or a placeholder copied from a hint; the default passes."""
    from runner.common.person_names import reasoned

    source = _context.get_parameter_source("reason")
    return given if source is not click.core.ParameterSource.COMMANDLINE else reasoned(given)


def by(function: F) -> F:
    """Add --as, the claimed name of the person."""
    return click.option("--as", "by", default=_user, metavar="NAME", help="Your name. Default: the system user.")(
        function
    )


def changed(function: F) -> F:
    """Add --changed, for hooks."""
    return click.option(
        "--changed",
        is_flag=True,
        help="The files are any that changed: take the playbooks that they belong to. For hooks.",
    )(function)


def those_of(files: tuple[str, ...]) -> tuple[str, ...]:
    """The playbooks that these files belong to."""
    from runner.review.changed import playbooks_of

    return tuple(playbooks_of(files, Path.cwd()))


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def inputs(given: tuple[str, ...], file: Path | None) -> Mapping[str, str]:
    """Collect inputs: --input key=value takes precedence over RUNBOOK_INPUT_KEY, and that over --inputs-file (YAML)."""
    from runner.playbook.inputs import Ambient, SecretOnCommandLine

    values: dict[str, str] = {}
    if file is not None:
        from runner.playbook.yaml_reader import parse

        data = parse(file.read_bytes(), str(file)).data
        if not isinstance(data, dict):
            raise click.UsageError(f"cannot read {file}: it must be a mapping from input to value")
        values |= {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in data.items()}
    values |= {
        name.removeprefix(INPUT).lower(): Ambient(value) for name, value in os.environ.items() if name.startswith(INPUT)
    }
    for one in given:
        key, sign, value = one.partition("=")
        if not sign:
            raise click.UsageError(f"cannot read --input {key[:20]!r}: write key=value")
        values[key] = SecretOnCommandLine(value)
    for key, value in values.items():
        if any(0xD800 <= ord(sign) < 0xE000 for sign in value):  # surrogate escapes: the argument was not valid UTF-8
            raise click.UsageError(f"cannot use the input {key}: it is no UTF-8 text")
    return values


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print what a command did, for people in the layout of a stop message."""
    from runner.common import terminal

    if as_json:
        print_json(outcome.document())
        return
    terminal.say(outcome.done)
    for label, text in outcome.labelled():
        terminal.labelled(label, text)


def print_json(data: object) -> None:
    """Print JSON to standard output; an error after that adds none."""
    from runner.common import terminal

    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, dict):
        context.obj["json"] = PRINTED
    terminal.hand_over(terminal.machine_text(json.dumps(data, indent=1, ensure_ascii=False, default=str)) + "\n")
