"""`runbook demo --stay`: what it prints works when it is pasted, and nothing is left however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from command import RUNBOOK, Done

from runner.sandbox.binaries import find_binaries

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Stay:
    """A demo's place: its kept directory, and a folder for temporary files in which its record lies."""

    kept: Path
    temporary: Path

    @property
    def env(self) -> dict[str, str]:
        clean = {name: word for name, word in os.environ.items() if not name.startswith(("PG", "RUNBOOK_"))}
        return {**clean, "TMPDIR": str(self.temporary)}

    def demo(self, *words: str) -> Done:
        done = subprocess.run([RUNBOOK, "demo", *words], cwd=self.temporary, env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def again(self) -> Done:
        return self.demo("--stay", "--keep", str(self.kept))

    def paste(self, line: str) -> Done:
        done = subprocess.run(["bash", "-c", line], cwd=self.temporary, env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def keeper(self) -> psutil.Process:
        """The process that holds the server."""
        [pid] = self.recorded()
        return psutil.Process(pid)

    def recorded(self) -> list[int]:
        """The keepers on record. One that ends empties its record last; one that is killed leaves it as it was."""
        records = [path.read_text() for path in self.temporary.glob("runbook-stays-*/demo.json")]
        return [json.loads(record)["pid"] for record in records if record]

    def keepers(self) -> list[int]:
        """The keepers that run: one still removes its data when its server is down already."""
        return [pid for pid in self.recorded() if _runs(pid)]

    def servers(self) -> list[int]:
        """PostgreSQL's processes on data below our two directories."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if "postgres" in words and (str(self.kept) in words or str(self.temporary) in words):
                found.append(process.pid)
        return found

    def nothing_is_left(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while (left := [*self.servers(), *self.sockets(), *self.keepers()]) and time.monotonic() < until:
            time.sleep(0.05)
        assert left == []
        assert "nothing to stop" in self.demo("--stop").out

    def sockets(self) -> list[Path]:
        found = []
        for place in (self.kept, self.temporary):
            for folder, _, names in os.walk(place):  # a folder that is removed meanwhile is no error to it
                found += [Path(folder, name) for name in names if name.startswith(".s.PGSQL")]
        return found


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # which a container's first process may leave
    return False


def lines(out: str, after: str, before: str = "") -> list[str]:
    """The commands printed between two headings."""
    part = out.partition(after)[2]
    part = part.partition(before)[0] if before else part
    return [line.strip() for line in part.splitlines() if f"{RUNBOOK}" in line]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stay, str]]:
    """One whole demo that stays; the tests start its server again with what it left."""
    if not find_binaries(18):
        pytest.skip("PostgreSQL 18 is not on this machine")
    base = tmp_path_factory.mktemp("stay")
    (base / "tmp").mkdir()
    stay = Stay(base / "kept", base / "tmp")
    done = stay.demo("--stay", "--sessions", "2000", "--keep", str(stay.kept))
    assert done.code == 0, done.text
    yield stay, done.out
    stay.demo("--stop")
    shutil.rmtree(stay.kept)


@pytest.fixture
def stay(first: tuple[Stay, str]) -> Iterator[Stay]:
    """The place, with nothing running; whatever a test leaves is ended."""
    stay, _ = first
    stay.demo("--stop")
    yield stay
    stay.demo("--stop")


def test_every_line_that_it_prints_works_when_it_is_pasted(first: tuple[Stay, str]) -> None:
    stay, out = first
    for line in lines(out, "next:\n", "─"):
        assert " demo " in line or stay.paste(line).code == 0, line
    kill, status, resume, report, rollback = lines(out, "try, one line", "end it:")
    stay.paste(kill)
    assert "interrupted" in stay.paste(status).out
    resumed = stay.paste(resume)
    assert resumed.code == 0, resumed.text
    assert all(word in resumed.out for word in ("⏸ held by", "released by", "succeeded")), resumed.text
    assert "**succeeded**" in stay.paste(report).out
    back = stay.paste(rollback)
    assert back.code == 0, back.text
    assert "rolled back" in back.out
    [end] = lines(out, "end it:")
    stopped = stay.paste(end)
    assert stopped.code == 0, stopped.text
    stay.nothing_is_left()
    [again] = lines(stopped.out, "start it again")
    up = stay.paste(again)
    assert up.code == 0, up.text
    [_kill, status, _resume, report, _rollback] = lines(up.out, "try, one line", "end it:")
    assert "rolled back" in stay.paste(status).out
    assert stay.paste(report).code == 0


def test_a_second_one_says_that_one_stays(stay: Stay) -> None:
    assert stay.again().code == 0
    keeper = stay.keeper()
    for words in (["--stay"], ["--stay", "--keep", str(stay.kept)]):
        second = stay.demo(*words)
        assert second.code == 6
        assert f"process {keeper.pid} keeps its server in {stay.kept}" in second.err
        assert "demo --stop" in second.err
    assert keeper.is_running()
    assert len(list(stay.temporary.iterdir())) == 1, "a refused one leaves no directory"


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda one: one.name
)
def test_a_signal_ends_it_and_its_record_is_no_obstacle(stay: Stay, number: signal.Signals) -> None:
    assert stay.again().code == 0
    assert stay.servers()
    stay.keeper().send_signal(number)
    stay.nothing_is_left()
    assert stay.again().code == 0
    stay.demo("--stop")
    stay.nothing_is_left()


def test_it_ends_with_its_server(stay: Stay) -> None:
    assert stay.again().code == 0
    keeper = stay.keeper()
    for child in keeper.children():
        child.kill()
    keeper.wait(PATIENCE_S) if keeper.is_running() else None
    assert stay.again().code == 0


def test_it_ends_with_its_terminal_and_not_with_what_is_typed_there(stay: Stay) -> None:
    """A shell in a terminal of its own: the demo is started, ^C is pressed, and the terminal is closed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(stay.temporary)
        os.execve("/bin/sh", ["sh", "-i"], {**stay.env, "PS1": "", "TERM": "dumb"})
    os.write(terminal, f"{RUNBOOK} demo --stay --keep {stay.kept} && echo ready-$((40 + 2))\n".encode())
    said, until = b"", time.monotonic() + PATIENCE_S
    while b"ready-42" not in said and time.monotonic() < until:
        said += os.read(terminal, 65536)
    keeper = stay.keeper()
    os.write(terminal, b"\x03")
    time.sleep(0.5)
    assert keeper.is_running() and stay.servers()
    os.close(terminal)
    os.waitpid(pid, 0)
    stay.nothing_is_left()


@contextlib.contextmanager
def filling(stay: Stay) -> Iterator[subprocess.Popen[str]]:
    """A demo that nobody asked to keep, at the point where its server is up."""
    demo = subprocess.Popen([RUNBOOK, "demo", "--stay", "--sessions", "2000"], cwd=stay.temporary, env=stay.env,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    with contextlib.closing(demo.stdout):
        for line in demo.stdout:
            if "sessions …" in line:
                break
        assert stay.servers()
        yield demo
    demo.wait(PATIENCE_S)


def data_of(stay: Stay) -> list[Path]:
    return list(stay.temporary.glob("runbook-demo-*/server"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda one: one.name)
def test_a_demo_that_is_ended_before_its_end_leaves_nothing(stay: Stay, number: signal.Signals) -> None:
    """Not the data of its server either, which nobody asked to keep."""
    with filling(stay) as demo:
        demo.send_signal(number)
        demo.wait(PATIENCE_S)
    stay.nothing_is_left()
    until = time.monotonic() + PATIENCE_S
    while data_of(stay) and time.monotonic() < until:
        time.sleep(0.05)
    assert data_of(stay) == []


def test_what_a_killed_keeper_could_not_remove_is_removed_by_the_next(stay: Stay) -> None:
    with filling(stay) as demo:
        keeper = stay.keeper()
        demo.kill()
        keeper.kill()
    left = data_of(stay)
    with filling(stay) as demo:
        now = data_of(stay)
        demo.kill()
    assert len(now) == 1
    assert now != left
    stay.nothing_is_left()


def test_a_folder_that_others_can_write_holds_no_record(stay: Stay, tmp_path: Path) -> None:
    other = Stay(tmp_path / "kept", tmp_path)
    folder = tmp_path / f"runbook-stays-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    done = other.demo("--stay")
    assert done.code == 6
    assert "not a folder that you alone can write" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_stay_and_stop_are_one_too_many(stay: Stay) -> None:
    assert stay.demo("--stay", "--stop").code == 2
