"""The probes disk and memory: whose they measure, or else that they can't say."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from databases import Database
from looking import look_at, probe, role
from plain_look import PlainDatabase, PlainLook
from pydantic import ValidationError

from steps.contract import Row, StepError, Unknown

PAGE = """# HELP node_filesystem_avail_bytes Filesystem space available to non-root users in bytes.
node_filesystem_avail_bytes{device="/dev/sda1",fstype="ext4",mountpoint="/"} 1e+09
node_filesystem_size_bytes{device="/dev/sda1",fstype="ext4",mountpoint="/"} 1e+10
node_filesystem_avail_bytes{device="/dev/sdb",fstype="xfs",mountpoint="/var/lib"} 3.0e+10
node_filesystem_size_bytes{device="/dev/sdb",fstype="xfs",mountpoint="/var/lib"} 4.0e+10
node_memory_MemAvailable_bytes 2.5e+09
node_memory_MemTotal_bytes 1e+10
"""
DF = """Filesystem     1024-blocks      Used Available Capacity Mounted on
/dev/sdb         103081248  51540624  25770312      67% /var/lib/postgresql
"""


@contextlib.contextmanager
def exporter(page: str) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def database(databases) -> Database:
    with databases.kind("sqlite").database() as one:
        yield one


def test_server_here_is_measured_here(empty_database: Database):
    """The server's own backend is a process of this machine: then its directory is on our disks."""
    seen = look_at(empty_database, probe("disk", host="database"))
    assert 0 <= seen.free_pct <= 100
    assert seen.host == "database (here)"
    folder = Path(empty_database.name).parent if empty_database.dialect == "sqlite" else empty_database.server.data
    assert Path(seen.path).samefile(folder)
    assert look_at(empty_database, probe("memory", host="database")).host == "database (here)"


class Elsewhere(PlainLook):
    """A real look whose backend's start is an hour off: as seen when the pid belongs to another machine."""

    def row(self, sql: str, params=None) -> Row:
        row = super().row(sql, params or {})
        return Row({**row, "started": row["started"] - 3600}) if "backend_start" in sql else row


def test_server_elsewhere_is_unknown(empty_pg: Database):
    """T: 20, F: K02 - `df` on the operator's host says nothing of the database's; an address behind a tunnel lies."""
    with PlainDatabase(empty_pg).look() as look:
        far = Elsewhere(look.database, look.connection, reading=True)
        for kind in ("disk", "memory"):
            with pytest.raises(Unknown, match=r"does not run on this machine.*give `command`"):
                probe(kind, host="database").observe(far)


def test_local_df_about_another_host_is_refused():
    """T: 20"""
    with pytest.raises(ValidationError, match=r"it measures the runner's"):
        probe("disk", host="database", command=["/bin/df", "-P", "/var/lib/postgresql"])


def test_hidden_data_directory_needs_no_wrong_answer(empty_pg: Database):
    """A plain role sees no data_directory: either the process table tells it, or the grant is named."""
    with role(empty_pg) as user:
        try:
            seen = look_at(empty_pg, probe("disk", host="database"), user=user)
        except Unknown as unknown:
            assert "pg_read_all_settings" in str(unknown)
        else:
            assert Path(seen.path).samefile(empty_pg.server.data)


def test_disk_of_the_runner(database: Database, tmp_path: Path):
    seen = look_at(database, probe("disk", host="runner", path=str(tmp_path)))
    assert (seen.host, seen.path) == ("runner", str(tmp_path))
    assert seen.total_bytes >= seen.free_bytes > 0
    with pytest.raises(StepError, match=r"cannot measure"):
        look_at(database, probe("disk", host="runner", path=str(tmp_path / "none")))


def test_disk_by_command(database: Database, tmp_path: Path):
    """A `df -P` of the other host, or a bare percentage; the result says that a command told it."""
    (tmp_path / "df.txt").write_text(DF)
    seen = look_at(database, probe("disk", host="database", command=["cat", str(tmp_path / "df.txt")]))
    assert (seen.free_pct, seen.free_bytes) == (25.0, 25770312 * 1024)
    assert seen.path == "/var/lib/postgresql"
    assert seen.host.startswith("command cat ")
    assert look_at(database, probe("disk", host="database", command=["echo", "42.5%"])).free_pct == 42.5
    assert look_at(database, probe("memory", host="database", command=["echo", "81"])).used_pct == 81


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["false"], "exit code 1"),
        (["echo", "lots"], "expected a percentage"),
        (["echo", "250"], "between 0 and 100"),
        (["echo", "nan"], "between 0 and 100"),
        (["true"], "expected a percentage"),
    ],
)
def test_command_that_says_nothing_is_an_error(database: Database, argv: list[str], why: str):
    with pytest.raises(StepError, match=why):
        look_at(database, probe("disk", host="database", command=argv))


def test_node_exporter(database: Database):
    with exporter(PAGE) as url:
        disk = look_at(database, probe("disk", host="database", url=url, path="/var/lib/postgresql"))
        root = look_at(database, probe("disk", host="database", url=url, path="/home"))
        memory = look_at(database, probe("memory", host="database", url=url))
        with pytest.raises(Unknown, match=r"give `path`"):
            look_at(database, probe("disk", host="database", url=url))
    assert (disk.free_pct, disk.path, disk.host) == (75.0, "/var/lib", url)
    assert (root.free_pct, root.path) == (10.0, "/")
    assert (memory.used_pct, memory.available_bytes) == (75.0, 2_500_000_000)


def test_node_exporter_without_the_figures_is_unknown(database: Database):
    with exporter("up 1\n") as url:
        for one in (probe("memory", host="database", url=url), probe("disk", host="database", url=url, path="/")):
            with pytest.raises(Unknown):
                look_at(database, one)


def test_node_exporter_that_is_down_is_an_error(database: Database):
    with pytest.raises(StepError, match=r"does not answer"):
        look_at(database, probe("memory", host="database", url="http://127.0.0.1:9/metrics"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://user:secret-word@host/metrics"])
def test_urls_are_plain_addresses(url: str):
    """F: K01"""
    with pytest.raises(ValidationError) as refused:
        probe("memory", host="database", url=url)
    assert "secret-word" not in str(refused.value.errors(include_input=False, include_context=False))


def test_server_memory_is_that_of_its_processes(empty_pg: Database):
    seen = look_at(empty_pg, probe("server_memory"))
    assert seen.processes > 3
    assert 1 << 20 < seen.used_bytes < seen.total_bytes
    assert 0 < seen.used_pct < 100


def test_server_memory_of_another_host_is_unknown(empty_pg: Database):
    with PlainDatabase(empty_pg).look() as look:
        far = Elsewhere(look.database, look.connection, reading=True)
        with pytest.raises(Unknown, match="does not run on this machine"):
            probe("server_memory").observe(far)
