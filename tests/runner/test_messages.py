"""What operators read: no sentence says a word twice, each error says what to type next, each help has an example that parses."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from databases import Database
from inside import InProcessCli

from runner.cli import cli
from runner.common.errors import RunbookError
from runner.report.failure import Typed, report_error

on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
TWICE = re.compile(r"\b([a-z]+(?: [a-z]+)?)[:;,]? \1\b", re.IGNORECASE)
COMMAND = re.compile(r"runbook [a-z]+[^\n;,()`|]*")

NIGHT = """
runbook: 1
name: night
title: All that can happen in a night
contacts: {owner: ines}
steps:
  - {id: add, type: sql, text: "UPDATE t SET n = n + 1 WHERE id = 1", revert: "UPDATE t SET n = n - 1 WHERE id = 1"}
  - id: gate
    type: checkpoint
    approval: {roles: [dba, boss], need: 2, not: operator}
    evidence: {backup: required}
  - {id: mail, type: command, argv: [sh, -c, "exit 3"]}
success_criteria:
  - {id: enough, check: rows, table: t, at_least: 9}
rollback: reverse
"""
CHECKED = """
runbook: 1
name: checked
title: A criterion that the database cannot decide
steps:
  - {id: add, type: sql, text: "UPDATE t SET n = n + 1 WHERE id = 2", revert: "UPDATE t SET n = n - 1 WHERE id = 2"}
success_criteria:
  - {id: open, check: query, query: SELECT NULL AS n, that: n == 1, judge: [dba]}
  - {id: enough, check: rows, table: t, at_least: 2}
rollback: reverse
"""


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    for name, text in (("night", NIGHT), ("checked", CHECKED)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return InProcessCli(tmp_path, empty_database.url)


def night(desk: InProcessCli) -> Iterator[str]:
    """All that is said from the first plan to the last report of two runs that meet nearly everything."""
    because = ("--reason", "x")
    for words in [
        ("plan", "night"),
        ("exec", "night", "--operator", "dana"),
        ("approve", "latest", "--as", "ines", *because),
        ("approve", "latest", "--as", "dana", "--role", "dba", *because),
        ("approve", "latest", "--as", "ines", "--role", "dba", *because),
        ("approve", "latest", "--as", "otto", "--role", "boss", *because),
        ("approve", "latest", "--as", "otto", "--evidence", "backup", *because),
        ("resume", "latest"),  # the command fails
        ("resume", "latest"),  # and is in doubt
        ("settle", "latest", "mail", "not-done", *because),
        ("note", "latest", "quiet"),
        ("rollback", "latest", "--leave", "mail", *because),
        ("rollback", "latest"),
        ("exec", "checked"),
        ("judge", "latest", "open", "pass", "--as", "ines", "--role", "dba", *because),
        ("resume", "latest"),
        ("rollback", "latest"),
        ("exec", "checked"),
        ("close", "latest", *because),
        ("rollback", "latest", "--to", "add"),
    ]:
        yield desk.runbook(*words).text
        if words[0] != "plan":
            yield desk.runbook("status").text
            yield desk.runbook("report").text


@on_sqlite
def test_no_sentence_says_a_word_twice(desk: InProcessCli) -> None:
    for text in night(desk):
        for line in text.splitlines():
            found = TWICE.search(line)
            assert found is None, (found[0], line)


@on_sqlite
def test_reports_say_the_state(desk: InProcessCli) -> None:
    """Whatever became of the run: a report without it leaves open whether something still stands."""
    for text in night(desk):
        if text.startswith("# "):
            state = re.search(r"## How it stands\n.*?\*\*state\*\* \| (.+?) \|", text, re.DOTALL)
            assert state is not None and "steps done" in state[1], text[:300]


@on_sqlite
def test_state_names_what_is_waited_for(desk: InProcessCli) -> None:
    """A gate's needs, a person's judgement; and that everything was given."""
    desk.runbook("exec", "night")
    assert re.search("^state .*; gate waits for .*evidence 'backup'", desk.runbook("status").out, re.MULTILINE)
    desk.runbook("exec", "checked")
    assert "; waits for a judgement of open by dba" in desk.runbook("status").out
    desk.runbook("judge", "latest", "open", "pass", "--as", "ines", "--role", "dba", "--reason", "x")
    assert "; has all that it asks for" in desk.runbook("status").out


@on_sqlite
def test_what_was_taken_back_is_not_done(desk: InProcessCli) -> None:
    list(night(desk))
    for path in (desk.directory / "runs").glob("night-*/trail.jsonl"):
        run = path.parent.name
        assert "1 of 3 steps done, 1 taken back" in desk.runbook("status", run).out
        assert desk.status(path).exit_code == 9


@on_sqlite
def test_way_back_that_was_asked_for_ended_well(desk: InProcessCli) -> None:
    """The trail has the exit code that the process ended with."""
    (desk.directory / "one.yaml").write_text(CHECKED.replace("NULL AS n", "1 AS n").replace("checked", "one"))
    assert desk.runbook("exec", "one").code == 0
    done = desk.runbook("rollback", "latest")
    assert (done.code, desk.status().exit_code, desk.status().state) == (0, 0, "rolled_back")
    assert "taken back: add" in done.out


# ─── errors ─────────────────────────────────────────────────────────────────────────────────────────────────────────
FAULTY = [
    ("exec", "nothing.yaml"),
    ("exec", "checked", "--from", "nowhere"),
    ("exec", "checked", "--input", "x=1"),
    ("exec", "checked", "--target", "nothing.sqlite"),
    ("plan", "broken"),
    ("validate", "broken"),
    ("status", "nothing"),
    ("report", "nothing"),
    ("resume", "nothing"),
    ("resume", "latest"),
    ("resume", "latest", "--dead"),
    ("rollback", "latest", "--to", "nothing"),
    ("rollback", "latest", "--leave", "nothing", "--reason", "x"),
    ("approve", "latest", "--reason", "x"),
    ("approve", "latest", "--step", "nothing", "--reason", "x"),
    ("approve", "latest", "--evidence", "nothing", "--reason", "x"),
    ("settle", "latest", "nothing", "done", "--reason", "x"),
    ("judge", "latest", "nothing", "pass", "--reason", "x"),
    ("tune", "latest", "hold", "--reason", "x"),
    ("sql", "latest", "-c", "SELECT nothing", "--reason", "x"),
    ("sql", "latest", "-c", "BEGIN", "--reason", "x"),
    ("steps", "nothing"),
    ("trail", "verify", "nothing"),
    ("recover", "nothing"),
    ("close", "latest", "--reason", "x"),
    ("target", "check", "--target", "nothing.sqlite"),
]


@on_sqlite
def test_each_error_has_a_state_and_a_next(desk: InProcessCli) -> None:
    """And the commands that it says can be typed, and are no usage errors."""
    (desk.directory / "broken.yaml").write_text("runbook: 1\nname: broken\n")
    (desk.directory / "one.yaml").write_text(CHECKED.replace("NULL AS n", "1 AS n").replace("checked", "one"))
    assert desk.runbook("exec", "one").code == 0
    for words in FAULTY:
        done = desk.runbook(*words)
        assert done.code not in {0, 2}, (words, done.text)
        said = dict(re.findall(r"^(state|next) +(.+)$", done.err, re.MULTILINE))
        assert set(said) == {"state", "next"}, (words, done.err)
        for command in COMMAND.findall(done.err[done.err.index("\nnext ") :]):
            parsed(desk, command)


def parsed(desk: InProcessCli, command: str) -> None:
    """Raises UsageError where the command line can't be read as one."""
    words = shlex.split(re.split(" shows| > | < ", command)[0])[1:]
    if words[-1:] == ["--help"]:
        words = words[:-1]
    group: click.Command = cli
    context = click.Context(cli, info_name="runbook")
    while isinstance(group, click.Group) and words:
        _, found, words = group.resolve_command(context, words)
        assert found is not None
        group = found
    with contextlib.chdir(desk.directory):
        group.make_parser(context).parse_args(words)


