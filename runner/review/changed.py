"""Finds the playbooks that changed files belong to: themselves, and those that include, read or run one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.common.errors import PlaybookFaulty
from runner.playbook.find import read_playbook
from runner.review.diff.sides import is_playbook, yaml_in


def playbooks_of(files: Sequence[str], cwd: Path) -> list[str]:
    """The playbooks among these files, and below the folders that they lie in, which these files are part of."""
    changed = {(cwd / one).resolve() for one in files}
    found = dict.fromkeys(one for place in _places(files, cwd) for one in place if _part_of(one, changed))
    return [str(one.relative_to(cwd) if one.is_relative_to(cwd) else one) for one in found]


def _places(files: Sequence[str], cwd: Path) -> Iterator[list[Path]]:
    """The YAML files below the uppermost folder of each file; of a file that lies here, those beside it."""
    tops = {(cwd / one).relative_to(cwd).parts if (cwd / one).is_relative_to(cwd) else Path(one).parts for one in files}
    for top in sorted({parts[0] for parts in tops if len(parts) > 1}):
        yield yaml_in(cwd / top)
    if any(len(parts) == 1 for parts in tops):
        yield yaml_in(cwd, deep=False)


def _part_of(file: Path, changed: set[Path]) -> bool:
    """Whether this is a playbook that one of the changed files is part of; one that can't be read may have any of them."""
    if not is_playbook(file):
        return False
    if file.resolve() in changed:
        return True
    try:
        playbook = read_playbook(file)
    except PlaybookFaulty:
        return True
    return any((file.parent / name).resolve() in changed for name in (*playbook.source, *playbook.programs))
