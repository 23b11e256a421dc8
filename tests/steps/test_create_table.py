"""create_table through its whole life on every database, and what is there under the name but isn't the wanted table."""

from __future__ import annotations

import pytest
from databases import Database, Databases
from definitions import differences, schema
from plain_context import Trial
from pydantic import ValidationError

from steps.contract import Refused, State, StepError
from steps.types.columns import RenameColumn
from steps.types.create_table import CreateTable
from steps.types.new_columns import AddColumn

ON = "empty_database"
INVENTORY = {
    "table": "ip_inventory",
    "columns": {
        "ip_address": "varchar(45) NOT NULL",
        "current_asn": "integer",
        "session_count": "integer DEFAULT 0 NOT NULL",
        "doc": {"postgresql": "jsonb NOT NULL DEFAULT '{}'", "sqlite": "text NOT NULL DEFAULT '{}'"},
        "country": {
            "postgresql": "varchar(2) GENERATED ALWAYS AS (upper(coalesce(doc ->> 'country', 'XX'))) STORED",
            "sqlite": "varchar(2) GENERATED ALWAYS AS (upper(coalesce(doc ->> 'country', 'XX'))) VIRTUAL",
        },
    },
    "primary_key": "ip_address",
    "unique": {"one_each": ["current_asn", "ip_address"]},
    "checks": {"counted": "session_count >= 0"},
    "foreign_keys": {
        "to_asn": {"columns": ["current_asn"], "references": "asn_inventory.asn_number", "on_delete": "cascade"}
    },
}


def _step(**more: object) -> CreateTable:
    return CreateTable.model_validate({**INVENTORY, **more})


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.script(
        "CREATE TABLE asn_inventory (asn_number integer PRIMARY KEY); INSERT INTO asn_inventory VALUES (1)"
    )
    return empty_database


def _first(database: Database) -> Database:
    """With the ledger, which is no part of what is compared, made."""
    Trial(database, _step())
    return database


def test_whole_life(database: Database) -> None:
    before, trial = schema(_first(database)), Trial(database, _step(comment="who is who"))
    assert trial.state() is State.NOT_DONE
    assert trial.preflight() == []
    trial.apply()
    trial.apply()
    assert trial.state() is State.DONE, trial.verify()
    assert trial.again().preflight() == []
    database.script("INSERT INTO ip_inventory (ip_address, current_asn) VALUES ('::1', 1); DELETE FROM ip_inventory")
    trial.revert()
    assert differences(before, schema(database)) == []


def test_taken_back_only_without_rows(database: Database) -> None:
    trial = Trial(database, _step())
    trial.apply()
    database.script("INSERT INTO ip_inventory (ip_address) VALUES ('::1')")
    with pytest.raises(StepError, match="has 1 rows"):
        trial.revert()
    assert trial.state() is State.DONE
    Trial(database, _step(taken_back="drop"), run=trial.run).revert()
    assert trial.state() is State.NOT_DONE


def test_taken_back_only_where_nothing_depends_on_it(database: Database) -> None:
    trial = Trial(database, _step())
    trial.apply()
    database.script("CREATE VIEW seen AS SELECT ip_address FROM ip_inventory")
    with pytest.raises(StepError, match="seen"):
        trial.revert()


# the first is what a tool leaves that creates the models' tables; each lacks, or has, something
HALF = {
    "country is not generated": ("{key}, current_asn integer, {count}, {doc}, country varchar(2), {rest}"),
    "no country": ("{key}, current_asn integer, {count}, {doc}, {rest}"),
    "no check": ("{key}, current_asn integer, {count}, {doc}, {made}, {unique}, {to}"),
    "no primary key": ("ip_address varchar(45) NOT NULL, current_asn integer, {count}, {doc}, {made}, {unique}, {checked}, {to}"),
    "no foreign key": ("{key}, current_asn integer, {count}, {doc}, {made}, {unique}, {checked}"),
    "no unique": ("{key}, current_asn integer, {count}, {doc}, {made}, {checked}, {to}"),
    "current_asn is bigint": ("{key}, current_asn bigint, {count}, {doc}, {made}, {rest}"),
    "session_count may be NULL": ("{key}, current_asn integer, session_count integer DEFAULT 0, {doc}, {made}, {rest}"),
    "the default of session_count": ("{key}, current_asn integer, session_count integer NOT NULL DEFAULT 1, {doc}, {made}, {rest}"),
    "a column more besides": ("{key}, current_asn integer, {count}, {doc}, {made}, more integer, {rest}"),
}  # fmt: skip


