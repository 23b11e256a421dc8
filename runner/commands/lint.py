"""The command lint."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.commands import complete, options
from runner.common import terminal

if TYPE_CHECKING:
    from runner.playbook.load import WrittenPlaybook
    from runner.review.findings import Finding, LintResult


@click.command("lint", short_help="Say what a playbook's text shows: faults, dangers, what proves nothing")
@click.argument("playbooks", nargs=-1, required=True, metavar="PLAYBOOK…", shell_complete=complete.playbooks)
@click.option(
    "-t",
    "--target",
    metavar="TARGET",
    shell_complete=complete.targets,
    help="A name in targets.yaml: what its environment asks for. It isn't connected to.",
)
@click.option("--strict", is_flag=True, help="Exit with 4 for warnings too.")
@click.option("--effects", is_flag=True, help="Show each statement's lock, what it blocks and for how long.")
@click.option(
    "--sarif", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings to this file as SARIF."
)
@options.changed
@options.as_json
def lint_command(
    *,
    changed: bool,
    playbooks: tuple[str, ...],
    target: str | None,
    strict: bool,
    effects: bool,
    sarif: Path | None,
    as_json: bool,
) -> None:
    """Say what the text of playbooks shows: what would make a run fail, what is dangerous, what proves nothing.

    Nothing is run, and no database is used. SQL is read by PostgreSQL's own grammar, which the extra `lint` brings; without it,
    the other rules are applied. `# runbook: allow RB206: the reason` above a line, or behind it, allows a finding there. Each rule
    has a page, docs/lint/CODE.md.

    \b
    runbook lint adr007-phase1 adr007-phase3
    runbook lint playbooks/examples/*.yaml --strict
    runbook lint change.yaml --effects
    """
    from runner.common.errors import PlaybookFaulty
    from runner.playbook.find import find_playbook, read_written
    from runner.review import lint

    if changed:
        playbooks = options.those_of(playbooks)
    unreadable: list[Finding] = []
    written: list[WrittenPlaybook] = []
    for name in playbooks:
        path = find_playbook(name, Path.cwd())
        try:
            written.append(read_written(path))
        except PlaybookFaulty as error:
            unreadable += lint.faults_of(error, path)
    result = lint.lint(written, unreadable=unreadable, environment=_environment(target))
    if sarif is not None:
        _write_sarif(result, sarif)
    told = lint.effects(written) if effects else []
    if as_json:
        options.print_json({**result.document(), **({"effects": told} if effects else {})})
    else:
        for line in told:
            terminal.say(f"{line['file']}:{line['line']}:{line['column']}: {line['statement']}")
            terminal.say(f"  {line['effect']}")
        _show(result)
    _refuse(result, playbooks, strict=strict)


def _environment(target: str | None) -> str:
    """The environment of a target in targets.yaml."""
    if target is None:
        return ""
    from runner.target.workplace import Workplace

    return Workplace(target).resolve().environment or ""


def _write_sarif(result: LintResult, file: Path) -> None:
    import json

    from runner.review import sarif

    document = sarif.document(result.findings, result.rules, version=result.versions["runbook-engine"])
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _show(result: LintResult) -> None:
    from runner.review.findings import INSTALL, Severity

    for finding in result.open:
        terminal.say(f"{finding.mark}: {finding.severity} {finding.code}: {finding.why}")
        if finding.instead:
            terminal.say(f"  {finding.instead}")
    if result.skipped:
        terminal.say(f"{len(result.skipped)} rules on SQL were not applied: they need its parser; {INSTALL}")
    count = {severity: result.count(severity) for severity in Severity}
    said = ", ".join(f"{number} {severity}{'' if number == 1 else 's'}" for severity, number in count.items() if number)
    allowed = len(result.findings) - len(result.open)
    also = f"; {allowed} allowed in the file" if allowed else ""
    terminal.say(f"{_plural(len(result.playbooks), 'playbook')}: {said or 'nothing found'}{also}")


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _refuse(result: LintResult, names: Iterable[str], *, strict: bool) -> None:
    from runner.common.errors import PlaybookFaulty
    from runner.review.findings import Severity

    bad = result.count(Severity.ERROR) + (result.count(Severity.WARNING) if strict else 0)
    if bad:
        again = " ".join(map(shlex.quote, names))
        said = f"cannot accept this: {_plural(bad, 'finding')} above"
        raise PlaybookFaulty(said, state="nothing was run", then=f"mend it, then runbook lint {again}")