@on_sqlite
def test_next_command_asks_the_same_target(desk: InProcessCli) -> None:
    """What it says can be typed as it stands: where a target was given by hand, the default is another one or none."""
    needs = CHECKED.replace("checked", "needs").replace("steps:", "requires: [checked]\nsteps:")
    (desk.directory / "needs.yaml").write_text(needs)
    refused = desk.runbook("exec", "needs", "--target", desk.target, RUNBOOK_TARGET="")
    assert refused.code == 6, refused.text
    assert f"runbook exec checked.yaml -t {shlex.quote(desk.target)}" in refused.err, refused.err


def test_an_error_without_a_next_gets_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(RunbookError("cannot go on: this is a test"), Typed(command="runbook exec")) == 1
    assert "next       runbook exec --help" in capsys.readouterr().err


# ─── help ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=name)
    for word in group.list_commands(context):
        found = group.get_command(context, word)
        assert found is not None
        yield f"{name} {word}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{name} {word}")


@on_sqlite
def test_help_of_each_command_has_an_example_that_parses(desk: InProcessCli) -> None:
    (desk.directory / "backup.log").write_text("a backup")
    for name, command in commands(cli, "runbook"):
        examples = [line.strip() for line in (command.help or "").splitlines() if line.strip().startswith("runbook ")]
        assert any(line.startswith(name) for line in examples), f"{name} --help has no example"
        for line in examples:
            parsed(desk, line.partition("  ")[0])


@on_sqlite
def test_json_is_one_document(desk: InProcessCli) -> None:
    """Also of several playbooks: whoever reads it calls one parser once."""
    desk.runbook("exec", "night")
    looks = [
        ("exec", "--dry-run", "night", "checked"), ("plan", "night"), ("validate", "night", "checked"), ("steps",),
        ("steps", "sql"), ("runs",), ("status",), ("report",), ("report", "--rows", "dead"), ("trail", "verify"),
        ("target", "check"),
    ]  # fmt: skip
    for words in looks:
        json.loads(desk.runbook(*words, "--json").out)