def test_half_a_table_is_never_taken_for_it(database: Database) -> None:
    pg = database.dialect == "postgresql"
    unique, checked = (
        "CONSTRAINT one_each UNIQUE (current_asn, ip_address)",
        "CONSTRAINT counted CHECK (session_count >= 0)",
    )
    to = "CONSTRAINT to_asn FOREIGN KEY (current_asn) REFERENCES asn_inventory (asn_number) ON DELETE CASCADE"
    parts = {
        "key": "ip_address varchar(45) NOT NULL PRIMARY KEY",
        "count": "session_count integer DEFAULT 0 NOT NULL",
        "doc": "doc jsonb NOT NULL DEFAULT '{}'" if pg else "doc text NOT NULL DEFAULT '{}'",
        "made": f"country {INVENTORY['columns']['country'][database.dialect]}",  # type: ignore[index]
        "unique": unique, "checked": checked, "to": to, "rest": f"{unique}, {checked}, {to}",
    }  # fmt: skip
    whole = "{key}, current_asn integer, {count}, {doc}, {made}, {rest}"
    for words, text in {"": whole, **HALF}.items():
        database.script(f"DROP TABLE IF EXISTS ip_inventory; CREATE TABLE ip_inventory ({text.format(**parts)})")
        trial, evidence = Trial(database, _step()), Trial(database, _step()).verify()
        if not words:
            assert evidence.state is State.DONE, evidence
            continue
        assert evidence.state is State.PARTLY, (words, evidence)
        assert words in evidence.evidence.replace("it has no", "no").replace("it has a", "a"), evidence
        assert trial.preflight()
        with pytest.raises(Refused):
            trial.apply()


def test_what_is_no_table(database: Database) -> None:
    database.script("CREATE VIEW ip_inventory AS SELECT 1 AS one")
    assert "a view" in Trial(database, _step()).preflight()[0]


def test_definition_that_the_server_refuses(database: Database) -> None:
    before = schema(_first(database))
    odd: list[dict[str, object]] = [
        {"checks": {"counted": "nosuch > 0"}},
        {
            "columns": {"a": "integer); DROP TABLE asn_inventory; --"},
            "primary_key": [],
            "unique": {},
            "checks": {},
            "foreign_keys": {},
        },
        {"columns": {"a": "integer DEFAULT (b)"}, "primary_key": [], "unique": {}, "checks": {}, "foreign_keys": {}},
    ]
    if database.server:
        database.script("CREATE TYPE taken AS ENUM ('a')")
        odd += [
            {"table": "taken"},
            {"foreign_keys": {"to": {"columns": ["current_asn"], "references": "nowhere.id"}}},
            {"foreign_keys": {"to": {"columns": ["ip_address"], "references": "asn_inventory.asn_number"}}},
            {"table": "nowhere.t"},
            {
                "columns": {"a": "integer REFERENCES asn_inventory"},
                "primary_key": [],
                "unique": {},
                "checks": {},
                "foreign_keys": {},
            },
        ]
    for words in odd:
        trial = Trial(database, _step(**words))
        assert trial.preflight(), words
        with pytest.raises(Refused):
            trial.apply()
    assert schema(database) == before


def test_key_over_a_column_that_is_none() -> None:
    with pytest.raises(ValidationError, match="none of the table's columns"):
        _step(primary_key=["nosuch"])


def test_later_steps_alter_it(database: Database) -> None:
    """A second run of the playbook meets the table as its later steps left it."""
    step = _step()
    later = [
        AddColumn.model_validate({"column": "ip_inventory.note", "of_type": "text"}),
        RenameColumn.model_validate({"column": "ip_inventory.session_count", "to": "sessions"}),
    ]
    step.followed_by(later)
    for one in (step, *later):
        Trial(database, one).apply()
    assert Trial(database, step).state() is State.DONE, Trial(database, step).verify()
    assert Trial(database, _step()).state() is State.PARTLY


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_odd_names_and_types(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        database.script(
            """CREATE SCHEMA "Odd S"; CREATE TYPE "Odd S".mood AS ENUM ('ok'); CREATE DOMAIN small AS int CHECK (VALUE < 9)"""
        )
        step = CreateTable.model_validate({
            "table": 'Odd S.T "x', "primary_key": ["Id"], "taken_back": "drop",
            "columns": {"Id": "bigint GENERATED BY DEFAULT AS IDENTITY", "n": "bigserial", 'M"': '"Odd S".mood', "s": 'text COLLATE "C"',
                        "d": "small DEFAULT 1", "parent": "bigint", "at": "timestamptz(3) DEFAULT now()"},
            "foreign_keys": {"self": {"columns": ["parent"], "references": 'Odd S.T "x.Id', "deferrable": "deferred"}},
        })  # fmt: skip
        before, trial = schema(database), Trial(database, step)
        assert trial.preflight() == []
        trial.apply()
        assert trial.state() is State.DONE, trial.verify()
        trial.revert()
        assert differences(before, schema(database)) == []
