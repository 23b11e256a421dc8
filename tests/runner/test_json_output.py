"""`--json`: every command offers it or says why not, and standard output is then one document, also where it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from databases import Database
from inside import InProcessCli, written

from runner.cli import cli

WITHOUT = {
    "demo": "a show for people; its runs are looked at like any others",
    "render": "writes a document in Markdown; --check answers by the exit code",
    "schema": "prints JSON as it is",
}
STREAMS = {"exec", "resume", "rollback", "trail show"}  # a line of JSON for each record, as it is written

pytestmark = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)


def _commands(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS = dict(_commands())


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)")
    return InProcessCli(tmp_path, empty_database.url)


@pytest.fixture(params=sorted(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _least(command: click.Command) -> list[str]:
    """The fewest words with which a command can be typed; the runs and files that they name don't exist."""
    words = ["-c", "SELECT 1"] if command.name == "sql" else []  # else it reads standard input
    for one in command.params:
        if one.required:
            word = one.type.choices[0] if isinstance(one.type, click.Choice) else "1h" if one.name == "for_" else "none"
            words += [str(word)] if isinstance(one, click.Argument) else [one.opts[0], str(word)]
    return words


def test_command_offers_json_or_says_why_not(name: str, desk: InProcessCli):
    del desk
    offered = any("--json" in one.opts for one in COMMANDS[name].params)
    assert offered != (name in WITHOUT), "either, and not both"


def test_error_is_one_document(name: str, desk: InProcessCli):
    """Both of a command that can't be read and of one that fails; people read the same on standard error."""
    if name in WITHOUT:
        return
    wrong = desk.runbook(*name.split(), "--json", "--no-such-option")
    error = json.loads(wrong.out)["error"]
    assert (wrong.code, error["exit_code"], error["title"]) == (2, 2, "usage")
    assert error["next"] == [f"runbook {name} --help"] and error["what"] in wrong.err
    done = desk.runbook(*name.split(), *_least(COMMANDS[name]), "--json")
    document = json.loads(done.out) if done.out or name not in STREAMS else {}
    if isinstance(document, dict) and "error" in document:
        assert document["error"]["exit_code"] == done.code != 0
        assert document["error"]["what"].split("\n")[0] in done.err and document["error"]["next"], done.text


def test_acts_of_people_are_one_document(desk: InProcessCli):
    gate = "- {id: go, type: checkpoint, approval: {roles: [dba]}}"
    step = "- {id: up, type: sql, text: UPDATE t SET n = 1, whole_table: true, revert: UPDATE t SET n = 0}"
    written(desk, f"{step}\n{gate}\n{step.replace('up', 'again')}")
    assert desk.runbook("exec", "change.yaml").code == 5
    run = desk.newest.parent.name
    said = {
        words[0]: json.loads(desk.runbook(*words, "--json").out)
        for words in (
            ("note", run, "the pager is quiet"),
            ("sql", run, "-c", "UPDATE t SET n = 2 WHERE id = 1", "--reason", "by hand"),
            ("approve", run, "--as", "ines", "--role", "dba", "--reason", "read it"),
            ("close", run, "--reason", "it is wanted as it stands"),
            ("recover", run),
        )
    }
    assert said["note"] == {"run": run, "done": f"noted in {run}", "next": [], "when": ""}
    assert said["sql"] == {"statements": [{"sql": "UPDATE t SET n = 2 WHERE id = 1", "rows": 1}]}
    assert said["approve"]["gate"] == "go has all that it asks for"
    assert said["approve"]["next"] == [f"runbook resume {run}"]
    assert said["close"]["stands"] == ["up"] and said["close"]["next"] == [f"runbook report {run}"]
    assert said["recover"]["error"]["exit_code"] == 6
    assert "sql" in json.loads(desk.runbook("target", "init", "--print", "--json").out)
    assert json.loads(desk.runbook("target", "init", "--json").out)["done"].startswith("the ledger is there already")
    assert json.loads(desk.runbook("monitor", "units", "--json").out)


def test_stream_ends_with_its_error(desk: InProcessCli):
    """As its last line, after the records; a refused one has no other line."""
    written(desk, "- {id: up, type: sql, text: UPDATE nowhere SET n = 1, whole_table: true, revert: SELECT 1}")
    done = desk.runbook("exec", "change.yaml", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[-1]["error"]["exit_code"] == done.code != 0
    assert all("event" in line for line in lines[:-1])
