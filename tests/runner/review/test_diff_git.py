"""`runbook diff` on real git repositories: revisions, merges, renames, deletions; and what it writes for a pull request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import Cli

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@x",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@x",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


@pytest.fixture
def repository(tmp_path: Path) -> Cli:
    """A repository with the shipped playbooks on main, and a branch."""
    shutil.copytree(PLAYBOOKS, tmp_path / "db" / "playbooks", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    desk = Cli(tmp_path / "db", "")
    git(desk, "init", "-q", "-b", "main")
    commit(desk, "first")
    git(desk, "switch", "-q", "-c", "change")
    return desk


def git(desk: Cli, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=desk.directory, env={**os.environ, **GIT}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(desk: Cli, message: str) -> None:
    git(desk, "add", "-A")
    git(desk, "commit", "-qm", message)


def change(desk: Cli, name: str, old: str, new: str) -> None:
    path = desk.directory / "playbooks" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_revisions_working_tree_and_merge_base(repository: Cli):
    """What main got meanwhile is no change of the branch's; what isn't committed yet is seen against a revision."""
    assert repository.runbook("diff", "main..HEAD").code == 0
    change(repository, "adr007-common.yaml", "errors_pct: 0.1", "errors_pct: 5")
    assert repository.runbook("diff", "main..HEAD").code == 0
    assert repository.runbook("diff", "main").code == 15
    assert repository.runbook("diff", "main", "playbooks/adr007-phase1.yaml").code == 0
    commit(repository, "weaker")
    done = repository.runbook("diff", "main..HEAD")
    assert done.code == 15
    assert "limit errors_pct: 0.1 → 5" in done.out and "adr007-phase3: step fill, guard errors: weakens" in done.out
    git(repository, "switch", "-q", "main")
    change(repository, "adr007-common.yaml", "lag_s: 10 ", "lag_s: 5 ")
    commit(repository, "stricter on main")
    git(repository, "switch", "-q", "change")
    assert "lag_s" in repository.runbook("diff", "main..HEAD").out
    assert "lag_s" not in repository.runbook("diff", "main...HEAD").out
    git(repository, "merge", "-q", "-m", "merge", "main")
    assert "lag_s" not in repository.runbook("diff", "main..HEAD").out


def test_renamed_and_deleted_files(repository: Cli):
    git(repository, "mv", "playbooks/adr007-phase4.yaml", "playbooks/phase-four.yaml")
    commit(repository, "renamed")
    assert repository.runbook("diff", "main..HEAD").code == 0, "a playbook is known by its name, not by its file's"
    git(repository, "rm", "-q", "playbooks/adr007-rollback3.yaml")
    commit(repository, "deleted")
    done = repository.runbook("diff", "main..HEAD")
    assert done.code == 15 and "playbook adr007-rollback3" in done.out and "(gone)" in done.out
    assert repository.runbook("diff", "main:playbooks/adr007-phase1.yaml", "playbooks/adr007-phase1.yaml").code == 0


def test_markdown_and_sarif(repository: Cli):
    """The first screen of the comment is the verdict and the weakenings; SARIF places each in the new file."""
    change(repository, "adr007-phase3.yaml", "need: 2, not: operator", "need: 1")
    change(repository, "adr007-phase3.yaml", "window: 2 h", "window: 1 h")
    commit(repository, "weaker")
    done = repository.runbook("diff", "main..HEAD", "--markdown", "comment.md", "--sarif", "diff.sarif")
    assert done.code == 15
    text = (repository.directory / "comment.md").read_text()
    assert (
        text.index("2 weakening") < text.index("### Weakens") < text.index("### Strengthens") < text.index("<details>")
    )
    assert "`2` → `1`" in text and "playbooks/adr007-phase3.yaml:" in text
    assert "the steps as they are now" in text and "| 1 |" in text
    sarif = json.loads((repository.directory / "diff.sarif").read_text())
    results = sarif["runs"][0]["results"]
    assert [one["ruleId"] for one in results] == ["DIFF1", "DIFF1"]
    (place,) = {one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in results}
    assert place == "playbooks/adr007-phase3.yaml"


def test_not_a_repository_and_no_such_revision(tmp_path: Path, repository: Cli):
    outside = Cli(tmp_path, "")
    done = outside.runbook("diff", "main..HEAD")
    assert done.code not in (0, 15) and "git" in done.err
    done = repository.runbook("diff", "nowhere..HEAD")
    assert done.code not in (0, 15) and "nowhere" in done.err
