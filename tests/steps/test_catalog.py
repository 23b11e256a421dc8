"""What the catalogue answers, on real databases."""

from __future__ import annotations

import pytest
from databases import Database
from plain_context import PlainDatabase

from steps.catalog import catalog, compare, scratch
from steps.catalog.definitions import Dependant, Tie
from steps.contract import ColumnRef, RunPosition, StepError

TABLES = {
    "postgresql": """
        CREATE TABLE asn (number integer PRIMARY KEY);
        CREATE TABLE visits (
            id varchar(64) PRIMARY KEY, kind text[], country varchar(2) DEFAULT 'XX',
            asn integer REFERENCES asn (number) ON DELETE SET NULL,
            big varchar(2) GENERATED ALWAYS AS (upper(country)) STORED, updated timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT country_iso CHECK (country ~ '^[A-Z]{2}$'));
        CREATE INDEX visits_pair ON visits (country, asn) WHERE country IS NOT NULL;
        CREATE INDEX visits_lower ON visits (lower(country));
        COMMENT ON COLUMN visits.country IS 'where it''s from';
        CREATE ROLE reader_NUMBER; GRANT SELECT (country) ON visits TO reader_NUMBER WITH GRANT OPTION;
        CREATE VIEW by_country AS SELECT country, count(*) AS n FROM visits GROUP BY country;
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.country := upper(NEW.country); RETURN NEW; END $$;
        CREATE FUNCTION harmless() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'country'; END $$;
        CREATE FUNCTION top() RETURNS bigint LANGUAGE sql AS 'SELECT count(country) FROM visits';
        CREATE TRIGGER touch_it BEFORE UPDATE OF country ON visits FOR EACH ROW EXECUTE FUNCTION touch();
        CREATE POLICY mine ON visits USING (country = 'DE');
        CREATE STATISTICS visits_stat ON country, asn FROM visits;
        CREATE PUBLICATION changes FOR TABLE visits (id, country);
        CREATE SCHEMA other; CREATE TABLE other.visits (country text);""",
    "sqlite": """
        CREATE TABLE asn (number integer PRIMARY KEY);
        CREATE TABLE visits (
            id varchar(64) PRIMARY KEY, kind text, country VARCHAR(2) DEFAULT 'XX',
            asn integer REFERENCES asn (number) ON DELETE SET NULL,
            big text AS (coalesce(upper(id), country)) VIRTUAL, updated text NOT NULL,
            CONSTRAINT country_iso CHECK (length(country) = 2));
        CREATE INDEX visits_pair ON visits (country, asn) WHERE country IS NOT NULL;
        CREATE INDEX visits_lower ON visits (lower(country));
        CREATE VIEW by_country AS SELECT country, count(*) AS n FROM visits GROUP BY country;
        CREATE TRIGGER touch_it AFTER UPDATE ON visits WHEN new.country = 'xx' BEGIN SELECT 1; END;""",
}


def _look(database: Database):
    return PlainDatabase(database, RunPosition("run", "step", "apply")).look()


def _made(database: Database) -> Database:
    number = database.name if database.server else ""
    database.script(TABLES[database.dialect].replace("NUMBER", number))
    return database


def test_relation_named(empty_database: Database) -> None:
    with _look(_made(empty_database)) as look:
        found = catalog.relation(look, "visits")
        assert found is not None
        assert (found.schema, found.name, found.kind, found.owned) == (look.schema, "visits", "table", True)
        assert catalog.relation(look, "by_country").kind == "view"
        assert catalog.relation(look, "absent") is None
        assert catalog.columns(look, "absent") == {}


def test_relation_estimated_after_analyze(honeypot: Database) -> None:
    honeypot.script("ANALYZE session_summaries")
    with _look(honeypot) as look:
        assert 1_900 <= catalog.relation(look, "session_summaries").estimated_rows <= 2_100


def test_columns_by_name(empty_database: Database) -> None:
    with _look(_made(empty_database)) as look:
        held = catalog.columns(look, "visits")
    assert list(held) == ["id", "kind", "country", "asn", "big", "updated"]
    assert held["big"].generated
    assert held["updated"].not_null
    assert "XX" in held["country"].default
    if empty_database.server:
        assert held["kind"].type == "text[]"
        assert held["country"].type == "character varying(2)"
        assert held["country"].comment == "where it's from"
        assert held["country"].grants == (f"SELECT*=reader_{empty_database.name}",)
    else:
        assert held["country"].type == "varchar(2)"


def test_schema_written_before_table(databases) -> None:
    """F: G01, T: 21"""
    for kind in ("pg15", "pg18"):
        with databases.kind(kind).database() as database, _look(_made(database)) as look:
            assert list(catalog.columns(look, "other.visits")) == ["country"]
            assert len(catalog.columns(look, "visits")) == 6


