"""The step that changes nothing: what it waits for, in the playbook's words."""

from __future__ import annotations

import pytest
from databases import Database
from plain_context import Trial
from pydantic import ValidationError

from steps.contract import Gate, State, StepResult
from steps.types.checkpoint import Checkpoint


def test_words_of_the_playbook_become_needs() -> None:
    step = Checkpoint.model_validate(
        {
            "approval": {"roles": ["dba", "stakeholder"], "need": 2, "not": "operator", "valid_for": "12 h"},
            "evidence": {"backup": "optional", "restore": {"valid_for": "7 days"}},
            "not_before": "22:00",
            "not_after": "2026-01-05T04:00:00+01:00",
        }
    )
    needs = step.needs()
    assert isinstance(step, Gate)
    assert needs.approval.not_operator and needs.approval.valid_for == 12 * 3600
    assert [(one.name, one.optional, one.valid_for) for one in needs.evidence] == [
        ("backup", True, None),
        ("restore", False, 604800),
    ]
    assert step.describe() == (
        "wait for 2 approvals by dba or stakeholder, not the operator, each valid for 12 h; evidence backup (optional); "
        "evidence restore, valid for 168 h; "
        "not before 22:00; not after 2026-01-05T04:00:00+01:00"
    )


def test_empty_checkpoint_waits_for_its_criteria() -> None:
    assert Checkpoint().describe() == "wait for its criteria"
    assert Checkpoint.changes is False
    assert Checkpoint.model_validate({"evidence": ["backup"], "approval": {"by": "Ada"}}).describe() == (
        "wait for 1 approval by Ada; evidence backup"
    )


def test_checkpoint_changes_nothing(empty_database: Database) -> None:
    trial = Trial(empty_database, Checkpoint())
    assert trial.state() is State.DONE
    assert trial.apply() == StepResult()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"approval": {"not": "dba"}}, "only `not: operator`"),
        ({"approval": {"need": 0}}, "greater than or equal to 1"),
        ({"evidence": {"backup": "perhaps"}}, "required or optional"),
        ({"not_before": "25:00"}, "as a time"),
        ({"not_before": "2026-01-05T04:00:00"}, "with its offset"),
        ({"wait": 5}, "Extra inputs"),
    ],
)
def test_word_is_refused(words: dict, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Checkpoint.model_validate(words)
