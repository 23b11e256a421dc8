"""What is run is what was approved: programs, scripts and suites of a playbook, and its secrets, in its digests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import proven
from databases import Database
from inside import InProcessCli, written

from runner.playbook import digest
from runner.playbook.load import load_file
from steps import registry
from steps.contract import RunsPrograms

on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)

GATE = "- {id: go, type: checkpoint, approval: {roles: [dba]}}"
GOOD, BAD = "#!/bin/sh\ntouch good\n", "#!/bin/sh\ntouch bad\n"
ACCEPT = ("--accept-changes", "--reason", "seen")


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    here = tmp_path / "here"
    (here / "tools").mkdir(parents=True)
    script(here / "tools" / "fix.sh", GOOD)
    return InProcessCli(here, empty_database.url)


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def approve(desk: InProcessCli) -> None:
    assert desk.runbook("approve", "latest", "--as", "ines", "--role", "dba", "--reason", "read it").code == 0


def command(argv: str, check: str = "") -> str:
    return f'- {{id: fix, type: command, argv: {argv}, revert: ["true"]{check}}}'


PROBE = "preconditions: [{id: probed, check: command, argv: [tools/fix.sh]}]"
WAYS = {
    "program": command("[tools/fix.sh]"),
    "argument": command("[sh, tools/fix.sh]"),
    "shell": command("[sh, -c, 'tools/fix.sh --now']"),
    "env": command("[env, A=b, ./tools/fix.sh]"),
    "probe": f"- {{id: look, type: checkpoint, {PROBE}}}",
    "criterion": command("['true']", ", success_criteria: [{id: probed, check: command, argv: [tools/fix.sh]}]"),
}


@on_sqlite
@pytest.mark.parametrize("way", WAYS)
def test_program_is_changed_after_its_approval(desk: InProcessCli, way: str) -> None:
    """Resume refuses; accepted, the gate is asked again; approved as it is now, it runs."""
    written(desk, f"{GATE}\n{WAYS[way]}")
    assert desk.runbook("exec", "change.yaml").code == 5
    approve(desk)
    script(desk.directory / "tools" / "fix.sh", BAD)
    refused = desk.runbook("resume", "latest")
    assert refused.code == 6 and "tools/fix.sh is another one now" in refused.err, refused.text
    waiting = desk.runbook("resume", "latest", *ACCEPT)
    assert waiting.code == 5 and "1 approval" in waiting.err, waiting.text
    assert not (desk.directory / "bad").exists()
    approve(desk)
    assert desk.runbook("resume", "latest").code == 0
    assert (desk.directory / "bad").exists() and not (desk.directory / "good").exists()


@on_sqlite
@pytest.mark.parametrize("way", WAYS)
def test_program_is_exchanged_while_the_run_goes(desk: InProcessCli, way: str) -> None:
    """By an earlier step: hashed once more right before it is run."""
    script(desk.directory / "tools" / "swap.sh", "#!/bin/sh\ncp tools/bad.sh tools/fix.sh\n")
    script(desk.directory / "tools" / "bad.sh", BAD)
    swap = command("[tools/swap.sh]").replace("id: fix", "id: swap")
    written(desk, f"{swap}\n{WAYS[way]}")
    found = desk.runbook("exec", "change.yaml")
    assert found.code == 1 and "tools/fix.sh" in found.err and "changed since" in found.err, found.text
    assert not (desk.directory / "bad").exists()


@on_sqlite
def test_program_that_was_not_there_when_it_was_approved(desk: InProcessCli) -> None:
    (desk.directory / "tools" / "fix.sh").unlink()
    written(desk, f"{GATE}\n{WAYS['program']}")
    assert desk.runbook("exec", "change.yaml").code == 5
    approve(desk)
    script(desk.directory / "tools" / "fix.sh", BAD)
    assert desk.runbook("resume", "latest").code == 6
    assert not (desk.directory / "bad").exists()


@on_sqlite
def test_program_of_another_folder(desk: InProcessCli, tmp_path: Path) -> None:
    """A relative path leads where the command runs: from elsewhere it would be another program than the approved one."""
    other = tmp_path / "other"
    (other / "tools").mkdir(parents=True)
    script(other / "tools" / "fix.sh", BAD)
    written(desk, WAYS["program"])
    found = InProcessCli(other, desk.target).runbook("exec", str(desk.directory / "change.yaml"))
    assert found.code == 1 and "tools/fix.sh" in found.err, found.text
    assert not (other / "bad").exists()


@on_sqlite
def test_program_elsewhere_is_compared_at_resume(desk: InProcessCli, tmp_path: Path) -> None:
    """It is no part of the playbook's digest, since another machine has it elsewhere; its path and hash are in the trail."""
    tool = tmp_path / "tool"
    script(tool, GOOD)
    written(desk, f"{GATE}\n{command(f'[{tool}]')}")
    before = load_file(desk.directory / "change.yaml").digest
    assert desk.runbook("exec", "change.yaml").code == 5
    approve(desk)
    script(tool, BAD)
    assert load_file(desk.directory / "change.yaml").digest == before
    refused = desk.runbook("resume", "latest")
    assert refused.code == 6 and str(tool) in refused.err
    assert desk.runbook("resume", "latest", *ACCEPT).code == 5
    approve(desk)
    assert desk.runbook("resume", "latest").code == 0 and (desk.directory / "bad").exists()


