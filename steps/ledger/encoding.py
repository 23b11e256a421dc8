"""Texts that the database's encoding can't store, such as an ellipsis of ours in LATIN1: escaped, they are recorded all the same."""

from __future__ import annotations

import codecs
import re

from steps.contract import Look
from steps.contract.dialect import Dialect


def stored(look: Look, text: str) -> str:
    """The text as this database can store it."""
    if text.isascii() or look.dialect is Dialect.SQLITE:
        return text
    return writable(text, look.row("SELECT current_setting('server_encoding') AS name").text("name"))


def writable(text: str, encoding: str) -> str:
    """Escape characters that the database's encoding lacks, as JSON does: `\\u0141`."""
    if encoding in {"UTF8", "SQL_ASCII"} or text.isascii():
        return text
    codec = _codec(encoding)
    return "".join(sign if _fits(sign, codec) else _escaped(sign) for sign in text)


def _codec(encoding: str) -> str:
    """Python's name of a server encoding; ASCII, a subset of them all, if Python doesn't know it."""
    name = f"cp{encoding[3:]}" if encoding.startswith("WIN") else encoding.replace("KOI8", "KOI8_")
    try:
        return codecs.lookup(name.replace("_", "-")).name
    except LookupError:
        return "ascii"


def _fits(sign: str, codec: str) -> bool:
    try:
        sign.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(sign: str) -> str:
    pairs = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pairs[n]:02x}{pairs[n + 1]:02x}" for n in range(0, len(pairs), 2))


def readable(text: str) -> str:
    """Undo `writable`; for comparing texts of the ledger with those of a trail."""
    return re.sub(r"(?:\\u[0-9a-f]{4})+", _unescaped, text)


def _unescaped(found: re.Match[str]) -> str:
    pairs = bytes.fromhex(found[0].replace("\\u", ""))
    return pairs.decode("utf-16-be", "surrogatepass")
