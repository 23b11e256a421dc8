"""The recorder of a program's output: the first error, secrets over the edges of pieces, and the limit of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from steps.contract import cutting, outputs
from steps.contract.outputs import Recorder

FIRST = {
    "psql": (
        'BEGIN\npsql:v16.sql:3: ERROR:  no "x"\nERROR: current transaction is aborted\n',
        'psql:v16.sql:3: ERROR:  no "x"',
    ),
    "named_by_its_class": (
        """Traceback (most recent call last):
  File "m.py", line 1, in <module>
    raise ValueError('no')
psycopg.errors.UndefinedColumn: column asn

RuntimeError: later
""",
        "psycopg.errors.UndefinedColumn: column asn",
    ),
    "log": ("INFO all is well, 0 errors\n2026-01-01 ERROR pool is closed\n", "2026-01-01 ERROR pool is closed"),
    "none": ("done, 0 errors, nothing failed\n", ""),
    "no_line_end": ("fatal: not a git repository", "fatal: not a git repository"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIRST)
def test_first_error_found(case: str) -> None:
    text, wanted = FIRST[case]
    recorder = Recorder()
    for letter in text:
        recorder.take(letter.encode())
    recorder.close()
    assert recorder.first_error == wanted


def test_secret_over_the_edges_of_pieces_masked(tmp_path: Path) -> None:
    secret, path = "s3cret-" * 20, tmp_path / "out"
    with cutting.masked_by(lambda text: text.replace(secret, "***")):
        recorder = Recorder(path)
        data = (("x" * 70_001 + secret) * 5).encode()
        for at in range(0, len(data), 997):
            recorder.take(data[at : at + 997])
        recorder.close()
    assert path.read_text() == ("x" * 70_001 + "***") * 5


def test_file_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "LIMIT", 100_000)
    recorder = Recorder(tmp_path / "out")
    for _ in range(10):
        recorder.take(b"z" * 50_000)
    recorder.close()
    text = (tmp_path / "out").read_text()
    assert text.count("z") == 100_000
    assert "400,000 bytes left out" in text


def test_file_that_cannot_be_made_stops_no_program(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "gone" / "out")
    recorder.take(b"Traceback (most recent call last):\nValueError: no\n")
    recorder.close()
    assert recorder.first_error == "ValueError: no"
