"""The generated parts of the documentation are as the product has them, and leave nothing out."""

from __future__ import annotations

import json
from typing import get_args

import generated_docs
import pytest
from documents import ROOT, Page

from runner.playbook.check_builder import GUARD, OWN
from runner.playbook.load import COMMON, HEADER, SHARED
from runner.playbook.model import GuardAction
from runner.review import pages
from runner.trail import events, trail

AUTHORS = (ROOT / "docs/authors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", generated_docs.PARTS)
def test_generated_part_is_in_step(name: str) -> None:
    """When this fails: ./dev generate."""
    assert (ROOT / name).read_text(encoding="utf-8") == generated_docs.with_generated(name)


def test_each_rule_of_lint_has_its_page() -> None:
    """When this fails: ./dev generate, and remove the page of a rule that is gone."""
    wanted = pages.documentation()
    there = {f"docs/lint/{path.name}" for path in (ROOT / "docs/lint").glob("RB*.md")}
    assert there == set(wanted)
    assert [name for name, text in wanted.items() if (ROOT / name).read_text(encoding="utf-8") != text] == []


def test_every_common_key_is_explained() -> None:
    words = HEADER | COMMON | OWN | set(GUARD) | set(GuardAction)
    assert [word for word in sorted(words) if f"`{word}" not in AUTHORS and f"{word} \\|" not in AUTHORS] == []


def test_every_shared_key_is_named() -> None:
    told = AUTHORS.partition("takes in the keys of another file")[2].partition(".\n")[0] + "`runbook`"
    assert [word for word in sorted(SHARED) if f"`{word}`" not in told] == []


def test_every_event_has_an_example() -> None:
    shown = [type(one) for one in generated_docs.trail_examples()]
    assert len(shown) == len(set(shown))
    assert set(shown) == set(get_args(events.Event))


def test_line_that_is_shown_is_a_whole_record() -> None:
    """Somebody who tries the hash by hand finds it."""
    shown = next(fence.text for fence in Page.read(ROOT / "docs/trail-format.md").fences if fence.language == "json")
    record = json.loads(shown)
    found = trail.check(shown.encode(), head=record["prev"], length=record["n"] - 1)
    assert (found.records, found.fault) == (1, "")
