"""create_trigger and drop_trigger through their whole lives, on every database."""

from __future__ import annotations

import pytest
from databases import Database, Databases
from definitions import differences, schema
from plain_context import Trial

from steps.contract import Refused, State, StepError
from steps.types.triggers import CreateTrigger, DropTrigger

PG = """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := 7; RETURN NEW; END $$"""
DOES = {
    "postgresql": "FOR EACH ROW WHEN (new.n > 0) EXECUTE FUNCTION note()",
    "sqlite": "WHEN new.n > 0 BEGIN UPDATE t SET v = 'seen' WHERE id = new.id; END",
}


def _create(**more: object) -> CreateTrigger:
    words = {"table": "t", "name": "noted", "fires": "BEFORE UPDATE OF n", "does": DOES, **more}
    return CreateTrigger.model_validate(words)


def _drop(**more: object) -> DropTrigger:
    return DropTrigger.model_validate({"table": "t", "name": "noted", **more})


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.script(
        "CREATE TABLE t (id integer PRIMARY KEY, n integer, v text); INSERT INTO t VALUES (1, 1, 'x')"
    )
    if empty_database.server:
        empty_database.script(PG)
    return empty_database


def _made(database: Database, *, name: str = "noted", fires: str = "BEFORE UPDATE OF n") -> None:
    database.script(f"CREATE TRIGGER {name} {fires} ON t {DOES[database.dialect]}")


def test_create_whole_life(database: Database) -> None:
    Trial(database, _create()).whole_life("t")


def test_create_knows_what_is_there(database: Database) -> None:
    _made(database)
    assert Trial(database, _create()).state() is State.DONE
    assert Trial(database, _create(fires="AFTER UPDATE OF n")).state() is State.PARTLY
    [fault] = Trial(database, _create(fires="AFTER UPDATE")).preflight()
    assert "it is CREATE TRIGGER" in fault


def test_create_refused_before_anything(database: Database) -> None:
    for words in (
        {"table": "nowhere"},
        {"fires": "BEFORE UPDATE OF nosuch"},
        {"fires": "BEFORE"},
        {"fires": "AFTER UPDATE; DROP TABLE t"},
    ):
        trial = Trial(database, _create(**words))
        before = schema(database)
        assert trial.preflight(), words
        with pytest.raises(Refused):
            trial.apply()
        assert schema(database) == before, words


def test_create_taken_back_only_as_it_was_made(database: Database) -> None:
    trial = Trial(database, _create())
    trial.apply()
    database.script("DROP TRIGGER noted" + " ON t" * bool(database.server))
    _made(database, fires="BEFORE INSERT")
    with pytest.raises(StepError, match="made it anew"):
        trial.revert()


def test_drop_whole_life(database: Database) -> None:
    _made(database)
    before = schema(database)
    trial = Trial(database, _drop())
    assert trial.state() is State.NOT_DONE
    trial.apply()
    assert trial.state() is State.DONE
    trial.revert()
    assert differences(before, schema(database)) == []
    second = trial.again()
    second.apply()
    assert second.state() is State.DONE
    assert trial.again().state() is State.DONE, "a run dropped it"


def test_drop_of_what_nobody_knows(database: Database) -> None:
    """A name may be mistyped: absence alone is not `done`."""
    trial = Trial(database, _drop(name="nosuch"))
    assert trial.state() is State.UNKNOWN
    assert "absent: fine" in trial.verify().evidence
    fine = Trial(database, _drop(name="nosuch", absent="fine"))
    assert fine.state() is State.DONE
    fine.apply()


def test_drop_way_back_where_the_name_is_taken(database: Database) -> None:
    _made(database)
    trial = Trial(database, _drop())
    trial.apply()
    _made(database, fires="BEFORE INSERT")
    with pytest.raises(StepError, match="somebody has made one"):
        trial.revert()


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_odd_triggers_come_back_as_they_were(databases: Databases, kind: str) -> None:
    """Disabled, for replicas, deferred, on a view, with a comment and a name that must be quoted."""
    with databases.kind(kind).database() as database:
        database.script(f"""{PG}; CREATE SCHEMA "Odd S"; CREATE TABLE "Odd S"."T ""x" (id int PRIMARY KEY, n int);
            CREATE VIEW v AS SELECT * FROM "Odd S"."T ""x";
            CREATE CONSTRAINT TRIGGER "late On one" AFTER INSERT ON "Odd S"."T ""x" DEFERRABLE INITIALLY DEFERRED
              FOR EACH ROW EXECUTE FUNCTION note();
            ALTER TABLE "Odd S"."T ""x" DISABLE TRIGGER "late On one";
            COMMENT ON TRIGGER "late On one" ON "Odd S"."T ""x" IS 'it''s late';
            CREATE TRIGGER instead INSTEAD OF UPDATE ON v FOR EACH ROW EXECUTE FUNCTION note()""")
        before = schema(database)
        for table, name in (('Odd S.T "x', "late On one"), ("v", "instead")):
            trial = Trial(database, _drop(table=table, name=name))
            assert trial.preflight() == []
            trial.apply()
            assert trial.state() is State.DONE
            trial.revert()
            assert differences(before, schema(database)) == []
        again = [
            _create(table="v", name="instead", fires="INSTEAD OF UPDATE", does="FOR EACH ROW EXECUTE FUNCTION note()"),
            _create(table='Odd S.T "x', name="late On one", fires="AFTER INSERT", constraint=True,
                    does="DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note()"),
        ]  # fmt: skip
        assert [Trial(database, one).state() for one in again] == [State.DONE, State.PARTLY], "the second is disabled"


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_trigger_of_a_partition_is_dropped_where_it_was_made(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        database.script(f"""{PG}; CREATE TABLE t (id int, n int) PARTITION BY RANGE (id);
            CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9);
            CREATE TRIGGER noted BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()""")
        before = schema(database)
        assert Trial(database, _drop(table="t1")).preflight()
        trial = Trial(database, _drop())
        trial.apply()
        trial.revert()
        assert differences(before, schema(database)) == []
