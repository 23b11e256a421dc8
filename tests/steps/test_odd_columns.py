"""drop_column and drop_trigger on tables that aren't plain: what comes back is what was there, or nothing goes at all."""

from __future__ import annotations

import pytest
from databases import Databases
from definitions import differences, schema
from plain_context import Trial

from steps.contract import Refused, State, Step
from steps.types.drop_column import DropColumn
from steps.types.triggers import DropTrigger

on_both = pytest.mark.parametrize("kind", ["pg15", "pg18"])
PARTED = """CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 'spoilt'; RETURN NEW; END $$;
    CREATE TABLE t (id integer PRIMARY KEY, v text, w integer) PARTITION BY RANGE (id);
    CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
    CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id); CREATE TABLE t21 PARTITION OF t2 DEFAULT;
    INSERT INTO t SELECT n, 'v' || n, n FROM generate_series(1, 15) n;
    CREATE TRIGGER tg BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f(); COMMENT ON TRIGGER tg ON t IS 'parted';"""
PLAIN = """CREATE TABLE t (id integer PRIMARY KEY, v text, w integer); INSERT INTO t SELECT n, 'v' || n, n FROM generate_series(1, 9) n;"""
STATES = (
    "ALTER TABLE t1 DISABLE TRIGGER tg; ALTER TABLE t21 ENABLE ALWAYS TRIGGER tg",
    "ALTER TABLE ONLY t DISABLE TRIGGER tg",
    "CREATE TRIGGER own BEFORE UPDATE ON t1 FOR EACH ROW EXECUTE FUNCTION spoil()",
    "ALTER TABLE t ALTER w SET STATISTICS 50; ALTER TABLE t ADD CHECK (w > 0); ALTER TABLE t ALTER w SET NOT NULL",
)
OF_A_PARTITION = (
    "ALTER TABLE t1 ALTER w SET DEFAULT 77",
    "ALTER TABLE t2 ALTER w SET STATISTICS 50",
    "ALTER TABLE t1 ALTER w SET NOT NULL",
    "COMMENT ON COLUMN t1.w IS 'mine'",
    "GRANT SELECT (w) ON t21 TO PUBLIC",
    "CREATE INDEX own ON t1 (w)",
    "CREATE VIEW seen AS SELECT w FROM t21",
    "ALTER TABLE t1 ADD CONSTRAINT own CHECK (w > 0)",
    "CREATE STATISTICS own ON v, w FROM t1",
)


def _column(**more: object) -> DropColumn:
    return DropColumn.model_validate({"column": "t.w", **more})


def _comes_back(databases: Databases, kind: str, tables: str, step: Step) -> None:
    with databases.kind(kind).database() as database:
        database.script(tables)
        trial = Trial(database, step)
        rows = "SELECT to_jsonb(t) FROM t ORDER BY id"
        before, values = schema(database), database.rows(rows)
        assert trial.preflight() == [], tables
        trial.apply()
        assert trial.state() is State.DONE
        trial.revert()
        assert differences(before, schema(database)) == [], tables
        assert database.rows(rows) == values, tables


@on_both
@pytest.mark.parametrize("more", STATES)
def test_partitions_keep_their_triggers_and_rows(databases: Databases, kind: str, more: str) -> None:
    for step in (_column(), DropTrigger(table="t", name="tg")):
        _comes_back(databases, kind, PARTED + more, step)


@on_both
def test_what_a_partition_has_of_its_own_stops_the_drop(databases: Databases, kind: str) -> None:
    for more in OF_A_PARTITION:
        with databases.kind(kind).database() as database:
            database.script(PARTED + more)
            trial, before = Trial(database, _column()), schema(database)
            faults = trial.preflight()
            assert faults, more
            assert all("public.t1" in one or "public.t2" in one for one in faults), faults
            with pytest.raises(Refused):
                trial.apply()
            assert schema(database) == before


@on_both
def test_no_default_is_evaluated_for_rows_that_had_a_value(databases: Databases, kind: str) -> None:
    """A sequence that nobody owns keeps its place; NULL stays NULL, whatever the column or its domain has as a default."""
    tables = """CREATE SEQUENCE numbers; CREATE DOMAIN usual AS varchar(9) COLLATE "C" DEFAULT 'usual';
        CREATE DOMAIN must AS usual NOT NULL; CREATE TABLE t (id integer PRIMARY KEY, w integer DEFAULT nextval('numbers') NOT NULL,
        a usual, b must, c usual DEFAULT 'own'); INSERT INTO t (id) VALUES (1), (2); INSERT INTO t VALUES (3, 9, NULL, 'b', NULL)"""
    for name in ("w", "a", "b", "c"):
        with databases.kind(kind).database() as database:
            database.script(tables)
            trial = Trial(database, _column(column=f"t.{name}"))
            before, values = schema(database), database.rows("SELECT id, w, a, b, c FROM t ORDER BY id")
            trial.apply()
            database.script("INSERT INTO t (id) VALUES (4)")
            trial.revert()
            number = 4 if name == "w" else 3
            since = (4, number - (name == "w"), "usual", "usual", "own")
            assert database.rows("SELECT id, w, a, b, c FROM t ORDER BY id") == [*values, since]
            assert differences(before, schema(database)) == []
            assert database.value("SELECT last_value FROM numbers") == 3


@on_both
def test_settings_and_the_constraint_that_is_its_not_null_come_back(databases: Databases, kind: str) -> None:
    settings = "ALTER TABLE t ALTER w SET (n_distinct = -0.5); ALTER TABLE t ALTER v SET COMPRESSION pglz, ALTER v SET STORAGE EXTERNAL"
    _comes_back(databases, kind, f"{PLAIN} {settings}", _column(column="t.v"))
    if kind == "pg18":
        for valid in ("", "NOT VALID"):
            named = f"ALTER TABLE t ADD CONSTRAINT must NOT NULL w {valid}; COMMENT ON CONSTRAINT must ON t IS 'why'"
            _comes_back(databases, kind, f"{PLAIN} {named}", _column())


@on_both
def test_view_comes_back_with_its_own_grants_alone(databases: Databases, kind: str) -> None:
    """Not with what the default privileges give to a new view."""
    reader = f"reader_{kind}"
    view = "CREATE VIEW seen AS SELECT w FROM t; CREATE MATERIALIZED VIEW made AS SELECT w FROM t"
    default = f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {reader}"
    with databases.kind(kind).database() as database:
        database.script(f"CREATE ROLE {reader}")
        try:
            for more in ("", "GRANT SELECT ON seen, made TO PUBLIC", "REVOKE INSERT ON seen, made FROM current_user"):
                tables = f"{PLAIN} {view}; {more}; {default}"
                _comes_back(databases, kind, tables, _column(cascade=["seen", "made"]))
        finally:
            database.script(f"DROP ROLE {reader}")
