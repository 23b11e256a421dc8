"""drop_constraint through its whole life on PostgreSQL: every kind of constraint, and what depends on it by name."""

from __future__ import annotations

import pytest
from databases import Database
from definitions import differences, schema
from plain_context import Trial

from steps.contract import Refused, State, StepError
from steps.types.drop_constraint import DropConstraint

pytestmark = pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
TABLES = """CREATE TABLE p (id int, a int, b text, during int4range, CONSTRAINT p_pk PRIMARY KEY (id),
      CONSTRAINT "U q" UNIQUE (a, b), CONSTRAINT late UNIQUE (b) DEFERRABLE INITIALLY DEFERRED, CONSTRAINT positive CHECK (a > 0),
      CONSTRAINT apart EXCLUDE USING gist (during WITH &&));
    COMMENT ON CONSTRAINT positive ON p IS 'it''s positive';
    CREATE TABLE c (id int, pid int, CONSTRAINT c_p FOREIGN KEY (pid) REFERENCES p (id) ON DELETE CASCADE DEFERRABLE);
    CREATE TABLE own (id int CONSTRAINT filled NOT NULL, CONSTRAINT even CHECK (id % 2 = 0) NO INHERIT);
    ALTER TABLE own ADD CONSTRAINT unproven CHECK (id > 0) NOT VALID;
    CREATE VIEW grouped AS SELECT p.*, count(*) FROM p GROUP BY p.id;
    CREATE VIEW over_it AS SELECT id FROM grouped; GRANT SELECT ON over_it TO PUBLIC; COMMENT ON VIEW over_it IS 'on top';
    INSERT INTO p VALUES (1, 1, 'x', '[1,2)'), (2, 2, 'y', '[2,3)'); INSERT INTO c VALUES (1, 1); INSERT INTO own VALUES (2)"""
ALONE = [
    ("p", "U q"),
    ("p", "late"),
    ("p", "positive"),
    ("p", "apart"),
    ("c", "c_p"),
    ("own", "even"),
    ("own", "unproven"),
]


def _drop(table: str, name: str, **more: object) -> DropConstraint:
    return DropConstraint.model_validate({"table": table, "name": name, **more})


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.script(TABLES)
    return empty_database


def test_each_kind_comes_back_as_it_was(database: Database) -> None:
    before = schema(database)
    for table, name in ALONE:
        trial = Trial(database, _drop(table, name))
        assert trial.preflight() == []
        assert trial.state() is State.NOT_DONE
        trial.apply()
        assert trial.state() is State.DONE
        assert schema(database) != before
        trial.revert()
        assert trial.state("revert") is State.NOT_DONE
        assert differences(before, schema(database)) == [], name


def test_dependants_are_named_before_anything_goes(database: Database) -> None:
    before = schema(database)
    for cascade in ([], ["c_p"], ["c_p", "grouped"], ["grouped", "over_it"]):
        trial = Trial(database, _drop("p", "p_pk", cascade=cascade))
        [fault] = trial.preflight()
        for name in ("c_p", "grouped", "over_it"):
            assert (name in fault.partition("are not listed")[0].partition("is not listed")[0]) == (
                name not in cascade
            ), fault
        with pytest.raises(Refused):
            trial.apply()
    assert schema(database) == before


def test_what_is_listed_goes_and_comes_back(database: Database) -> None:
    before = schema(database)
    trial = Trial(database, _drop("p", "p_pk", cascade=["c.c_p", "public.grouped", "over_it"]))
    assert trial.preflight() == []
    assert any("DROP VIEW public.over_it" in sql for sql in trial.statements())
    trial.apply()
    assert trial.state() is State.DONE
    assert not any("CASCADE" in sql for sql in trial.statements())
    trial.revert()
    assert differences(before, schema(database)) == []


def test_dependant_that_came_since_the_preflight(database: Database) -> None:
    """What was not there when it was planned is not taken either: it is asked again under the lock."""
    trial = Trial(database, _drop("p", "U q"))
    passed = DropConstraint.preflight
    try:
        DropConstraint.preflight = lambda self, look: []  # type: ignore[method-assign]  # as if it came just afterwards
        database.script("CREATE TABLE late_one (a int, b text, FOREIGN KEY (a, b) REFERENCES p (a, b))")
        with pytest.raises(Refused, match="late_one"):
            trial.apply()
    finally:
        DropConstraint.preflight = passed  # type: ignore[method-assign]
    assert trial.state() is State.NOT_DONE


def test_way_back_over_rows_that_break_it(database: Database) -> None:
    """It guards new rows at once, and says which stand against it."""
    trial = Trial(database, _drop("c", "c_p"))
    trial.apply()
    database.script("INSERT INTO c VALUES (9, 99)")
    with pytest.raises(StepError, match="99"):
        trial.revert()
    assert database.value("SELECT convalidated FROM pg_constraint WHERE conname = 'c_p'") is False
    database.script("DELETE FROM c WHERE id = 9")
    trial.revert()
    assert database.value("SELECT convalidated FROM pg_constraint WHERE conname = 'c_p'") is True


def test_what_is_no_constraint_of_the_table(database: Database) -> None:
    assert Trial(database, _drop("p", "nosuch")).state() is State.UNKNOWN
    assert Trial(database, _drop("nowhere", "nosuch")).state() is State.UNKNOWN
    assert Trial(database, _drop("nowhere", "nosuch", absent="fine")).state() is State.DONE
    assert Trial(database, _drop("own", "filled")).state() is State.UNKNOWN


@pytest.mark.parametrize("point", ["index public.U q", "parts"])
def test_way_back_goes_on_after_a_crash(database: Database, point: str) -> None:
    before = schema(database)
    trial = Trial(database, _drop("p", "U q"))
    trial.apply()
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before(point).revert()
    trial.revert()
    assert differences(before, schema(database)) == []


def test_inherited_and_partitioned(database: Database) -> None:
    database.script("""CREATE TABLE child () INHERITS (p); CREATE TABLE parts (id int PRIMARY KEY, pid int,
          CONSTRAINT to_p FOREIGN KEY (pid) REFERENCES p (id)) PARTITION BY RANGE (id);
        CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (9)""")
    before = schema(database)
    [fault] = Trial(database, _drop("child", "positive")).preflight()
    assert "inherited" in fault
    for table, name in (("p", "positive"), ("parts", "to_p"), ("parts", "parts_pkey")):
        trial = Trial(database, _drop(table, name))
        assert trial.preflight() == []
        trial.apply()
        trial.revert()
        assert differences(before, schema(database)) == [], name
