"""Shortening texts that may hold a secret: masked first, then cut, since what is left of a cut secret is recognised by nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

MARK = "…"
BESIDE = 64 * 1024  # what is masked beyond the part that is kept: a secret may begin within and end outside of it
EDGE = BESIDE // 2  # what is never kept of it: here a secret may be cut already, and is seen by no masking

Masking = Callable[[str], str]
_masking: list[Masking] = []  # of this process, also for its threads: guards and workers cut too


@contextlib.contextmanager
def masked_by(masking: Masking) -> Iterator[None]:
    """Within this block every text that is cut is masked by this one first."""
    _masking.append(masking)
    try:
        yield
    finally:
        _masking.remove(masking)


def first(text: str, longest: int) -> str:
    """The first characters of a text; one that fits is returned as it is."""
    if len(text) <= longest:
        return text
    seen = masked(text[: longest + BESIDE])
    return (seen if len(text) <= longest + BESIDE else seen[:-EDGE])[:longest]


def last(text: str, longest: int) -> str:
    """The last characters of a text; one that fits is returned as it is."""
    if len(text) <= longest:
        return text
    seen = masked(text[-longest - BESIDE :])
    return (seen if len(text) <= longest + BESIDE else seen[EDGE:])[-longest:]


def shortened(text: str, longest: int) -> str:
    """The text in at most so many characters, ending with … where something was left out."""
    return text if len(text) <= longest else first(text, longest - 1) + MARK


def on_one_line(text: str, longest: int) -> str:
    """The same with all white space drawn together, as statements are shown; that too makes a secret unrecognisable."""
    return shortened(" ".join(masked(text).split()), longest)


def masked(text: str) -> str:
    """The text as it may be written where nobody masks it later: into the ledger."""
    for masking in _masking:
        text = masking(text)
    return text
