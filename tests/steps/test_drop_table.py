"""drop_table on every database: kept aside and moved back to the byte, dependants by name, and what can't be kept."""

from __future__ import annotations

import pytest
from databases import Database, Databases
from definitions import differences, schema
from plain_context import Trial

from steps.contract import Refused, State, StepError
from steps.types.drop_table import DropTable

BOTH = """CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1);
    CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 7 CHECK (n > 0), v varchar(9) UNIQUE);
    INSERT INTO t (id, v) VALUES (1, 'x'), (2, NULL), (3, 'z'); CREATE INDEX by_n ON t (n) WHERE v IS NOT NULL"""
PG = """; ALTER TABLE t ADD CONSTRAINT to_p FOREIGN KEY (n) REFERENCES p (id) NOT VALID; COMMENT ON TABLE t IS 'it''s t';
    COMMENT ON CONSTRAINT to_p ON t IS 'refers'; GRANT SELECT ON t TO PUBLIC; ALTER TABLE t ADD COLUMN s bigserial;
    ALTER TABLE t ADD COLUMN g integer GENERATED ALWAYS AS (n + 1) STORED; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON t FOR SELECT TO PUBLIC USING (n > 1); CREATE STATISTICS nv ON n, v FROM t;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER noted BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t DISABLE TRIGGER noted;
    CREATE RULE quiet AS ON DELETE TO t DO INSTEAD NOTHING; CREATE PUBLICATION sent FOR TABLE t"""
LITE = "; CREATE TRIGGER noted AFTER UPDATE ON t BEGIN DELETE FROM p WHERE id = new.n; END"
# what others have on it: a view on a view, a foreign key, and what hangs on the view
LEANING = """CREATE VIEW low AS SELECT id, v FROM t; CREATE VIEW high AS SELECT id FROM low;
    CREATE TABLE child (tid integer, CONSTRAINT child_t FOREIGN KEY (tid) REFERENCES t (id))"""
LEANING_LITE = """CREATE VIEW low AS SELECT id, v FROM t; CREATE VIEW high AS SELECT id FROM low;
    CREATE TRIGGER swept AFTER DELETE ON p BEGIN DELETE FROM t WHERE n = old.id; END"""


def _drop(**more: object) -> DropTable:
    return DropTable.model_validate({"table": "t", **more})


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.script(BOTH + (PG if empty_database.server else LITE))
    Trial(empty_database, _drop())  # makes the ledger
    return empty_database


def _rows(database: Database) -> list[tuple]:
    return database.rows("SELECT * FROM t ORDER BY id")


def test_whole_life(database: Database) -> None:
    before, rows, trial = schema(database), _rows(database), Trial(database, _drop())
    assert trial.state() is State.NOT_DONE
    assert trial.preflight() == []
    assert trial.apply().kept.endswith("t")  # type: ignore[attr-defined]
    assert trial.state() is State.DONE
    trial.apply()
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE
    assert differences(before, schema(database)) == []
    assert _rows(database) == rows
    second = trial.again()
    second.apply()
    assert second.again().state() is State.DONE, "an earlier run dropped it"


def test_rows_that_go_stand_in_the_plan(database: Database) -> None:
    trial = Trial(database, _drop())
    for words in ("3 rows; with it go", "index by_n", "trigger noted"):
        assert words in trial.verify().evidence
    with trial.look() as look:
        assert "keeps 3 rows" in trial.step.back_if(look)  # type: ignore[attr-defined]
    assert Trial(database, _drop(keep=False)).step.one_way()  # type: ignore[attr-defined]


def test_not_kept_is_gone(database: Database) -> None:
    trial = Trial(database, _drop(keep=False))
    trial.apply()
    assert trial.state() is State.DONE
    with pytest.raises(StepError, match="weren't kept"):
        trial.revert()


def test_dependants_are_named_before_anything_goes(database: Database) -> None:
    database.script(LEANING if database.server else LEANING_LITE)
    before = schema(database)
    names = ["high", "low", "child_t" if database.server else "swept"]
    for cascade in ([], names[:2], names[1:]):
        trial = Trial(database, _drop(cascade=cascade))
        [fault] = trial.preflight()
        named = fault.partition("would go with it")[0]
        assert [name for name in names if f" {name}" in named] == [name for name in names if name not in cascade], fault
        with pytest.raises(Refused):
            trial.apply()
    assert schema(database) == before


def test_what_is_listed_goes_and_comes_back(database: Database) -> None:
    database.script(LEANING if database.server else LEANING_LITE)
    before, rows = schema(database), _rows(database)
    trial = Trial(database, _drop(cascade=["low", "high", "child_t", "swept", "never_there"]))
    assert trial.preflight() == []
    trial.apply()
    assert trial.state() is State.DONE
    trial.revert()
    assert differences(before, schema(database)) == []
    assert _rows(database) == rows


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_foreign_key_of_another_table_on_sqlite(database: Database) -> None:
    database.script("CREATE TABLE child (tid integer REFERENCES t (id))")
    [fault] = Trial(database, _drop(cascade=["fk_0"])).preflight()
    assert "rebuild_table child" in fault


def test_another_table_of_the_name_since(database: Database) -> None:
    trial = Trial(database, _drop())
    trial.apply()
    database.script("CREATE TABLE t (other integer)")
    with pytest.raises(StepError, match="somebody has made another"):
        trial.revert()
    database.script("DROP TABLE t")
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE


