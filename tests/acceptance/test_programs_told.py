"""What a run says of programs that fail: the first error, the reason of a test, the file; and no secret in any of them."""

from __future__ import annotations

import sys
from pathlib import Path

from command import Cli
from databases import Databases

TOKEN = "tok-9f8e7d6c5b4a"
SUITE = """
import os
def test_it(): assert os.environ["TOKEN"] == "other", f"token {os.environ['TOKEN']} is refused"
"""
PLAYBOOK = """
runbook: 1
name: programs
title: Run what fails
inputs:
  token: {secret: true, required: true}
success_criteria:
  - {id: suite, check: pytest, path: test_it.py, names: [test_it], env: {TOKEN: "{{ token }}"}}
steps:
  - {id: make, type: sql, statements: [CREATE TABLE made (id integer)], revert: DROP TABLE made}
"""
COMMAND = """
runbook: 1
name: program
title: Run what fails
inputs:
  token: {secret: true, required: true}
steps:
  - id: program
    type: command
    argv:
      - PYTHON
      - -c
      - |
        import os, sys
        print('ERROR: bad', os.environ['RUNBOOK_INPUT_TOKEN'])
        for n in range(900): print('then', n)
        sys.exit(3)
    env_from: [RUNBOOK_INPUT_TOKEN]
success_criteria: {none: it fails}
"""


def _everything(directory: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in (directory / "runs").rglob("*") if path.is_file())


def test_command_leaves_masked_output_in_the_runs_folder(databases: Databases, tmp_path: Path) -> None:
    with databases.kind("sqlite").database("empty") as database:
        desk = Cli(tmp_path, database.url)
        desk.playbook("program", COMMAND.replace("PYTHON", sys.executable))
        done = desk.runbook("exec", "program.yaml", RUNBOOK_INPUT_TOKEN=TOKEN)
        assert done.code != 0
        assert "ERROR: bad ***" in done.text
        assert "then 899" in done.text
        [path] = (tmp_path / "runs").rglob("program.apply.1.stdout")
        assert path.name in done.text
        assert "ERROR: bad ***" in path.read_text()
        assert "then 450" in path.read_text()
        assert TOKEN not in done.text + _everything(tmp_path)


def test_reason_of_a_test_shown_without_its_secret(databases: Databases, tmp_path: Path) -> None:
    with databases.kind("sqlite").database("empty") as database:
        desk = Cli(tmp_path, database.url)
        (tmp_path / "test_it.py").write_text(SUITE)
        desk.playbook("programs", PLAYBOOK)
        done = desk.runbook("exec", "programs.yaml", RUNBOOK_INPUT_TOKEN=TOKEN)
        assert done.code != 0
        assert "token *** is refused" in done.text
        assert TOKEN not in done.text + _everything(tmp_path)
