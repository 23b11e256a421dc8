"""The one place that prints: in any encoding, on any width, to a reader who may have gone, and nothing that steers a terminal."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO, cast

from runner.common.markdown import safe

LABEL = 11  # columns of what stands before a line at a stop
NARROW = 40  # columns; where the terminal has fewer, lines are broken by it
_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"]|['"])+""")  # of a shell's command
STANDARD_OUTPUT = "standard output"
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.EBADF})  # whoever read along, or the terminal itself
_HANDLER, _ASCII = "runbook_plain", "runbook_ascii"
_INSTEAD = {
    "✓": "+", "✗": "x", "→": "->", "←": "<-", "↩": "<-", "↻": "~", "⏳": "...", "⏸": "||", "■": "#", "▶": ">", "⚙": "*",
    "…": "...", "·": "-", "–": "-", "—": "--", "─": "-", "│": "|", "≥": ">=", "≤": "<=", "≠": "!=", "×": "x",
    "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


# ─── once, at the start ─────────────────────────────────────────────────────────────────────────────────────────────
def prepare() -> None:
    """Make standard output and error take any text; what was closed is the null device.

    A closed descriptor must be filled before anything opens a file: the database would get its number, and whatever
    a child prints would be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdin is None:  # closed when Python began: whoever asks whether it is a terminal gets an answer
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.stdout = _any_text(sys.stdout, 1)
    sys.stderr = _any_text(sys.stderr, 2)


def _any_text(stream: TextIO | None, number: int) -> TextIO:
    codecs.register_error(_HANDLER, _otherwise)
    try:
        codecs.lookup(_ASCII)
    except LookupError:
        codecs.register(lambda name: _ascii() if name == _ASCII else None)
    if stream is None:
        return os.fdopen(number, "w", encoding="utf-8", errors=_HANDLER, closefd=False)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        ascii_only = codecs.lookup(stream.encoding or "ascii").name == "ascii"
        reconfigure(encoding=_ASCII if ascii_only else None, errors=_HANDLER)
    return stream


def _ascii() -> codecs.CodecInfo:
    """ASCII under a name of ours: click takes a stream that says it is ASCII for one set up wrongly, and writes UTF-8."""
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        known.streamreader,
        known.streamwriter,
        known.incrementalencoder,
        known.incrementaldecoder,
        name=_ASCII,
    )


def _otherwise(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks, in ASCII: our own signs by what looks like them, all else by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(
        _INSTEAD.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking
    ), error.end


def typed(words: Sequence[str]) -> list[str]:
    """Arguments as text: bytes that are no UTF-8 are shown as what they are, unless they name a file."""
    return [word if word.isprintable() or os.path.lexists(word) else _text(word) for word in words]


def _text(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.fsencode(word).decode("utf-8", "backslashreplace")
    return word


# ─── what the terminal can do ───────────────────────────────────────────────────────────────────────────────────────
def moves(out: TextIO) -> bool:
    """Whether a line can be written over."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def coloured(out: TextIO) -> bool:
    """Whether colours are seen, and wanted (https://no-color.org)."""
    return moves(out) and not os.environ.get("NO_COLOR")


def painted(text: str, colour: str, out: TextIO) -> str:
    """In this colour, where there are any."""
    import click

    return click.style(text, fg=colour) if colour and coloured(out) else text


def columns() -> int:
    """The terminal's width."""
    import shutil

    return max(shutil.get_terminal_size().columns, NARROW)


def fitted(text: str, *, hang: int = 6) -> str:
    """Long lines broken between words, with the rest indented; a path or a figure is never cut."""
    width = columns() - 1
    return "\n".join(_broken(line, width, hang) if len(line) > width else line for line in text.split("\n"))


def _broken(line: str, width: int, hang: int) -> str:
    return "\n".join(
        textwrap.wrap(line, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
    )


# ─── printing ───────────────────────────────────────────────────────────────────────────────────────────────────────
def say(text: str = "", *, colour: str = "", mark: str = "", hang: int = 6, out: TextIO | None = None) -> None:
    """One line for people; broken between words where the terminal is narrower.

    Whatever text came from a playbook, a database or a person steers nothing and is no second line. mark: the sign in
    the text that alone has the colour.
    """
    out = out or sys.stdout
    spoken(out, dressed(text, colour=colour, mark=mark, hang=hang, out=out) + "\n")


def dressed(text: str, *, out: TextIO, colour: str = "", mark: str = "", hang: int = 6) -> str:
    """A line as `say` writes it."""
    text = safe(text)
    if out.isatty():
        text = fitted(text, hang=hang)
    if mark:
        return text.replace(mark, painted(mark, colour, out), 1)
    return "\n".join(painted(line, colour, out) for line in text.split("\n"))


def warn(text: str = "", *, hang: int = 6, colour: str = "", mark: str = "") -> None:
    """The same, to standard error."""
    say(text, colour=colour, mark=mark, hang=hang, out=sys.stderr)


def labelled(label: str, text: str, *, out: TextIO | None = None) -> None:
    """`label      text`, as all that stands at a stop is written."""
    first, *rest = text.split("\n")
    for number, line in enumerate([first, *(one for one in rest if one.strip())]):
        words = f"{label if number == 0 else '':<{LABEL}}{line}"
        if line.startswith("runbook ") and (out or sys.stdout).isatty():
            _command(words, out=out or sys.stdout)
        else:
            say(words, hang=LABEL, out=out)


def _command(words: str, *, out: TextIO) -> None:
    """A command that can be copied from a terminal of any width: broken as a shell breaks lines."""
    label, room = safe(words)[:LABEL], columns() - 3
    lines = [label]
    for word in _WORD.findall(safe(words)[LABEL:]):
        if len(lines[-1]) > LABEL and len(lines[-1]) + 1 + len(word) > room:
            lines.append(" " * LABEL)
        lines[-1] += word if len(lines[-1]) <= LABEL else f" {word}"
    for number, line in enumerate(lines, start=1):
        spoken(out, f"{line} \\\n" if number < len(lines) else f"{line}\n")


def spoken(out: TextIO, text: str) -> None:
    """Write for whoever reads along; when they have gone (a closed terminal, `| head`) the run goes on, and the trail has it all."""
    try:
        out.write(text)
        out.flush()
    except OSError:
        _to_nobody(out)


def hand_over(text: str) -> None:
    """Write a document: a reader who has gone has seen enough; a full disk is a failure, for the document is what was wanted."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _to_nobody(sys.stdout)
        if error.errno not in _GONE:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


def machine_text(text: str) -> str:
    """JSON without signs that steer a terminal or turn the direction of reading: the same values, written otherwise."""
    return "".join(sign if sign.isprintable() or sign == "\n" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _to_nobody(out: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    with contextlib.suppress(OSError, ValueError):
        out.flush()


def interactive() -> bool:
    """Whether somebody sits there and can answer."""
    return cast("bool", sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty())
