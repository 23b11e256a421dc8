"""Makes the runs in tests/support/version2 anew: each one's trail and database, as the version at hand writes them.

    python tests/support/make_version.py FOLDER        (with playbook and tables in it; a PostgreSQL 15 with its pg_dump)

Before the form of a trail or of the ledger changes, make a folder with the version before the change and commit it:
tests/acceptance/test_version_before.py shows that its runs can be gone on with.
"""

from __future__ import annotations

import contextlib
import getpass
import platform
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command import KILLED, Cli
from databases import Cluster, Database, SQLiteFiles
from transplant import chained

BY = ("--operator", "dana")
PG_DUMP = ("--no-owner", "--no-privileges", "--inserts", "--no-comments")
NOISE = re.compile(r"(--.*|\\.*|SET .*|SELECT pg_catalog\.set_config.*)?\n")


def at_gate(desk: Cli, _: Database) -> None:
    """One step is done, and the run waits for an approval."""
    assert desk.runbook("exec", "fill.yaml", *BY).code == 5


def _approve(desk: Cli) -> None:
    done = desk.runbook("approve", "latest", "--as", "ines", "--role", "dba", "--reason", "read it")
    assert done.code == 0, done.text


def killed(desk: Cli, database: Database) -> None:
    """All batches of the backfill had committed but the last, and one row was dead, when the process died."""
    at_gate(desk, database)
    _approve(desk)
    assert desk.runbook("resume", "latest", *BY, fault="commit.before:9").code == KILLED


def succeeded(desk: Cli, database: Database) -> None:
    """The column was there already; one row is dead, and was tried again for nothing."""
    database.script("ALTER TABLE t ADD COLUMN reviewed text")
    at_gate(desk, database)
    _approve(desk)
    for words in (["resume", "latest", *BY], ["resume", "latest", *BY, "--dead", "--reason", "once more"]):
        done = desk.runbook(*words)
        assert done.code == 0, done.text


def half_taken_back(desk: Cli, database: Database) -> None:
    """The process died in the middle of the way back."""
    succeeded(desk, database)
    assert desk.runbook("rollback", "latest", *BY, "--reason", "not wanted", fault="commit.before:4").code == KILLED


RUNS: tuple[Callable[[Cli, Database], None], ...] = (at_gate, killed, succeeded, half_taken_back)
# what says on which machine this was made
HOST = socket.gethostname()
OTHERS = {
    f'"host":"{HOST}"': '"host":"db1"',
    f"'{HOST}'": "'db1'",
    platform.release(): "6.1",
    f'"user":"{getpass.getuser()}"': '"user":"dana"',
}


def dump(database: Database) -> str:
    """All that is in the database, as SQL."""
    if database.dialect == "sqlite":
        with contextlib.closing(sqlite3.connect(database.name)) as connection:
            return "".join(f"{line}\n" for line in connection.iterdump())
    done = subprocess.run(
        ["/usr/lib/postgresql/15/bin/pg_dump", *PG_DUMP, database.url], check=True, capture_output=True, text=True
    )
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not NOISE.fullmatch(line))


def keep(desk: Cli, database: Database, folder: Path) -> None:
    """The run's trail and its database, without the names of this machine."""
    lines, heads = chained(desk.trail.read_text().splitlines(), neutral)
    sql = neutral(dump(database))
    for old, new in heads.items():
        sql = sql.replace(old, new)
    (folder / "trail.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "database.sql").write_text(sql)
    print(folder, len(lines), "records")


def neutral(text: str) -> str:
    for old, new in OTHERS.items():
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def _kinds(folder: Path) -> Iterator[dict[str, Cluster | SQLiteFiles]]:
    (folder / "sqlite").mkdir()
    cluster = Cluster(folder / "pg15", 15)
    try:
        yield {"sqlite": SQLiteFiles(folder / "sqlite"), "postgresql": cluster}
    finally:
        cluster.server.discard()


def main(into: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, _kinds(Path(temporary)) as kinds:
        for dialect, kind in kinds.items():
            for run in RUNS:
                with kind.database() as database:
                    database.script((into / "tables.sql").read_text())
                    home = Path(temporary, dialect, run.__name__)
                    home.mkdir(parents=True)
                    shutil.copy(into / "fill.yaml", home)
                    desk = Cli(home, database.url)
                    run(desk, database)
                    folder = into / dialect / run.__name__
                    folder.mkdir(parents=True, exist_ok=True)
                    keep(desk, database, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