@on_sqlite
def test_program_is_found_by_path(desk: InProcessCli, tmp_path: Path) -> None:
    """What PATH leads to is the machine's: one put before it is another program."""
    for folder, text in (("one", GOOD), ("two", BAD)):
        (tmp_path / folder).mkdir()
        script(tmp_path / folder / "fixit", text)
    one, two = (os.pathsep.join([str(tmp_path / folder), os.environ["PATH"]]) for folder in ("one", "two"))
    written(desk, f"{GATE}\n{command('[fixit]')}")
    assert desk.runbook("exec", "change.yaml", PATH=one).code == 5
    approve(desk)
    assert desk.runbook("resume", "latest", PATH=two).code == 6
    assert desk.runbook("resume", "latest", PATH=one).code == 0


@on_sqlite
@pytest.mark.parametrize("file", ["suite/test_it.py", "suite/conftest.py", "conftest.py"])
def test_suite_and_its_conftest_count(desk: InProcessCli, file: str) -> None:
    (desk.directory / "suite").mkdir()
    for name in ("suite/test_it.py", "suite/conftest.py", "conftest.py", "elsewhere.py"):
        (desk.directory / name).write_text("def test_one(): ...\n")
    for path in ("suite", "suite/test_it.py", "'suite/test_it.py::test_one'"):
        written(desk, "- {id: look, type: checkpoint}", f"preconditions: [{{id: s, check: pytest, path: {path}}}]\n")
        before = load_file(desk.directory / "change.yaml").digest
        (desk.directory / "elsewhere.py").write_text(path)
        assert load_file(desk.directory / "change.yaml").digest == before
        (desk.directory / file).write_text(f"def test_one(): ... # {path}\n")
        assert load_file(desk.directory / "change.yaml").digest != before


@on_sqlite
def test_files_that_a_program_writes_are_no_part_of_it(desk: InProcessCli) -> None:
    """An argument that is no script may be what it makes: it locks nobody out."""
    script(desk.directory / "tools" / "fix.sh", '#!/bin/sh\necho done > "$1"\n')
    written(
        desk,
        f"{command('[tools/fix.sh, out.csv]')}\n{GATE}\n{command('[tools/fix.sh, out.csv]').replace('id: fix', 'id: again')}",
    )
    assert desk.runbook("exec", "change.yaml").code == 5
    approve(desk)
    assert desk.runbook("resume", "latest").code == 0


def test_every_type_that_runs_programs_says_which() -> None:
    """A type with an argv, a command, or a suite would run files that nobody approved."""
    types = [*registry.step_types().values(), *registry.probe_types().values()]
    runs = {one.kind for one in types if {"argv", "command", "python", "undo_argv"} & set(one.model_fields)}
    assert runs == {one.kind for one in types if hasattr(one, "programs")} != set()
    assert all(issubclass(one, RunsPrograms) for one in types if hasattr(one, "programs"))


def test_secret_is_in_no_digest(tmp_path: Path) -> None:
    """Neither the playbook's nor the approval's; that there is one is."""
    path = tmp_path / "p.yaml"
    text = (
        "runbook: 1\nname: p\ntitle: T\ninputs: {pin: {secret: true, required: true}, n: {type: integer, default: 1}}\n"
    )
    path.write_text(proven(text + "steps:\n  - {id: go, type: checkpoint}\n"))

    def of(pin: str, n: str = "1") -> tuple[str, str]:
        playbook = load_file(path, values={"pin": pin, "n": n})
        approval = digest.for_approval(playbook.digest, inputs=playbook.meant, identity={}, secrets=playbook.secrets)
        return playbook.digest, approval

    assert of("271828") == of("314159")
    assert of("271828")[1] != of("271828", "2")[1]
    other = digest.for_approval(of("271828")[0], inputs={"n": 1}, identity={})
    assert other != of("271828")[1]
