"""The run's own connections to a server, for tests of sessions and networks."""

from __future__ import annotations

import contextlib

import psycopg

from runner.target.database import RunDatabase
from runner.target.resolve import ConnectArguments


def opened(url: str) -> contextlib.closing[RunDatabase]:
    words = {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(url).items()}
    return contextlib.closing(RunDatabase(ConnectArguments(url=url, dialect="postgresql", libpq=words)))
