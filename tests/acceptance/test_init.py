"""`runbook init`: what it writes runs as it stands, and every line that it prints works when it is pasted."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from command import RUNBOOK, Cli, Done
from databases import Database

from runner.plan.plan import plan
from runner.playbook.find import read_playbook
from runner.sandbox import first_playbook
from runner.sandbox.first_playbook import EXAMPLES, examples

pytestmark = pytest.mark.newest

NAMES = [one.name for one in examples()]


def init(cwd: Path, *words: str, **env: str) -> Done:
    done = subprocess.run([RUNBOOK, "init", *words], check=False, cwd=cwd, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **env})  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def next_lines(done: Done) -> list[str]:
    assert done.code == 0, done.text
    return [line.strip() for line in done.out.partition("next:\n")[2].splitlines() if line.strip()]


def pasted(line: str, cwd: Path) -> str:
    done = subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def test_with_nothing_at_hand_it_runs_on_a_sqlite_file(tmp_path: Path) -> None:
    lines = next_lines(init(tmp_path, "first"))
    assert [line.split()[1] for line in lines] == ["validate", "plan", "exec", "report", "rollback"]
    told = [pasted(line, tmp_path) for line in lines]
    assert "looked only" in told[1]
    assert "succeeded" in told[2]
    assert "rolled back" in told[4]


def test_on_a_target_it_validates_plans_runs_and_is_taken_back(empty_database: Database, tmp_path: Path) -> None:
    """With the URL as all that a newcomer has."""
    for line in next_lines(init(tmp_path, "my-first", "-t", empty_database.url)):
        told = pasted(line, tmp_path)
        if " exec " in line:
            assert "succeeded" in told
            assert empty_database.rows("SELECT id, note FROM my_first_notes") == []
    with pytest.raises(Exception, match="my_first_notes"):
        empty_database.rows("SELECT 1 FROM my_first_notes")
    assert not (tmp_path / "my-first.sqlite").exists()


def test_a_target_from_elsewhere_is_used_without_an_option(sqlite_path: Path, tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        f"default: here\ntargets: {{here: {{url: 'sqlite:///{sqlite_path}', runs: elsewhere}}}}\n"
    )
    lines = next_lines(init(tmp_path, "first"))
    assert not any(" -t " in line for line in lines)
    for line in lines:
        pasted(line, tmp_path)
    assert list((tmp_path / "elsewhere").glob("*/trail.jsonl"))


def test_a_name_is_a_name_whatever_yaml_reads_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("null", "true", "on", "a" * 60):
        begun = first_playbook.init(name)
        assert read_playbook(Path(begun.file)).name == name


def test_every_copied_example_validates_and_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in NAMES:
        begun = first_playbook.init(f"mine-{example.replace('_', '-')}", example=example)
        playbook = read_playbook(Path(begun.file))
        assert playbook.name == begun.name
        assert plan(playbook).cards
        copy, source = Path(begun.file).read_text(), (EXAMPLES / f"{example}.yaml").read_text()
        assert [line for line in copy.splitlines() if not line.startswith("name:")] == [
            line for line in source.splitlines() if not line.startswith("name:") and "$schema" not in line
        ]


def test_what_is_printed_for_a_copy_can_be_pasted(tmp_path: Path) -> None:
    for line in next_lines(init(tmp_path, "mine", "--from", "backfill")):
        pasted(line, tmp_path)


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("mine\n")
    (tmp_path / "link.yaml").symlink_to("nowhere")
    (tmp_path / "other.sqlite").write_bytes(b"mine")
    for words in (["first"], ["first.yaml"], ["first", "--from", "sql"], ["link"]):
        done = init(tmp_path, *words)
        assert done.code == 6, done.text
        assert "nothing was written" in done.err
    assert (tmp_path / "first.yaml").read_text() == "mine\n"
    assert not (tmp_path / "nowhere").exists()
    assert not (tmp_path / "first.sqlite").exists()
    init(tmp_path, "other")
    assert (tmp_path / "other.sqlite").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(["first", "--from", "backfil"], 6, "backfill"), (["Big Name"], 6, "small letters"), (["nowhere/first"], 6, "mkdir -p nowhere"),
     ([], 2, "--list"), (["first", "-t", "postgresql://a:word@h/d"], 6, "password")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_way_on(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    done = init(tmp_path, *words)
    assert (done.code, said in done.err) == (code, True), done.text
    assert "word@" not in done.text
    assert list(tmp_path.iterdir()) == []


def test_the_list_is_what_from_takes(tmp_path: Path) -> None:
    assert [line.split()[0] for line in init(tmp_path, "--list").out.splitlines()] == NAMES
    found = json.loads(init(tmp_path, "--list", "--json").out)
    assert [one["name"] for one in found] == NAMES
    assert all(one["about"] for one in found)


def test_a_machine_reads_what_was_written(tmp_path: Path) -> None:
    found = json.loads(init(tmp_path, "first", "--json").out)
    assert (found["file"], found["name"], found["database"]) == ("first.yaml", "first", "first.sqlite")
    for line in found["next"]:
        pasted(line, tmp_path)


def test_the_shell_is_offered_examples(tmp_path: Path) -> None:
    desk = Cli(tmp_path, "")
    env = {"_RUNBOOK_COMPLETE": "bash_complete", "COMP_WORDS": "runbook init x --from re", "COMP_CWORD": "4"}
    offered = [line.removeprefix("plain,") for line in desk.runbook(**env).out.splitlines()]
    assert offered == [name for name in NAMES if name.startswith("re")]
