"""The author's guide names what there is."""

from __future__ import annotations

import authors_guide

from runner.checks import GUARD, OWN
from runner.load import COMMON, HEADER
from runner.model import GuardAction


def test_generated_part_is_in_step() -> None:
    """When this fails: ./dev docs."""
    page = authors_guide.GUIDE.read_text(encoding="utf-8")
    assert page == authors_guide.with_generated(page)


def test_every_common_key_is_explained() -> None:
    page = authors_guide.GUIDE.read_text(encoding="utf-8")
    words = HEADER | COMMON | OWN | set(GUARD) | set(GuardAction)
    assert [word for word in sorted(words) if f"`{word}" not in page] == []


def test_every_shared_key_is_named() -> None:
    from runner.load import SHARED

    page = authors_guide.GUIDE.read_text(encoding="utf-8")
    told = page.partition("takes in the keys of another file")[2].partition(".\n")[0] + "`runbook`"
    assert [word for word in sorted(SHARED) if f"`{word}`" not in told] == []
