"""Truncating texts that may contain a secret: mask first, then cut, because no mask recognises half a secret."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

MARK = "…"
BESIDE = 64 * 1024  # margin that is masked beyond the kept part: a secret may begin inside it and end outside
EDGE = BESIDE // 2  # outer half of the margin, always dropped: it may end in half a secret, which no mask recognises

Masking = Callable[[str], str]
_masking: list[Masking] = []  # global to the process and not per thread, since guards and workers truncate texts too


@contextlib.contextmanager
def masked_by(masking: Masking) -> Iterator[None]:
    """Within this block every text that is truncated is passed through `masking` first."""
    _masking.append(masking)
    try:
        yield
    finally:
        _masking.remove(masking)


def first(text: str, longest: int) -> str:
    """The first `longest` characters of a text, masked; a text that fits is returned as it is, not masked."""
    if len(text) <= longest:
        return text
    seen = masked(text[: longest + BESIDE])
    return (seen if len(text) <= longest + BESIDE else seen[:-EDGE])[:longest]


def last(text: str, longest: int) -> str:
    """The last `longest` characters of a text, masked; a text that fits is returned as it is, not masked."""
    if len(text) <= longest:
        return text
    seen = masked(text[-longest - BESIDE :])
    return (seen if len(text) <= longest + BESIDE else seen[EDGE:])[-longest:]


def shortened(text: str, longest: int) -> str:
    """The text in at most `longest` characters, ending with … where something was left out."""
    return text if len(text) <= longest else first(text, longest - 1) + MARK


def on_one_line(text: str, longest: int) -> str:
    """The text in at most `longest` characters with its white space collapsed, as statements are shown."""
    # masked before collapsing: a secret with white space in it would not be recognised afterwards
    return shortened(" ".join(masked(text).split()), longest)


def masked(text: str) -> str:
    """The text with all secrets masked, for where nothing masks it later: the ledger."""
    for masking in _masking:
        text = masking(text)
    return text