def test_columns_seen_without_privilege(databases) -> None:
    """T: 21: information_schema shows no rows to a role without privileges"""
    with databases.kind("pg18").database() as database:
        _made(database)
        connection = database.connect()
        connection.execute(f"SET ROLE reader_{database.name}")
        names = connection.execute(
            "SELECT count(*) FROM information_schema.columns WHERE column_name = 'kind'"
        ).fetchone()
        assert names == (0,)
        with _look(database) as look:
            look.connection.execute(f"SET ROLE reader_{database.name}")
            assert "kind" in catalog.columns(look, "visits")
            assert catalog.not_owned(look, "visits")
        connection.close()


def test_indexes_by_definition(empty_database: Database) -> None:
    with _look(_made(empty_database)) as look:
        pair = catalog.index(look, "visits_pair")
        assert pair is not None
        assert (pair.columns, pair.unique, pair.usable, pair.plain) == (("country", "asn"), False, True, True)
        assert compare.same_condition(look, "visits", has=pair.predicate, wants="country IS NOT NULL")
        assert not compare.same_condition(look, "visits", has=pair.predicate, wants="country IS NULL")
        assert any(found.constraint for found in catalog.indexes(look, "visits"))
        assert catalog.index(look, "absent") is None


def test_constraints_by_definition(empty_database: Database) -> None:
    with _look(_made(empty_database)) as look:
        [foreign] = [one for one in catalog.constraints(look, "visits") if one.kind == "foreign key"]
    assert (foreign.columns, foreign.references, foreign.foreign_columns) == (
        ("asn",),
        (look.schema, "asn"),
        ("number",),
    )
    assert foreign.on_delete == "set null"


def test_dependants_of_column(empty_database: Database) -> None:
    """F: G04: what only names the column in its source is found, what doesn't use this table isn't"""
    with _look(_made(empty_database)) as look:
        found = set(catalog.dependants(look, ColumnRef(table="visits", column="country")))
        nothing = catalog.dependants(look, ColumnRef(table="visits", column="kind"))
    common = {
        Dependant("generated column", "big", Tie.TRACKED),
        Dependant("index", "visits_pair", Tie.OWN),
    }
    assert nothing == []
    assert common <= found
    if empty_database.server:
        assert found == common | {
            Dependant("index", "visits_lower", Tie.OWN),
            Dependant("constraint", "country_iso", Tie.OWN),
            Dependant("view", "public.by_country", Tie.TRACKED),
            Dependant("policy", "mine", Tie.TRACKED),
            Dependant("trigger", "touch_it", Tie.TRACKED),
            Dependant("statistics", "public.visits_stat", Tie.TRACKED),
            Dependant("function", "public.touch", Tie.TEXT),
            Dependant("function", "public.top", Tie.TEXT),
        } | ({Dependant("publication", "changes", Tie.TRACKED)})
    else:
        assert found == common | {
            Dependant("view", "by_country", Tie.TRACKED),
            Dependant("trigger", "touch_it", Tie.TRACKED),
        }


def test_dependants_foreign_key_from_elsewhere(empty_database: Database) -> None:
    with _look(_made(empty_database)) as look:
        found = catalog.dependants(look, ColumnRef(table="asn", column="number"))
    name = "visits_asn_fkey" if empty_database.server else "visits"
    assert Dependant("foreign key", name, Tie.TRACKED) in found


def test_row_security_and_publications(databases) -> None:
    with databases.kind("pg15").database() as database:
        _made(database)
        database.script("ALTER TABLE visits ENABLE ROW LEVEL SECURITY")
        with _look(database) as look:
            rules = catalog.row_security(look, "visits")
            assert (rules.enabled, rules.applies, len(rules.policies)) == (True, False, 1)
            assert [one.name for one in catalog.publications(look, "visits")] == ["changes"]
            assert catalog.publications(look, "asn") == []


def test_partitioned_named(databases) -> None:
    with databases.kind("pg15").database() as database:
        database.script(
            "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a); "
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)"
        )
        with _look(database) as look:
            cut = catalog.partitioned(look, "p")
            assert cut is not None
            assert (cut.key, cut.partitions) == ("RANGE (a)", ("public.p1",))
            assert catalog.partitioned(look, "p1") is None


