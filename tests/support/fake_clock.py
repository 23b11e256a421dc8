"""A server whose clock a test moves: PostgreSQL under libfaketime. The product asks the server for the time, so nothing else moves."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    """What the server takes for the time; it goes on at its usual pace."""

    file: Path

    def set(self, moment: datetime) -> None:
        """Move the clock; every process of the server sees it at once."""
        self.file.write_text(f"{moment.timestamp() - time.time():+.3f}s\n")

    def environment(self, library: Path) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(self.file.read_text().strip().rstrip("s")))


def library() -> Path:
    """libfaketime; skips the test where it is missing (apt install faketime)."""
    found = [path for place in PLACES for path in Path("/").glob(place.lstrip("/"))]
    if not found:
        pytest.skip("libfaketime is not on this machine")
    return found[0]


@contextlib.contextmanager
def server_at(directory: Path, moment: datetime, settings: dict[str, str]) -> Iterator[tuple[Server, FakeClock]]:
    """A running server of version 18, and its clock, which says `moment`."""
    there = library()
    directory.mkdir(parents=True, exist_ok=True)
    clock = FakeClock(directory / "clock")
    clock.set(moment)
    clock.file.chmod(0o644)
    server = Server(directory / "server", major=18, settings=settings)
    with _environment(clock.environment(there)):
        server.start()
    try:
        yield server, clock
    finally:
        server.discard()


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
