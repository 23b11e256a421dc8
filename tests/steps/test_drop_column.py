"""drop_column on every database: values and definitions come back to the byte; dependants by name; what can't be kept."""

from __future__ import annotations

import pytest
from databases import Database, Databases
from definitions import differences, schema
from plain_context import Trial

from steps.contract import Refused, State, StepError
from steps.sql.dialect import quote
from steps.types.drop_column import DropColumn

TABLE = """CREATE TABLE t (id integer PRIMARY KEY, ip varchar(45), n integer NOT NULL DEFAULT 7, other integer);
    INSERT INTO t VALUES (1, '::1', 1, 1), (2, NULL, 2, 2), (3, '::3', 7, 3); CREATE INDEX by_ip ON t (ip)"""
PG = """; COMMENT ON COLUMN t.ip IS 'it''s the source'; ALTER TABLE t ALTER COLUMN ip SET STATISTICS 77;
    ALTER TABLE t ALTER COLUMN ip SET STORAGE EXTERNAL; GRANT SELECT (ip) ON t TO PUBLIC; COMMENT ON INDEX by_ip IS 'by ip';
    ALTER TABLE t ADD CONSTRAINT short CHECK (length(ip) < 40); ALTER TABLE t ADD CONSTRAINT one_ip UNIQUE (ip);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.other := 99; RETURN NEW; END $$;
    CREATE TRIGGER noted BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()"""
LITE = "; CREATE TRIGGER noted AFTER UPDATE ON t BEGIN UPDATE t SET other = 99 WHERE id = new.id; END"
LEANING = """CREATE VIEW low AS SELECT id, ip FROM t; CREATE VIEW high AS SELECT ip FROM low; CREATE INDEX two ON t (other, ip)"""


def _drop(**more: object) -> DropColumn:
    return DropColumn.model_validate({"column": "t.ip", **more})


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.script(TABLE + (PG if empty_database.server else LITE))
    Trial(empty_database, _drop())  # makes the ledger
    return empty_database


def _rows(database: Database) -> list[tuple]:
    return database.rows("SELECT id, ip, n, other FROM t ORDER BY id")


@pytest.mark.parametrize("column", ["ip", "n", "other"])
def test_whole_life(database: Database, column: str) -> None:
    cascade = ["noted"] if column == "other" else []  # on SQLite the trigger's text names it
    before, rows, trial = (
        schema(database),
        _rows(database),
        Trial(database, _drop(column=f"t.{column}", cascade=cascade)),
    )
    assert trial.state() is State.NOT_DONE
    assert trial.preflight() == []
    assert trial.apply().kept  # type: ignore[attr-defined]
    assert trial.state() is State.DONE
    trial.apply()
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE
    assert differences(before, schema(database)) == []
    assert _rows(database) == rows
    second = trial.again()
    second.apply()
    assert second.again().state() is State.DONE, "an earlier run dropped it"


def test_rows_of_others_meanwhile(database: Database) -> None:
    trial = Trial(database, _drop(column="t.n"))
    trial.apply()
    database.script("INSERT INTO t (id, ip, other) VALUES (9, '::9', 9); DELETE FROM t WHERE id = 2")
    trial.revert()
    assert _rows(database) == [(1, "::1", 1, 1), (3, "::3", 7, 3), (9, "::9", 7, 9)]


def test_values_that_go_stand_in_the_plan(database: Database) -> None:
    trial = Trial(database, _drop())
    assert "2 values; with it go" in trial.verify().evidence
    assert "index by_ip" in trial.verify().evidence
    with trial.look() as look:
        assert "keeps 2 values" in trial.step.back_if(look)  # type: ignore[attr-defined]
    assert Trial(database, _drop(keep=False)).step.one_way()  # type: ignore[attr-defined]


def test_not_kept_is_gone(database: Database) -> None:
    trial = Trial(database, _drop(keep=False))
    assert trial.apply().kept == ""  # type: ignore[attr-defined]
    assert trial.state() is State.DONE
    with pytest.raises(StepError, match="weren't kept"):
        trial.revert()


