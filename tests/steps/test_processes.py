"""Child processes: real ones, with their time limits, output and orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from steps.contract import StepError, Stopped, processes
from steps.contract.pids import ProcessId, alive, identify

ENV = processes.environment()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(path: Path) -> str:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if path.exists() and path.read_text().strip():
            return path.read_text().strip()
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def gone(pid: int) -> bool:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def test_run_gives_code_and_output():
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    finished = processes.run(python(code), timeout_s=30, env=ENV)
    assert (finished.exit_code, finished.stdout, finished.stderr) == (3, "out\n", "err\n")
    assert not finished.timed_out
    assert finished.seconds > 0


def test_exit_code_is_the_program_s_own():
    """T: 2, F: I10 - no pipe and no shell stands between us and the exit code, and `2>&1 |` is but a word."""
    finished = processes.run(["false", "2>&1", "|", "tee"], timeout_s=30, env=ENV)
    assert finished.exit_code == 1


def test_missing_program_is_said():
    with pytest.raises(StepError, match=r"cannot run 'no-such-program': no such program"):
        processes.run(["no-such-program"], timeout_s=1, env=ENV)


def test_missing_directory_is_said(tmp_path: Path):
    with pytest.raises(StepError, match=r"does not exist"):
        processes.run(["true"], timeout_s=1, env=ENV, cwd=str(tmp_path / "none"))


def test_file_that_is_no_program_is_said(tmp_path: Path):
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(StepError, match=r"cannot run"):
        processes.run([str(tmp_path / "text")], timeout_s=1, env=ENV)


def test_environment_keeps_secrets_back(monkeypatch: pytest.MonkeyPatch):
    """F: K01"""
    monkeypatch.setenv("PGPASSWORD", "s3cret-value")
    monkeypatch.setenv("ASKED_FOR", "yes")
    env = processes.environment(names=["ASKED_FOR"], extra={"PGHOST": "db1"})
    assert "PGPASSWORD" not in env
    assert (env["ASKED_FOR"], env["PGHOST"]) == ("yes", "db1")


def test_much_output_keeps_its_end():
    code = "import sys; sys.stdout.write('x' * 3_000_000 + 'END'); sys.stderr.write('y' * 3_000_000 + 'END')"
    finished = processes.run(python(code), timeout_s=60, env=ENV)
    for text in (finished.stdout, finished.stderr):
        assert text.endswith("END")
        assert text.startswith("… (cut)")
        assert len(text) < 70_000


def test_timeout_ends_the_whole_group(tmp_path: Path):
    note = tmp_path / "pid"
    code = f"""
import subprocess, time
open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))
time.sleep(600)
"""
    finished = processes.run(python(code), timeout_s=2, env=ENV)
    assert finished.timed_out
    assert finished.exit_code < 0
    assert gone(int(wait_for(note)))


def test_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    finished = processes.run(python(code), timeout_s=1, env=ENV)
    assert (finished.timed_out, finished.exit_code) == (True, -9)


def test_helpers_left_behind_are_ended(tmp_path: Path):
    note = tmp_path / "pid"
    code = f"import subprocess; p = subprocess.Popen(['sleep', '600']); open({str(note)!r}, 'w').write(str(p.pid))"
    finished = processes.run(python(code), timeout_s=30, env=ENV)
    assert finished.exit_code == 0
    assert gone(int(note.read_text()))


def test_stop_ends_the_child():
    began = time.monotonic()
    finished = processes.run(["sleep", "600"], timeout_s=600, env=ENV, stop=lambda: time.monotonic() > began + 0.2)
    assert finished.stopped
    assert finished.exit_code < 0


def test_stop_that_raises_ends_the_child():
    pids: list[int] = []

    def stop() -> bool:
        raise Stopped("enough")

    with pytest.raises(Stopped):
        processes.run(["sleep", "600"], timeout_s=600, env=ENV, on_start=lambda one: pids.append(one.pid), stop=stop)
    assert gone(pids[0])


def test_command_waits_for_its_record(tmp_path: Path):
    """The pid is known, and can be made durable, before the command has done anything."""
    mark = tmp_path / "mark"
    seen: list[object] = []

    def on_start(process: ProcessId) -> None:
        time.sleep(0.3)
        seen.extend([process.pid, alive(process), mark.exists()])

    code = f"import os; open({str(mark)!r}, 'w').write(str(os.getpid()))"
    finished = processes.run(python(code), timeout_s=30, env=ENV, on_start=on_start)
    assert finished.exit_code == 0
    assert seen[1:] == [True, False]
    assert mark.read_text() == str(seen[0])


def test_record_that_fails_means_it_never_runs(tmp_path: Path):
    mark = tmp_path / "mark"

    def on_start(process: ProcessId) -> None:
        raise RuntimeError("the ledger can't be written")

    with pytest.raises(RuntimeError):
        processes.run(python(f"open({str(mark)!r}, 'w')"), timeout_s=30, env=ENV, on_start=on_start)
    assert not mark.exists()


def test_our_death_before_the_record_means_it_never_runs(tmp_path: Path):
    """A kill -9 of the engine between the child's start and its record: the command is not run."""
    mark, note = tmp_path / "mark", tmp_path / "pid"
    code = f"""
import os, signal, sys
from steps.contract import processes
def on_start(process):
    open({str(note)!r}, 'w').write(str(process.pid))
    os.kill(os.getpid(), signal.SIGKILL)
processes.run(['touch', {str(mark)!r}], timeout_s=30, env=processes.environment(), on_start=on_start)
"""
    processes.run(python(code), timeout_s=60, env=ENV, cwd=str(Path(processes.__file__).parents[2]))
    assert gone(int(wait_for(note)))
    assert not mark.exists()


def test_orphan_is_found(tmp_path: Path):
    """A command that outlives kill -9 of the engine is named by pid and start time, which no other process has."""
    note = tmp_path / "pid"
    code = f"""
import json, os, signal
from dataclasses import asdict
from steps.contract import processes
processes.run(['sleep', '600'], timeout_s=600, env=processes.environment(),
    on_start=lambda one: open({str(note)!r}, 'w').write(json.dumps(asdict(one))),
    stop=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""
    processes.run(python(code), timeout_s=60, env=ENV, cwd=str(Path(processes.__file__).parents[2]))
    orphan = ProcessId(**json.loads(wait_for(note)))
    earlier = replace(orphan, ticks=orphan.ticks - 6000)
    assert (alive(orphan), alive(earlier)) == (True, False)
    os.killpg(orphan.pid, signal.SIGKILL)
    assert gone(orphan.pid)
    assert alive(orphan) is False


def test_process_of_elsewhere_is_not_judged(tmp_path: Path):
    """Another boot or pid namespace: neither alive nor dead; a zombie is dead; a step of the clock changes nothing."""
    with subprocess.Popen(["sleep", "600"]) as child:
        known = identify(child.pid)
        assert alive(known) is True
        assert alive(replace(known, started=known.started - 86400)) is True
        for other in (replace(known, boot="b"), replace(known, namespace="pid:[1]"), replace(known, boot="")):
            assert alive(other) is None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert alive(known) is False, "it is dead before it is reaped"
    assert alive(known) is False


def test_run_works_beside_threads():
    """Guards and heartbeats are threads of the engine: children start all the same."""
    codes: list[int] = []

    def work() -> None:
        codes.append(processes.run(["true"], timeout_s=30, env=ENV, on_start=lambda *_: None).exit_code)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
