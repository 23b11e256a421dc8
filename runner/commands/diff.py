"""The command diff."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.common.errors import PlaybookFaulty

if TYPE_CHECKING:
    from runner.review.diff.verdict import Verdict

WEAKER = 15  # the exit code where a change weakens, or may weaken


@click.command("diff", short_help="Say what a change of playbooks weakens")
@click.argument("old", metavar="OLD|REVISIONS", shell_complete=complete.playbooks)
@click.argument("new", required=False, default="", metavar="[NEW]", shell_complete=complete.playbooks)
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@options.runs
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown", "sarif"]),
    default="text",
    help="How the verdict is printed.",
)
@options.as_json
def diff_command(*, old: str, new: str, paths: tuple[str, ...], runs: Path | None, form: str, as_json: bool) -> None:
    """Compare two versions of playbooks by what they mean: what gets weaker, stricter, or has another effect.

    OLD and NEW are files, folders, or REVISION:PATH. With git revisions, `A..B` compares two, `A...B` compares B with what it
    branched off from A, and `A` alone compares with the working tree; PATHs limit what is looked at. Comments, order of keys and
    text for people are no change. --runs also names open runs whose approvals would be void.

    The exit code is 15 if anything weakens, or if that can't be decided; 4 if a new playbook is invalid.

    \b
    runbook diff old.yaml new.yaml
    runbook diff main...HEAD playbooks/
    runbook diff main..HEAD --format markdown
    runbook diff release-12:playbooks playbooks --json
    """
    from runner.review.diff.sides import sides
    from runner.review.diff.verdict import judge, with_runs

    revisions = ".." in old or (":" not in old and not Path(old).exists())
    with sides(old, "" if revisions else new, (new, *paths) if revisions and new else paths) as (before, after):
        verdict = judge(before, after)
        if runs is not None:
            verdict = with_runs(verdict, runs)
        _show(verdict, "json" if as_json else form)
        _refuse_invalid(verdict)
    if verdict.direction.counts:
        sys.exit(WEAKER)


def _show(verdict: Verdict, form: str) -> None:
    from runner.review.diff import show

    if form == "text":
        show.show(verdict)
    elif form == "markdown":
        terminal.hand_over(show.markdown(verdict))
    elif form == "json":
        options.print_json(verdict.document())
    else:
        from runner.playbook.yaml_reader import Mark
        from runner.review import sarif

        first = next((verdict.new.path(one.file) for one in verdict.new.playbooks.values()), "playbooks")
        found = show.findings(verdict.changes, otherwise=Mark(first, 1, 1))
        document = sarif.document(found, show.rules(), version=_version())
        terminal.hand_over(terminal.machine_text(json.dumps(document, indent=1)) + "\n")


def _version() -> str:
    from importlib.metadata import version

    return version("runbook-engine")


def _refuse_invalid(verdict: Verdict) -> None:
    """A new playbook that can't be loaded can't be compared; an old one that couldn't is compared with nothing."""
    if verdict.new.faults:
        raise PlaybookFaulty(
            "\n".join(verdict.new.faults.values()),
            state="it was not compared",
            then="mend what is named above, then do it again",
        )
