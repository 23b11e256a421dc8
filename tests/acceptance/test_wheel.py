"""The wheel, as somebody installs it: without the checkout, without ./dev, in an environment of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from databases import in_ci

from runner.sandbox.binaries import find_binaries

ROOT = Path(__file__).parents[2]
OURS = {"runner", "steps", "playbooks", "runbook_entry.py"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        missing = "hatchling, which builds the wheel, is not installed"
        pytest.fail(missing) if in_ci() else pytest.skip(missing)
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT,
                           capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert built.returncode == 0, built.stderr
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def runbook(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command; what it depends on comes from this environment, our packages from the wheel alone."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", "--quiet",
         "--disable-pip-version-check", "--force-reinstall", "--ignore-installed", wheel],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    return folder / "bin" / "runbook"


def run(runbook: Path, cwd: Path, *words: str) -> str:
    env = {name: word for name, word in os.environ.items() if not name.startswith(("PG", "RUNBOOK_", "PYTHON"))}
    done = subprocess.run([runbook, *words], cwd=cwd, env={**env, "TMPDIR": str(cwd)}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr)
    return done.stdout


def test_the_wheel_has_the_types_and_the_playbooks_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "runner/py.typed",
        "steps/py.typed",
        "playbooks/examples/backfill.yaml",
        "playbooks/demo/touch.yaml",
    } <= set(names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == OURS


def test_a_first_playbook_and_a_copy_from_the_installed_command(runbook: Path, tmp_path: Path) -> None:
    assert "init" in run(runbook, tmp_path, "--help")
    lines = run(runbook, tmp_path, "init", "first").partition("next:\n")[2].split("\n")
    for line in lines:
        if line.strip():
            done = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, (line, done)
            assert str(ROOT) not in done.stdout
    run(runbook, tmp_path, "init", "mine", "--from", "backfill")
    assert "good" in run(runbook, tmp_path, "validate", "mine.yaml")


def test_the_demo_from_the_installed_command(runbook: Path, tmp_path: Path) -> None:
    """The whole of it; and what it says to type next works where there is no checkout."""
    if not find_binaries(18):
        pytest.skip("PostgreSQL 18 is not on this machine")
    told = run(runbook, tmp_path, "demo", "--sessions", "2000")
    assert "the demo succeeded" in told
    assert str(ROOT) not in told
    lines = [line.strip() for line in told.partition("next:\n")[2].splitlines() if line.startswith("  ")]
    assert any(" plan " in line for line in lines)
    for line in lines:
        if " demo " not in line:
            done = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, (line, done)
    assert list(tmp_path.glob("runbook-demo-*/server")) == []


def test_the_hooks_for_contributors_run_what_is_there() -> None:
    hooks = [
        hook
        for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repo["hooks"]
        if repo["repo"] == "local"  # the project's own tools, in the versions of constraints.txt: nothing is fetched
    ]
    tasks = (ROOT / "dev").read_text()
    assert {hook["id"] for hook in hooks} == {"lint", "generate"}
    for hook in hooks:
        program, task = hook["entry"].split()
        assert os.access(ROOT / program, os.X_OK), hook
        assert f"\n{task}) " in tasks, hook
        assert hook["pass_filenames"] is False, "each task looks at the whole checkout"
