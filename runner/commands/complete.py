"""Shell completion of runs, targets, playbooks, examples and step ids; asks no database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from runner.target.workplace import Workplace

MANY = 200  # maximum number of suggestions


def runs(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """`latest`, then the names of runs, newest first."""
    del param
    found: list[str] = []
    with _quietly():
        from runner.target.workplace import runs_of

        trails = runs_of(_place(ctx)).glob("*/trail.jsonl")
        found = [path.parent.name for path in sorted(trails, key=lambda path: path.stat().st_mtime, reverse=True)]
    return _fitting(["latest", *found], begun)


def targets(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """The names in targets.yaml; if none fits, files (SQLite databases)."""
    del ctx, param
    found: list[str] = []
    with _quietly():
        from runner.target.resolve import TARGETS_FILE
        from runner.target.targets_file import load_targets

        found = sorted(load_targets(Path.cwd() / TARGETS_FILE).targets)
    return _fitting(found, begun) or _files(begun, "*")


def playbooks(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Playbooks here and in playbooks/, and folders."""
    del ctx, param
    named = [path.stem for path in sorted(Path("playbooks").glob("*.yaml"))]
    return _fitting([*_files(begun, "*.yaml"), *named], begun)


def examples(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """The shipped examples."""
    del ctx, param
    found: list[str] = []
    with _quietly():
        from runner.sandbox.first_playbook import examples as shipped

        found = [one.name for one in shipped()]
    return _fitting(found, begun)


def steps_of_run(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """The step ids of the run on the command line."""
    del param
    found: list[str] = []
    with _quietly():
        from runner.run.opened_run import playbook_of
        from runner.target.runs import find_run
        from runner.target.workplace import runs_of

        found = list(playbook_of(find_run(runs_of(_place(ctx)), _run(ctx))).ids)
    return _fitting(found, begun)


def checkpoints(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """The checkpoints of the playbooks on the command line."""
    del param
    found: list[str] = []
    with _quietly():
        from runner.playbook.find import find_playbook, read_playbook
        from steps.contract import Gate

        for name in ctx.params.get("playbooks") or _typed():
            with _quietly():
                entries = read_playbook(find_playbook(name, Path.cwd())).entries
                found += [entry.id for entry in entries if isinstance(entry.step, Gate)]
    return _fitting(found, begun)


def _run(ctx: click.Context) -> str:
    return str(ctx.params.get("run") or next(iter(_typed()), "latest"))


def _typed() -> list[str]:
    """The arguments typed so far. Click hasn't parsed them while the value of an option is being completed."""
    return [word for word in os.environ.get("COMP_WORDS", "").split()[2:] if not word.startswith("-")]


def _place(ctx: click.Context) -> Workplace:
    from runner.target.workplace import Workplace

    return Workplace(ctx.params.get("target"), ctx.params.get("runs"))


def _files(begun: str, pattern: str) -> list[str]:
    folder = Path(begun if begun.endswith("/") else Path(begun).parent)
    found = []
    with _quietly():
        paths = sorted(folder.iterdir())
        found = [f"{path}/" for path in paths if path.is_dir() and not path.name.startswith(".")]
        found += [str(path) for path in paths if path.is_file() and path.match(pattern)]
    return _fitting(found, begun.removeprefix("./"))


def _fitting(names: Iterable[str], begun: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(begun)][:MANY]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Suppress all errors: completion offers nothing rather than print an error into the command line."""
    with contextlib.suppress(Exception):
        yield
