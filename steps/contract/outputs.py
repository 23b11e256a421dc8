"""Records the whole output of a child process while it runs: masked, bounded, with the first line that tells of an error."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from steps.contract import cutting

LIMIT = (
    64 * 1024 * 1024
)  # bytes of a file; what comes later is only counted, and its end is kept in memory by the reader
SHOWN = 500  # characters of the line that tells of an error
_TRACEBACK = "Traceback (most recent call last)"
# Not the lines of a traceback that show source code: the exception that it names comes after them.
_ERROR = re.compile(
    r"^(?!\s+(?:raise\b|File\b|at\b)).*?(?:\b(?:ERROR|FATAL|PANIC|CRITICAL)\b|\b[A-Z]\w*(?:Error|Exception|Fault)\b(?=:|\s|$)"
    r"|\b[Ee]rror:|\b[Ff]atal:|\bpanic:|\bSQLSTATE\b)"
)


class Recorder:
    """Takes one stream of a child piece by piece. path: the file that it is written to; None: only the error is looked for.

    What may be the beginning of a secret is held back until it is whole, since no mask recognises half a secret.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.first_error = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held, self._line = "", ""
        self._in_traceback = False
        self._written = self._left_out = 0
        self._file = None if path is None else _opened(path)

    def take(self, chunk: bytes) -> None:
        self._held = cutting.masked(self._held + self._decoder.decode(chunk))
        if len(self._held) > 2 * cutting.EDGE:
            ready, self._held = self._held[: -cutting.EDGE], self._held[-cutting.EDGE :]
            self._pass_on(ready)

    def close(self) -> None:
        """Nothing more comes."""
        self._pass_on(cutting.masked(self._held + self._decoder.decode(b"", final=True)))
        self._look_at(self._line)
        self._held = self._line = ""
        if self._left_out:
            self._write(f"\n{cutting.MARK} ({self._left_out:,} bytes left out)\n".encode())
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _pass_on(self, text: str) -> None:
        data = text.encode(errors="replace")
        room = max(LIMIT - self._written, 0)
        self._left_out += max(len(data) - room, 0)
        self._write(data[:room])
        self._written += len(data[:room])
        if not self.first_error:
            *lines, self._line = (self._line + text).split("\n")
            self._line = self._line[:LIMIT]
            for line in lines:
                self._look_at(line)

    def _write(self, data: bytes) -> None:
        try:
            while self._file is not None and data:
                data = data[os.write(self._file, data) :]
        except OSError:  # a full disk: the program goes on, and the end of its output is in memory
            self._left_out += len(data)
            self._written = LIMIT

    def _look_at(self, line: str) -> None:
        if self.first_error or not line.strip():
            return
        if line.startswith(_TRACEBACK):
            self._in_traceback = True
        elif self._in_traceback:
            named = not line[:1].isspace()  # the exception, by whatever name
            self._found(line if named else "")
            self._in_traceback = not named
        elif _ERROR.search(line[: 4 * SHOWN]):
            self._found(line)

    def _found(self, line: str) -> None:
        self.first_error = cutting.shortened(line.strip(), SHOWN)


def _opened(path: Path) -> int | None:
    """None where no file can be made: the program's output is worth less than the program, and its end is in memory.

    That the run's own folder has gone is said by the trail, at the next record.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError:
        return None
