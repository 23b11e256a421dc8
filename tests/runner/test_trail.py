"""The trail: whoever changes it is found, by the chain or by the ledger; a kill and a second writer leave it whole."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from inside import InProcessCli

from runner.common.errors import TrailBroken
from runner.common.secrets import Masks
from runner.record.anchors import records
from runner.trail.events import Noted, RunStarted, SqlByHand, StepEnded
from runner.trail.status import fold
from runner.trail.status_file import document_of
from runner.trail.trail import Trail, digest, read, verify

PLAYBOOK = """runbook: 1
name: marks
title: Mark the rows
steps:
  - {id: first, type: sql, text: UPDATE marks SET a = 1 WHERE a IS NULL}
  - {id: second, type: sql, text: UPDATE marks SET b = a WHERE b IS NULL}
success_criteria:
  - {id: marked, check: query, query: SELECT count(*) AS n FROM marks WHERE b = 1, that: n == 3}
"""
GATED = PLAYBOOK.replace(
    "  - {id: second", "  - {id: gate, type: checkpoint, approval: {roles: [dba]}}\n  - {id: second"
)


def desk_at(directory: Path) -> InProcessCli:
    database = directory / "db.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE marks (id integer PRIMARY KEY, a integer, b integer)")
        connection.executemany("INSERT INTO marks (id) VALUES (?)", [(1,), (2,), (3,)])
    desk = InProcessCli(directory, f"sqlite:///{database}")
    desk.playbook("marks", PLAYBOOK)
    desk.playbook("gated", GATED)
    return desk


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[InProcessCli, bytes]:
    """A run that succeeded, and its trail as the run wrote it."""
    desk = desk_at(tmp_path_factory.mktemp("finished"))
    done = desk.runbook("exec", "marks.yaml")
    assert done.code == 0, done.text
    return desk, desk.trail.read_bytes()


@pytest.fixture
def waiting(tmp_path: Path) -> InProcessCli:
    """A run that waits at a gate, its first step done."""
    desk = desk_at(tmp_path)
    done = desk.runbook("exec", "gated.yaml")
    assert done.code == 5, done.text
    return desk


# ─── what a chain alone shows ───────────────────────────────────────────────────────────────────────────────────────
def test_every_changed_byte_is_found(finished: tuple[InProcessCli, bytes], tmp_path: Path):
    """Wherever it stands, also in the hash, the brackets and the line's end."""
    copy, (_, whole) = tmp_path / "trail.jsonl", finished
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]
    for n in [*range(0, len(whole), 11), *ends, *(end - 3 for end in ends), *(end - 70 for end in ends)]:
        copy.write_bytes(whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :])
        found = verify(copy)
        assert found.fault or found.torn, (n, whole[n - 20 : n + 20])
        assert found.records <= whole[:n].count(b"\n"), "records behind the change are vouched for by nobody"


def _drop(lines: list[bytes], n: int) -> list[bytes]:
    return lines[:n] + lines[n + 1 :]


def _swap(lines: list[bytes], n: int) -> list[bytes]:
    return [*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :]]


def _double(lines: list[bytes], n: int) -> list[bytes]:
    return [*lines[: n + 1], lines[n], *lines[n + 1 :]]


def _insert(lines: list[bytes], n: int) -> list[bytes]:
    return [*lines[:n], b'{"n":1}\n', *lines[n:]]


@pytest.mark.parametrize("change", [_drop, _swap, _double, _insert])
def test_every_moved_line_is_found(
    finished: tuple[InProcessCli, bytes], tmp_path: Path, change: Callable[[list[bytes], int], list[bytes]]
):
    copy, (_, whole) = tmp_path / "trail.jsonl", finished
    lines = whole.splitlines(keepends=True)
    for n in range(len(lines) - 1):
        copy.write_bytes(b"".join(change(lines, n)))
        found = verify(copy)
        assert found.fault.startswith(f"line {found.records + 1} "), n
        assert found.records in {n, n + 1}


