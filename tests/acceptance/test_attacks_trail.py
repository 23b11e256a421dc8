"""Attacks on a run's record: whatever is done to the trail or the ledger, no command acts on what it says.

docs/trust.md has the table: attack, what stops it, test.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from inside import InProcessCli, until

from runner.common.secrets import Masks
from runner.trail.events import Noted
from runner.trail.trail import Trail, digest, read

PLAYBOOK = """runbook: 1
name: {name}
title: Mark the rows
steps:
  - {{id: first, type: sql, text: UPDATE marks SET a = 1 WHERE id = {id}, revert: UPDATE marks SET a = NULL WHERE id = {id}}}
  - {{id: gate, type: checkpoint, approval: {{roles: [dba]}}}}
  - {{id: second, type: sql, text: UPDATE marks SET b = 1 WHERE id = {id}, revert: UPDATE marks SET b = NULL WHERE id = {id}}}
success_criteria:
  - {{id: marked, check: query, query: SELECT count(*) AS n FROM marks WHERE b = 1, that: n >= 1}}
"""
WAITING, ENDED = "waiting", "ended"
ACTS = {
    "resume": ("resume", "{run}"),
    "rollback": ("rollback", "{run}"),
    "approve": ("approve", "{run}", "--step", "gate", "--as", "ines", "--role", "dba", "--reason", "good"),
    "sql": ("sql", "{run}", "-c", "UPDATE marks SET a = 9", "--reason", "in a hurry"),
    "note": ("note", "{run}", "seen"),
    "tune": ("tune", "{run}", "stop", "--reason", "enough"),
}
Lines = list[bytes]


class Attacked:
    """Two runs on one SQLite file, one of which waits at its gate, each by a process of its own, which is gone."""

    def __init__(self, directory: Path) -> None:
        database = directory / "db.sqlite"
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE marks (id integer PRIMARY KEY, a integer, b integer)")
            connection.executemany("INSERT INTO marks (id) VALUES (?)", [(1,), (2,)])
        self.database = database
        self.desk = InProcessCli(directory, f"sqlite:///{database}")
        self.desk.playbook(
            "ended", PLAYBOOK.format(name="ended", id=1).replace("approval: {roles: [dba]}", "proceed: yes")
        )
        self.desk.playbook("waiting", PLAYBOOK.format(name="waiting", id=2))
        self.desk.playbook("ended", PLAYBOOK.format(name="ended", id=1).replace(
            "  - {id: gate, type: checkpoint, approval: {roles: [dba]}}\n", ""))  # fmt: skip
        assert self.desk.runbook("exec", "ended.yaml", stdin="").code == 0
        assert self.desk.runbook("exec", "waiting.yaml", stdin="").code == 5

    def folder(self, name: str) -> Path:
        (found,) = (self.desk.directory / "runs").glob(f"{name}-*")
        return found

    def rows(self) -> list[tuple]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute("SELECT id, a, b FROM marks ORDER BY id").fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    return Attacked(tmp_path_factory.mktemp("attacked"))


@pytest.fixture
def there(made: Attacked, tmp_path: Path) -> Attacked:
    """A copy of runs and database at the same path, put back afterwards."""
    kept = tmp_path / "kept"
    shutil.copytree(made.desk.directory, kept)
    yield made
    shutil.rmtree(made.desk.directory / "runs")
    shutil.copytree(kept / "runs", made.desk.directory / "runs")
    made.database.write_bytes((kept / "db.sqlite").read_bytes())


def chained(lines: Lines) -> bytes:
    """A forger's work: numbers, links and hashes fit again."""
    head, out = "0" * 64, b""
    for number, line in enumerate(lines, start=1):
        record = json.loads(line)
        event = json.dumps(record["event"], separators=(",", ":"), ensure_ascii=False)
        body = f'{{"n":{number},"at":"{record["at"]}","prev":"{head}","event":{event}}}'
        head = digest(body)
        out += f'{body[:-1]},"hash":"{head}"}}\n'.encode()
    return out


def on_lines(forge: Callable[[Lines], bytes]) -> Callable[[Attacked, str], None]:
    def attack(there: Attacked, name: str) -> None:
        path = there.folder(name) / "trail.jsonl"
        path.write_bytes(forge(path.read_bytes().splitlines(keepends=True)))

    return attack


def edited(there: Attacked, name: str) -> None:
    path = there.folder(name) / "trail.jsonl"
    path.write_text(path.read_text().replace("SET a = NULL", "SET a = 666 "))


