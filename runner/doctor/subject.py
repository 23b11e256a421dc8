"""What the doctor is asked about: shapes, a playbook or a run, by the word on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runner.common.errors import RunRefused
from runner.playbook.find import find_playbook, read_playbook
from runner.playbook.model import Playbook
from runner.playbook.shape_files import has_steps, read_shapes, shape_files
from runner.run.opened_run import in_force, schema_of
from runner.target.runs import Found, find_run
from runner.target.workplace import Workplace, runs_of
from steps.catalog.shape import DeclaredShape


@dataclass(frozen=True)
class Subject:
    """What is asked about. one: a single shape was named, and it must be whole. known: further shapes, for leftovers only.

    later: the shapes that come after a shape that was named alone, being declared `from` it.
    """

    name: str
    shapes: Mapping[str, DeclaredShape] = field(default_factory=dict)
    playbook: Playbook | None = None
    run: Found | None = None
    schema: str = "public"
    path: tuple[str, ...] = ()
    one: bool = False
    known: tuple[DeclaredShape, ...] = ()
    later: tuple[DeclaredShape, ...] = ()


def subject(name: str | None, place: Workplace, inputs: Mapping[str, str]) -> Subject:
    """Find what the word means: a file of shapes or a playbook, else a shape, else a run; raises RunRefused for none of them."""
    files, faulty = shape_files(place.cwd)
    if name is None:
        return Subject("", known=tuple(one for file in files for one in file.shapes.values()))
    try:
        path = find_playbook(name, place.cwd)
    except RunRefused as missing:
        for file in files:
            if name in file.shapes:
                later = tuple(
                    one for one in file.shapes.values() if any(each.base == name for each in one.shapes.values())
                )
                return Subject(name, {name: file.shapes[name]}, schema=file.schema, one=True, later=later)
        return _run(name, place, [missing.what, *(one.what for one in faulty)])
    if has_steps(path):
        return _playbook(name, read_playbook(path, inputs or None))
    file = read_shapes(path)
    return Subject(name, file.shapes, schema=file.schema, one=len(file.shapes) == 1)


def _playbook(name: str, playbook: Playbook, run: Found | None = None) -> Subject:
    schema = schema_of(run) if run is not None else playbook.db_schema
    return Subject(name, playbook.shapes, playbook, run, schema, playbook.search_path)


def _run(name: str, place: Workplace, missing: Sequence[str]) -> Subject:
    try:
        found = find_run(runs_of(place), name)
    except RunRefused as none:
        raise RunRefused(
            f"cannot find {name!r}: it is no playbook, no shape and no run",
            why="; ".join([*missing, none.what]),
            then="runbook doctor -t TARGET looks at the target without any; runbook runs lists the runs",
        ) from none
    return _playbook(found.status.run, in_force(found), found)
