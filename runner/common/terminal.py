"""The only module that prints: handles any encoding and width, readers that went away, and control characters."""

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

LABEL = 11  # width of the label column of a stop message
NARROW = 40  # minimum width to wrap for; a narrower terminal breaks the lines itself
_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"]|['"])+""")  # one word of a shell command
STANDARD_OUTPUT = "standard output"
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.EBADF})  # the reader, or the terminal, went away
_HANDLER, _ASCII = "runbook_plain", "runbook_ascii"
_INSTEAD = {
    "✓": "+", "✗": "x", "→": "->", "←": "<-", "↩": "<-", "↻": "~", "⏳": "...", "⏸": "||", "■": "#", "▶": ">", "⚙": "*",
    "…": "...", "·": "-", "–": "-", "—": "--", "─": "-", "│": "|", "≥": ">=", "≤": "<=", "≠": "!=", "×": "x",
    "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


_logs: list[TextIO] = []  # the file of --log, if there is one


# ─── once, at the start ─────────────────────────────────────────────────────────────────────────────────────────────
def prepare() -> None:
    """Make standard output and error accept any text; replace closed standard streams by the null device.

    Call it before anything opens a file: a closed descriptor would be reused (by a database file, say), and what a
    child process prints would be written into that file.
    """
    _logs.clear()
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdin is None:  # closed when Python started; callers ask it whether it is a terminal
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
    """ASCII under another name: click assumes that an "ascii" stream is misconfigured, and would write UTF-8 to it."""
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
    """Codec error handler: replace our own symbols by similar ASCII text, everything else by an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(
        _INSTEAD.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking
    ), error.end


def typed(words: Sequence[str]) -> list[str]:
    """Command line arguments as text: bytes that are not UTF-8 are escaped, unless they name an existing file."""
    return [word if word.isprintable() or os.path.lexists(word) else _text(word) for word in words]


def _text(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError:
        return os.fsencode(word).decode("utf-8", "backslashreplace")
    return word


# ─── what the terminal can do ───────────────────────────────────────────────────────────────────────────────────────
def moves(out: TextIO) -> bool:
    """Whether a line can be overwritten."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def coloured(out: TextIO) -> bool:
    """Whether colours are supported, and not switched off (https://no-color.org)."""
    return moves(out) and not os.environ.get("NO_COLOR")


def painted(text: str, colour: str, out: TextIO) -> str:
    """The text in this colour, if the stream shows colours."""
    import click

    return click.style(text, fg=colour) if colour and coloured(out) else text


def columns() -> int:
    """The terminal's width, at least NARROW."""
    import shutil

    return max(shutil.get_terminal_size().columns, NARROW)


def fitted(text: str, *, hang: int = 6) -> str:
    """Wrap long lines between words with a hanging indent; words (paths, figures) are never split."""
    width = columns() - 1
    return "\n".join(_broken(line, width, hang) if len(line) > width else line for line in text.split("\n"))


def _broken(line: str, width: int, hang: int) -> str:
    return "\n".join(
        textwrap.wrap(line, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
    )


# ─── printing ───────────────────────────────────────────────────────────────────────────────────────────────────────
def say(text: str = "", *, colour: str = "", mark: str = "", hang: int = 6, out: TextIO | None = None) -> None:
    """Print one line for people, wrapped to the terminal's width.

    The text may come from a playbook, a database or a person: control characters and line breaks in it are escaped.
    mark: colour only this symbol within the text.
    """
    out = out or sys.stdout
    spoken(out, dressed(text, colour=colour, mark=mark, hang=hang, out=out) + "\n")
    _logged(text)


def keep_log(file: TextIO) -> None:
    """From now on also write what is printed for people to this file, unwrapped and without colours."""
    _logs[:] = [file]


def log() -> TextIO | None:
    """The file of --log, for what isn't printed by this module's functions."""
    return _logs[0] if _logs else None


def _logged(text: str) -> None:
    for file in _logs:
        spoken(file, safe(text) + "\n")


def dressed(text: str, *, out: TextIO, colour: str = "", mark: str = "", hang: int = 6) -> str:
    """The line as `say` prints it, without the line break."""
    text = safe(text)
    if out.isatty():
        text = fitted(text, hang=hang)
    if mark:
        return text.replace(mark, painted(mark, colour, out), 1)
    return "\n".join(painted(line, colour, out) for line in text.split("\n"))


def warn(text: str = "", *, hang: int = 6, colour: str = "", mark: str = "") -> None:
    """Print one line like `say`, to standard error."""
    say(text, colour=colour, mark=mark, hang=hang, out=sys.stderr)


def labelled(label: str, text: str, *, out: TextIO | None = None) -> None:
    """Print `label      text`: the layout of stop messages."""
    first, *rest = text.split("\n")
    for number, line in enumerate([first, *(one for one in rest if one.strip())]):
        words = f"{label if number == 0 else '':<{LABEL}}{line}"
        if line.startswith("runbook ") and (out or sys.stdout).isatty():
            _command(words, out=out or sys.stdout)
        else:
            say(words, hang=LABEL, out=out)


def _command(words: str, *, out: TextIO) -> None:
    """Print a command that can be copied from a terminal of any width: wrapped with the shell's `\\`."""
    _logged(words)
    label, room = safe(words)[:LABEL], columns() - 3
    lines = [label]
    for word in _WORD.findall(safe(words)[LABEL:]):
        if len(lines[-1]) > LABEL and len(lines[-1]) + 1 + len(word) > room:
            lines.append(" " * LABEL)
        lines[-1] += word if len(lines[-1]) <= LABEL else f" {word}"
    for number, line in enumerate(lines, start=1):
        spoken(out, f"{line} \\\n" if number < len(lines) else f"{line}\n")


def spoken(out: TextIO, text: str) -> None:
    """Write progress output; if the reader went away (a closed terminal, `| head`) the run continues without it."""
    try:
        out.write(text)
        out.flush()
    except OSError:
        _to_nobody(out)


def hand_over(text: str) -> None:
    """Write a document. A reader that went away is no error; anything else (a full disk) raises OSError."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _to_nobody(sys.stdout)
        if error.errno not in _GONE:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


def machine_text(text: str) -> str:
    """JSON with control and bidirectional characters escaped; its values stay the same."""
    return "".join(sign if sign.isprintable() or sign == "\n" else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def _to_nobody(out: TextIO) -> None:
    # From here on the descriptor is the null device: later writes, and the flush at exit, would fail again.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    with contextlib.suppress(OSError, ValueError):
        out.flush()


def interactive() -> bool:
    """Whether standard input and output are terminals, so that a person can be asked."""
    return cast("bool", sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty())
