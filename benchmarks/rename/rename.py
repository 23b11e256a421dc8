"""What Ansible runs as a script and the Chaos Toolkit calls as functions; the database is named by DATABASE."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys


def columns() -> list[str]:
    with contextlib.closing(sqlite3.connect(os.environ["DATABASE"])) as connection:
        return [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]


def one_name() -> bool:
    return ("ip_types" in columns()) != ("ip_type" in columns())


def rename() -> None:
    with contextlib.closing(sqlite3.connect(os.environ["DATABASE"])) as connection:
        connection.execute("ALTER TABLE sessions RENAME COLUMN ip_types TO ip_type")


if __name__ == "__main__":
    if sys.argv[1] == "rename":
        rename()
    else:
        print(*columns(), sep="\n")