def test_sign_that_stands_for_a_broken_one_is_held_apart(tmp_path: Path):
    """Bytes are hashed, not what a decoder makes of them."""
    path = tmp_path / "trail.jsonl"
    trail = Trail(path, masks=Masks())
    trail.append(Noted(by="me", text="\ufffd"))
    trail.close()
    path.write_bytes(path.read_bytes().replace("\ufffd".encode(), b"\xf1\xbf\xbd"))
    assert verify(path).fault == "line 1 is not JSON"


# ─── what only the ledger shows ─────────────────────────────────────────────────────────────────────────────────────
def _chained(lines: list[bytes]) -> bytes:
    """A forger's work: numbers, links and hashes fit again."""
    head, out = "0" * 64, b""
    for number, line in enumerate(lines, start=1):
        record = json.loads(line)
        at, event = record["at"], json.dumps(record["event"], separators=(",", ":"))
        body = f'{{"n":{number},"at":"{at}","prev":"{head}","event":{event}}}'
        head = digest(body)
        out += f'{body[:-1]},"hash":"{head}"}}\n'.encode()
    return out


def _forged_end(lines: list[bytes]) -> list[bytes]:
    [end] = [line for line in lines if b'"step_ended"' in line and b'"second"' in line]
    return [*lines, end]


