"""`runbook steps`: every step type and probe can be looked up, with an example that loads."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from command import proven

from runner.common.errors import RunRefused
from runner.format import describe, examples
from runner.playbook.load import from_disk, load
from steps import registry

WORDS = [pytest.param(word, id=f"{word.kind}-{word.group}") for word in describe.words()]


@pytest.mark.parametrize("width", [80, 140])
def test_everything_is_listed_within_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = describe.text(None).splitlines()
    assert max(map(len, lines)) <= width
    listed = {line.split()[0] for line in lines if line and not line.startswith(" ")}
    assert listed >= set(registry.step_types()) | set(registry.probe_types())


@pytest.mark.parametrize("word", WORDS)
def test_a_kind_tells_its_fields_figures_and_an_example(
    word: describe.TypeDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = describe.text(word.kind)
    for field in describe.fields(word):
        assert field.name in text
        assert field.type
    for name in word.figures:
        assert name in text
    assert f"{'type' if word.group == 'step type' else 'check'}: {word.kind}" in text
    before = text.split("\nexample\n")[0]  # an example stands as its author wrote it
    assert max(map(len, before.splitlines())) <= 80


@pytest.mark.parametrize("word", WORDS)
def test_a_made_example_loads(word: describe.TypeDescription) -> None:
    key = "type" if word.group == "step type" else "check"
    item = textwrap.indent(examples.made(word.kind, key, word.model), "  ")
    steps = (
        f"steps:\n{item}\n"
        if key == "type"
        else f"preconditions:\n{item}\nsteps: [{{id: s, type: analyze, table: t}}]\n"
    )
    text = f"runbook: 1\nname: one\ntitle: One\n{steps}"
    assert load("one.yaml", lambda _name: proven(text)).entries


def test_the_smallest_written_example_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "some.yaml").write_text(
        textwrap.dedent("""\
        steps:
          - id: long
            type: vacuum
            table: a_table_with_a_long_name

          - id: short
            type: vacuum

            table: t   # its own
          # of the next one
          - {id: next, type: analyze, table: t}
        """)
    )
    monkeypatch.setattr(examples, "PLAYBOOKS", tmp_path)
    found = examples.of("vacuum", registry.step_types()["vacuum"])
    assert found == "- id: short\n  type: vacuum\n\n  table: t   # its own"


def test_fields_are_told_in_the_formats_words() -> None:
    fields = {
        field.name: field for word in describe.words() if word.kind == "backfill" for field in describe.fields(word)
    }
    assert fields["key"].type == "name or list of names"
    assert fields["source"].type == "query"
    assert fields["source"].required
    assert fields["batch"].type.startswith("{time: time span = 250 ms, rows: [whole number from 1")
    assert fields["undo"].default == "true"


def test_a_mistyped_kind_gets_a_near_miss() -> None:
    with pytest.raises(RunRefused, match="did you mean 'rename_column'"):
        describe.text("rename_colum")
    with pytest.raises(RunRefused, match="cannot find the step type or probe 'zzz'"):
        describe.document("zzz")


def test_document_has_both_of_one_name() -> None:
    found = json.loads(json.dumps(describe.document("command")))
    assert [one["group"] for one in found] == ["step type", "probe"]
    assert found[0]["fields"][0] == {"name": "argv", "type": "list of texts", "default": "", "required": True}
    assert len(describe.document(None)) == len(describe.words())


def test_examples_of_the_product_load() -> None:
    for path in sorted((examples.PLAYBOOKS / "examples").glob("*.yaml")):
        assert load(path.name, from_disk(path.parent)).entries
