"""Behind a real pgbouncer in transaction mode: what fits in a transaction works, what doesn't is refused in words."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Cli
from databases import Database, Databases
from filling import at_work, fill_stock, proves_all, stock

RENAME = """
runbook: 1
name: rename
title: Rename a column, twice as many statements as connections
steps:
  - {id: rename, type: rename_column, column: session_summaries.snapshot_ip_types, to: renamed}
  - {id: mark, type: sql, statements: ["UPDATE schema_state SET value = '17' WHERE key = 'schema_version'"],
     revert: ["UPDATE schema_state SET value = '16' WHERE key = 'schema_version'"]}
success_criteria:
  - {id: renamed, check: columns, table: session_summaries, has: [renamed]}
rollback: reverse
"""
INDEX = """
runbook: 1
name: build
title: An index, which is built outside of a transaction
steps:
  - {id: build, type: create_index, table: session_summaries, columns: [matcher]}
"""
CONFIG = """[databases]
* = host={socket} port=5432 user=owner
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 3
ignore_startup_parameters = extra_float_digits
"""


@pytest.fixture
def pooled(databases: Databases) -> Iterator[tuple[str, Database]]:
    """(url through the pooler, the database itself): a fresh honeypot."""
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not on this machine")
    directory = databases.directory / "pooler"
    directory.mkdir(exist_ok=True)
    with databases.kind("pg18").database("documented") as database:
        config = directory / "pgbouncer.ini"
        config.write_text(CONFIG.format(socket=database.server.socket, directory=directory))
        nobody = {"user": 65534, "group": 65534} if os.getuid() == 0 else {}
        if nobody:  # it refuses to run as root, and needs to pass through the folders above
            for path in (directory, database.server.socket, *database.server.socket.parents, *directory.parents):
                if path.is_relative_to(databases.directory):
                    path.chmod(0o777)
        process = subprocess.Popen(
            ["pgbouncer", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **nobody
        )
        try:
            for _ in range(100):
                if (directory / ".s.PGSQL.6432").exists():
                    break
                time.sleep(0.05)
            name = database.url.rpartition("@/")[2].partition("?")[0]
            yield f"postgresql://owner@/{name}?host={directory}&port=6432", database
        finally:
            process.terminate()
            process.wait()


def test_pooler_transaction_mode(pooled: tuple[str, Database], tmp_path: Path) -> None:
    """SET LOCAL only and no prepared statement: a run and its way back work; CONCURRENTLY is refused. F: C10"""
    through, _ = pooled
    desk = Cli(tmp_path, through)
    done = desk.runbook("exec", desk.playbook("rename", RENAME))
    assert done.code == 0, done.text
    assert desk.runbook("rollback", "latest").code == 0
    refused = desk.runbook("exec", desk.playbook("build", INDEX))
    assert refused.code == 1, refused.text
    assert "connection pooler" in refused.text


def test_backfill_through_a_pooler_goes_batch_by_batch(pooled: tuple[str, Database], tmp_path: Path) -> None:
    """Who doesn't know which server process works for it sends no message that the process may outlive it with. F: C10"""
    through, database = pooled
    stock(database, rows=2000)
    desk = Cli(tmp_path, through)
    desk.playbook("fill", fill_stock(more="    throttle: {traffic: 0, batch: 10 ms, rest: 0}\n"))
    assert desk.runbook("target", "init").code == 0
    # all transactions of a message begin when it comes
    database.script("ALTER TABLE runbook.batch ADD COLUMN message timestamptz DEFAULT now()")
    with at_work(database, key=1000):
        time.sleep(0.3)  # until it is seen
        done = desk.runbook("exec", "fill.yaml")
    assert done.code == 0, done.text
    assert database.value("SELECT count(*) FROM runbook.batch") > 20  # alone it takes few: it saw that others work
    assert database.rows("SELECT message FROM runbook.batch GROUP BY message HAVING count(*) > 1") == []
    proves_all(desk, database, rows=2000)