def test_dependants_are_named_before_anything_goes(database: Database) -> None:
    """A view on the column, a view on that view, and an index that has another column too."""
    database.script(LEANING)
    before, names = schema(database), ["high", "low", "two"]
    for cascade in ([], names[:2], names[1:]):
        trial = Trial(database, _drop(cascade=cascade))
        [fault] = trial.preflight()
        named = fault.partition("would go with it")[0]
        assert [name for name in names if f" {name}" in named] == [name for name in names if name not in cascade], fault
        assert "by_ip" not in named
        with pytest.raises(Refused):
            trial.apply()
    assert schema(database) == before


def test_what_is_listed_goes_and_comes_back(database: Database) -> None:
    database.script(LEANING)
    before, rows = schema(database), _rows(database)
    trial = Trial(database, _drop(cascade=["low", "high", "two", "never_there"]))
    assert trial.preflight() == []
    trial.apply()
    assert trial.state() is State.DONE
    trial.revert()
    assert differences(before, schema(database)) == []
    assert _rows(database) == rows


def test_another_column_of_the_name_since(database: Database) -> None:
    trial = Trial(database, _drop())
    trial.apply()
    database.script("ALTER TABLE t ADD COLUMN ip integer")
    with pytest.raises(StepError, match="another column of this name"):
        trial.revert()


def test_kept_values_are_gone(database: Database) -> None:
    trial = Trial(database, _drop())
    kept = trial.apply().kept  # type: ignore[attr-defined]
    database.script("ALTER TABLE t ADD COLUMN ip integer")
    assert any("still there" in one for one in Trial(database, _drop()).preflight())
    database.script(f"ALTER TABLE t DROP COLUMN ip; DROP TABLE {kept}")
    with pytest.raises(StepError, match="is gone"):
        trial.revert()


def test_absent(database: Database) -> None:
    for column in ("t.nosuch", "nowhere.n"):
        assert Trial(database, _drop(column=column)).state() is State.UNKNOWN
        fine = Trial(database, _drop(column=column, absent="fine"))
        assert fine.state() is State.DONE
        fine.apply()


