"""The process that works on a run: who started it, where, and whether it still runs."""

from __future__ import annotations

import functools
import getpass
import os
import platform
import socket

from runner.common import person_names
from runner.trail.events import Process
from steps.contract import cutting, pids
from steps.contract.pids import ProcessId


def this_process(operator: str | None) -> Process:
    """This process, with the operator's name as given, else the OS user."""
    user, own = _user(), pids.identify(os.getpid())
    return Process(
        operator=user if operator is None else cutting.masked(person_names.named(operator, option="--operator")),
        user=user,
        host=socket.gethostname(),
        pid=own.pid,
        started=own.started,
        boot_id=own.boot,
        pid_ns=own.namespace,
        ticks=own.ticks,
        versions={
            "runbook": version(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        },
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a passwd entry, as in some containers
        return str(os.getuid())


def alive(process: Process) -> bool | None:
    """Whether this very process still runs; None if that can't be determined from here (another host)."""
    return pids.alive(ProcessId(process.pid, process.boot_id, process.pid_ns, process.ticks, process.started))


@functools.cache
def version() -> str:
    """The version of the engine."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("runbook-engine")
    except PackageNotFoundError:
        return "0+source"
