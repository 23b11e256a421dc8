"""A server whose clock a test moves: PostgreSQL under libfaketime. The product asks the server for the time, so nothing else moves.

The simulated time must be later than the real one: within a signal handler libfaketime lets the real time through, and a server to
which that is later believes that its timeouts are over.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from runner.sandbox.server import Server

PLACES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/opt/homebrew/lib/faketime/libfaketimeMT.1.dylib",
)


@dataclass(frozen=True)
class FakeClock:
    """A server, and what it takes for the time; the clock goes on at its usual pace."""

    server: Server
    file: Path

    def set(self, moment: datetime) -> None:
        """Move the clock; every process of the server sees it at once."""
        self.file.write_text(f"{moment.timestamp() - time.time():+.3f}s\n")

    def start(self) -> None:
        """Start the server, with its own clock."""
        more = {"LD_PRELOAD": str(library()), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1"}
        before = dict(os.environ)
        os.environ.update(more | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"})
        try:
            self.server.start()
        finally:
            os.environ.clear()
            os.environ.update(before)


def library() -> Path:
    """libfaketime; skips the test where it is missing (apt install faketime)."""
    found = [path for place in PLACES for path in Path("/").glob(place.lstrip("/"))]
    if not found:
        pytest.skip("libfaketime is not on this machine")
    return found[0]


@contextlib.contextmanager
def server_at(directory: Path, moment: datetime, settings: dict[str, str]) -> Iterator[FakeClock]:
    """A running server of version 18 whose clock says `moment`."""
    library()
    file = directory / "clock"
    clock = FakeClock(Server(directory / "server", major=18, settings=settings), file)
    clock.set(moment)
    file.chmod(0o644)
    clock.start()
    try:
        yield clock
    finally:
        clock.server.discard()
