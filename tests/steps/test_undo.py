"""The step `undo` names another playbook's run; the engine takes it back."""

from __future__ import annotations

from dataclasses import fields

import pytest
from databases import Database
from plain_context import Trial

from steps.contract import Refused, RunPosition, State, UndoesRun
from steps.ledger import runs, step_commits
from steps.types.undo import Undo

TEXTS = {one.name for one in fields(runs.RunRow) if one.type == "str"} - {"run", "playbook", "state"}


def record(trial: Trial, run: str, *, state: str, acts: int = 1) -> None:
    row = runs.RunRow(**dict.fromkeys(TEXTS, ""), run=run, playbook="adr007-phase3", state=state, trail_length=0)
    with trial.database("apply")._connected() as work:
        runs.add_run(work, row)
        for n in range(acts):
            work.execute(
                *step_commits.record_commit(
                    work.dialect, RunPosition(run, f"step{n}", "apply"), label="one", epoch=1, before=None
                )
            )
        runs.end_run(work, run=run, state=state, figures="{}", head="", length=0)


@pytest.fixture
def trial(empty_database: Database) -> Trial:
    return Trial(empty_database, Undo(of="adr007-phase3"))


def test_nothing_to_take_back(trial: Trial) -> None:
    assert trial.verify().state is State.NOT_DONE
    assert "no run of adr007-phase3" in trial.verify().evidence


def test_latest_run_of_which_something_stands(trial: Trial) -> None:
    """F: F08 F: F09"""
    record(trial, "a", state="succeeded")
    record(trial, "b", state="rolled_back")
    record(trial, "c", state="failed", acts=0)
    with trial.look() as look:
        assert runs.latest_standing(look, "adr007-phase3").run == "a"
    assert trial.verify().evidence == "run a of adr007-phase3 (succeeded) stands"


def test_run_that_was_taken_back_is_done(trial: Trial) -> None:
    record(trial, "a", state="rolled_back")
    assert trial.state() is State.DONE


def test_only_some_steps(trial: Trial) -> None:
    record(trial, "a", state="succeeded", acts=2)
    part = Trial(trial.target, Undo(of="adr007-phase3", steps=("step1",)))
    assert part.state() is State.NOT_DONE
    with trial.database("apply")._connected() as work:
        work.execute(
            *step_commits.record_commit(
                work.dialect, RunPosition("a", "step1", "revert"), label="undo 1", epoch=1, before=None
            )
        )
    assert part.state() is State.NOT_DONE, "its first batch is no proof of all"
    with trial.database("apply")._connected() as work:
        step_commits.end_step(
            work, RunPosition("a", "step1", "revert"), state="reverted", results="{}", head="", length=1
        )
    assert (part.state(), trial.state()) == (State.DONE, State.PARTLY)


def test_engine_is_told_what_to_undo(trial: Trial) -> None:
    step = Undo(of="adr007-phase3", steps=("fill",))
    assert isinstance(step, UndoesRun)
    assert (step.undoes(), step.only_steps(), step.describe()) == (
        "adr007-phase3", ("fill",), "take back fill of the latest run of adr007-phase3",
    )  # fmt: skip
    with pytest.raises(Refused, match="only the engine can"):
        trial.apply()
