"""add_constraint through its whole life on PostgreSQL; on SQLite only what is there already counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import Database, Databases
from plain_context import Trial
from pydantic import ValidationError

from steps.contract import Refused, State, StepError
from steps.types.constraints import AddConstraint

SESSIONS = "session_summaries"
TABLES = """
    CREATE TABLE parent (id integer PRIMARY KEY, other integer);
    CREATE TABLE child (id integer PRIMARY KEY, parent integer, kind text);
    INSERT INTO parent VALUES (1, 1), (2, 2);
    INSERT INTO child VALUES (1, 1, 'a'), (2, 2, 'b'), (3, NULL, NULL);"""


@pytest.fixture(params=["pg15", "pg18"])
def pgdb(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    with databases.kind(request.param).database() as database:
        database.script(TABLES)
        yield database


def _step(**fields: object) -> AddConstraint:
    return AddConstraint.model_validate({"table": "child", "name": "sound", **fields})


KEY = {"columns": ["parent"], "references": "parent.id", "on_delete": "set null"}


@pytest.mark.parametrize(
    "fields",
    [
        {"check": "kind IN ('a', 'b') OR kind IS NULL"},
        {"check": "kind ~ '^[a-z]:?$'", "validate": False},
        {"foreign_key": KEY},
        {"foreign_key": KEY, "validate": False},
        {"not_null": "id_2"},
        {"unique_index": "by_kind"},
    ],
)
def test_constraint_whole_life(pgdb: Database, fields: dict[str, object]) -> None:
    pgdb.script("ALTER TABLE child ADD id_2 integer DEFAULT 1; CREATE UNIQUE INDEX by_kind ON child (kind)")
    Trial(pgdb, _step(**fields)).whole_life("child")


def test_constraint_in_two_transactions(pgdb: Database) -> None:
    """F: A19: no lock on the table is held while the old rows are scanned"""
    trial = Trial(pgdb, _step(foreign_key=KEY))
    assert [one.rpartition(" ")[2] if "NOT VALID" in one else "VALIDATE" for one in trial.statements()] == [
        "VALID",
        "VALIDATE",
    ]
    trial.apply()
    assert pgdb.rows("SELECT label FROM runbook.step_commit ORDER BY seq") == [("add",), ("validate",)]


def test_constraint_killed_before_validate(pgdb: Database) -> None:
    """F: E01; T: 26: added and never validated is not done"""
    trial = Trial(pgdb, _step(foreign_key=KEY))
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("validate").apply()
    found = trial.verify()
    assert found.state is State.PARTLY
    assert "new rows only" in found.evidence
    trial.apply()
    assert trial.state() is State.DONE


def test_constraint_left_unvalidated_by_others(pgdb: Database) -> None:
    """T: 26: theirs is validated, and taken back to what it was"""
    pgdb.script(
        "ALTER TABLE child ADD CONSTRAINT sound FOREIGN KEY (parent) REFERENCES parent ON DELETE SET NULL NOT VALID"
    )
    trial = Trial(pgdb, _step(foreign_key=KEY))
    before = trial.shape("child")
    trial.apply()
    assert trial.state() is State.DONE
    trial.revert()
    assert trial.shape("child") == before


def test_constraint_same_name_other_definition(pgdb: Database) -> None:
    pgdb.script("ALTER TABLE child ADD CONSTRAINT sound CHECK (id > 0)")
    for fields in ({"check": "id > 1"}, {"foreign_key": KEY}):
        trial = Trial(pgdb, _step(**fields))
        assert trial.state() is State.PARTLY
        with pytest.raises(Refused, match="a constraint of this name is there, but"):
            trial.apply()
    assert Trial(pgdb, _step(check="id>0")).state() is State.DONE


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"check": "kind <> 'b'"}, "1 rows of child violate it, the first 1: id=2"),
        (
            {"foreign_key": {"columns": ["id"], "references": "parent.id"}},
            "1 rows of child violate it, the first 1: id=3",
        ),
        ({"not_null": "parent"}, "1 rows of child violate it, the first 1: id=3"),
    ],
)
def test_constraint_names_violating_rows(pgdb: Database, fields: dict[str, object], named: str) -> None:
    trial = Trial(pgdb, _step(**fields))
    with pytest.raises(StepError, match=named):
        trial.apply()
    assert trial.state() is State.PARTLY
    pgdb.script("DELETE FROM child WHERE id > 1")
    trial.apply()
    assert trial.state() is State.DONE


def test_constraint_of_two_columns(pgdb: Database) -> None:
    pgdb.script("ALTER TABLE parent ADD UNIQUE (id, other)")
    key = {"columns": ["id", "parent"], "references": ["parent.id", "parent.other"]}
    Trial(pgdb, _step(foreign_key=key)).whole_life("child")


def test_constraint_index_not_unique(pgdb: Database) -> None:
    pgdb.script("CREATE INDEX by_kind ON child (kind)")
    [fault] = Trial(pgdb, _step(unique_index="by_kind")).preflight()
    assert "must be unique" in fault


def test_constraint_on_sqlite_by_definition(databases: Databases) -> None:
    with databases.files.database() as database:
        database.script("""CREATE TABLE parent (id integer PRIMARY KEY);
            CREATE TABLE child (id integer PRIMARY KEY,
                                parent integer REFERENCES parent ON DELETE SET NULL, kind text NOT NULL,
                                CHECK (kind  IN ('a','b')));
            CREATE UNIQUE INDEX by_kind ON child (kind)""")
        have = [
            {"check": "kind in ('a', 'b')"},
            {"foreign_key": KEY},
            {"not_null": "kind"},
            {"unique_index": "by_kind"},
        ]
        lack = [
            {"check": "kind in ('A', 'b')"},
            {"foreign_key": {**KEY, "on_delete": "cascade"}},
            {"not_null": "parent"},
        ]
        assert [Trial(database, _step(**fields)).state() for fields in have] == [State.DONE] * 4
        assert [Trial(database, _step(**fields)).state() for fields in lack] == [State.NOT_DONE] * 3


def test_constraint_one_kind_only() -> None:
    for fields in ({}, {"check": "a > 0", "not_null": "a"}):
        with pytest.raises(ValidationError, match="write one of"):
            _step(**fields)
    with pytest.raises(ValidationError, match="differ in length"):
        _step(foreign_key={"columns": ["a", "b"], "references": "t.a"})
    with pytest.raises(ValidationError, match="two tables"):
        _step(foreign_key={"columns": ["a", "b"], "references": ["t.a", "u.b"]})
