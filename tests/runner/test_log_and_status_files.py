"""What a run writes besides its own folder: the log of --log, and status files for monitoring, with their age as a figure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import Cli
from databases import Database

FILL = """runbook: 1
name: fill
title: Fill it
steps:
  - id: add
    type: add_column
    column: t.note
    of_type: text
    success_criteria:
      - {id: watched, that: status_age_s <= 15}
success_criteria:
  - {id: filled, check: rows, table: t, at_least: 2, otherwise: other-way}
rollback: reverse
"""
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ (.*)")


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> Cli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    made = Cli(tmp_path, empty_database.url)
    made.playbook("fill", FILL)
    return made


on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)


def lines(path: Path) -> list[str]:
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines() if line.strip()]
    assert all(found), path.read_text()
    return [one[1] for one in found]


@on_both
def test_log_has_what_the_terminal_shows_of_each_command(desk: Cli):
    """exec, a failure and rollback append to one file: each line with its time, without colours, the error too."""
    log = desk.directory / "logs" / "night.log"
    done = desk.runbook("exec", "fill.yaml", "--log", str(log))
    assert done.code == 0, done.text
    told = lines(log)
    for line in done.out.splitlines():
        assert not line.strip() or any(line.strip() in one for one in told), line
    assert desk.runbook("exec", "nothing.yaml", "--log", str(log)).code != 0
    assert any("nothing.yaml" in one for one in lines(log)[len(told) :])
    assert desk.runbook("rollback", "latest", "--log", str(log)).code == 0
    assert any("rolled back" in one for one in lines(log))
    assert "\x1b" not in log.read_text()
    assert log.stat().st_mode & 0o007 == 0


def test_log_of_a_run_that_prints_json_is_for_people(desk: Cli):
    log = desk.directory / "night.log"
    done = desk.runbook("exec", "fill.yaml", "--json", "--log", str(log))
    assert done.code == 0
    assert all(json.loads(line) for line in done.out.splitlines())
    assert any("→ add: add column t.note text" in one for one in lines(log))


@on_both
def test_status_file_under_the_name_that_monitoring_knows(desk: Cli):
    """exec and rollback write the same file; a name that is a path is refused."""
    monitor = desk.directory / "status"
    words = ("--status-dir", str(monitor), "--status-name", "backfill")
    assert desk.runbook("exec", "fill.yaml", *words).code == 0
    (file,) = monitor.iterdir()
    assert re.fullmatch(r"backfill_\d{8}-\d{6}-[0-9a-f]{4}\.json", file.name)
    assert json.loads(file.read_text())["state"] == "succeeded"
    assert desk.runbook("rollback", "latest", *words).code == 0
    assert list(monitor.iterdir()) == [file]
    assert json.loads(file.read_text())["state"] == "rolled_back"
    refused = desk.runbook("exec", "fill.yaml", "--status-dir", str(monitor), "--status-name", "../x")
    assert refused.code == 2 and "--status-name" in refused.err


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_status_that_cannot_be_written_is_seen_by_a_criterion(desk: Cli):
    """The folder goes away while the run goes on: the run isn't stopped by it, but the criterion says so."""
    text = FILL.replace("status_age_s <= 15", "status_age_s <= 0.9")
    text = text.replace(
        "  - id: add\n",
        "  - {id: away, type: command, argv: [rm, -r, status]}\n  - {id: wait, type: command, argv: [sleep, '1']}\n  - id: add\n",
    )
    desk.playbook("fill", text)
    done = desk.runbook("exec", "fill.yaml", "--status-dir", "status")
    assert done.code == 3 and "watched" in done.err, done.text


UNMET = "{id: unmet, check: rows, table: t, at_least: 3, otherwise: other-way}"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(FILL.replace("at_least: 2", "at_least: 3"), id="criterion"),
        pytest.param(FILL.replace("steps:", f"preconditions: [{UNMET}]\nsteps:"), id="precondition"),
        pytest.param(FILL.replace("- {id: watched, that: status_age_s <= 15}", f"- {UNMET}"), id="of_a_step"),
        pytest.param(
            FILL.replace("    success_criteria:", f"    preconditions: [{UNMET}]\n    success_criteria:"),
            id="before_a_step",
        ),
    ],
)
def test_an_unmet_check_names_what_to_run_next(desk: Cli, text: str):
    """`otherwise:` stands first among the next commands, with the target and runs that were typed, wherever the check stands."""
    desk.playbook("fill", text)
    done = desk.runbook("exec", "fill.yaml", "--runs", "here")
    assert done.code == 3
    assert re.search(r"next +runbook exec other-way --runs \S+", done.err), done.err
    assert "runbook resume" in done.err
    status = desk.runbook("status", "latest", "--runs", "here")
    assert "runbook exec other-way" in status.text


def test_input_that_production_demands(tmp_path: Path, empty_database: Database):
    """A default that is good enough on staging is refused where the target's environment demands the input."""
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    desk = Cli(tmp_path, "prod")
    (tmp_path / "targets.yaml").write_text(
        "targets:\n"
        f"  prod: {{url: '{empty_database.url}', environment: production}}\n"
        f"  test: {{url: '{empty_database.url}', environment: staging}}\n"
    )
    head = "inputs:\n  opens: {type: text, default: '', required_in: [production], help: when it opens}\nsteps:\n"
    desk.playbook("fill", FILL.replace("steps:\n", head).replace("title: Fill it", "title: 'Fill {{ opens }}'"))
    refused = desk.runbook("exec", "fill.yaml")
    assert refused.code == 6, refused.text
    assert "opens" in refused.err and "production" in refused.err and "--input opens=…" in refused.err
    assert "opens" in desk.runbook("plan", "fill.yaml", "-t", "prod").text
    assert desk.runbook("exec", "fill.yaml", "--input", "opens=22:00").code == 0
    assert desk.runbook("rollback", "latest", "-t", "prod").code == 0
    assert desk.runbook("exec", "fill.yaml", "-t", "test").code == 0
