"""keep: the copy is proven, outlives the run, never replaces anything, and goes only while it is as it was made."""

from __future__ import annotations

from typing import Any

import pytest
from databases import Database
from plain_context import Trial

from steps.contract import Refused, State, StepError
from steps.types.fill.step import FillTable
from steps.types.keep import Keep, KeepResult

on_pg = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)


def keep(**words: Any) -> Keep:
    own = {
        "what": "SELECT id, note FROM address WHERE note IS NOT NULL",
        "into": "notes",
        "because": "nobody knows them",
    }
    return Keep.model_validate({**own, "counted": "{rows} addresses have a note", **words}, context={"queries": {}})


@pytest.fixture
def addresses(empty_database: Database) -> Database:
    empty_database.script(
        "CREATE TABLE address (id integer PRIMARY KEY, note text);"
        "INSERT INTO address VALUES (1, 'a'), (2, NULL), (3, 'it''s'), (4, '')"
    )
    return empty_database


def copy_of(database: Database) -> str:
    return "runbook_kept_notes" if database.dialect == "sqlite" else "runbook_kept.notes"


def test_copy_counted_made_proven_and_dropped(addresses: Database) -> None:
    trial = Trial(addresses, keep())
    assert trial.preflight() == []
    assert trial.verify().evidence.startswith("3 addresses have a note")
    with trial.look() as look:
        assert "3 addresses have a note" in trial.step.statements(look)[0].note  # type: ignore[attr-defined]
    assert KeepResult.model_validate(trial.apply().model_dump()).rows == 3
    assert trial.state() is State.DONE
    assert addresses.rows(f"SELECT * FROM {copy_of(addresses)} ORDER BY id") == [(1, "a"), (3, "it's"), (4, "")]
    trial.apply()  # resumed after the commit
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE
    trial.revert()


def test_copy_outlives_its_source_and_is_brought_back(addresses: Database) -> None:
    trial = Trial(addresses, keep())
    trial.apply()
    addresses.script("DROP TABLE address; CREATE TABLE address (id integer PRIMARY KEY, note text)")
    assert trial.state() is State.DONE
    words = {"table": "address", "source": f"SELECT * FROM {copy_of(addresses)}", "columns": ["id", "note"]}
    Trial(addresses, FillTable.model_validate(words, context={"queries": {}})).apply()
    assert addresses.rows("SELECT * FROM address ORDER BY id") == [(1, "a"), (3, "it's"), (4, "")]


def test_second_run_finds_the_same_copy(addresses: Database) -> None:
    trial = Trial(addresses, keep())
    trial.apply()
    assert trial.again().state() is State.DONE
    assert trial.again().preflight() == []


@pytest.mark.parametrize(
    "lost", ["DELETE FROM address", "DELETE FROM address WHERE id = 1", "UPDATE address SET note = NULL"]
)
def test_copy_that_has_more_is_all_that_is_left_of_it(addresses: Database, lost: str) -> None:
    """A second recovery, after what was kept had not come back yet: it must not ask to drop the only copy."""
    trial = Trial(addresses, keep())
    trial.apply()
    addresses.script(lost)
    assert trial.again().state() is State.DONE
    assert trial.again().preflight() == []
    assert addresses.rows(f"SELECT count(*) FROM {copy_of(addresses)}") == [(3,)]


def test_table_of_other_columns_is_no_copy(addresses: Database) -> None:
    """Even where the query gives no rows, all of which any table has."""
    Trial(addresses, keep(what="SELECT id FROM address")).apply()
    addresses.script("DELETE FROM address")
    again = Trial(addresses, keep())
    assert again.state() is State.NOT_DONE
    assert any("with other content" in one for one in again.preflight())


def test_existing_table_never_replaced(addresses: Database) -> None:
    trial = Trial(addresses, keep())
    trial.apply()
    addresses.script("INSERT INTO address VALUES (5, 'new')")
    again = trial.again()
    assert again.state() is State.NOT_DONE
    [fault] = again.preflight()
    assert "is there, with other content" in fault
    assert "has 3 rows, not these" in fault
    with pytest.raises(Refused):
        again.apply()
    assert addresses.rows(f"SELECT count(*) FROM {copy_of(addresses)}") == [(3,)]
    command = fault.partition("put it aside with ")[2].partition(", or")[0]
    assert command.startswith("ALTER TABLE"), (
        "it may be the only copy: no command that drops it is told to somebody tired"
    )
    addresses.script(command.replace("…", "put_aside"))
    assert again.preflight() == []
    again.apply()
    assert again.state() is State.DONE


def test_changed_copy_is_not_dropped(addresses: Database) -> None:
    trial = Trial(addresses, keep())
    trial.apply()
    addresses.script(f"UPDATE {copy_of(addresses)} SET note = 'b' WHERE id = 1")
    assert trial.state() is State.PARTLY
    with pytest.raises(StepError, match="was changed since"):
        trial.revert()
    assert addresses.rows(f"SELECT count(*) FROM {copy_of(addresses)}") == [(3,)]


def test_source_that_is_gone_is_fine_only_where_declared(addresses: Database) -> None:
    addresses.script("DROP TABLE address")
    refused = Trial(addresses, keep())
    assert refused.state() is State.NOT_DONE
    assert any("write absent: fine" in one for one in refused.preflight())
    with pytest.raises(Refused):
        refused.apply()
    fine = Trial(addresses, keep(absent="fine"))
    assert fine.state() is State.DONE
    assert fine.preflight() == []


@on_pg
def test_rows_that_change_all_the_time_are_copied_as_of_one_moment(addresses: Database) -> None:
    """The query is asked once, so that writers, and a query that never gives the same twice, stop nothing."""
    trial = Trial(addresses, keep(what="SELECT id, random() AS chance, clock_timestamp() AS at FROM address"))
    trial.apply()
    assert trial.state() is State.DONE
    assert addresses.value("SELECT count(*) FROM runbook_kept.notes") == 4
    trial.revert()


@on_pg
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("SELECT a.id, b.id FROM address a CROSS JOIN address b", 'column "id" specified more than once'),
        ("SELECT (id, note) AS both_of FROM address", "pseudo-type record"),
    ],
)
def test_columns_that_no_table_can_have_are_refused_beforehand(addresses: Database, what: str, why: str) -> None:
    [fault] = Trial(addresses, keep(what=what)).preflight()
    assert why in fault and "give each a name and a type" in fault


@on_pg
def test_copy_in_a_schema_of_choice_with_its_reason(addresses: Database) -> None:
    addresses.script('CREATE SCHEMA aside; CREATE TABLE raw (j json); INSERT INTO raw VALUES (\'{"a": "\\u0000"}\')')
    trial = Trial(addresses, keep(what="SELECT * FROM raw", into="aside.raw_then"))
    trial.apply()
    assert trial.state() is State.DONE
    said = "SELECT obj_description('aside.raw_then'::regclass)"
    assert addresses.rows(said) == [("kept by runbook: nobody knows them",)]
    trial.revert()
    assert addresses.rows("SELECT to_regclass('aside.raw_then')") == [(None,)]


def test_counted_without_its_number_refused() -> None:
    with pytest.raises(ValueError, match=r"write \{rows\} where the number belongs"):
        keep(counted="some rows")