def _softened(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"operands":{"n":3}', b'"operands":{"n":2}') for line in lines]


@pytest.mark.parametrize(
    ("forge", "fault"),
    [
        (lambda lines: lines[:-2], "has a head that this chain doesn't have"),
        (lambda lines: lines[:1], "has a head that this chain doesn't have"),
        (_softened, "has a head that this chain doesn't have"),
        (_forged_end, "(step_ended) stands behind the run's end"),
    ],
    ids=["cut tail", "nearly all cut", "made anew", "appended"],
)
def test_what_a_chain_cannot_show_the_ledger_does(
    finished: tuple[InProcessCli, bytes], tmp_path: Path, forge: Callable[[list[bytes]], list[bytes]], fault: str
):
    """F: E04 - a cut tail, a chain made anew and a well-formed record behind the end; wherever the file lies."""
    desk, whole = finished
    forged = tmp_path / "copy.jsonl"
    forged.write_bytes(_chained(forge(whole.splitlines(keepends=True))))
    assert forged.read_bytes() != whole
    alone = desk.runbook("trail", "verify", str(forged))
    assert (alone.code, "nobody else vouches" in alone.out) == (0, True), alone.text
    found = desk.runbook("trail", "verify", str(forged), "--against-target", "--json")
    assert found.code == 11, found.text
    assert fault in json.loads(found.out)["fault"]
    assert "the trail does not verify" in found.err


def test_note_behind_the_end_is_nobodys_fault(finished: tuple[InProcessCli, bytes], tmp_path: Path):
    """A person's word may follow the end; how far the ledger vouches is said."""
    desk, whole = finished
    assert _chained(whole.splitlines(keepends=True)) == whole, "the forger of these tests works well"
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(whole)
    trail = Trail(copy, masks=Masks())
    trail.append(Noted(by="me", text="all is well"))
    trail.close()
    found = desk.runbook("trail", "verify", str(copy), "--against-target", "--json")
    words = json.loads(found.out)
    assert (found.code, words["fault"], words["torn"]) == (0, "", False)
    assert words["vouched_up_to"] == words["records"] - 1
    assert "nobody vouches for the 1 after it" in desk.runbook("trail", "verify", str(copy), "--against-target").out


def test_approval_vouches_for_what_came_before(waiting: InProcessCli):
    """A chain that was made anew before an approval doesn't have the head that the approver saw."""
    assert waiting.runbook("approve", "latest", "--as", "ines", "--role", "dba", "--reason", "good").code == 0
    found = waiting.runbook("trail", "verify", "latest", "--json")
    assert "approval by ines" in json.loads(found.out)["vouched_by"]
    lines = waiting.trail.read_bytes().replace(b'"first"', b'"frist"').splitlines(keepends=True)
    waiting.trail.write_bytes(_chained(lines))
    refused = waiting.runbook("trail", "verify", str(waiting.trail))
    assert (refused.code, "approval by ines has a head" in refused.err) == (11, True), refused.text


# ─── kills, and several writers ─────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("cut", [1, 40, -1])
def test_torn_last_line_is_called_torn_and_cut_off(waiting: InProcessCli, cut: int):
    """F: E04 - half a line after a kill is no tampering; whoever appends next cuts it off and says so."""
    whole = waiting.trail.read_bytes()
    half = whole.splitlines(keepends=True)[-1][:cut]
    waiting.trail.write_bytes(whole + half)
    found = waiting.runbook("trail", "verify", "latest", "--against-target")
    assert (found.code, "the last line is torn" in found.out) == (0, True), found.text
    assert waiting.runbook("resume", "latest").code == 5
    torn = [record.event for record in read(waiting.trail) if record.event.event == "torn_tail"]
    assert [event.bytes_cut for event in torn] == [len(half)]
    assert waiting.trail.read_bytes().startswith(whole)
    assert waiting.runbook("trail", "verify", "latest", "--against-target").code == 0


WRITER = """
import sys
from pathlib import Path
from runner.trail.events import Noted
from runner.common.secrets import Masks
from runner.trail.trail import Trail
trail = Trail(Path(sys.argv[1]), masks=Masks())
for n in range(100):
    trail.append(Noted(by=sys.argv[2], text=str(n)))
"""


def test_two_processes_write_one_chain(tmp_path: Path):
    path = tmp_path / "trail.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait(300) for writer in writers] == [0, 0, 0]
    found = verify(path)
    assert (found.records, found.fault, found.torn) == (300, "", False)
    notes = [record.event for record in read(path) if isinstance(record.event, Noted)]
    for name in "abc":
        assert [note.text for note in notes if note.by == name] == [str(n) for n in range(100)]


def test_approval_while_it_runs_is_of_one_chain(tmp_path: Path):
    """Two terminals: one runs, the other notes and approves meanwhile."""
    desk = desk_at(tmp_path)
    desk.playbook("gated", GATED.replace("steps:\n", "steps:\n  - {id: slow, type: command, argv: [sleep, '2']}\n"))
    with desk.start("exec", "gated.yaml") as running:
        while not list(desk.directory.glob("runs/*/status.json")):
            assert running.poll() is None
        assert desk.runbook("note", "latest", "seen on the graphs", "--as", "ines").code == 0
        assert running.poll() is None
        done = desk.runbook("approve", "latest", "--step", "gate", "--as", "ines", "--role", "dba", "--reason", "good")
        assert done.code == 0, done.text
        running.communicate(timeout=300)
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0
    assert {"noted", "approved"} <= {record.event.event for record in read(desk.trail)}
    assert desk.runbook("resume", "latest").code in {0, 6}, "the gate was open already, or is now"
    assert fold(read(desk.trail)).state == "succeeded"


def test_trail_that_is_cut_while_it_runs_stops_the_run(tmp_path: Path):
    path = tmp_path / "trail.jsonl"
    trail = Trail(path, masks=Masks())
    trail.append(Noted(by="me", text="one"))
    path.write_bytes(b"")
    with pytest.raises(TrailBroken, match=r"somebody cut it while the run was going"):
        trail.append(Noted(by="me", text="two"))
    trail.close()


# ─── status, and trails that can't be read ──────────────────────────────────────────────────────────────────────────
def test_status_file_is_the_fold_of_the_trail(finished: tuple[InProcessCli, bytes], waiting: InProcessCli):
    """F: E05 - figures come from the record, the same each time; the file beside it can be lost."""
    for desk in (finished[0], waiting):
        status = json.loads((desk.trail.parent / "status.json").read_text())
        folded = document_of(fold(read(desk.trail)))
        assert json.loads(json.dumps(folded)) == {key: status[key] for key in folded}
        assert dataclasses.asdict(fold(read(desk.trail))) == dataclasses.asdict(fold(read(desk.trail)))
        known = list(read(desk.trail))
        before = [record.model_dump() for record in known]
        fold(known)
        assert [record.model_dump() for record in known] == before
        (desk.trail.parent / "status.json").unlink()
        assert desk.runbook("status", "latest", "--json").code == 0


def test_broken_trail_hides_no_other_run(waiting: InProcessCli):
    runs = waiting.directory / "runs"
    for name, text in (("empty", ""), ("torn", '{"n":1'), ("foreign", '{"a": 1}\n')):
        (runs / name).mkdir()
        (runs / name / "trail.jsonl").write_text(text)
    listed = waiting.runbook("runs")
    assert (listed.code, "gated-" in listed.out or "marks-" in listed.out) == (0, True), listed.text
    assert "foreign" in listed.err
    for command in ("status", "report", "resume", "rollback"):
        done = waiting.runbook(command, "foreign")
        assert (done.code, "Traceback" in done.text) == (11, False), done.text
    assert waiting.runbook("status", "torn").code == 11
    assert waiting.runbook("status", "empty").code == 6
    assert waiting.runbook("trail", "verify", "foreign").code == 11


def test_only_records_of_the_whole_chain_are_believed(finished: tuple[InProcessCli, bytes], tmp_path: Path):
    copy, (_, whole) = tmp_path / "trail.jsonl", finished
    copy.write_bytes(whole)
    known = records(copy.read_bytes(), up_to=4)
    assert isinstance(known[0].event, RunStarted)
    assert len(known) == 4
    copy.write_bytes(b'{"not": "ours"}\n' + whole)
    assert records(copy.read_bytes(), up_to=4) == []


# ─── masking ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_masking_leaves_a_trail_that_can_be_read(finished: tuple[InProcessCli, bytes], tmp_path: Path):
    """F: K01 - a password that is a common word or a number takes no name, number or record with it."""
    _, whole = finished
    given = tmp_path / "given.jsonl"
    given.write_bytes(whole)
    for secret in ("runbook", "started", "sqlite", "marks-", "succeeded", "123456"):
        masks = Masks()
        masks.add(secret)
        path = tmp_path / f"{secret}.jsonl"
        trail = Trail(path, masks=masks)
        for record in read(given):
            trail.append(record.event)
        trail.append(Noted(by="me", text=f"it is {secret}"))
        trail.append(SqlByHand(by="me", reason="r", sql=f"SELECT {secret}", rows=123456))
        result = {"token": secret, "count": 123456, "many": [123456]}
        trail.append(StepEnded(step="first", action="apply", outcome="done", seconds=1.0, results=result))
        trail.close()
        events = [record.event for record in read(path)]
        assert fold(read(path)).run == fold(read(given)).run
        assert fold(read(path)).source == fold(read(given)).source
        assert events[-3].text == "it is ***"
        assert (events[-2].sql, events[-2].rows) == ("SELECT ***", 123456)
        assert events[-1].results["token"] == "***"
        assert events[-1].results["count"] == ("***" if secret == "123456" else 123456)


def test_text_that_is_no_text_is_recorded(tmp_path: Path):
    """An argument of the shell may hold any byte; the record takes it without losing the rest."""
    desk = desk_at(tmp_path)
    assert desk.runbook("exec", "marks.yaml").code == 0
    done = desk.runbook("note", "latest", b"caf\xe9 \x1b[31m".decode(errors="surrogateescape"))
    assert done.code == 0, done.text
    assert "caf" in read(desk.trail)[-1].event.text
    assert verify(desk.trail).fault == ""
