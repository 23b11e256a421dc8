"""Bad input: a clear error with its own exit code, no traceback, nothing changed, and no record of what never ran."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from command import RUNBOOK, Cli, Done
from databases import Database, Databases
from inside import InProcessCli

from runner.sandbox.server import Server
from runner.trail.status import fold
from runner.trail.trail import read

HEAD = "runbook: 1\nname: p\ntitle: T\n"
STEP = "steps:\n  - {id: s, type: sql, text: UPDATE marks SET n = n + 1 WHERE id > 0}\n"
GOOD = HEAD + STEP


def sqlite_desk(directory: Path) -> InProcessCli:
    path = directory / "db.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE marks (id integer PRIMARY KEY, n integer NOT NULL)")
        connection.execute("INSERT INTO marks VALUES (1, 0), (2, 0)")
        connection.commit()
    return InProcessCli(directory, f"sqlite:///{path}")


@pytest.fixture
def desk(tmp_path: Path) -> InProcessCli:
    return sqlite_desk(tmp_path)


def refused(desk: InProcessCli, *words: str, code: int, **env: str) -> Done:
    """The command fails with this code, in words; the database's bytes are as before and no run is recorded."""
    database = desk.directory / "db.sqlite"
    before = database.read_bytes()
    done = desk.runbook(*words, **env)
    assert done.code == code, done.text
    assert "Traceback" not in done.text
    assert "internal error" not in done.text
    assert len(done.text) < 20_000, "nobody reads that"
    assert database.read_bytes() == before
    assert not list(desk.directory.glob("runs/*"))
    return done


# ─── files that are no playbooks ────────────────────────────────────────────────────────────────────────────────────
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot use an empty file"),
        ("just words", "it must be a mapping that begins with `runbook: 1`"),
        ("[1, 2", "p.yaml:1:"),
        (GOOD + "inputs: {a: [}\n", "p.yaml:6:"),
        (HEAD + "\tsteps: []\n", "p.yaml:4:1"),
        (HEAD + BOMB + STEP, "cannot use the anchor &a"),
        (HEAD + "<<: {a: 1}\n" + STEP, "cannot use the merge key <<"),
        (HEAD + "title: again\n" + STEP, "p.yaml:4:1: cannot use the key 'title' twice: it stands at p.yaml:3:1 already"),
        (HEAD + "owner: !!python/object/apply:os.system [id]\n" + STEP, "cannot use the tag"),
        (GOOD + "---\nmore: 1\n", "cannot use a second document"),
        (HEAD + "description: " + "[" * 5000 + "\n" + STEP, "cannot nest deeper than 50 levels"),
        (GOOD + "\x00", "cannot read the character U+0000"),
        ("\ufeff" + GOOD.replace("T\n", "T\u202e\n"), "U+202E: it is invisible"),
        (GOOD + "#" + "x" * 10_000_000, "it has more than 4,194,304 bytes"),
        (HEAD + "steps:\n" + "  - {}\n" * 150, "cannot"),
    ],
    ids=["empty", "words", "list", "map", "tab", "bomb", "merge", "twice", "tag", "documents", "deep", "nul", "bidi", "big", "all"],
)  # fmt: skip
def test_file_that_is_no_playbook(desk: InProcessCli, text: str, message: str):
    (desk.directory / "p.yaml").write_text(text)
    assert message in refused(desk, "exec", "p.yaml", code=4).err
    assert desk.runbook("validate", "p.yaml").code == 4


def test_file_of_other_bytes(desk: InProcessCli):
    for raw, message in (
        (b"\xff\xfe" + GOOD.encode("utf-16-le"), "cannot read UTF-16"),
        (b"\x7fELF\x02" + bytes(200), "cannot read"),
    ):
        (desk.directory / "p.yaml").write_bytes(raw)
        assert message in refused(desk, "exec", "p.yaml", code=4).err
    refused(desk, "exec", ".", code=6)
    refused(desk, "exec", "gone.yaml", code=6)


