"""Where an exception ends: words for the operator and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback

import click

from runner.errors import RunbookError, TargetUnreachable, TrailBroken
from runner.source import BadInput
from steps.base import DatabaseFault

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES})


def told(error: Exception) -> int:
    """Print what stopped the command and return its exit code."""
    if isinstance(error, RunbookError):
        with contextlib.suppress(OSError):  # the terminal may be gone; the code is still heard
            _known(error)
        return error.exit_code
    if isinstance(error, BadInput):
        click.echo(f"{_red('refused:')} {error}", err=True)
        return 6
    if isinstance(error, DatabaseFault):
        state = "what this command was about to do was rolled back"
        return told(TargetUnreachable(f"the database refused or was lost: {error}", why=_sqlstate(error), state=state))
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        file = error.filename or "a file"
        return told(TrailBroken(f"cannot write {file}: {error.strerror}", then="make room, then do it again"))
    if os.environ.get("RUNBOOK_TRACEBACK"):
        traceback.print_exception(error)
    click.echo(f"{_red('internal error:')} {type(error).__name__}: {error}", err=True)
    click.echo("this is a fault of runbook, not of your playbook; RUNBOOK_TRACEBACK=1 shows where", err=True)
    return 1


def _known(error: RunbookError) -> None:
    click.echo(f"\n{_red(error.title + ':')} {error.what}", err=True)
    if error.why:
        click.echo(f"why        {error.why}", err=True)
    if error.stop:
        for line in error.stop:
            click.echo(line, err=True)
        return
    if error.state:
        click.echo(f"state      {error.state}", err=True)
    if error.then:
        click.echo(f"next       {error.then}", err=True)


def _sqlstate(fault: DatabaseFault) -> str:
    return f"SQLSTATE {fault.sqlstate}" if fault.sqlstate else ""


def _red(text: str) -> str:
    return click.style(text, fg="red", bold=True) if sys.stderr.isatty() else text
