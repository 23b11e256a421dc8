"""`runbook init`: a first playbook of one's own, or a copy of a shipped example, and the commands that come next."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from runner.common.errors import RunRefused
from runner.common.invocation import command, shown
from runner.format.examples import PLAYBOOKS
from runner.playbook.model import NAME
from runner.playbook.yaml_reader import near
from runner.target.resolve import NoTarget, resolve

EXAMPLES = PLAYBOOKS / "examples"
NEEDS = {"postgresql": '{postgresql: ">=14"}', "sqlite": '{sqlite: ">=3.38"}'}
LONGEST = 50  # of a table's name, which PostgreSQL cuts at 63
_TEMPLATE = """\
# A first playbook: it makes a small table, and can take it back. Change its parts to what you have to do.
# `runbook steps` lists the step types and the checks, `runbook steps add_column` shows the fields of one.
runbook: 1
name: {name}
title: Make a small table, to see how a run goes
target: {needs}                   # elsewhere it is refused
preconditions:                                   # asked before anything is changed; only a pass goes on
  - {{id: name_is_free, check: columns, table: {table}, that: exists == False}}
steps:
  - id: make_table
    type: sql
    statements:
      - CREATE TABLE {table} (id integer PRIMARY KEY, note text NOT NULL)
    revert: DROP TABLE {table}         # for `runbook rollback`; whatever rows it has by then go with it
    if_stopped_here: safe; nothing uses the table yet
success_criteria:                                # asked of the database at the end; without a pass nothing has succeeded
  - {{id: table_is_there, check: columns, table: {table}, has: [id, note]}}
rollback: reverse                                # the steps' own ways back, the last step first
"""


@dataclass(frozen=True)
class Example:
    """One shipped example."""

    name: str
    about: str


@dataclass(frozen=True)
class Begun:
    """What init wrote. database: the SQLite file that it made for a first run, where no target was named."""

    file: str
    name: str
    copied_from: str
    target: str
    database: str
    next: tuple[str, ...]


def examples() -> list[Example]:
    """The shipped examples, with their titles."""
    return [Example(path.stem, _title(path.read_text(encoding="utf-8"))) for path in sorted(EXAMPLES.glob("*.yaml"))]


def init(word: str, *, target: str | None = None, example: str = "") -> Begun:
    """Write a first playbook for this target, or a copy of an example; raises RunRefused rather than overwrite a file."""
    path = Path(word if word.endswith((".yaml", ".yml")) else f"{word}.yaml")
    _check_name(path)
    if example:
        return _copied(path, example)
    dialect, options = _aimed(target)
    database = path.with_suffix(".sqlite") if dialect is None else None
    needs = NEEDS["sqlite" if dialect is None else dialect]
    table = f"{path.stem[:LONGEST].replace('-', '_')}_notes"
    _write(path, _TEMPLATE.format(name=_written(path.stem), needs=needs, table=table))
    if database is not None:
        database.touch()  # an empty file is an empty database; one that is there stays as it is
        options = f" -t {shown(database)}"
    me, file = command(), shown(path)
    return Begun(
        str(path),
        path.stem,
        "",
        target or (str(database) if database else ""),
        str(database or ""),
        (
            f"{me} validate {file}",
            f"{me} plan {file}{options}",
            f"{me} exec {file}{options}",
            f"{me} report latest{options}",
            f"{me} rollback latest{options}",
        ),
    )


def _copied(path: Path, example: str) -> Begun:
    source = EXAMPLES / f"{example}.yaml"
    names = [one.name for one in examples()]
    if example not in names:
        raise RunRefused(
            f"cannot copy the example {example!r}{near(example, tuple(names))}: the examples are {', '.join(names)}",
            state="nothing was written",
            then=f"{command()} init --list",
        )
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(line for line in lines if "yaml-language-server" not in line)  # its path holds in playbooks/ only
    _write(path, re.sub(r"^name: .*$", f"name: {_written(path.stem)}", text, count=1, flags=re.MULTILINE))
    me, file = command(), shown(path)
    return Begun(str(path), path.stem, example, "", "", (f"{me} validate {file}", f"{me} plan {file}"))


def _aimed(target: str | None) -> tuple[str | None, str]:
    """The dialect of the target that is meant, and the options that name it again; None where nobody has named one."""
    try:
        found = resolve(target, environ=os.environ, cwd=Path.cwd())
    except NoTarget:
        return None, ""
    return found.dialect, f" -t {shlex.quote(target)}" if target else ""


def _check_name(path: Path) -> None:
    if re.fullmatch(NAME, path.stem) is None:
        raise RunRefused(
            f"cannot name a playbook {path.stem!r}",
            why="a name has small letters, digits and dashes, and begins with a letter",
            state="nothing was written",
            then=f"{command()} init first",
        )
    if not path.parent.is_dir():
        raise RunRefused(
            f"cannot write {path}",
            why=f"there is no folder {path.parent}",
            state="nothing was written",
            then=f"mkdir -p {shlex.quote(str(path.parent))}",
        )


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RunRefused(
            f"cannot write {path}",
            why="it is there already, and no file is overwritten",
            state="nothing was written",
            then=f"{command()} validate {shown(path)}, or another NAME",
        ) from None


def _written(name: str) -> str:
    """In quotes where YAML would read something else than a text: null, yes, on."""
    import yaml

    return name if isinstance(yaml.safe_load(name), str) else f'"{name}"'


def _title(text: str) -> str:
    found = re.search(r"^title: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""
