"""The world around the process: encodings of the terminal, readers who go away, packages of our names, links, long paths."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from pathlib import Path

import pytest
from command import RUNBOOK, Cli

from runner.cli import main

HOSTILE = "a \x1b[2J\x1b[31m title\u202e \x9b1A of\x07 œ→✓"
NAME = "d\u00e4n\u00e4 \u201eD\u201c \u2192"  # one with signs that can't be seen is refused as a name
PLAYBOOK = r"""
runbook: 1
name: note-it
title: "a \e[2J\e[31m title\u202e \x9b1A of\a œ→✓"
contacts: {owner: "\e[5mDBA"}
preconditions:
  - {id: there, check: query, query: 'SELECT count(*) AS n, char(27, 91, 50, 74, 8238) AS word FROM session_summaries', that: n > 0}
steps:
  - {id: go, type: checkpoint, approval: {roles: [dba]}}
  - {id: note, type: add_column, column: session_summaries.note, of_type: text, why: "\e[2Jwhy ≥ \u2067", if_stopped_here: "saf\e[1Ae"}
  - id: after
    type: checkpoint
    success_criteria:
      - {id: word, check: query, query: "SELECT char(27) || '[2J' || char(8238) AS word", that: "word == 'x'"}
rollback: reverse
"""
# every command, with the exit code that it has in this order
COMMANDS = {
    "init --list": 0, "init begun": 0,
    "--help": 0, "exec --help": 0, "validate note-it.yaml": 0, "plan note-it.yaml": 0, "plan note-it.yaml -t DB": 0,
    "plan note-it.yaml -t DB --sql": 0, "plan note-it.yaml --json": 0, "schema": 0, "steps": 0, "steps backfill": 0,
    "target check": 0, "target init --print": 0, "exec note-it.yaml --dry-run": 0, "exec note-it.yaml --operator NAME": 5,
    "status": 0, "status --json": 0, "runs": 0, "report": 0, "approve latest --step go --as NAME --role dba --reason TEXT": 0,
    "note latest TEXT --as NAME": 0, "tune latest hold --reason TEXT": 6, "settle latest note done --reason TEXT": 6,
    "sql latest -c SELECT(1) --reason TEXT": 0, "resume latest --operator NAME": 3, "resume latest --json": 3, "status latest": 0,
    "judge latest word pass --reason TEXT": 6,
    "rollback latest --reason TEXT": 0, "close latest --reason TEXT": 6,
    "report latest": 0, "report latest --json": 0, "report latest --rows dead": 0,
    "trail show": 0, "trail show --json": 0, "trail verify": 0, "exec nowhere": 6, "nonsense": 2,
}  # fmt: skip
WORDS = {"NAME": NAME, "TEXT": HOSTILE, "SELECT(1)": "SELECT '\x1b[2J→'"}


@pytest.fixture
def desk(tmp_path: Path, sqlite_path: Path) -> Cli:
    desk = Cli(tmp_path, str(sqlite_path))
    (tmp_path / "note-it.yaml").write_text(PLAYBOOK, encoding="utf-8")
    return desk


def run(desk: Cli, command: str, encoding: str = "utf-8") -> tuple[int, bytes]:
    """A command as somebody types it, in a terminal of this encoding; its exit code, and all that it wrote."""
    words = [{**WORDS, "DB": desk.target}.get(word, word) for word in command.split()]
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    here = contextlib.chdir(desk.directory), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out)
    with here[0], here[1], here[2], pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setenv("RUNBOOK_TARGET", desk.target)
        main(words)
    out.flush()
    return ended.value.code, out.buffer.getvalue()


def test_every_command_prints_plain_ascii_where_nothing_else_can_be_printed(desk: Cli) -> None:
    """In an ASCII terminal, with texts that would clear the screen, climb a line, or turn the direction of reading."""
    for command, code in COMMANDS.items():
        ended, written = run(desk, command, "ascii")
        assert ended == code, (command, ended, written)
        wrong = {sign for sign in written if not (32 <= sign < 127 or sign == 10)}
        assert not wrong, (command, wrong, written)


def test_every_command_escapes_what_steers_a_terminal(desk: Cli) -> None:
    for command in COMMANDS:
        _ended, written = run(desk, command, "utf-8")
        wrong = {sign for sign in written.decode() if not (sign.isprintable() or sign == "\n")}
        assert not wrong, (command, wrong)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_a_run_goes_its_way_whatever_the_terminal_takes(desk: Cli, encoding: str) -> None:
    flow = [
        "plan note-it.yaml -t DB",
        "exec note-it.yaml",
        "approve latest --step go --role dba --reason TEXT",
        "resume latest",
        "status",
        "report",
    ]
    codes = [0, 5, 0, 3, 0, 0]
    for command, code in zip(flow, codes, strict=True):
        ended, written = run(desk, command, encoding)
        assert ended == code, (command, written)
        written.decode(encoding)


@pytest.mark.parametrize("how", [">&-", ">&- 2>&- <&-", "| head -0", "2>&1 | head -1"])
def test_a_run_goes_its_way_though_nobody_reads(desk: Cli, how: str) -> None:
    commands = [
        "exec note-it.yaml",
        "approve latest --step go --role dba --reason read",
        "note latest seen",
        "resume latest",
        "rollback latest",
    ]
    codes = [5, 0, 0, 3, 0]
    for command, code in zip(commands, codes, strict=True):
        line = f"set -o pipefail; {RUNBOOK} {command} {how}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=desk.directory, env={**os.environ, "RUNBOOK_TARGET": desk.target}, capture_output=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, (command, done)
    assert Path(desk.target).read_bytes().startswith(b"SQLite format 3")


def test_a_document_that_the_disk_has_no_room_for_is_a_failure(desk: Cli) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [RUNBOOK, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False
        )
    assert done.returncode == 1
    assert "cannot write standard output: No space left" in done.stderr


def test_packages_of_our_names_in_pythonpath_are_left_out(desk: Cli) -> None:
    for name in ("steps", "runner"):
        (desk.directory / "theirs" / name).mkdir(parents=True)
        (desk.directory / "theirs" / name / "__init__.py").write_text("raise SystemExit('theirs')\n")
    (desk.directory / "good" / "steps").mkdir(parents=True)  # without a module: it shadows nothing
    theirs, good = desk.directory / "theirs", desk.directory / "good"
    done = desk.runbook("validate", "note-it.yaml", PYTHONPATH=f"{theirs}:{good}:")
    assert done.code == 0, done.text
    assert f"left {theirs} of PYTHONPATH out: its runner and steps would stand for runbook's own" in done.err
    assert str(good) not in done.err


def test_a_playbook_named_by_a_link_is_the_real_file(desk: Cli) -> None:
    release = desk.directory / "releases" / "v 1"
    release.mkdir(parents=True)
    (release / "play book.yaml").write_text(
        PLAYBOOK.replace("contacts:", "include: common.yaml\ncontacts:"), encoding="utf-8"
    )
    (release / "common.yaml").write_text("limits: {most: 3}\n")
    (desk.directory / "current.yaml").symlink_to("releases/v 1/play book.yaml")
    direct, linked = (
        desk.runbook("validate", "--json", name) for name in ("releases/v 1/play book.yaml", "current.yaml")
    )
    assert (direct.code, linked.code) == (0, 0), linked.text
    assert desk.runbook("exec", "current.yaml").code == 5
    (release / "common.yaml").rename(desk.directory / "common.yaml")
    done = desk.runbook("validate", "current.yaml")
    assert done.code == 4
    assert (
        "the playbook current.yaml is a link to releases/v 1/play book.yaml, and its files lie beside that" in done.text
    )
    (desk.directory / "gone.yaml").symlink_to("nowhere.yaml")
    assert desk.runbook("validate", "gone.yaml").code in {4, 6}


class Terminal(io.TextIOWrapper):
    """What a person sits at."""

    def isatty(self) -> bool:
        return True


def on_terminal(desk: Cli, command: str, **env: str) -> str:
    out = Terminal(io.BytesIO(), encoding="utf-8")
    here = contextlib.chdir(desk.directory), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out)
    with here[0], here[1], here[2], pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        for name, value in {"RUNBOOK_TARGET": desk.target, "TERM": "xterm", "NO_COLOR": "", **env}.items():
            patch.setenv(name, value)
        main(command.split())
    out.flush()
    return out.buffer.getvalue().decode()


LOOKS = [
    "plan note-it.yaml", "plan note-it.yaml --sql", "status latest", "report latest", "trail verify",
    "validate note-it.yaml", "status none",
]  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_gets_whole_words(desk: Cli, columns: int) -> None:
    """Lines end between words; only a word that is longer than its place is wider."""
    assert run(desk, "exec note-it.yaml --operator NAME")[0] == 5
    told = {command: on_terminal(desk, command, COLUMNS=str(columns), NO_COLOR="1") for command in LOOKS}
    assert run(desk, "approve latest --step go --role dba --reason TEXT")[0] == 0
    told["exec"] = on_terminal(desk, "resume latest", COLUMNS=str(columns), NO_COLOR="1")
    for command, text in told.items():
        for line in text.splitlines():
            first = len(line) - len(line.lstrip())
            assert len(line) <= columns or max(map(len, line.split())) > columns - max(first, 18), (command, line)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_none(desk: Cli, env: dict[str, str]) -> None:
    assert "\x1b[" in on_terminal(desk, "exec note-it.yaml")
    assert "\x1b[" in on_terminal(desk, "plan note-it.yaml")
    for command in ("exec note-it.yaml", "plan note-it.yaml", "status nowhere"):
        assert "\x1b[" not in on_terminal(desk, command, **env)


def test_words_in_another_encoding_are_words(desk: Cli) -> None:
    """What somebody types in a terminal of Latin-1, while the system is set to UTF-8."""
    word = os.fsdecode(b"J\xf6rg \xff")
    for words in (["exec", "note-it.yaml", "--operator", word], ["note", "latest", word, "--as", word],
                  ["approve", "latest", "--step", "go", "--as", word, "--role", "dba", "--reason", word], ["status"], ["report"],
                  ["rollback", "latest", "--reason", word]):  # fmt: skip
        done = desk.runbook(*words)
        assert done.code in {0, 5}, done.text
    assert r"J\xf6rg" in desk.runbook("report").out.replace("\\\\", "\\")
    assert desk.runbook("exec", "note-it.yaml", RUNBOOK_INPUT_A=word).code == 2
    assert desk.runbook("status", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").code == 0


LONG = "a" * 300


@pytest.mark.parametrize(
    "command",
    [f"exec {LONG}", "exec long.yaml", f"exec note-it.yaml --runs {LONG}", f"exec note-it.yaml --runs {'deep/' * 900}x", f"plan {LONG}",
     f"status {LONG}", f"report {LONG}", f"trail verify {LONG}", f"resume {LONG}", f"runs --runs /{LONG}/{LONG}",
     f"plan note-it.yaml -t {LONG}"],
    ids=lambda command: command[:20],
)  # fmt: skip
def test_a_name_that_is_too_long_is_refused_before_anything(desk: Cli, command: str) -> None:
    (desk.directory / "long.yaml").write_text(PLAYBOOK.replace("name: note-it", f"name: {LONG}"), encoding="utf-8")
    code, written = run(desk, command)
    assert code == 6, written
    assert not list(desk.directory.glob("**/trail.jsonl"))


@pytest.mark.parametrize(
    ("words", "offered"),
    [("runbook sta", "status"), ("runbook status ", "latest"), ("runbook status note", "note-it-2"), ("runbook exec ", "note-it.yaml"),
     ("runbook exec note-it.yaml --to ", "go"), ("runbook approve latest --step ", "go"), ("runbook settle latest n", "note"),
     ("runbook plan -t st", "staging")],
)  # fmt: skip
def test_the_shell_is_offered_what_fits(desk: Cli, words: str, offered: str) -> None:
    (desk.directory / "targets.yaml").write_text(f"targets:\n  staging: {{url: 'sqlite:///{desk.target}'}}\n")
    assert run(desk, "exec note-it.yaml")[0] == 5
    env = {"_RUNBOOK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = desk.runbook(**env)
    assert any(line.removeprefix("plain,").startswith(offered) for line in done.out.splitlines()), done


def test_a_command_can_be_copied_from_a_narrow_terminal(desk: Cli) -> None:
    """Broken as a shell breaks lines, and never within quotes."""
    runs = desk.directory / "a folder with many words in its name, more than a line"
    assert desk.runbook("exec", "note-it.yaml", "--runs", str(runs)).code == 5
    out = Terminal(io.BytesIO(), encoding="utf-8")
    here = contextlib.chdir(desk.directory), contextlib.redirect_stdout(out), pytest.MonkeyPatch.context()
    with here[0], here[1], here[2] as patch, pytest.raises(SystemExit):
        patch.setenv("COLUMNS", "60")
        main(["status", "--runs", str(runs)])
    out.flush()
    told = out.buffer.getvalue().decode().split("next       ")[1].replace("NAME", "ines").replace("'…'", "'I read it'")
    desk.runbook("status")
    done = subprocess.run(["bash", "-c", f"PATH={RUNBOOK.parent}:$PATH; {told}"], cwd=desk.directory, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, (told, done.stderr)
    assert "has all that it asks for" in done.stdout


def test_nothing_is_printed_elsewhere() -> None:
    """What goes round runner.common.terminal meets an encoding, a closed pipe or a sign that it doesn't know."""
    import runner

    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(Path(runner.__file__).parent.rglob("*.py"))
        if path.name != "terminal.py"
        for line in path.read_text().splitlines()
        if re.search(r"click\.(secho|echo)\(|(?<![\w.\"'`-])print\(|sys\.std(out|err)\.write", line)
    ]
    assert not found