def test_circle_of_requirements(desk: InProcessCli):
    """Playbooks that require each other could never begin."""
    for name, other in (("p", "q"), ("q", "r"), ("r", "p")):
        desk.playbook(name, GOOD.replace("name: p", f"name: {name}") + f"requires: [{other}]\n")
    assert "p → q → r → p" in refused(desk, "exec", "p.yaml", code=4).err
    desk.playbook("p", GOOD + "requires: [{playbook: p}]\n")
    assert "goes in a circle: p → p" in refused(desk, "exec", "p.yaml", code=4).err
    desk.playbook("p", GOOD + "requires: [never-run]\n")
    done = refused(desk, "exec", "p.yaml", code=6)
    assert "never-run: it has never run on this target" in done.err


# ─── templates, expressions, identifiers ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}", "{{ 9**9**9 }}", "{% for x in range(10**9) %}x{% endfor %}", "{{ cycler.__init__.__globals__ }}",
        "{{ inputs.__class__ }}", "{{ lipsum() }}", "{{ x }}", "{{ name | attr('x') }}", "{% include '/etc/passwd' %}", "{{ 'a' * 10**9 }}",
        "{{ inputs['name'] }}", "{{ name", "{# x #}{{ y }}",
    ],
)  # fmt: skip
def test_hostile_template_is_a_fault(desk: InProcessCli, template: str):
    """Names and five filters; anything else never reaches an interpreter."""
    for place in (
        f"description: {template!r}\n{STEP}",
        STEP.replace("}", f", why: {template!r}}}"),
        STEP.replace("marks", template),
    ):
        quoted = place if "text: UPDATE {" not in place else place.replace("text: ", 'text: "').replace("}\n", '"}\n')
        desk.playbook("p", HEAD + "inputs: {name: {default: n}}\n" + quoted)
        found = refused(desk, "exec", "p.yaml", code=4).err
        assert "p.yaml:" in found


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('id')", "n = 5", "n.b()", "(" * 10_000 + "n == 1" + ")" * 10_000, "9**9**9 > n", "[x for x in n]",
        "n == 1 if n else 2", "lambda: n", "n == 'a' * 10000000", "not_there == 1", "n.__class__ == 1", "f'{n}' == 1", "1 == 1 or",
        "n := 1", "exec('x') == 1", "rand() == n", "n == open('/etc/passwd')",
    ],
    ids=range(17),
)  # fmt: skip
def test_hostile_expression_is_a_fault(desk: InProcessCli, expression: str):
    check = f"preconditions:\n  - id: c\n    check: query\n    query: SELECT 1 AS n\n    that: {expression!r}\n"
    desk.playbook("p", HEAD + check + STEP)
    if expression == "not_there == 1":  # a query's columns are known only where it is described
        desk.runbook("exec", "p.yaml", "--dry-run")
        return
    assert "p.yaml:8:11: " in refused(desk, "exec", "p.yaml", code=4).err


def test_identifier_cannot_end_the_statement(desk: InProcessCli):
    """A value in an identifier's place is one identifier, whatever it says."""
    desk.playbook(
        "p", HEAD + "inputs: {table: {required: true}}\nsteps:\n"
        "  - {id: s, type: sql, text: 'UPDATE {{ table | ident }} SET n = n + 1 WHERE id > 0'}\n"
    )  # fmt: skip
    for value in ('marks"; DROP TABLE marks; --', "marks SET n = 9; --", 'marks" --', "marks; DELETE FROM marks"):
        done = desk.runbook("exec", "p.yaml", "-i", f"table={value}")
        assert done.code == 1, done.text
        assert "no such table" in done.err
        assert rows(desk) == [(1, 0), (2, 0)]
    assert desk.runbook("exec", "p.yaml", "-i", "table=marks").code == 0
    for value in ("x\0y", "", "x" * 64, "caf\u00e9" * 20):
        assert desk.runbook("exec", "p.yaml", "-i", f"table={value}").code == 4
    assert rows(desk) == [(1, 1), (2, 1)]


def rows(desk: InProcessCli) -> list[tuple[int, int]]:
    with contextlib.closing(sqlite3.connect(desk.directory / "db.sqlite")) as connection:
        return connection.execute("SELECT id, n FROM marks ORDER BY id").fetchall()


@pytest.mark.parametrize(
    "words", [("-i", "rows"), ("-i", "rows=many"), ("-i", "roes=1"), ("-i", "rows=0"), ("--inputs-file", "bad.yaml")]
)
def test_bad_inputs_on_the_command_line(desk: InProcessCli, words: tuple[str, ...]):
    (desk.directory / "bad.yaml").write_text("rows: [1, 2]\n")
    desk.playbook("p", HEAD + "inputs: {rows: {type: integer, required: true, min: 1}}\n" + STEP)
    done = refused(desk, "exec", "p.yaml", *words, code=2 if words == ("-i", "rows") else 4)
    assert "rows" in done.err or "roes" in done.err
    refused(desk, "exec", "p.yaml", code=4)


