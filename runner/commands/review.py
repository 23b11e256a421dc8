"""The commands plan, validate, schema and steps."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.commands import complete, options
from runner.common import terminal
from runner.playbook.find import find_playbook, read_written

if TYPE_CHECKING:
    from runner.playbook.load import WrittenPlaybook
    from runner.run.dry_run import DryRun
    from runner.run.execute import RunOptions


@click.command("plan", short_help="Show what a playbook would do")
@click.argument("playbook", shell_complete=complete.playbooks)
@options.target
@click.option(
    "-i", "--input", "given", multiple=True, metavar="KEY=VALUE", help="An input of the playbook; repeatable."
)
@click.option("--sql", "show_sql", is_flag=True, help="Show every statement in full.")
@click.option("--run-probes", is_flag=True, help="Also evaluate preconditions that run a program or a test suite.")
@options.as_json
def plan_command(
    *,
    playbook: str,
    target: str | None,
    given: tuple[str, ...],
    show_sql: bool,
    run_probes: bool,
    as_json: bool,
) -> None:
    """Show what a playbook would do, step by step: SQL, locks, rows, undo, gates.

    With --target or RUNBOOK_TARGET the database is read (and only read): preconditions are evaluated, and each step shows
    its current state. The exit code is the one that exec would have before its first step. `exec --dry-run` does the
    same.

    \b
    runbook plan adr007-phase3
    runbook plan adr007-phase3 --target staging --sql
    """
    path = find_playbook(playbook, Path.cwd())
    values = options.inputs(given, None)
    if target is not None or os.environ.get("RUNBOOK_TARGET"):
        from runner.run.execute import RunOptions
        from runner.target.workplace import Workplace

        orders = RunOptions(place=Workplace(target), inputs=values)
        dry_runs([path], orders, as_json=as_json, show_sql=show_sql, run_probes=run_probes)
        return
    from runner.plan import plan
    from runner.report import plan_cards
    from runner.review.refusal import refuse_errors
    from runner.run.execute import masks_of

    written = read_written(path, values or None)
    playbook_read = written.playbook
    masks_of(playbook_read)  # refuses a secret that is too short to be masked, as exec would
    made = plan.plan(playbook_read)
    if as_json:
        options.print_json(plan_cards.document(made))
    else:
        plan_cards.show(made, show_sql=show_sql)
        terminal.say("no target was asked: --target NAME shows how each step stands there")
    refuse_errors(written)


def dry_runs(
    paths: list[Path],
    orders: RunOptions,
    *,
    as_json: bool,
    show_sql: bool = False,
    run_probes: bool = False,
) -> None:
    """Do a dry run of each playbook; raises what exec would raise if the first could not start. Writes no trail.

    Faults of the later playbooks are only shown, because they will run on what the first one leaves.
    """
    from runner.report import plan_cards
    from runner.review.refusal import refuse_errors
    from runner.run.dry_run import dry_run

    looked: list[DryRun] = []
    texts: list[WrittenPlaybook] = []
    documents = []
    for path in paths:
        written = read_written(path, orders.inputs)
        texts.append(written)
        found = dry_run(written.playbook, orders, run_probes=run_probes)
        if as_json:
            documents.append(
                plan_cards.document(found.plan)
                | {
                    "kind": "preview",
                    "checks": found.document(),
                    "cannot_begin": found.faults,
                    "not_asked": found.not_asked,
                }
            )
        else:
            plan_cards.show(found.plan, checks=found.answers, show_sql=show_sql)
            for check in found.not_asked:
                terminal.say(f"not asked: {check} runs a program of the playbook's; --run-probes asks it")
            terminal.say(f"dry run: looked only; no trail, nothing changed in {found.plan.target}")
            for fault in found.faults if looked else ():
                terminal.say(f"not knowable before {looked[0].plan.name} has run, so now it would be: {fault}")
        looked.append(found)
    if as_json:
        options.print_json(documents if len(documents) > 1 else documents[0])
    refuse_errors(texts[0])
    looked[0].raise_if_faulty(str(paths[0]))


@click.command("validate", short_help="List all faults of a playbook")
@click.argument("playbooks", nargs=-1, required=True, metavar="PLAYBOOK…", shell_complete=complete.playbooks)
@options.changed
@options.as_json
def validate_command(*, playbooks: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """List all faults of playbooks with file:line:column. Nothing is run, and no database is used.

    These are the errors of `runbook lint` that need no extra; `runbook lint` also says what is dangerous or proves nothing.

    \b
    runbook validate adr007-phase1 adr007-phase3
    runbook validate playbooks/examples/*.yaml --json
    """
    from runner.common.errors import PlaybookFaulty
    from runner.plan import plan
    from runner.playbook.monitor_builder import share
    from runner.review.refusal import refuse_errors

    cwd = Path.cwd()
    playbooks = options.those_of(playbooks) if changed else playbooks
    faults: list[str] = []
    good: list[dict[str, Any]] = []
    for name in playbooks:
        path = find_playbook(name, cwd)
        try:
            written = read_written(path)
            playbook = written.playbook
            refuse_errors(written)
        except PlaybookFaulty as error:
            faults.append(error.what)
        else:
            good.append(
                {
                    "file": str(path),
                    "name": playbook.name,
                    "digest": playbook.digest,
                    "steps": len(playbook.entries),
                    "monitors": {one.check.id: share(one) for one in playbook.monitors},
                    "warnings": plan.warnings(playbook),
                }
            )
    if as_json:
        options.print_json({"good": good, "faults": faults})
    else:
        for one in good:
            terminal.say(
                f"{one['file']}: good, {one['steps']} step{'' if one['steps'] == 1 else 's'}, digest {str(one['digest'])[:16]}…"
            )
            for line in (
                *(f"monitor {name}: {words}" for name, words in one["monitors"].items()),
                *(f"warning: {warning}" for warning in one["warnings"]),
            ):
                terminal.say(f"  {line}")
    if faults:
        again = " ".join(shlex.quote(name) for name in playbooks)
        raise PlaybookFaulty(
            "\n".join(faults), state="nothing was run", then=f"mend what is named above, then runbook validate {again}"
        )


@click.command("schema", short_help="Print the JSON Schema of playbooks")
@click.option(
    "--write", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of standard output."
)
def schema_command(*, write: Path | None) -> None:
    """Print the JSON Schema of playbooks, for editors and review tools.

    \b
    runbook schema --write runbook.schema.json
    """
    import json

    from runner.format.json_schema import schema

    text = json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
    if write is not None:
        write.write_text(text, encoding="utf-8")
        terminal.say(f"wrote {write}")
    else:
        terminal.hand_over(text)


@click.command("steps", short_help="List step types and probes")
@click.argument("kind", required=False)
@options.as_json
def steps_command(*, kind: str | None, as_json: bool) -> None:
    """List the step types and probes; with a KIND, show its fields.

    \b
    runbook steps
    runbook steps backfill
    runbook steps replication --json
    """
    from runner.format import describe

    if as_json:
        options.print_json(describe.document(kind))
    else:
        terminal.hand_over(f"{describe.text(kind)}\n")
