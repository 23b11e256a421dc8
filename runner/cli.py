"""The command line interface; the modules of a command are loaded only when it is called."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from runner.common import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence


# Searching all installed packages for plugins takes time, and we have none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")

# command → (module, summary), grouped and ordered as in `--help`
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "exec": ("run", "Run a playbook on a target, gated and recorded"),
        "status": ("look", "Show the state of a run, and what to do next"),
        "approve": ("people", "Approve a gate, or give its evidence"),
        "resume": ("run", "Continue a run that waits, failed or was stopped"),
        "rollback": ("run", "Undo what a run changed"),
        "close": ("ends", "End an open run without undoing anything"),
        "recover": ("ends", "Recreate a lost run's folder from the ledger"),
        "settle": ("people", "Decide whether a step in doubt was done"),
        "judge": ("people", "Answer a check that could not decide"),
        "tune": ("people", "Hold, release, stop or re-tune a running run"),
        "note": ("people", "Add a note to a run's timeline"),
        "sql": ("people", "Send SQL by hand within a run (break-glass)"),
    },
    "Review": {
        "plan": ("review", "Show what a playbook would do, step by step"),
        "validate": ("review", "List all faults of a playbook, with their places"),
        "lint": ("lint", "Say what a playbook's text shows: faults and dangers"),
        "diff": ("diff", "Say what a change of playbooks weakens"),
        "render": ("render", "Write a playbook as a Markdown runbook"),
        "schema": ("review", "Print the JSON Schema of playbooks, for editors"),
        "steps": ("review", "List step types and probes, with their fields"),
    },
    "Look": {
        "runs": ("look", "List the runs in the runs directory"),
        "report": ("look", "Show what a run did and proved"),
        "trail": ("look", "Show a run's trail, or verify its hash chain"),
        "monitor": ("monitor", "Look again at what runs have left, when it is due"),
        "doctor": ("doctor", "Compare the target with a shape, playbook or run"),
    },
    "Set up": {
        "init": ("begin", "Write a first playbook, or copy an example"),
        "demo": ("setup", "A complete demonstration on a private PostgreSQL"),
        "target": ("setup", "Check a target, or create the ledger in it"),
    },
}


class Commands(click.Group):
    """A click group that knows each command's name and summary without importing its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for group in GROUPS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        for group in GROUPS.values():
            if cmd_name in group:
                module = importlib.import_module(f"runner.commands.{group[cmd_name][0]}")
                command = getattr(module, f"{cmd_name}_command")
                return command if isinstance(command, click.Command) else None
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, words) for name, (_module, words) in group.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            found = super().resolve_command(ctx, args)
            if isinstance(ctx.obj, dict) and found[0]:
                ctx.obj["command"] = f"runbook {found[0]}"
            return found
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="runbook-engine", message="%(version)s")
def cli() -> None:
    """Executable runbooks for high-stakes database changes.

    \b
    runbook demo                                 the whole thing, on a database of its own
    runbook init first                           a first playbook of your own
    runbook plan adr007-phase3.yaml              what it would do
    runbook exec adr007-phase3.yaml -t prod      do it: gated, resumable, recorded
    runbook status latest                        how it stands, and what to do next
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code. Known errors are printed as messages, never as tracebacks."""
    terminal.prepare()
    typed: dict[str, str] = {}  # command and options, for the next command in an error message
    gc.disable()  # modules loaded at the start are no garbage; a run enables it again (run.execute.run_under_lease)
    try:
        words = terminal.typed(sys.argv[1:] if args is None else args)
        if "--json" in words:
            typed["json"] = "asked"
        code = cli.main(args=words, prog_name="runbook", standalone_mode=False, obj=typed)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        terminal.warn("aborted")
        _as_json(typed, title="aborted", what="aborted", exit_code=130)
        sys.exit(130)
    except click.ClickException as error:
        error.show(sys.stderr)
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "runbook"
        then = f"{path} --help"
        _as_json(typed, title="usage", what=error.format_message(), exit_code=error.exit_code, then=then)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the one boundary: known errors become messages, others a bug report
        from runner.report.failure import Typed, report_error

        sys.exit(report_error(error, Typed(**typed)))
    finally:
        gc.enable()  # for callers that use this as a function


def _as_json(typed: dict[str, str], *, title: str, what: str, exit_code: int, then: str = "") -> None:
    """An error in front of any command, for machines too; the others go by runner.report.failure."""
    if typed.get("json") == "asked":
        from runner.report.failure import print_error

        print_error(title=title, what=what, exit_code=exit_code, then=then)


if __name__ == "__main__":
    main()
