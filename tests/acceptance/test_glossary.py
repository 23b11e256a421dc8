"""Persisted words: nothing on the frozen list has changed or gone, and the glossary explains each of them."""

from __future__ import annotations

import json

import persisted_words

NOW = persisted_words.derived()


def test_no_persisted_word_has_changed_or_gone() -> None:
    """A trail, a ledger or a playbook of an earlier version could no longer be read: this is mended in the code."""
    assert list(persisted_words.lost(persisted_words.frozen(), NOW)) == []


def test_new_words_are_on_the_list() -> None:
    """When this fails: ./dev generate, and a line for each in docs/glossary.md."""
    assert list(persisted_words.lost(NOW, persisted_words.frozen())) == []


def test_glossary_explains_every_word_and_no_other() -> None:
    assert persisted_words.unexplained(NOW) == []


def test_change_and_loss_are_seen() -> None:
    old = json.loads(json.dumps(NOW))
    changed = json.loads(json.dumps(NOW))
    changed["ledger"]["run"]["run"] = "bigint"
    del changed["events"]["closed"]
    changed["events"]["new"] = {}
    found = list(persisted_words.lost(old, changed))
    assert found == ["events › closed is gone", "ledger › run › run: text → bigint"]
