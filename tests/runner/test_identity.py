"""One server is one target, however its name is spelled; a copy is another, however alike it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import Databases, kind_or_skip
from inside import InProcessCli

from runner.playbook import digest
from runner.sandbox.server import Server
from runner.target import identity

GATE = """runbook: 1
name: gated
title: A change and a gate
steps:
  - {id: mark, type: sql, text: UPDATE marks SET n = 1, whole_table: true, revert: UPDATE marks SET n = NULL}
  - {id: gate, type: checkpoint, approval: {need: 1}}
success_criteria:
  - {id: marked, check: query, query: SELECT count(*) AS n FROM marks WHERE n = 1, that: n == 2}
"""
TABLE = "CREATE TABLE marks (id int PRIMARY KEY, n int); INSERT INTO marks VALUES (1), (2)"


@pytest.fixture
def server(databases: Databases, fast_path: Path) -> Iterator[Server]:
    kind_or_skip(databases, "pg18")
    made = Server(fast_path / "one", major=18, settings={"fsync": "off"})
    made.start()
    yield made
    made.discard()


def test_same_server_by_another_name_goes_on(server: Server, tmp_path: Path) -> None:
    """A link to the socket's directory, a name of targets.yaml, another role: after a restart too."""
    import psycopg

    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(TABLE)
        connection.execute("CREATE ROLE second SUPERUSER LOGIN")
    desk = InProcessCli(tmp_path, server.url())
    desk.playbook("gated", GATE)
    assert desk.runbook("exec", "gated.yaml").code == 5
    (tmp_path / "link").symlink_to(server.socket)
    other = f"postgresql://second@/postgres?host={tmp_path}/link"
    (tmp_path / "targets.yaml").write_text(f"targets:\n  again:\n    url: {other}\n")
    approve = ("approve", "latest", "--as", "ada", "--reason", "seen")
    assert desk.runbook(*approve).code == 0
    server.restart()
    done = desk.runbook("resume", "latest", "--target", "again")
    assert done.code == 0, done.text


def test_copy_of_the_files_is_another_target(server: Server, tmp_path: Path, fast_path: Path) -> None:
    """The same system identifier, timeline and database, on the same machine and port, from another directory."""
    import psycopg

    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(TABLE)
    desk = InProcessCli(tmp_path, server.url())
    desk.playbook("gated", GATE)
    assert desk.runbook("exec", "gated.yaml").code == 5
    server.stop()
    copied = Server(fast_path / "two", major=18, settings={"fsync": "off"})
    (fast_path / "two").mkdir()
    shutil.copytree(server.data, fast_path / "two/data", dirs_exist_ok=True)
    shutil.copy(server.directory / "version", fast_path / "two") if (server.directory / "version").exists() else None
    for path in (fast_path / "two").rglob("*"):
        copied.account.own(path)
    copied.account.own(fast_path / "two")
    server.start()
    copied.start()
    try:
        refused = desk.runbook("resume", "latest", "--target", copied.url())
        assert refused.code == 6, refused.text
        assert "a copy or a failover" in refused.text
    finally:
        copied.discard()


def one(**other: object) -> dict:
    known = {
        "dialect": "postgresql", "system": "7", "timeline": 1, "database_oid": 5, "database": "app", "standby": False,
        "schema": "public", "name": "a", "host": "db", "address": "10.0.0.5", "port": 5432, "dialed": "10.0.0.5:5432",
        "server": "10.0.0.5:5432", "up_since": "1.5",
    }  # fmt: skip
    return {**known, **other}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"name": "b", "host": "db.example.com", "user": "eve"}, True),
        ({"server": "db:/run/postgresql:5432", "dialed": "/run/postgresql:5432", "address": ""}, True),  # not restarted
        (
            {"server": "db:/run/postgresql:5432", "dialed": "/run/postgresql:5432", "address": "", "up_since": "2"},
            False,
        ),
        ({"up_since": "2"}, True),  # restarted, in its place
        (
            {"server": "10.0.0.6:5432", "dialed": "10.0.0.6:5432", "address": "10.0.0.6", "up_since": "2"},
            False,
        ),  # a copy
        (
            {"server": "", "dialed": "10.0.0.9:6432", "host": "tunnel", "up_since": "2"},
            False,
        ),  # who knows what is behind it
        ({"timeline": 2}, False),
        ({"system": "8"}, False),
        ({"database_oid": 6}, False),
        ({"standby": True}, False),
    ],
)
def test_what_makes_two_identities_one(other: dict, same: bool) -> None:
    assert (identity.differences(one(), one(**other)) == []) is same


def test_trail_from_before_the_place_was_kept() -> None:
    """It had how the server was reached: the same way is the same server."""
    old = one()
    for key in ("server", "dialed", "up_since"):
        del old[key]
    assert identity.differences(old, one()) == []
    assert identity.differences(old, one(host="else", address="10.0.0.6")) != []


def test_approval_is_for_the_database_and_not_for_its_name() -> None:
    def bound(**other: object) -> str:
        return digest.for_approval("p", inputs={}, identity=one(**other))

    assert bound() == bound(name="b", host="other", user="eve", up_since="9")
    assert bound() != bound(server="10.0.0.6:5432")
    assert bound() != bound(timeline=2)
