"""The file of --log: what a command tells its operator, each line with its time, and without a terminal's control codes."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

from runner.common import private_files


class LogFile(io.TextIOWrapper):
    """A text file to which whole lines are appended, each after its time in UTC."""

    def __init__(self, path: Path) -> None:
        private_files.make_directory(path.absolute().parent)
        raw = private_files.open_to_append(path, create=True)
        super().__init__(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
        super().write("".join(f"{now} {line}" if line.strip() else line for line in text.splitlines(keepends=True)))
        return len(text)
