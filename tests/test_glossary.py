"""Persisted words: nothing on the frozen list has changed or gone, and the glossary explains each of them."""

from __future__ import annotations

import json

import persisted_words
import pytest
from documents import ROOT, Page

NOW = persisted_words.derived()
GROUPS = persisted_words.singles(NOW)


def test_no_persisted_word_has_changed_or_gone() -> None:
    """A trail, a ledger or a playbook of an earlier version could no longer be read: this is mended in the code."""
    assert list(persisted_words.lost(persisted_words.frozen(), NOW)) == []


def test_new_words_are_on_the_list() -> None:
    """When this fails: ./dev words, and a line for each in docs/glossary.md."""
    assert list(persisted_words.lost(NOW, persisted_words.frozen())) == []


@pytest.mark.parametrize("group", GROUPS)
def test_glossary_explains_every_word(group: str) -> None:
    told = Page.read(ROOT / "docs/glossary.md").table(group)
    assert sorted(GROUPS[group] - set(told)) == [], "without a line"
    assert sorted(set(told) - GROUPS[group]) == [], "no longer a word"
    assert all(told.values())


def test_change_and_loss_are_seen() -> None:
    old = json.loads(json.dumps(NOW))
    changed = json.loads(json.dumps(NOW))
    changed["ledger"]["run"]["run"] = "bigint"
    del changed["events"]["closed"]
    changed["events"]["new"] = {}
    found = list(persisted_words.lost(old, changed))
    assert found == ["events › closed is gone", "ledger › run › run: text → bigint"]