def swapped(there: Attacked, name: str) -> None:
    del name
    one, other = (there.folder(each) / "trail.jsonl" for each in ("ended", "waiting"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def swapped_with_their_folders(there: Attacked, name: str) -> None:
    """The folder's name is right, the records are another run's under this one's name."""
    other = there.folder("ended" if name == WAITING else "waiting") / "trail.jsonl"
    own = there.folder(name)
    run = json.loads(other.read_bytes().splitlines()[0])["event"]["run"]
    lines = other.read_bytes().replace(run.encode(), own.name.encode()).splitlines(keepends=True)
    (own / "trail.jsonl").write_bytes(chained(lines))


def renamed(there: Attacked, name: str) -> None:
    folder = there.folder(name)
    folder.rename(folder.with_name(f"{name}-20200101-000000-abcd"))


def row_removed(there: Attacked, name: str) -> None:
    with sqlite3.connect(there.database) as connection:
        connection.execute("DELETE FROM runbook_run WHERE run = ?", (there.folder(name).name,))


def acts_forgotten(there: Attacked, name: str) -> None:
    """Row, steps and anchors are gone; the acts and the trail are there."""
    with sqlite3.connect(there.database) as connection:
        for table in ("run", "step", "anchor", "step_commit"):
            connection.execute(f"DELETE FROM runbook_{table} WHERE run = ?", (there.folder(name).name,))


ATTACKS: dict[str, Callable[[Attacked, str], None]] = {
    "edited": edited,
    "re-chained": on_lines(lambda lines: chained([line.replace(b"SET a = NULL", b"SET a = 666 ") for line in lines])),
    "cut": on_lines(lambda lines: b"".join(lines[:-1])),
    "cut to its start": on_lines(lambda lines: b"".join(lines[:1])),
    "cut to the lease": on_lines(lambda lines: b"".join(lines[:3])),
    "appended": on_lines(lambda lines: chained([*lines, next(line for line in lines if b"step_ended" in line)])),
    "reordered": on_lines(lambda lines: b"".join([*lines[:2], lines[3], lines[2], *lines[4:]])),
    "swapped": swapped,
    "swapped under the other's name": swapped_with_their_folders,
    "renamed": renamed,
    "row removed": row_removed,
    "ledger emptied": acts_forgotten,
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", [WAITING, ENDED])
def test_attacked_record_opens_nothing(there: Attacked, attack: str, act: str, name: str):
    """Refused, nothing sent, nothing written into the trail; what only looks still looks."""
    before = there.rows()
    ATTACKS[attack](there, name)
    folder = there.folder(name)
    trail = (folder / "trail.jsonl").read_bytes()
    done = there.desk.runbook(*(word.format(run=folder.name) for word in ACTS[act]))
    assert done.code in {6, 11}, done.text
    assert there.rows() == before, done.text
    assert (folder / "trail.jsonl").read_bytes() == trail
    assert there.desk.runbook("trail", "verify", folder.name, "--against-target").code == 11
    assert there.desk.runbook("status", folder.name).code == 0


def test_unharmed_record_opens_everything(there: Attacked):
    """The same acts, each of which the attacks above are refused."""
    run = there.folder(WAITING).name
    for act in ("note", "sql", "approve", "resume", "rollback"):
        done = there.desk.runbook(*(word.format(run=run) for word in ACTS[act]))
        assert done.code == 0, done.text
        verified = there.desk.runbook("trail", "verify", run, "--against-target")
        assert verified.code == 0, verified.text


def forged(there: Attacked, *events: dict[str, object]) -> Path:
    """The waiting run's trail with these events behind its last anchor, its chain whole."""
    path = there.folder(WAITING) / "trail.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    resumed = {"event": "run_resumed", "process": first["event"]["process"]}
    more = [json.dumps({"at": last["at"], "event": one}).encode() for one in (resumed, *events)]
    path.write_bytes(chained([*lines, *more]))
    return path


def step(name: str, kind: str, outcome: str) -> list[dict[str, object]]:
    """The records of a step that was begun and ended."""
    begun = {"event": "step_started", "step": name, "type": kind, "action": "apply", "describe": name}
    return [begun, {"event": "step_ended", "step": name, "action": "apply", "outcome": outcome, "seconds": 0.1}]


def test_forged_passage_of_a_gate_opens_nothing(there: Attacked):
    """Behind the last anchor a record is only a claim: the gate is asked again, and waits."""
    path = forged(there, *step("gate", "checkpoint", "passed"))
    assert read(path)[-1].event.outcome == "passed"
    before = there.rows()
    assert there.desk.runbook("resume", path.parent.name).code == 5
    assert there.rows() == before


def test_forged_end_of_a_step_is_not_believed(there: Attacked):
    """The ledger has no record of what it committed."""
    run = there.folder(WAITING).name
    assert there.desk.runbook(*(word.format(run=run) for word in ACTS["approve"])).code == 0
    forged(there, *step("gate", "checkpoint", "passed"), *step("second", "sql", "done"))
    before = there.rows()
    refused = there.desk.runbook("resume", run)
    assert (refused.code, "no record of what second committed" in refused.err) == (6, True), refused.text
    assert there.rows() == before


def test_forged_success_is_no_success(there: Attacked):
    """An end that the ledger doesn't know is asked for once more: here the gate still waits."""
    run = forged(there, {"event": "run_ended", "state": "succeeded", "exit_code": 0}).parent
    assert there.desk.runbook("resume", run.name).code == 5
    with sqlite3.connect(there.database) as connection:
        ((state,),) = connection.execute("SELECT state FROM runbook_run WHERE run = ?", (run.name,)).fetchall()
    assert state == "waiting"


def test_words_at_an_unreachable_target_are_marked(there: Attacked):
    """A note and an approval are taken down where no target answers, and say that it was not asked."""
    run = there.folder(WAITING)
    there.database.rename(there.database.with_suffix(".away"))
    try:
        for act in ("note", "approve"):
            done = there.desk.runbook(*(word.format(run=run.name) for word in ACTS[act]))
            assert (done.code, "no ledger vouches for it yet" in done.out) == (0, True), done.text
    finally:
        there.database.with_suffix(".away").rename(there.database)
    assert {one.event.trust for one in read(run / "trail.jsonl")[-2:]} == {"not asked"}
    assert there.desk.runbook("resume", run.name).code == 0


# ─── while it runs ──────────────────────────────────────────────────────────────────────────────────────────────────
def removed(path: Path) -> None:
    """The whole folder; the run may write its status into it once more meanwhile."""
    while path.parent.exists():
        shutil.rmtree(path.parent, ignore_errors=True)


def replaced(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)


def linked(path: Path) -> None:
    os.link(path, path.parent.parent / "second-name")


def linked_away(path: Path) -> None:
    """A symbolic link in its place, to the very file."""
    other = path.parent.parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(len(path.read_bytes()) // 2)


def written_into(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"n":1}\n')


@pytest.mark.parametrize("harm", [removed, replaced, linked, linked_away, cut_short, written_into])
def test_trail_that_is_harmed_while_it_runs_stops_the_run(tmp_path: Path, harm: Callable[[Path], None]):
    """Before the next act, with the trail's own exit code; the ledger has what committed."""
    made = tmp_path / "db.sqlite"
    with sqlite3.connect(made) as connection:
        connection.execute("CREATE TABLE marks (id integer PRIMARY KEY, a integer, b integer)")
        connection.execute("INSERT INTO marks (id) VALUES (1)")
    desk = InProcessCli(tmp_path, f"sqlite:///{made}")
    slow = "  - {id: slow, type: command, argv: [sh, -c, 'until [ -e go ]; do sleep 0.02; done'], revert: ['true']}\n"
    text = PLAYBOOK.format(name="harmed", id=1)
    desk.playbook("harmed", text.replace("  - {id: gate, type: checkpoint, approval: {roles: [dba]}}\n", slow))
    with desk.start("exec", "harmed.yaml") as run:
        path = until(lambda: next(iter((tmp_path / "runs").glob("*/trail.jsonl")), None))
        until(lambda: b'"step":"slow"' in path.read_bytes())
        harm(path)
        if harm in {
            cut_short,
            written_into,
        }:  # seen with the next record; what is no longer the file of its name, at once
            (tmp_path / "go").touch()
        out = run.communicate(timeout=300)[0]
    assert run.returncode == 11, out
    assert "cannot go on with the trail" in out and "nothing more is sent by this process" in out, out
    with sqlite3.connect(made) as connection:
        assert connection.execute("SELECT a, b FROM marks").fetchall() == [(1, None)]


def test_full_disk_says_what_is_true(tmp_path: Path):
    """The last record may be the start of a step that was then carried out: nothing else is claimed."""
    trail = Trail(tmp_path / "trail.jsonl", masks=Masks())
    trail.append(Noted(by="me", text="one"))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom runner.trail.events import Noted\nfrom runner.common.secrets import Masks\n"
        "from runner.trail.trail import Trail\nfrom runner.common.errors import TrailBroken\nimport signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"trail = Trail(Path({str(trail.path)!r}), masks=Masks())\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({trail.path.stat().st_size + 10}, -1))\n"
        "try:\n    trail.append(Noted(by='me', text='two'))\nexcept TrailBroken as broken:\n    print(broken.state)\n"
    )
    done = subprocess.run([os.sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout
        == "what had committed stays, and the target's ledger has it; nothing more is sent by this process\n"
    )
    assert len(read(trail.path)) == 1
