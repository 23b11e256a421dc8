"""The options that several commands share."""

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

# Before the name of an input in capitals: for secrets, which others must not see in a process list.
INPUT = "RUNBOOK_INPUT_"

F = TypeVar("F", bound=Callable[..., Any])


def _typed(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Remember what was typed: an error's next command needs it too (runner.report.failure)."""
    if isinstance(context.obj, dict):
        context.obj["command"] = f"runbook {context.command_path.partition(' ')[2]}"
        if value is not None and option.name is not None:
            context.obj[option.name] = str(value)
    return value


def target(function: F) -> F:
    """-t/--target: where."""
    return click.option(
        "-t",
        "--target",
        metavar="TARGET",
        shell_complete=complete.targets,
        callback=_typed,
        help="A name in targets.yaml, a URL without password, or a SQLite file. Default: RUNBOOK_TARGET, then targets.yaml's default.",
    )(function)


def runs(function: F) -> F:
    """--runs: where trails lie."""
    return click.option(
        "--runs",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        callback=_typed,
        help="Where the runs lie. Default: RUNBOOK_RUNS, the target's `runs:`, ./runs.",
    )(function)


def operator(function: F) -> F:
    """--operator: who says to act."""
    return click.option("--operator", metavar="NAME", help="Who you are; recorded beside the system's user.")(function)


def pointing(function: F) -> F:
    """A command on a run: what it says to do next has the options that find the run again."""

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
        return  # they have them
    from runner.target.runs import find_run
    from runner.target.workplace import Workplace, pointed, runs_of

    with contextlib.suppress(RunbookError, BadInput, OSError):
        found = find_run(runs_of(Workplace(target, runs)), name)
        error.then = pointed(error.then, found.status.run, found.options())


def as_json(function: F) -> F:
    """--json: for machines."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def reason(function: F) -> F:
    """--reason: why a person did it."""
    return click.option(
        "--reason", required=True, metavar="TEXT", callback=own_words, help="Why; it stands in the trail."
    )(function)


def own_words(_context: click.Context, _option: click.Parameter, given: str) -> str:
    """Refuses what a hint wrote in the reason's place; "" where none is needed and none was given."""
    from runner.common.person_names import reasoned

    source = _context.get_parameter_source("reason")
    return given if source is not click.core.ParameterSource.COMMANDLINE else reasoned(given)


def by(function: F) -> F:
    """--as: the claimed name."""
    return click.option("--as", "by", default=_user, metavar="NAME", help="Your name. Default: the system's user.")(
        function
    )


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def inputs(given: tuple[str, ...], file: Path | None) -> Mapping[str, str]:
    """--input key=value (repeatable) over RUNBOOK_INPUT_KEY in the environment over --inputs-file (YAML)."""
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
        if any(0xD800 <= ord(sign) < 0xE000 for sign in value):  # what no UTF-8 stands for: bytes of another encoding
            raise click.UsageError(f"cannot use the input {key}: it is no UTF-8 text")
    return values


def print_json(data: object) -> None:
    """JSON to stdout."""
    from runner.common import terminal

    terminal.hand_over(terminal.machine_text(json.dumps(data, indent=1, ensure_ascii=False, default=str)) + "\n")
