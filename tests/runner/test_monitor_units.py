"""What calls `runbook monitor once`: systemd reads the units, sh and a real cron daemon run the line for cron."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command import Cli, Done
from databases import Database
from inside import until

from runner.monitor import units

kind = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> Cli:
    """A directory and a target with signs in their names that units and cron give a meaning to."""
    directory = tmp_path / 'a % of $HOME\'s; "plans"'
    directory.mkdir()
    database = directory / "100% app.sqlite"
    shutil.copyfile(empty_database.name, database)
    return Cli(directory, f"sqlite:///{database}")


def _units(desk: Cli, *words: str) -> dict[str, str]:
    done: Done = desk.runbook("monitor", "units", "--write", "units", *words)
    assert done.code == 0, done.text
    return {path.suffix: path.read_text() for path in sorted((desk.directory / "units").iterdir())}


@kind
@pytest.mark.parametrize("every", ["15 min", "1 min", "1 h"])
def test_units_are_good_for_systemd(desk: Cli, every: str):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    texts = _units(desk, "--every", every)
    assert {".service", ".timer", ".cron", ".yaml"} == texts.keys()
    paths = [str(path) for path in (desk.directory / "units").iterdir() if path.suffix in {".service", ".timer"}]
    done = subprocess.run(["systemd-analyze", "verify", *paths], text=True, capture_output=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "runbook-monitor" in line]
    assert (done.returncode, ours) == (0, [])


@kind
def test_command_of_the_service_is_the_one_that_is_meant(desk: Cli):
    """What systemd would make of ExecStart=, asked of systemd itself where it can be; the words are those of `once`."""
    text = _units(desk)[".service"]
    line = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1]
    words = [
        (quoted.replace('\\"', '"').replace("\\\\", "\\") if quoted or not bare else bare)
        .replace("$$", "$")
        .replace("%%", "%")
        for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    ]
    assert words[1:4] == ["monitor", "once", "--quiet"]
    assert words[words.index("--target") + 1] == desk.target
    assert words[words.index("--runs") + 1] == str(desk.directory / "runs")


@kind
def test_line_for_cron_does_what_cron_does_with_it(desk: Cli):
    """Cron takes five fields, makes \\% a %, and gives the rest to sh with hardly an environment."""
    *_, command = _units(desk)[".cron"].split(" ", 5)
    assert not re.search(r"(?<!\\)%", command)
    environment = {"HOME": str(desk.directory), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "root"}
    done = subprocess.run(
        ["/bin/sh", "-c", command.rstrip("\n").replace("\\%", "%")],
        env=environment,
        cwd="/",
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_ALONE = """
mount -t tmpfs none /var/spool/cron && mkdir -m 755 /var/spool/cron/crontabs && mount -t tmpfs none /etc/cron.d \
  && mount --bind /dev/null /etc/crontab && mount -t tmpfs none /run || exit 77
install -m 600 "$1" /var/spool/cron/crontabs/root && exec cron -f
"""  # sees no job of this machine, and leaves nothing on it


@pytest.mark.soak
@kind
def test_real_cron_brings_observations_into_the_ledger(desk: Cli):
    """Debian's cron, in mounts of its own, with the file that `monitor units` wrote: no shell of ours is in between."""
    with contextlib.closing(sqlite3.connect(desk.target.removeprefix("sqlite:///"))) as connection:
        connection.executescript("CREATE TABLE t (id int PRIMARY KEY, c text); INSERT INTO t VALUES (1, NULL)")
    desk.playbook("fill", _EVERY_SECOND)
    done = desk.runbook("exec", "fill.yaml")
    assert done.code == 0, done.text
    run = re.search(r"succeeded: (\S+)", done.text)[1]
    _units(desk, "--every", "1 min")
    [line] = (desk.directory / "units").glob("*.cron")
    with _cron(line):
        until(lambda: _seen(desk, run) >= 2, seconds=200)


_EVERY_SECOND = """\
runbook: 1
name: fill
title: Fill t
steps: [{id: fill, type: sql, text: UPDATE t SET c = 'x' WHERE c IS NULL, revert: UPDATE t SET c = NULL WHERE id > 0}]
monitors: [{id: full, check: rows, table: t, where: c IS NULL, exactly: 0, every: 1 s, takes_at_most: 500 ms}]
"""


@contextlib.contextmanager
def _cron(crontab: Path) -> Iterator[None]:
    """A cron daemon that has this file for root's crontab; skips the test where none can be started."""
    if shutil.which("cron") is None or os.geteuid() != 0:
        pytest.skip("needs Debian's cron, and root")
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ALONE, "sh", str(crontab)]
    with subprocess.Popen(words, start_new_session=True) as daemon:
        try:
            if _ended(daemon) == 77:
                pytest.skip("this machine gives no mounts of its own")
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGTERM)


def _ended(daemon: subprocess.Popen[bytes]) -> int | None:
    """Wait until the daemon is cron itself, or has ended with this code."""

    def settled() -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{daemon.pid}/comm").read_text() == "cron\n" or daemon.poll() is not None
        return daemon.poll() is not None

    until(settled)
    return daemon.poll()


def _seen(desk: Cli, run: str) -> int:
    done = desk.runbook("monitor", "history", run, "full", "--json")
    assert done.code == 0, done.text
    return len(json.loads(done.out)["full"]["observations"])


@kind
def test_cron_job_is_good_yaml(desk: Cli):
    job = yaml.safe_load(_units(desk, "--image", "registry.example/runbook:1")[".yaml"])
    assert (job["kind"], job["apiVersion"]) == ("CronJob", "batch/v1")
    assert job["spec"]["schedule"] == "*/15 * * * *"
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/runbook:1"
    assert container["args"][:2] == ["monitor", "once"]
    assert desk.target in container["args"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])


def test_each_target_has_a_name_of_its_own():
    """Else the files of one target would replace those of another one, whose monitors nobody asks any more."""
    targets = ["production", "Production", "postgresql://db1/app", "postgresql://db2/app", "app", "/a/app", "/", *LONG]
    names = [units.Call(target, Path("runs"), Path("/"), 15, "runbook").name for target in targets]
    assert len(set(names)) == len(names), names
    assert names[0] == "runbook-monitor-production"
    assert [name for name in names if len(name) > 52 or not re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)] == []


LONG = [f"{'a-very-long-name-of-a-database-server' * 3}{end}" for end in "ab"]


@kind
def test_interval_that_cron_cannot_say_is_refused(desk: Cli):
    for every in ("7 min", "2 h", "10 s", "often"):
        done = desk.runbook("monitor", "units", "--every", every)
        assert done.code == 2, (every, done.text)
    assert "divides an hour" in done.err or "time span" in done.err
