"""The live view on a real terminal: what moves stays whole, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from command import RUNBOOK
from databases import Database
from filling import fill_stock, stock

COLUMNS = 80
PART = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\r|\n)|([^\x1b\r\n]+)")
on_one = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)


def on_terminal(words: list[str], *, directory: Path, target: str) -> str:
    """All that the command writes to a terminal of 80 columns; it ends well."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(
        [RUNBOOK, *words], cwd=directory, env={**env, "RUNBOOK_TARGET": target}, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's word for the end
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert process.returncode == 0, written
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines that stand there at the end, by the few orders that we send."""
    lines, row, column = [""], 0, 0
    for number, order, end, text in PART.findall(written):
        if order == "A":
            row -= int(number or 1)
        elif order == "K":
            lines[row] = ""
        elif end == "\r":
            column = 0
        elif end == "\n":
            row += 1
            lines += [""] if row == len(lines) else []
        elif text:
            assert column + len(text) <= COLUMNS or "/" in text  # a path is never broken
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return lines


@on_one
def test_progress_moves_within_its_lines_and_leaves_none(empty_database: Database, tmp_path: Path) -> None:
    stock(empty_database, rows=20_000)
    (tmp_path / "fill.yaml").write_text(fill_stock())
    written = on_terminal(["exec", "fill.yaml"], directory=tmp_path, target=empty_database.url)
    assert len(re.findall(r"fill [\d,]+ of 20,000 rows", written)) > 2
    assert re.search(
        r"/s\s+mean\s[^✓]+\sbatches\s+of\s+25\s+in\s+\d+\s+ms", written
    )  # longer than a line, and not cut off
    there = screen(written)
    assert not any("of 20,000 rows" in line or "batches of" in line for line in there)
    assert [line for line in there if "✓ fill done" in line]