# ─── targets ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("words.sqlite", 6, "it is not a SQLite file"),
        ("sqlite:///words.sqlite", 12, "file is not a database"),
        ("sqlite:///gone.sqlite", 12, "there is no file"),
        ("gone.sqlite", 6, "cannot find 'gone.sqlite'"),
        ("sqlite:///", 6, "cannot use a SQLite database in memory"),
        ("production", 6, "cannot find 'production'"),
        ("mysql://me@host/db", 6, "a target is postgresql://"),
        ("postgresql://me@127.0.0.1:1/db", 12, "cannot reach postgresql://me@127.0.0.1:1/db"),
        ("postgresql://me@/db?host=/nowhere", 12, "cannot reach postgresql://me@/db?host=/nowhere"),
        ("service=gone", 12, "cannot reach service=gone"),
        ("", 6, "cannot use an empty --target"),
    ],
)
def test_target_that_is_none(desk: InProcessCli, target: str, code: int, message: str):
    (desk.directory / "words.sqlite").write_text("these are words, not a database\n" * 9)
    desk.playbook("p", GOOD)
    for command in (("exec", "p.yaml"), ("exec", "p.yaml", "--dry-run"), ("target", "check"), ("target", "init")):
        done = refused(desk, *command, "--target", target, code=code)
        assert message in done.err, done.text
    assert not (desk.directory / "gone.sqlite").exists(), "SQLite makes a file of whatever it is asked to open"


def test_server_that_has_no_such_database_or_role(desk: InProcessCli, databases: Databases, pg18: Server):
    desk.playbook("p", GOOD)
    socket = quote(str(pg18.socket), safe="/")
    for url, message in (
        (f"postgresql://owner@/nowhere?host={socket}", 'database "nowhere" does not exist'),
        (f"postgresql://nobody@/postgres?host={socket}", 'role "nobody" does not exist'),
    ):
        assert message in refused(desk, "exec", "p.yaml", "-t", url, code=12).err


def test_wrong_kind_of_target_is_refused(desk: InProcessCli):
    desk.playbook("p", GOOD + "target: {postgresql: '>=14'}\n")
    assert "its `target:` does not name it" in refused(desk, "exec", "p.yaml", code=6).err
    desk.playbook("p", GOOD + "target: {sqlite: '>=99'}\n")
    assert "it needs >=99" in refused(desk, "exec", "p.yaml", code=6).err
    assert desk.runbook("exec", "p.yaml", "--dry-run").code == 6


def test_no_target_at_all_shows_three_ways(desk: InProcessCli):
    desk.playbook("p", GOOD)
    done = InProcessCli(desk.directory, "").runbook("exec", "p.yaml")
    assert (done.code, "RUNBOOK_TARGET" in done.err, "default: NAME" in done.err) == (6, True, True), done.text


# ─── no room, no right to write ─────────────────────────────────────────────────────────────────────────────────────
STEPS = "steps:\n" + "".join(
    f"  - {{id: s{n}, type: sql, text: UPDATE marks SET n = n + 1 WHERE id = {n % 2 + 1}}}\n" for n in range(24)
)


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    place = directory / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("this account cannot mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk_under_the_trail(desk: InProcessCli):
    """F: E13 - what can't be recorded isn't done; with room again it goes on where it stood, each step once."""
    desk.playbook("p", HEAD + STEPS.replace("steps:\n", "steps:\n  - {id: gate, type: checkpoint, message: now}\n"))
    with small_disk(desk.directory) as place:
        begun = desk.runbook("exec", "p.yaml", "--runs", str(place), "--to", "gate")
        assert begun.code == 5, begun.text
        filler = place / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1024)
        full = Cli.runbook(desk, "resume", "latest", "--runs", str(place))  # in a process, which is gone afterwards
        _stopped_by_the_disk(full, place, lambda: sum(n for _, n in rows(desk)))
        assert desk.runbook("status", "latest", "--runs", str(place)).code == 0, (
            "how it stands can be asked all the same"
        )
        filler.unlink()
        assert desk.runbook("resume", "latest", "--runs", str(place)).code == 0
        assert rows(desk) == [(1, 12), (2, 12)]
        assert desk.runbook("trail", "verify", "latest", "--runs", str(place), "--against-target").code == 0