def test_kept_table_is_gone_or_another(database: Database) -> None:
    trial = Trial(database, _drop())
    kept = trial.apply().kept  # type: ignore[attr-defined]
    database.script(f"DROP TABLE {kept}; CREATE TABLE {kept} (id integer)")
    if database.server:
        with pytest.raises(StepError, match="another table now"):
            trial.revert()
    database.script(f"DROP TABLE {kept}")
    with pytest.raises(StepError, match="is gone"):
        trial.revert()


def test_no_room_for_a_second_one(database: Database) -> None:
    Trial(database, _drop()).apply()
    database.script("CREATE TABLE t (id integer)")
    [fault] = Trial(database, _drop()).preflight()
    assert "still there from an earlier run" in fault
    database.script(fault.partition("any more: ")[2])  # the command that it names
    assert Trial(database, _drop()).preflight() == []


def test_absent(database: Database) -> None:
    assert Trial(database, _drop(table="nosuch")).state() is State.UNKNOWN
    fine = Trial(database, _drop(table="nosuch", absent="fine"))
    assert fine.state() is State.DONE
    assert fine.apply().kept == ""  # type: ignore[attr-defined]
    assert "absent: fine" in fine.step.describe()
    database.script("CREATE VIEW seen AS SELECT 1 AS one")
    assert "is a view" in Trial(database, _drop(table="seen")).preflight()[0]


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_odd_dependants_each_by_name(databases: Databases, kind: str) -> None:
    """What no step takes along is refused with what to do; all else is taken where it is listed, and comes back."""
    with databases.kind(kind).database() as database:
        database.script("""CREATE SCHEMA "Odd S"; CREATE TABLE "Odd S"."T ""x" (id int PRIMARY KEY, n serial, v text);
            INSERT INTO "Odd S"."T ""x" VALUES (1, 1, 'x');
            CREATE MATERIALIZED VIEW kept_rows AS SELECT id, v FROM "Odd S"."T ""x"; CREATE UNIQUE INDEX of_kept ON kept_rows (id);
            CREATE VIEW "Upper" WITH (security_barrier = true) AS SELECT v FROM kept_rows;
            CREATE FUNCTION n() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
            CREATE TRIGGER i INSTEAD OF INSERT ON "Upper" FOR EACH ROW EXECUTE FUNCTION n();
            CREATE TABLE other (id int, CONSTRAINT "o t" FOREIGN KEY (id) REFERENCES "Odd S"."T ""x" (id) ON DELETE CASCADE);
            CREATE RULE copied AS ON INSERT TO other DO ALSO UPDATE "Odd S"."T ""x" SET v = 'y';
            COMMENT ON RULE copied ON other IS 'it''s copied'; COMMENT ON INDEX of_kept IS 'kept';
            ALTER TABLE other ENABLE ROW LEVEL SECURITY;
            CREATE POLICY seen ON other USING (id IN (SELECT id FROM "Odd S"."T ""x"))""")
        listed = ["kept_rows", "Upper", "other.o t", "copied", "other.seen"]
        before = schema(database)
        trial = Trial(database, _drop(table='Odd S.T "x', cascade=listed))
        assert trial.preflight() == []
        trial.apply()
        assert trial.state() is State.DONE
        trial.revert()
        assert differences(before, schema(database)) == []
        table, number = '"Odd S"."T ""x"', '"Odd S"."T ""x_n_seq"'
        for make, name, undo in (
            (f"ALTER TABLE other ADD COLUMN d int DEFAULT nextval('{number}')", "default value", "ALTER TABLE other DROP d"),
            (f"CREATE TABLE heir () INHERITS ({table})", "table heir", "DROP TABLE heir"),
            (f"CREATE FUNCTION f() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM {table}; END", "public.f()", "DROP FUNCTION f"),
            (f"ALTER TABLE other ADD COLUMN r {table}", "column r", "ALTER TABLE other DROP r"),
        ):  # fmt: skip
            database.script(make)
            [fault] = Trial(database, _drop(table='Odd S.T "x', cascade=listed)).preflight()
            assert name in fault
            database.script(undo)


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_partitions(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        database.script("""CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)""")
        assert any("table t1 depends" in one for one in Trial(database, _drop(keep=False)).preflight())
        assert "can't be moved" in Trial(database, _drop(table="t1")).preflight()[0]
        for table in ("t1", "t"):
            trial = Trial(database, _drop(table=table, keep=False))
            assert trial.preflight() == []
            trial.apply()
            assert trial.state() is State.DONE


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_schema_of_somebody_else_keeps_nothing(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        role = f"other_{database.name}"
        database.script(f"""CREATE TABLE t (id int); CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role};
            CREATE SCHEMA runbook_kept""")
        trial = Trial(database, _drop())
        with trial.look() as look:
            look.connection.execute(f"SET ROLE {role}")  # type: ignore[attr-defined]
            faults = trial.step.preflight(look)  # type: ignore[attr-defined]
        assert any("belongs to" in one for one in faults)
        database.script(f"ALTER SCHEMA runbook_kept OWNER TO {role}")
        # the owner of the test's database is a superuser, whom every schema obeys
        assert trial.preflight() == []
