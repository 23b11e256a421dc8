"""A process that has loaded all of runbook, and forks for each command: a process like any other, without its start.

Each command has a process id, an environment, a directory and a memory of its own, and dies by itself. What is said of the
start (the entry point, the interpreter's own settings) needs one: command.Cli starts the command anew there.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


def _load() -> None:
    import runner
    import steps
    from steps import registry

    for package in (runner, steps):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for types in (registry.step_types(), registry.probe_types()):
        list(types.values())
    for module in (
        "jinja2",
        "psutil",
        "psycopg",
        "sqlalchemy.dialects.postgresql.psycopg",
        "sqlalchemy.dialects.sqlite",
    ):
        importlib.import_module(module)


def _become(asked: dict[str, Any]) -> None:
    """Take on what a new process would have been started with."""
    for number, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (asked["out"], os.O_WRONLY), (asked["err"], os.O_WRONLY))
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    os.chdir(asked["cwd"])
    sys.argv = ["runbook", *asked["words"]]


def _run(main: Callable[[], None]) -> None:
    """To the process's end, without taking apart all that the other process has loaded."""
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def serve() -> None:
    """For each line on stdin, a command in JSON: its exit code on stdout, negative where a signal ended it."""
    _load()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become(json.loads(line))
            from runner import cli
            from runner.common import crash_points

            importlib.reload(crash_points)  # it reads the environment once
            _run(cli.main)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
