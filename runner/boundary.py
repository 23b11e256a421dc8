"""Where an exception ends: words for the operator and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback

from runner import ledger_check, terminal
from runner.errors import RunbookError, RunRefused, TargetUnreachable, TrailBroken
from runner.source import BadInput
from steps import cutting
from steps.base import DatabaseFault
from steps.ledger import OldLedger

SHOWN = 100  # signs of a path that is too long
_UNUSABLE = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES})


def told(error: Exception) -> int:
    """Print what stopped the command and return its exit code."""
    if isinstance(error, RunbookError):
        with contextlib.suppress(OSError):  # the terminal may be gone; the code is still heard
            _known(error)
        return error.exit_code
    if isinstance(error, BadInput):
        _title("refused:", str(error))
        return 6
    state = "what this command was about to do was rolled back"
    if isinstance(error, OldLedger):
        return told(RunRefused(str(error), state=state, then=ledger_check.MEND))
    if isinstance(error, DatabaseFault):
        return told(TargetUnreachable(f"the database refused or was lost: {error}", why=_sqlstate(error), state=state))
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        file = error.filename or "a file"
        kind = RunbookError if file == terminal.STANDARD_OUTPUT else TrailBroken
        return told(kind(f"cannot write {file}: {error.strerror}", then="make room, then do it again"))
    if isinstance(error, OSError) and error.errno in _UNUSABLE:
        shown = cutting.shortened(str(error.filename or "a file"), SHOWN)
        return told(RunRefused(f"cannot use {shown!r}: {(error.strerror or '').lower()}", state="nothing was begun"))
    if os.environ.get("RUNBOOK_TRACEBACK"):
        traceback.print_exception(error)
    _title("internal error:", f"{type(error).__name__}: {error}")
    terminal.warn("this is a fault of runbook, not of your playbook; RUNBOOK_TRACEBACK=1 shows where")
    return 1


def _known(error: RunbookError) -> None:
    terminal.warn()
    _title(f"{error.title}:", error.what)
    if error.why:
        terminal.labelled("why", error.why, out=sys.stderr)
    if error.stop:
        for label, text in error.stop:
            terminal.labelled(label, text, out=sys.stderr)
        return
    if error.state:
        terminal.labelled("state", error.state, out=sys.stderr)
    if error.then:
        terminal.labelled("next", error.then, out=sys.stderr)


def _sqlstate(fault: DatabaseFault) -> str:
    return f"SQLSTATE {fault.sqlstate}" if fault.sqlstate else ""


def _title(title: str, text: str) -> None:
    """What happened, in as many lines as it has: a list of faults is one, each with its place."""
    first, *rest = f"{title} {text}".split("\n")
    terminal.warn(first, mark=title, colour="red", hang=len(title) + 1)
    for line in rest:
        terminal.warn(line)
