"""What teams' CI runs: the action's script on real repositories, and the files by their public schemas' rules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runner.review.changed import playbooks_of

ROOT = Path(__file__).parents[3]
ACTION = ROOT / ".github" / "actions" / "review"
GIT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@x",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@x",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The shipped phases on main, and a branch."""
    (tmp_path / "playbooks").mkdir()
    for path in [*(ROOT / "playbooks").glob("adr007-*.yaml"), *(ROOT / "playbooks").glob("*.sql")]:
        shutil.copy(path, tmp_path / "playbooks")
    shutil.copytree(
        ROOT / "playbooks" / "validation",
        tmp_path / "playbooks" / "validation",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path)
    git(tmp_path, "switch", "-q", "-c", "change")
    return tmp_path


def git(repository: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=repository, env={**os.environ, **GIT}, check=True, capture_output=True)


def commit(repository: Path) -> None:
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "a change")


def review(repository: Path, out: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "REVIEW_OUT": str(out), "REVIEW_BASE": "main", "GITHUB_OUTPUT": str(out) + ".outputs", **env}
    return subprocess.run(
        ["bash", ACTION / "review.sh"],
        cwd=repository,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def edit(repository: Path, name: str, old: str, new: str) -> None:
    path = repository / "playbooks" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_review_of_a_pull_request(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    """One that weakens a gate fails only by choice; the comment begins with the verdict, and can be found again."""
    out = tmp_path_factory.mktemp("out")
    edit(repository, "adr007-phase3.yaml", "need: 2, not: operator", "need: 1")
    commit(repository)
    done = review(repository, out)
    assert done.returncode == 0, done.stdout + done.stderr
    comment = (out / "comment.md").read_text()
    assert comment.startswith("<!-- runbook diff -->\n## Playbooks: 2 weakening")
    assert "verdict=weakens" in Path(f"{out}.outputs").read_text()
    for name, rules in (("lint.sarif", None), ("diff.sarif", {"DIFF1"})):
        sarif = json.loads((out / name).read_text())
        found = {one["ruleId"] for one in sarif["runs"][0]["results"]}
        assert sarif["version"] == "2.1.0" and (rules is None or found == rules)
    refused = review(repository, out, REVIEW_FAIL_ON="weakens")
    assert refused.returncode == 1 and "failed: weakens" in refused.stderr


def test_review_with_merges_renames_and_deleted_files(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("out")
    git(repository, "mv", "playbooks/adr007-phase4.yaml", "playbooks/fourth.yaml")
    git(repository, "rm", "-q", "playbooks/adr007-rollback3.yaml")
    commit(repository)
    git(repository, "switch", "-q", "main")
    edit(repository, "adr007-common.yaml", "errors_pct: 0.1", "errors_pct: 5")
    commit(repository)
    git(repository, "switch", "-q", "change")
    git(repository, "merge", "-q", "-m", "merge", "main")
    done = review(repository, out, REVIEW_FAIL_ON="never")
    assert done.returncode == 0, done.stdout + done.stderr
    comment = (out / "comment.md").read_text()
    assert (
        "adr007-rollback3" in comment
        and "errors\\_pct" not in comment
        and "errors_pct" not in comment.split("<details>")[0]
    )


def test_review_of_an_invalid_playbook_and_of_a_stale_page(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("out")
    runbook = Path(sys.executable).with_name("runbook")
    subprocess.run(
        [runbook, "render", "--write", "playbooks/adr007-phase1.yaml"], cwd=repository, check=True, capture_output=True
    )
    commit(repository)
    assert review(repository, out).returncode == 0
    edit(repository, "adr007-phase1.yaml", "window: 15 min", "window: 10 min")
    commit(repository)
    stale = review(repository, out)
    assert stale.returncode == 1 and "failed: stale" in stale.stderr
    edit(repository, "adr007-phase1.yaml", "window: 10 min", "windoe: 10 min")
    commit(repository)
    invalid = review(repository, out)
    assert invalid.returncode == 1 and "windoe" in (out / "comment.md").read_text()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["playbooks/adr007-phase1.yaml"], {"phase1"}),
        (["playbooks/adr007-shapes.yaml"], {"phase2", "recovery", "recovery-check", "v16", "v16-program"}),
        (["playbooks/session_ip.sqlite.sql"], {"phase2", "phase2-10k", "phase3"}),
        (["playbooks/validation/test_production_validation.py"], {"phase2", "phase4"}),
        (["playbooks/adr007-rollback1.yaml", "playbooks/targets.yaml", "README.md"], {"rollback1"}),
        (["README.md"], set()),
    ],
)
def test_playbooks_that_a_changed_file_belongs_to(repository: Path, files: list[str], expected: set[str]):
    """A hook gets files; what includes, reads or runs them is looked at, and an include alone never is."""
    found = playbooks_of(files, repository)
    assert set(found) == {f"playbooks/adr007-{name}.yaml" for name in expected}


def test_hooks_as_they_are_called(repository: Path):
    """With the files of a commit, as pre-commit calls them: a limit of an include makes the page of a phase stale."""
    runbook = Path(sys.executable).with_name("runbook")
    words = {
        hook["id"]: hook["entry"].split()[1:] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    }

    def hook(name: str, *files: str) -> int:
        return subprocess.run(
            [runbook, *words[name], *files], cwd=repository, capture_output=True, check=False
        ).returncode

    subprocess.run(
        [runbook, "render", "--write", "playbooks/adr007-phase3.yaml"], cwd=repository, check=True, capture_output=True
    )
    include = "playbooks/adr007-common.yaml"
    assert [hook(name, include) for name in words] == [0, 0, 0]
    edit(repository, "adr007-common.yaml", "errors_pct: 0.1", "errors_pct: 5")
    assert hook("runbook-render", include) == 3
    edit(repository, "adr007-common.yaml", "errors_pct: 5", "errors_pc: 5")
    assert hook("runbook-validate", include) == 4 and hook("runbook-lint", include) == 4


def test_action_and_hooks_are_well_formed():
    """Each step has a shell or an action, each input that is used is declared; each hook's command exists."""
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert ("run" in step) == ("shell" in step) and ("run" in step or "uses" in step)
    text = (ACTION / "action.yml").read_text()
    used = {
        part.split("}}")[0].split("inputs.")[1].strip().split(" ")[0]
        for part in text.split("${{")
        if "inputs." in part.split("}}")[0]
    }
    assert used <= set(action["inputs"])
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    runbook = Path(sys.executable).with_name("runbook")
    for hook in hooks:
        program, *words = hook["entry"].split()
        assert program == "runbook"
        assert subprocess.run([runbook, words[0], "--help"], capture_output=True, check=False).returncode == 0


def test_action_by_its_public_schema():
    check = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [check, "--builtin-schema", "vendor.github-actions", ACTION / "action.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
