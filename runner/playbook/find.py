"""Finds a playbook by name, loads it and reports all faults, without a database."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from runner.common.errors import BadInput, PlaybookFaulty, RunRefused
from runner.playbook.load import WrittenPlaybook, load_written_file
from runner.playbook.model import Playbook
from runner.playbook.yaml_reader import Faulty, parse
from steps.contract import HalfDone


def find_playbook(name: str, cwd: Path) -> Path:
    """Find a playbook: as given, then in playbooks/, each with and without `.yaml`. Raises RunRefused with a suggestion."""
    for candidate in (cwd / name, cwd / "playbooks" / name, cwd / f"{name}.yaml", cwd / "playbooks" / f"{name}.yaml"):
        if candidate.is_file():
            return (
                candidate
                if Path(name).is_absolute()
                else candidate.relative_to(cwd)
                if candidate.is_relative_to(cwd)
                else candidate
            )
    there = sorted(path.name for path in (cwd / "playbooks").glob("*.yaml"))
    import difflib

    near = difflib.get_close_matches(Path(name).name, there, 1)
    hint = f"did you mean {near[0]}?" if near else f"playbooks/ has {', '.join(there) or 'none'}"
    raise RunRefused(
        f"cannot find the playbook {name!r} here or in playbooks/: {hint}",
        then="name a file, or one of playbooks/; runbook validate FILE reads it",
    )


def read_playbook(path: Path, inputs: Mapping[str, str] | None = None) -> Playbook:
    """Load a playbook; raises PlaybookFaulty with every fault."""
    return read_written(path, inputs).playbook


def read_written(path: Path, inputs: Mapping[str, str] | None = None) -> WrittenPlaybook:
    """Load a playbook with the text that it was read from; raises PlaybookFaulty with every fault."""
    try:
        written = load_written_file(path, values=inputs)
    except Faulty as error:
        raise PlaybookFaulty(
            f"cannot run {path}: {len(error.faults)} fault{'s' if len(error.faults) != 1 else ''}\n{error}",
            state="nothing was run",
            then=_mend(path),
        ) from error
    except BadInput as error:
        raise PlaybookFaulty(f"cannot run {path}: {error}", state="nothing was run", then=_mend(path)) from error
    refuse_cycles(written.playbook)
    _refuse_half_way_back(written.playbook)
    return written


def _mend(path: Path) -> str:
    return f"mend what is named above, then runbook validate {shlex.quote(str(path))}"


def _refuse_half_way_back(playbook: Playbook) -> None:
    """Refuse `on_failure: rollback` for a step that can't be undone if it ended half done."""
    faults = [
        f"{entry.mark}: cannot use on_failure: rollback for step {entry.id}: {why}"
        for entry in playbook.entries
        if entry.on_failure.policy == "rollback"
        and isinstance(entry.step, HalfDone)
        and (why := entry.step.half_way_back())
    ]
    if faults:
        raise PlaybookFaulty("\n".join(faults), state="nothing was run", then=_mend(Path(playbook.file)))


def refuse_cycles(playbook: Playbook) -> None:
    """Refuse playbooks that require each other, as far as their files are available: none of them could ever start."""
    directory = Path(playbook.file).parent
    stack: list[str] = [playbook.name]
    clean: set[str] = set()  # fully explored and on no cycle; so each playbook is read only once

    def follow(names: list[str]) -> None:
        for name in names:
            if name in stack:
                raise PlaybookFaulty(
                    f"{playbook.file}: `requires:` goes in a circle: {' → '.join([*stack[stack.index(name) :], name])}",
                    why="none of them could ever begin",
                    state="nothing was run",
                    then=_mend(Path(playbook.file)),
                )
            if name in clean:
                continue
            stack.append(name)
            follow(_required_by_file(directory / f"{name}.yaml"))
            stack.pop()
            clean.add(name)

    follow([one.playbook for one in playbook.requires])


def _required_by_file(path: Path) -> list[str]:
    try:
        return required_by(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else []
    except (OSError, UnicodeDecodeError):
        return []


def required_by(text: str, file: str) -> list[str]:
    """The playbooks that a playbook's text requires; none where it can't be read."""
    try:
        data = parse(text, file).data
    except BadInput:
        return []
    wanted = data.get("requires", []) if isinstance(data, dict) else []
    names = [
        one.get("playbook") if isinstance(one, dict) else one for one in (wanted if isinstance(wanted, list) else [])
    ]
    return [str(name) for name in names if name]
