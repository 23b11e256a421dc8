"""The two sides of a diff: playbooks of files, folders or git revisions, each loaded with all that it includes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.common.errors import BadInput, PlaybookFaulty
from runner.playbook.find import read_playbook
from runner.playbook.model import Playbook
from runner.playbook.yaml_reader import Faulty, Mark, parse
from steps.contract import cutting

_YAML = {".yaml", ".yml"}
_MEANT = re.compile(r"""^[{"' ]*runbook["']?\s*:""", re.MULTILINE)  # a playbook, though it can't be read


@dataclass(frozen=True)
class Side:
    """One version of some playbooks. label: how it was asked for; faults: files that can't be loaded, by their path."""

    label: str
    root: Path
    playbooks: Mapping[str, Playbook]
    faults: Mapping[str, str] = field(default_factory=dict)

    def shown(self, mark: Mark) -> Mark:
        """A place with its path as the user knows it, and not that of a copy."""
        return replace(mark, file=self.path(mark.file))

    def path(self, file: str) -> str:
        """A file's path below the root of this side."""
        with contextlib.suppress(ValueError):
            return str(Path(file).resolve().relative_to(self.root.resolve()))
        return file


@contextlib.contextmanager
def sides(old: str, new: str, paths: tuple[str, ...]) -> Iterator[tuple[Side, Side]]:
    """Both sides of `diff OLD NEW`, or of `diff REV..REV [PATH…]`, where new is "".

    `A..B` compares two revisions, `A...B` B with what it has in common with A, and `A` alone a revision with the working tree.
    """
    with contextlib.ExitStack() as stack:
        if new:
            yield stack.enter_context(_side(old)), stack.enter_context(_side(new))
            return
        before, after = _revisions(old)
        one = stack.enter_context(_revision(before, paths))
        other = stack.enter_context(_revision(after, paths)) if after else _working_tree(paths)
        yield one, other


@contextlib.contextmanager
def _side(word: str) -> Iterator[Side]:
    """A file, a folder, or REV:PATH."""
    path = Path(word)
    if path.exists():
        yield _loaded(word, path if path.is_dir() else path.parent, yaml_in(path), alone=path.is_file())
        return
    revision, colon, inside = word.partition(":")
    if not colon:
        raise BadInput(f"cannot find {word!r}: name a file, a folder, REVISION:PATH, or REVISION..REVISION")
    with _revision(revision, (inside,)) as found:
        yield replace(found, label=word)


# ─── git ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _revisions(word: str) -> tuple[str, str]:
    if "..." in word:
        before, _, after = word.partition("...")
        return _git("merge-base", before or "HEAD", after or "HEAD").strip(), after or "HEAD"
    before, dots, after = word.partition("..")
    return before or "HEAD", (after or "HEAD") if dots else ""


@contextlib.contextmanager
def _revision(revision: str, paths: tuple[str, ...]) -> Iterator[Side]:
    """A revision's files in a folder of their own, since a playbook's digest covers the programs that lie beside it."""
    top = Path(_git("rev-parse", "--show-toplevel").strip())
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()
    with tempfile.TemporaryDirectory(prefix="runbook-diff-") as folder:
        root, index = Path(folder).resolve() / "files", str(Path(folder) / "index")
        _git("-C", str(top), "read-tree", commit, index=index)
        _git("-C", str(top), "checkout-index", "--all", "--quiet", f"--prefix={root}/", index=index)
        wanted = [_below(top, path) for path in paths]
        files = [one for path in wanted or [Path()] for one in yaml_in(root / path)]
        yield _loaded(revision, root, files, alone=len(paths) == 1 and bool(files) and files[0] == root / wanted[0])


def _working_tree(paths: tuple[str, ...]) -> Side:
    top = Path(_git("rev-parse", "--show-toplevel").strip())
    listed = _git(
        "ls-files", "--cached", "--others", "--exclude-standard", "--full-name", "-z", "--", *(paths or (str(top),))
    )
    files = [top / name for name in listed.split("\0") if (top / name).suffix in _YAML and (top / name).is_file()]
    return _loaded("the working tree", top, sorted(set(files)))


def _below(top: Path, path: str) -> Path:
    """A path as typed here, relative to the repository's top."""
    full = Path(path).absolute()
    return full.relative_to(top) if full.is_relative_to(top) else Path(path)


def yaml_in(path: Path, *, deep: bool = True) -> list[Path]:
    """A file itself, or the YAML files in a folder; deep: and below it."""
    if path.is_file():
        return [path]
    return sorted(one for one in (path.rglob("*") if deep else path.glob("*")) if one.suffix in _YAML)


def _git(*words: str, index: str = "") -> str:
    """What git prints. index: a file of its own instead of the repository's index."""
    env = {**os.environ, **({"GIT_INDEX_FILE": index} if index else {})}
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, env=env)  # noqa: S607
    except FileNotFoundError as error:
        raise BadInput("cannot compare revisions: git is not on this machine") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise BadInput(
            f"cannot compare revisions: git {cutting.shortened(' '.join(words), 80)} says {said[-1] if said else 'nothing'}"
        )
    return done.stdout


# ─── loading ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _loaded(label: str, root: Path, files: Iterable[Path], *, alone: bool = False) -> Side:
    """The playbooks among these files; what has no steps is an include, another kind of file, or no YAML of ours.

    alone: the file was named by itself, so that it is loaded whatever it is.
    """
    playbooks: dict[str, Playbook] = {}
    faults: dict[str, str] = {}
    for file in files:
        if not alone and not is_playbook(file):
            continue
        try:
            playbook = read_playbook(file)
        except PlaybookFaulty as error:
            faults[str(file.resolve().relative_to(root.resolve()))] = error.what
        else:  # the second one of a name is known by its file, too
            where = str(file.resolve().relative_to(root.resolve()))
            name = playbook.name if playbook.name not in playbooks else f"{playbook.name} in {where}"
            playbooks[name] = playbook
    return Side(label, root, playbooks, faults)


def is_playbook(file: Path) -> bool:
    """Whether it has steps: an include, or another kind of file, has none."""
    try:
        text = file.read_text(encoding="utf-8")
        data = parse(text, str(file)).data if "runbook" in text and "steps" in text else None
    except (OSError, UnicodeDecodeError):
        return False
    except Faulty:
        return _MEANT.search(text) is not None  # then its faults are told; without a name it would seem to be gone
    return isinstance(data, dict) and "runbook" in data and "steps" in data