def test_primary_key_in_its_order(empty_database: Database) -> None:
    empty_database.script("CREATE TABLE keyed (a integer, b integer, c integer, PRIMARY KEY (c, a))")
    with _look(empty_database) as look:
        assert catalog.primary_key(look, "keyed") == ("c", "a")


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_columns_that_may_be_restated(empty_database: Database) -> None:
    """One for each index that an UPDATE of `filled` would leave alone, where naming it has no effect but that."""
    empty_database.script("""
        CREATE TABLE t (id integer PRIMARY KEY, filled text, plain text, "Mixed" text, part text, uniq text UNIQUE, watched text,
            base text, made text GENERATED ALWAYS AS (upper(base)) STORED, number integer GENERATED ALWAYS AS IDENTITY,
            secret text, hashed text);
        CREATE INDEX ON t (filled, plain); CREATE INDEX ON t ("Mixed"); CREATE INDEX ON t ("Mixed", id);
        CREATE INDEX ON t (uniq, part) WHERE part IS NOT NULL; CREATE INDEX ON t (watched); CREATE INDEX ON t (base);
        CREATE INDEX ON t (made); CREATE INDEX ON t (number); CREATE INDEX ON t USING hash (hashed);
        CREATE INDEX ON t (lower(plain)); CREATE INDEX ON t (secret);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER w BEFORE UPDATE OF watched ON t FOR EACH ROW EXECUTE FUNCTION f();""")
    with _look(empty_database) as look:
        found = catalog.relation(look, "t")
        assert catalog.touched_columns(look, found.oid, ["filled"]) == ("Mixed", "part", "secret")
        assert catalog.touched_columns(look, found.oid, ["secret"]) == ("filled", "Mixed", "part")


def test_nothing_is_restated_without_the_privilege(databases) -> None:
    with databases.kind("pg18").database() as database:
        role = f"writer_{database.name}"
        database.script(f"""CREATE TABLE t (id integer PRIMARY KEY, v text, w text, x text);
            CREATE INDEX ON t (w); CREATE INDEX ON t (x);
            CREATE ROLE {role}; GRANT SELECT, UPDATE (v, x) ON t TO {role};""")
        with _look(database) as look:
            found = catalog.relation(look, "t")
            look.connection.execute(f"SET ROLE {role}")
            assert catalog.touched_columns(look, found.oid, ["v"]) == ("x",)


def test_names_in_mixed_case(databases) -> None:
    """F: G11"""
    with databases.kind("pg18").database() as database:
        database.script(
            'CREATE TABLE "Visits" ("Kind" text); CREATE TABLE visits (other text); '
            'CREATE INDEX "Idx" ON "Visits" ("Kind")'
        )
        with _look(database) as look:
            assert list(catalog.columns(look, "Visits")) == ["Kind"]
            assert catalog.index(look, "Idx").columns == ("Kind",)
            assert catalog.index(look, "idx") is None


def test_snapshot_compares_by_definition(empty_database: Database) -> None:
    _made(empty_database)
    with _look(empty_database) as look:
        before = catalog.snapshot(look, "visits")
    empty_database.script(
        "DROP INDEX visits_pair; CREATE INDEX visits_pair ON visits (country, asn) WHERE country IS NOT NULL"
    )
    with _look(empty_database) as look:
        after = catalog.snapshot(look, "visits")
    assert after == before
    assert after.order == before.order
    empty_database.script("CREATE INDEX one_more ON visits (asn)")
    with _look(empty_database) as look:
        assert catalog.snapshot(look, "visits") != before


def test_same_type_by_any_spelling(databases) -> None:
    with databases.kind("pg18").database() as database, _look(database) as look:
        pairs = [
            ("character varying(45)", "varchar(45)", True),
            ("character varying(45)", "varchar(44)", False),
            ("timestamp with time zone", "timestamptz", True),
            ("timestamp(3) with time zone", "timestamptz(3)", True),
            ("text[]", "text", False),
            ("numeric(10,2)", "decimal(10, 2)", True),
            ("bigint", "int8", True),
        ]
        assert [compare.same_type(look, has, wants) for has, wants, _ in pairs] == [same for *_, same in pairs]


@pytest.mark.parametrize(
    "text", ["serial", "text NOT NULL", 'text COLLATE "C"', "int REFERENCES t", "int); SELECT (1", "", "int -- x"]
)
def test_a_type_is_a_type_and_nothing_else(empty_database: Database, text: str) -> None:
    if text == "serial" and not empty_database.server:
        pytest.skip("SQLite takes every word for a type")
    with _look(empty_database) as look, pytest.raises(StepError, match=r"as a type|has no place|empty"):
        compare.same_type(look, "integer", text) if text or empty_database.server else scratch.one_piece(
            text, look.dialect
        )


def test_same_condition_as_database_prints_it(databases) -> None:
    with databases.kind("pg15").database() as database:
        _made(database)
        database.script("CREATE INDEX part ON visits (asn) WHERE country IN ('DE', 'FR') AND asn > 0")
        with _look(database) as look:
            has = catalog.index(look, "part").predicate
            assert compare.same_condition(look, "visits", has=has, wants="country in ('DE','FR') and asn>0")
            assert not compare.same_condition(look, "visits", has=has, wants="country in ('DE','FR') or asn>0")


def test_affinity_as_sqlite_gives_it(sqlite_path) -> None:
    declared = ["varchar(45)", "text[]", "INTEGER", "floating point", "", "timestamp", "double", "blob"]
    wanted = ["text", "text", "integer", "integer", "blob", "numeric", "real", "blob"]
    with _look(Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")) as look:
        assert [scratch.affinity(look, one) for one in declared] == wanted
