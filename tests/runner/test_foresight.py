"""What a plan says of steps whose turn comes after others: no fault that isn't one, and none that is hidden."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest
from databases import Database
from inside import InProcessCli, written
from plain_context import Trial

from runner.plan.foresight import Foresight
from runner.playbook.model import Entry
from runner.playbook.yaml_reader import Mark
from steps.contract import Effect, Look, State, Step
from steps.contract.dialect import Dialect
from steps.contract.look import Trace

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)

ADD = "- {id: add, type: add_column, column: t.d, of_type: integer}"
FILL = "- {{id: fill, type: backfill, table: t, key: id, source: '{source}', match: source.k = target.id, fill: [d]}}"
ONE_EACH = "SELECT id AS k, a AS d FROM t"
TWICE = "SELECT id AS k, a AS d FROM t UNION ALL SELECT id, a + 1 FROM t"
WHOLE = "- {id: all, type: sql, text: UPDATE t SET a = 0}"
CLEAN = "- {id: clean, type: sql, text: DELETE FROM t WHERE id > 1}"
UNIQUE = "- {id: by_b, type: create_index, table: t, columns: [b], unique: true}"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, a integer, b integer)")
    empty_database.script("INSERT INTO t VALUES (1, 10, 1), (2, 20, 1), (3, 30, 2)")
    return InProcessCli(tmp_path, empty_database.url)


def planned(desk: InProcessCli, *steps: str, code: int = 0) -> dict:
    """Each step's card by its id; exec's exit code is the plan's where it begins nothing."""
    name = written(desk, "\n".join(steps))
    done = desk.runbook("plan", name, "--json")
    assert done.code == code, done.text
    if code:
        before = desk.target
        assert desk.runbook("exec", name).code == code
        assert not list((desk.directory / "runs").glob("*")), before
    return {card["id"]: card for card in json.JSONDecoder().raw_decode(done.out)[0]["steps"]}


@on_both
def test_column_of_an_earlier_step_is_there(desk: InProcessCli) -> None:
    card = planned(desk, ADD, FILL.format(source=ONE_EACH))["fill"]
    assert card["faults"] == [] and "t.d is there" in card["later"][0]


@on_both
def test_real_fault_behind_a_column_to_come_is_told(desk: InProcessCli) -> None:
    """The missing column explains nothing away: the source has two rows for a key, before and after."""
    card = planned(desk, ADD, FILL.format(source=TWICE), code=6)["fill"]
    assert "more than one row" in card["faults"][0]


@on_both
def test_renamed_column_is_found_under_its_new_name(desk: InProcessCli) -> None:
    rename = "- {id: rename, type: rename_column, column: t.b, to: c}"
    cards = planned(desk, rename, "- {id: by_c, type: create_index, table: t, columns: [c]}")
    assert cards["by_c"]["faults"] == []
    cards = planned(desk, rename, "- {id: by_b, type: create_index, table: t, columns: [b]}", code=6)
    assert cards["by_b"]["faults"]


@on_both
def test_what_is_written_wrong_is_refused_wherever_it_stands(desk: InProcessCli, empty_database: Database) -> None:
    cards = planned(desk, ADD, CLEAN, WHOLE, code=4)
    assert "without WHERE" in cards["all"]["faults"][0]
    assert empty_database.rows("SELECT count(*) FROM t") == [(3,)]


@on_both
def test_after_sql_nothing_is_a_fault_that_it_may_have_mended(desk: InProcessCli) -> None:
    later = "- {id: by_new, type: create_index, table: made, columns: [x]}"
    card = planned(desk, "- {id: make, type: sql, text: CREATE TABLE made (x integer)}", later)["by_new"]
    assert card["faults"] == []
    assert all("make" in one for one in card["later"])


@on_18
def test_failing_look_poisons_no_other_card(desk: InProcessCli) -> None:
    """In one transaction every look after the first failure would fail too."""
    bad = (
        FILL.format(source="SELECT nothing AS k, 1 AS d FROM nowhere")
        .replace("id: fill", "id: bad")
        .replace("[d]", "[a]")
    )
    cards = planned(desk, bad, "- {id: by_a, type: create_index, table: t, columns: [a]}", code=6)
    assert "nowhere" in cards["bad"]["faults"][0]
    assert cards["by_a"]["faults"] == [] and cards["by_a"]["now"]["state"] == "not_done"


@on_both
def test_plan_shows_what_a_reviewer_weighs(desk: InProcessCli) -> None:
    head = "window: 2 h\nlimits: {least: 95}\nlock: {wait: 300 ms}\n"
    gate = "- {id: go, type: checkpoint, approval: {roles: [dba], valid_for: 12 h}}"
    slow = ADD.replace("add_column", "add_column, timeout: {statement: 7 min}, retry: {attempts: 9}")
    name = written(desk, f"{gate}\n{slow}", head)
    for words in (("plan", name), ("plan", name, "-t", desk.target)):
        done = desk.runbook(*words)
        for shown in ("least = 95", "2 h", "300 ms", "valid", "7 min", "9 tries"):
            assert shown in done.out, (shown, done.out)


@on_both
def test_programs_are_run_only_when_asked(desk: InProcessCli) -> None:
    head = "preconditions:\n  - {id: mark, check: command, argv: [touch, ran], that: exit_code == 0}\n"
    name = written(desk, ADD, head)
    for words in (("plan", name), ("exec", name, "--dry-run"), ("validate", name)):
        assert desk.runbook(*words).code == 0
        assert not (desk.directory / "ran").exists(), words
    assert "not asked: mark" in desk.runbook("plan", name).out
    assert desk.runbook("plan", name, "--run-probes").code == 0
    assert (desk.directory / "ran").exists()


class Elsewhere(Step):
    """It asks what only PostgreSQL can answer."""

    kind: ClassVar[str] = "elsewhere"
    summary: ClassVar[str] = "for this test"
    only: ClassVar[str] = "postgresql"

    def verify(self, look: Look) -> Effect:
        return Effect(State.NOT_DONE, look.row("SELECT version() AS v").text("v"))


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_type_that_can_only_look_on_its_own_database_is_refused_in_words(empty_database: Database) -> None:
    trial = Trial(empty_database, Elsewhere())
    entry = Entry(id="away", step=trial.step, mark=Mark("p.yaml", 1, 1), digest="")

    def looks(*, assumed: tuple[Trace, ...]) -> AbstractContextManager[Look]:
        assert assumed == ()
        return trial.look()

    [fault] = Foresight(looks, Dialect.SQLITE).of(entry).faults
    assert fault.startswith("elsewhere exists on postgresql only, and can't see here whether")
