"""The command render."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.common.errors import CriteriaNotMet
from runner.playbook.find import find_playbook, read_playbook


@click.command("render", short_help="Write a playbook as a Markdown runbook")
@click.argument("playbooks", nargs=-1, required=True, metavar="PLAYBOOK…", shell_complete=complete.playbooks)
@click.option("--write", is_flag=True, help="Write NAME.md beside each playbook instead of to standard output.")
@click.option(
    "--check", is_flag=True, help="Only say whether NAME.md beside each playbook is up to date (exit code 3 if not)."
)
@options.changed
def render_command(*, playbooks: tuple[str, ...], write: bool, check: bool, changed: bool) -> None:
    """Write a playbook as the Markdown runbook that a person would have written, with a diagram of steps and gates.

    The text depends on the playbook and the files it includes, and on nothing else, so it can be committed beside it. With
    --changed only those are looked at that have a page already.

    \b
    runbook render adr007-phase3
    runbook render playbooks/*.yaml --write
    runbook render playbooks/*.yaml --check
    """
    from runner.review.render import render

    if write and check:
        raise click.UsageError("cannot use --write with --check: one writes the files, the other only looks at them")
    playbooks = _rendered(options.those_of(playbooks)) if changed else playbooks
    stale: list[str] = []
    for name in playbooks:
        path = find_playbook(name, Path.cwd())
        text, file = render(read_playbook(path)), path.with_suffix(".md")
        if check:
            stale += [] if _is(file, text) else [str(file)]
        elif write:
            changed = not _is(file, text)
            if changed:
                file.write_text(text, encoding="utf-8")
            terminal.say(f"{'wrote' if changed else 'unchanged'} {file}")
        else:
            terminal.hand_over(text)
    if stale:
        again = " ".join(shlex.quote(name) for name in playbooks)
        raise CriteriaNotMet(
            f"{', '.join(stale)} {'is' if len(stale) == 1 else 'are'} stale: not what the playbook says now",
            state="nothing was written",
            then=f"runbook render {again} --write",
        )
    if check:
        terminal.say(f"{len(playbooks)} up to date")


def _rendered(playbooks: tuple[str, ...]) -> tuple[str, ...]:
    """Those that have a page."""
    return tuple(name for name in playbooks if Path(name).with_suffix(".md").is_file())


def _is(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (FileNotFoundError, UnicodeDecodeError):
        return False
