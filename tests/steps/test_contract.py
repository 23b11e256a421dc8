"""What the contract holds its authors to, before anything runs."""

from __future__ import annotations

from typing import get_type_hints

import pytest
from pydantic import ValidationError

from steps.contract import Context, Model, Reversible, Step
from steps.contract.abilities import RunningFigures, running_figures
from steps.registry import step_types

REVERSIBLE = sorted(word for word, kind in step_types().items() if hasattr(kind, "revert"))


class OldText(Model):
    text: str


class Rewrite(Step[OldText]):
    def revert(self, ctx: Context, before: OldText) -> None: ...


class RewriteBetter(Rewrite):
    """A type that descends from another one remembers what that does."""


@pytest.mark.parametrize("word", REVERSIBLE)
def test_revert_takes_what_the_type_says_that_it_remembers(word: str) -> None:
    kind = step_types()[word]
    said = next(
        one["args"] for base in kind.__mro__ if (one := getattr(base, "__pydantic_generic_metadata__", {})).get("args")
    )
    assert said == (get_type_hints(kind.revert)["before"],)


@pytest.mark.parametrize("kind", [Rewrite, RewriteBetter])
def test_what_is_recalled_is_what_was_remembered(kind: type[Rewrite]) -> None:
    assert isinstance(kind(), Reversible)
    before = OldText(text="was")
    assert kind.recall(before.model_dump_json()) == before
    with pytest.raises(ValidationError):
        kind.recall('{"word": "was"}')


def test_type_with_a_way_back_says_what_it_remembers() -> None:
    """Else it would be seen only when something is to be taken back."""
    with pytest.raises(TypeError, match=r"cannot define Forgetful: it has a revert, so write Step\[…\]"):

        class Forgetful(Step):
            def revert(self, ctx: Context, before: OldText) -> None: ...


def test_figures_belong_to_what_the_type_counts() -> None:
    """What the report reads of a result are fields of that result, and what a guard reads is told while the step runs."""
    assert running_figures(Rewrite) == running_figures(Rewrite()) == RunningFigures()
    telling = {kind: told for kind in step_types().values() if (told := running_figures(kind)).names}
    assert telling
    for kind, told in telling.items():
        assert {*told.counted, told.set_aside} <= {"", *kind.Result.model_fields}
        assert {*told.counted, told.set_aside, told.batch_ms} <= {"", *told.names}