def _stopped_by_the_disk(done: Done, runs: Path, written: Callable[[], int]) -> None:
    assert (done.code, "internal error" in done.text) == (11, False), done.text
    assert "make room" in done.err
    [path] = runs.glob("*/trail.jsonl")
    status = fold(read(path))
    recorded = sum(step.outcome == "done" for step in status.steps.values() if step.type == "sql")
    begun = sum(bool(step.open) for step in status.steps.values())
    assert recorded <= written() <= recorded + begun < 24


def test_limit_on_the_trails_size(databases: Databases, tmp_path: Path, pg18: Server):
    """F: E13 - the same for a quota, wherever in the run it strikes: at the first record, or at any later one."""
    with databases.kind("pg18").database() as database:
        database.script(
            "CREATE TABLE marks (id int PRIMARY KEY, n int NOT NULL); INSERT INTO marks VALUES (1, 0), (2, 0)"
        )
        desk = InProcessCli(tmp_path, database.url)
        desk.playbook("p", HEAD + STEPS)
        assert _limited(desk, "none", 1_000).code == 11
        assert database.value("SELECT sum(n) FROM marks") == 0
        assert database.rows("SELECT nspname FROM pg_namespace WHERE nspname = 'runbook'") == []
        done = _limited(desk, "some", 9_000)
        _stopped_by_the_disk(done, tmp_path / "some", lambda: database.value("SELECT sum(n) FROM marks"))
        assert desk.runbook("resume", "latest", "--runs", "some").code == 0
        assert database.rows("SELECT n FROM marks") == [(12,), (12,)]


def _limited(desk: InProcessCli, runs: str, size: int) -> Done:
    done = subprocess.run(
        [RUNBOOK, "exec", "p.yaml", "--runs", runs], cwd=desk.directory, capture_output=True, text=True, check=False,
        env={**os.environ, "RUNBOOK_TARGET": desk.target},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert "internal error" not in done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("runs", ["/proc/runs", "a-file", "a-file/runs"])
def test_runs_directory_that_cannot_be_written(desk: InProcessCli, runs: str):
    (desk.directory / "a-file").write_text("in the way")
    desk.playbook("p", GOOD)
    done = desk.runbook("exec", "p.yaml", "--runs", runs)
    assert (done.code, "internal error" in done.text) in {(11, False), (2, False)}, done.text
    assert rows(desk) == [(1, 0), (2, 0)]
    with contextlib.closing(sqlite3.connect(desk.directory / "db.sqlite")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("marks",)], "no ledger either"


# ─── no privilege ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_role_that_may_only_read(databases: Databases, tmp_path: Path, pg18: Server):
    """Refused with what the DBA is to grant, before anything is sent; then it works with that and no more."""
    with databases.kind("pg18").database() as database:
        _only_reading(database, tmp_path)


def _only_reading(database: Database, directory: Path) -> None:
    database.script(
        "CREATE TABLE marks (id int PRIMARY KEY, n int NOT NULL); INSERT INTO marks VALUES (1, 0), (2, 0);"
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN; GRANT SELECT ON marks TO reader"
    )
    desk = InProcessCli(directory, database.url.replace("owner@", "reader@"))
    desk.playbook("p", GOOD)
    done = desk.runbook("exec", "p.yaml")
    assert (done.code, "target init --print" in done.err) == (6, True), done.text
    assert database.rows("SELECT nspname FROM pg_namespace WHERE nspname = 'runbook'") == []
    printed = desk.runbook("target", "init", "--print", "--role", "reader").out
    database.script(printed)
    done = desk.runbook("exec", "p.yaml")
    assert done.code in {1, 3, 6}, done.text
    assert "permission denied for table marks" in done.err or "GRANT UPDATE" in done.err, done.text
    assert database.rows("SELECT sum(n) FROM marks") == [(0,)]
    database.script("GRANT UPDATE ON marks TO reader")
    assert desk.runbook("exec", "p.yaml").code == 0
    assert database.rows("SELECT sum(n) FROM marks") == [(2,)]
    database.script("DROP OWNED BY reader; DROP ROLE reader")
