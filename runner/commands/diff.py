"""The command diff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.commands import complete, options
from runner.common.errors import PlaybookFaulty, Weakens

if TYPE_CHECKING:
    from runner.review.diff.verdict import DiffVerdict

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("diff", short_help="Say what a change of playbooks weakens")
@click.argument("old", metavar="OLD|REVISIONS", shell_complete=complete.playbooks)
@click.argument("new", required=False, default="", metavar="[NEW]", shell_complete=complete.playbooks)
@click.argument("paths", nargs=-1, metavar="[PATH…]")
@options.runs
@click.option(
    "--markdown", type=_FILE, metavar="FILE", help="Write it to this file as Markdown, for a comment on a pull request."
)
@click.option("--sarif", type=_FILE, metavar="FILE", help="Write what counts to this file as SARIF.")
@options.as_json
def diff_command(
    *,
    old: str,
    new: str,
    paths: tuple[str, ...],
    runs: Path | None,
    markdown: Path | None,
    sarif: Path | None,
    as_json: bool,
) -> None:
    """Compare two versions of playbooks by what they mean: what gets weaker, stricter, or has another effect.

    OLD and NEW are files, folders, or REVISION:PATH. With git revisions, `A..B` compares two, `A...B` compares B with what it
    branched off from A, and `A` alone compares with the working tree; PATHs limit what is looked at. Comments, order of keys and
    text for people are no change. --runs also names open runs whose approvals would be void.

    The exit code is 15 if anything weakens, or if that can't be decided; 4 if a new playbook is invalid.

    \b
    runbook diff old.yaml new.yaml
    runbook diff main...HEAD playbooks/
    runbook diff main...HEAD --markdown comment.md --sarif diff.sarif
    runbook diff release-12:playbooks playbooks --json
    """
    from runner.review.diff.sides import sides
    from runner.review.diff.verdict import judge, with_runs

    revisions = ".." in old or (":" not in old and not Path(old).exists())
    with sides(old, "" if revisions else new, (new, *paths) if revisions and new else paths) as (before, after):
        verdict = judge(before, after)
        if runs is not None:
            verdict = with_runs(verdict, runs)
        _show(verdict, as_json=as_json)
        _write(verdict, markdown, sarif)
        _refuse_invalid(verdict)
    if verdict.direction.counts:
        raise Weakens(
            f"{verdict.new.label}: {verdict.words}",
            state="nothing was run",
            then="runbook plan PLAYBOOK -t TARGET shows what each changed step would do",
        )


def _show(verdict: DiffVerdict, *, as_json: bool) -> None:
    from runner.review.diff import show

    if as_json:
        options.print_json(verdict.document())
    else:
        show.show(verdict)


def _write(verdict: DiffVerdict, markdown: Path | None, sarif: Path | None) -> None:
    from runner.review.diff import show

    if markdown is not None:
        markdown.write_text(show.markdown(verdict), encoding="utf-8")
    if sarif is not None:
        sarif.write_text(json.dumps(_sarif(verdict), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sarif(verdict: DiffVerdict) -> object:
    from importlib.metadata import version

    from runner.playbook.yaml_reader import Mark
    from runner.review import sarif
    from runner.review.diff import show

    first = next((verdict.new.path(one.file) for one in verdict.new.playbooks.values()), "playbooks")
    found = show.findings(verdict.changes, otherwise=Mark(first, 1, 1))
    return sarif.document(found, show.rules(), version=version("runbook-engine"))


def _refuse_invalid(verdict: DiffVerdict) -> None:
    """A new playbook that can't be loaded can't be compared; an old one that couldn't is compared with nothing."""
    if verdict.new.faults:
        raise PlaybookFaulty(
            "\n".join(verdict.new.faults.values()),
            state="it was not compared",
            then="mend what is named above, then do it again",
        )