def test_what_cannot_be_kept(database: Database) -> None:
    database.script("CREATE TABLE keyless (a integer, b integer)")
    assert "no primary key" in Trial(database, _drop(column="keyless.a")).preflight()[0]
    assert Trial(database, _drop(column="keyless.a", keep=False)).preflight() == []
    assert any("primary key" in one.lower() for one in Trial(database, _drop(column="t.id")).preflight())


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_sqlite_refuses_by_itself(database: Database) -> None:
    database.script(
        "CREATE TABLE u (id integer PRIMARY KEY, a integer UNIQUE, b integer CHECK (b > 0), c integer CHECK (b > c))"
    )
    for column in ("a", "b"):
        [fault] = Trial(database, _drop(column=f"u.{column}")).preflight()
        assert "rebuild_table" in fault


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_odd_dependants_each_by_name(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        database.script("""CREATE SCHEMA "Odd S"; CREATE TABLE "Odd S"."T ""x" (id int, "Ip" text NOT NULL, b int, PRIMARY KEY (id),
              CONSTRAINT pair UNIQUE ("Ip", b), made text GENERATED ALWAYS AS (upper("Ip")) STORED);
            INSERT INTO "Odd S"."T ""x" VALUES (1, 'x', 1); CREATE INDEX of_made ON "Odd S"."T ""x" (made);
            COMMENT ON COLUMN "Odd S"."T ""x".made IS 'upper';
            CREATE INDEX partly ON "Odd S"."T ""x" (b) WHERE "Ip" <> 'y'; CREATE INDEX lowered ON "Odd S"."T ""x" (lower("Ip"));
            CREATE STATISTICS both_of ON id, "Ip" FROM "Odd S"."T ""x";
            CREATE TABLE child (i text, b int, CONSTRAINT to_pair FOREIGN KEY (i, b) REFERENCES "Odd S"."T ""x" ("Ip", b) NOT VALID);
            CREATE FUNCTION n() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
            CREATE TRIGGER of_ip BEFORE UPDATE OF "Ip" ON "Odd S"."T ""x" FOR EACH ROW EXECUTE FUNCTION n();
            ALTER TABLE "Odd S"."T ""x" ENABLE ROW LEVEL SECURITY; CREATE POLICY own_ip ON "Odd S"."T ""x" USING ("Ip" = current_user);
            CREATE MATERIALIZED VIEW kept_rows AS SELECT "Ip" FROM "Odd S"."T ""x"; CREATE INDEX of_kept ON kept_rows ("Ip");
            COMMENT ON STATISTICS both_of IS 'it''s both'; ALTER STATISTICS both_of SET STATISTICS 70; COMMENT ON INDEX of_kept IS 'kept';
            COMMENT ON POLICY own_ip ON "Odd S"."T ""x" IS 'own'; ALTER INDEX "Odd S".lowered ALTER COLUMN 1 SET STATISTICS 50;
            CREATE INDEX alone ON "Odd S"."T ""x" ("Ip"); ALTER TABLE "Odd S"."T ""x" CLUSTER ON alone;
            ALTER MATERIALIZED VIEW kept_rows CLUSTER ON of_kept""")
        before, rows = schema(database), database.rows('SELECT id, "Ip", b, made FROM "Odd S"."T ""x"')
        names = ["pair", "made", "partly", "lowered", "both_of", "to_pair", "of_ip", "own_ip", "kept_rows"]
        qualified = {"partly", "lowered"}
        listed = [f"Odd S.{one}" if one in qualified else one for one in names]
        column = 'Odd S.T "x.Ip'
        [fault] = Trial(database, _drop(column=column)).preflight()
        assert [one for one in names if f" {one}" not in fault] == []
        trial = Trial(database, _drop(column=column, cascade=listed))
        assert trial.preflight() == []
        trial.apply()
        assert trial.state() is State.DONE
        assert not any("CASCADE" in one for one in trial.statements())
        trial.revert()
        assert differences(before, schema(database)) == []
        assert database.rows('SELECT id, "Ip", b, made FROM "Odd S"."T ""x"') == rows


@pytest.mark.parametrize("kind", ["pg15", "pg18"])
def test_generated_partitioned_and_published(databases: Databases, kind: str) -> None:
    with databases.kind(kind).database() as database:
        database.script("""CREATE TABLE g (id int PRIMARY KEY, a int CONSTRAINT "it's there" NOT NULL, b int
              CONSTRAINT made NOT NULL GENERATED ALWAYS AS (id * 2) STORED, s serial);
            INSERT INTO g VALUES (1, 1); CREATE TABLE p (id int PRIMARY KEY, a int, b text) PARTITION BY RANGE (id);
            CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); INSERT INTO p VALUES (1, 2, 'x');
            CREATE PUBLICATION sent FOR TABLE g (id, a);
            CREATE INDEX parted ON p (b); CREATE TABLE r (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL UNIQUE);
            CREATE UNIQUE INDEX named ON r (a); ALTER TABLE r REPLICA IDENTITY USING INDEX named;
            CREATE TABLE h (id int PRIMARY KEY, a int CONSTRAINT "it's there" NOT NULL); INSERT INTO h VALUES (1, 1)""")
        before = schema(database)
        for column in ("g.b", "h.a", "p.a", "r.b"):
            trial = Trial(database, _drop(column=column))
            assert trial.preflight() == []
            trial.apply()
            trial.revert()
            assert differences(before, schema(database)) == [], column
        assert database.rows("SELECT id, a, b FROM p") == [(1, 2, "x")]
        assert database.rows("SELECT b FROM g") == [(2,)]
        for column, why in (
            ("p.id", "partitioned by it"),
            ("p1.a", "inherited from p"),
            ("g.a", "publication sent"),
            ("g.s", "next number"),
            ("p.b", "index parted would go with it: it belongs to a partitioned table"),
            ("r.a", "index named would go with it: it is the replica identity"),
        ):
            assert any(why in one for one in Trial(database, _drop(column=column)).preflight()), column
        assert Trial(database, _drop(column="g.s", keep=False)).preflight() == []


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_sqlite_view_that_would_take_the_name_for_a_text(empty_database: Database) -> None:
    """Without the column it compiles, and would give its name in each row; so it goes with it, and what reads it too."""
    empty_database.script("""CREATE TABLE w (id integer PRIMARY KEY, "odd name" text, b text); INSERT INTO w VALUES (1, 'x', 'y');
        CREATE VIEW shown AS SELECT "odd name" AS o FROM w; CREATE VIEW again AS SELECT o FROM shown;
        CREATE TRIGGER of_it AFTER UPDATE OF "odd name" ON w BEGIN UPDATE w SET b = 'z'; END""")
    before = schema(empty_database)
    [fault] = Trial(empty_database, _drop(column="w.odd name")).preflight()
    assert "view shown" in fault and "view again" in fault and "trigger of_it" in fault
    trial = Trial(empty_database, _drop(column="w.odd name", cascade=["shown", "again", "of_it"]))
    assert trial.preflight() == []
    trial.apply()
    assert empty_database.rows("SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger')") == []
    trial.revert()
    assert empty_database.rows("SELECT * FROM again") == [("x",)]
    assert differences(before, schema(empty_database)) == []


WRITTEN = {  # how a column stands in CREATE TABLE on SQLite, its name and the rest: the rest comes back as it was written
    "foreign key": ("c", "integer REFERENCES t ON DELETE CASCADE ON UPDATE SET NULL"),
    "check": ("c", 'integer CONSTRAINT "few, or" CHECK (c <> 9)'),
    "on conflict": ("c", "text NOT NULL ON CONFLICT IGNORE DEFAULT 'x, y'"),
    "computed": ("[c]", "text DEFAULT ('a' || 'b')"),
    "comment": ("`c`", "text COLLATE NOCASE -- why, and\n DEFAULT 3 /* more, of it */"),
    "no type": ("'c'", ""),
    "quoted": ('"c ""d"', "varchar(5)"),
}


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("case", WRITTEN)
@pytest.mark.parametrize("place", ["first", "last", "keyed"])
def test_sqlite_column_comes_back_as_it_was_written(empty_database: Database, case: str, place: str) -> None:
    name, rest = WRITTEN[case]
    parts = {
        "first": f"{name} {rest}, id integer PRIMARY KEY, d text",
        "last": f"id integer PRIMARY KEY, d text, {name} {rest}",
        "keyed": f"d text, {name} {rest}, id integer, CONSTRAINT k PRIMARY KEY (id), CHECK (d <> '')",
    }
    empty_database.script(f"{TABLE}; CREATE TABLE u ({parts[place]}) {'WITHOUT ROWID' * (place == 'keyed')}")
    empty_database.script(f"INSERT INTO u (id, d, {name}) VALUES (1, 'x', 1), (2, NULL, '2')")
    column = 'c "d' if case == "quoted" else "c"
    shown = f"SELECT id, d, {quote(column)}, typeof({quote(column)}) FROM u"
    before, rows = schema(empty_database), empty_database.rows(shown)
    trial = Trial(empty_database, _drop(column=f"u.{column}"))
    if case == "computed":
        [fault] = trial.preflight()
        assert "non-constant default" in fault
        return
    assert trial.preflight() == []
    trial.apply()
    trial.revert()
    assert f"{quote(column)} {rest}".strip() in empty_database.value("SELECT sql FROM sqlite_master WHERE name = 'u'")
    assert empty_database.rows(shown) == rows
    assert differences(before, schema(empty_database)) == []


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_sqlite_key_that_is_null_names_no_row(empty_database: Database) -> None:
    empty_database.script(
        "CREATE TABLE u (k text PRIMARY KEY, v text); INSERT INTO u VALUES (NULL, 'a'), (NULL, 'b'), ('k', 'c')"
    )
    [fault] = Trial(empty_database, _drop(column="u.v")).preflight()
    assert "2 rows have NULL in the primary key" in fault
    assert Trial(empty_database, _drop(column="u.v", keep=False)).preflight() == []
