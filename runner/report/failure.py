"""Turns an exception into a message for the operator and an exit code."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from runner.common import terminal
from runner.common.errors import BadInput, PlaybookFaulty, RunbookError, RunRefused, TargetUnreachable, TrailBroken
from runner.target import ledger_check
from steps.contract import DatabaseFault, cutting
from steps.ledger.tables import OldLedger


@dataclass
class Typed:
    """Command and options as typed, for completing the suggested next command; filled while the command line is parsed."""

    command: str = "runbook"  # including the subcommand
    target: str = ""
    runs: str = ""
    json: str = ""  # of --json: "asked", or "printed" once the command's own document is


# Commands that take a target but are not about a run (options.pointing completes the latter).
_ON_A_TARGET = re.compile(
    r"runbook (?:target check|target init(?! --print)|monitor (?:list|once)|(?:exec|plan) [^\s;,()]+)"
)
_ON_RUNS = re.compile(r"runbook runs\b")
_STATES: dict[type[RunbookError], str] = {
    RunRefused: "nothing was changed by this command",
    PlaybookFaulty: "nothing was run",
}
SHOWN = 100  # maximum length of a path in a message
_UNUSABLE = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES})


def report_error(error: Exception, typed: Typed | None = None) -> int:
    """Print the error that stopped the command; returns its exit code."""
    typed = typed or Typed()
    if isinstance(error, RunbookError):
        with contextlib.suppress(OSError):  # the terminal may be gone; the exit code still counts
            _known(error, typed)
        return error.exit_code
    if isinstance(error, BadInput):
        return report_error(RunRefused(str(error)), typed)
    state = "what this command was about to do was rolled back"
    if isinstance(error, OldLedger):
        return report_error(RunRefused(str(error), state=state, then=ledger_check.MEND), typed)
    if isinstance(error, DatabaseFault):
        lost = TargetUnreachable(
            f"the database refused or was lost: {error}", why=_sqlstate(error), state=state, then="runbook target check"
        )
        return report_error(lost, typed)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        file = error.filename or "a file"
        kind = RunbookError if file == terminal.STANDARD_OUTPUT else TrailBroken
        return report_error(kind(f"cannot write {file}: {error.strerror}", then="make room, then do it again"), typed)
    if isinstance(error, OSError) and error.errno in _UNUSABLE:
        shown = cutting.shortened(str(error.filename or "a file"), SHOWN)
        refused = RunRefused(f"cannot use {shown!r}: {(error.strerror or '').lower()}", state="nothing was begun")
        return report_error(refused, typed)
    return _internal(error, typed)


def _internal(error: Exception, typed: Typed) -> int:
    if os.environ.get("RUNBOOK_TRACEBACK"):
        traceback.print_exception(error)
    what = f"{type(error).__name__}: {error}"
    _title("internal error:", what)
    terminal.warn("this is a fault of runbook, not of your playbook; RUNBOOK_TRACEBACK=1 shows where")
    if typed.json == "asked":
        print_error(title="internal error", what=what, exit_code=1)
    return 1


def _known(error: RunbookError, typed: Typed) -> None:
    terminal.warn()
    _title(f"{error.title}:", error.what)
    if error.why:
        terminal.labelled("why", error.why, out=sys.stderr)
    for label, text in _stop(error, typed):
        terminal.labelled(label, text, out=sys.stderr)
    if typed.json == "asked":
        stop = dict(_stop(error, typed))
        then = stop.pop("next", "")
        print_error(title=error.title, what=error.what, why=error.why, exit_code=error.exit_code, then=then, stop=stop)


def _stop(error: RunbookError, typed: Typed) -> list[tuple[str, str]]:
    """The lines of a stop message: those of the run, else the state and the next command."""
    if error.stop:
        return list(error.stop)
    state = error.state or next((words for kind, words in _STATES.items() if isinstance(error, kind)), "")
    return [*([("state", state)] if state else []), ("next", _completed(error, typed))]


def print_error(
    *, title: str, what: str, exit_code: int, why: str = "", then: str = "", stop: Mapping[str, str] | None = None
) -> None:
    """Print an error to standard output as one line of JSON, for --json: the whole document, or a stream's last line."""
    told = {"title": title, "what": what, "why": why, "exit_code": exit_code, **(stop or {}), "next": then.splitlines()}
    terminal.hand_over(terminal.machine_text(json.dumps({"error": told}, ensure_ascii=False)) + "\n")


def _completed(error: RunbookError, typed: Typed) -> str:
    """The next command, completed with the target and runs directory of the failed one."""
    if not error.then:
        return f"{typed.command} --help"
    then = error.then
    if typed.target and " -t " not in then and "--target" not in then:
        then = _ON_A_TARGET.sub(lambda found: f"{found[0]} -t {shlex.quote(typed.target)}", then)
    if typed.runs and "--runs" not in then:
        then = _ON_RUNS.sub(lambda found: f"{found[0]} --runs {shlex.quote(typed.runs)}", then)
    return then


def _sqlstate(fault: DatabaseFault) -> str:
    return f"SQLSTATE {fault.sqlstate}" if fault.sqlstate else ""


def _title(title: str, text: str) -> None:
    """Print the title and what happened; it may have several lines, such as a list of faults."""
    first, *rest = f"{title} {text}".split("\n")
    terminal.warn(first, mark=title, colour="red", hang=len(title) + 1)
    for line in rest:
        terminal.warn(line)
