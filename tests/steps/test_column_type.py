"""change_column_type through its whole life: replaced while empty, rewritten with its values, and back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import Database, Databases
from plain_context import Trial
from pydantic import ValidationError

from steps.catalog import catalog
from steps.contract import DatabaseFault, Refused, State
from steps.types.column_type.step import ChangeColumnType

SESSIONS = "session_summaries"


@pytest.fixture(params=["pg15", "pg18"])
def pgdb(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    with databases.kind(request.param).database("documented") as database:
        yield database


def _step(**fields: object) -> ChangeColumnType:
    base = {"column": f"{SESSIONS}.snapshot_ip_types", "to": "text", "using": "snapshot_ip_types[1]"}
    return ChangeColumnType.model_validate({**base, **fields})


def _decorate(database: Database) -> None:
    """Everything that hangs on a column and that dropping it would lose."""
    database.script(f"""
        CREATE INDEX ix_types ON {SESSIONS} (snapshot_ip_types);
        CREATE INDEX ix_pair ON {SESSIONS} (snapshot_country, snapshot_ip_types);
        COMMENT ON INDEX ix_types IS 'the types'' index';
        COMMENT ON COLUMN {SESSIONS}.snapshot_ip_types IS 'it''s a list';
        ALTER TABLE {SESSIONS} ALTER COLUMN snapshot_ip_types SET STATISTICS 300;
        ALTER TABLE {SESSIONS} ALTER COLUMN snapshot_ip_types SET (n_distinct = 20);
        ALTER TABLE {SESSIONS} ALTER COLUMN snapshot_ip_types SET STORAGE EXTERNAL;
        CREATE ROLE "Reader-{database.name}";
        GRANT SELECT (snapshot_ip_types) ON {SESSIONS} TO "Reader-{database.name}" WITH GRANT OPTION;
        GRANT UPDATE (snapshot_ip_types) ON {SESSIONS} TO PUBLIC;""")


def _fill(database: Database, values: str) -> None:
    database.script(f"""UPDATE {SESSIONS} SET snapshot_ip_types = {values}
        WHERE session_id IN (SELECT session_id FROM {SESSIONS} ORDER BY 1 LIMIT 3)""")


def _values(database: Database, column: str = "snapshot_ip_types") -> list[object]:
    return [
        row[0]
        for row in database.rows(f"SELECT {column} FROM {SESSIONS} WHERE {column} IS NOT NULL ORDER BY session_id")
    ]


def test_replace_whole_life(pgdb: Database) -> None:
    _decorate(pgdb)
    trial = Trial(pgdb, _step(while_all_null="replace")).whole_life(SESSIONS)
    shape = trial.shape(SESSIONS)
    column = shape.columns["snapshot_ip_types"]
    assert column[0] == "text"
    assert "it's a list" in column
    assert (f"SELECT*=Reader-{pgdb.name}" in column[-1], "UPDATE=" in column[-1]) == (True, True)
    assert shape.indexes["ix_types"][2:] == (True, True, "", "the types' index")
    assert shape.order[-1] == "snapshot_ip_types"  # its place in the order is lost, and said apart


def test_replace_statements_are_what_runs(pgdb: Database) -> None:
    _decorate(pgdb)
    sql = Trial(pgdb, _step(while_all_null="replace")).statements()
    assert sql[0].startswith("LOCK TABLE")
    assert 'DROP COLUMN "snapshot_ip_types"' in sql[2]
    assert [one for one in sql if "CONCURRENTLY" in one] == sql[-2:]


def test_replace_refused_with_values(pgdb: Database) -> None:
    _fill(pgdb, "'{residential}'")
    trial = Trial(pgdb, _step(while_all_null="replace"))
    [fault] = trial.preflight()
    assert "while_all_null: rewrite" in fault
    with pytest.raises(Refused, match="holds values"):
        trial.apply()
    assert trial.state() is State.NOT_DONE
    assert _values(pgdb) == [["residential"]] * 3


def test_replace_refused_under_the_lock(pgdb: Database) -> None:
    """A value written between the first look and the lock is found"""
    step = _step(while_all_null="replace")
    trial = Trial(pgdb, step)
    with trial.look() as look:
        found = step._tried(look, catalog.columns(look, SESSIONS)["snapshot_ip_types"])
    _fill(pgdb, "'{vpn}'")
    database = trial.database("apply")
    from plain_context import PlainContext

    with pytest.raises(Refused, match="holds values"), database.commit("replace") as work:
        step._replace_now(work, PlainContext(database), found)
    assert _values(pgdb) == [["vpn"]] * 3


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        (f"CREATE VIEW typed AS SELECT snapshot_ip_types FROM {SESSIONS}", "view public.typed"),
        (
            f"ALTER TABLE {SESSIONS} ADD CONSTRAINT filled CHECK (cardinality(snapshot_ip_types) > 0)",
            "constraint filled",
        ),
        (f"CREATE INDEX ix_gin ON {SESSIONS} USING gin (snapshot_ip_types)", "index ix_gin"),
        (f"CREATE INDEX ix_first ON {SESSIONS} ((snapshot_ip_types[1]))", "index ix_first"),
        (f"CREATE PUBLICATION p FOR TABLE {SESSIONS} (session_id, snapshot_ip_types)", "publication p"),
    ],
)
def test_replace_refused_for_dependants(pgdb: Database, sql: str, named: str) -> None:
    pgdb.script(sql)
    [fault] = Trial(pgdb, _step(while_all_null="replace")).preflight()
    assert named in fault


def test_replace_killed_before_its_indexes(pgdb: Database) -> None:
    """F: E01, E08: the type is right, an index is missing: that is not done, and resume builds it"""
    _decorate(pgdb)
    trial = Trial(pgdb, _step(while_all_null="replace"))
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("index public.ix_types").apply()
    assert "ix_types" not in trial.shape(SESSIONS).indexes
    assert trial.state() is State.PARTLY
    trial.apply()
    assert trial.state() is State.DONE
    assert trial.shape(SESSIONS).indexes.keys() >= {"ix_types", "ix_pair"}


def test_replace_killed_then_reverted(pgdb: Database) -> None:
    _decorate(pgdb)
    trial = Trial(pgdb, _step(while_all_null="replace"))
    before = trial.shape(SESSIONS)
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("index public.ix_types").apply()
    trial.revert()
    assert trial.shape(SESSIONS) == before


def test_replace_reverted_with_values_since(pgdb: Database) -> None:
    """F: F03: what the application wrote meanwhile comes along"""
    _decorate(pgdb)
    trial = Trial(pgdb, _step(while_all_null="replace"))
    before = trial.shape(SESSIONS)
    trial.apply()
    _fill(pgdb, "'hosting'")
    trial.revert()
    assert _values(pgdb) == [["hosting"]] * 3
    assert trial.shape(SESSIONS).columns["snapshot_ip_types"][0] == before.columns["snapshot_ip_types"][0]
    assert trial.shape(SESSIONS).indexes == before.indexes


def test_rewrite_whole_life_with_values(pgdb: Database) -> None:
    _decorate(pgdb)
    pgdb.script("DELETE FROM files; DELETE FROM raw_events")
    _fill(pgdb, "'{vpn,residential}'")
    Trial(pgdb, _step()).whole_life(SESSIONS)
    assert _values(pgdb) == ["vpn"] * 3


def test_rewrite_reverted_to_the_whole_arrays(pgdb: Database) -> None:
    """F: F03: arrays of two, empty arrays and NULL elements are what they were, a value changed since stays"""
    keys = [row[0] for row in pgdb.rows(f"SELECT session_id FROM {SESSIONS} ORDER BY 1 LIMIT 5")]
    arrays = ["{vpn,residential}", "{}", "{NULL,x}", "{one}", "{changed,soon}"]
    for key, array in zip(keys, arrays, strict=True):
        pgdb.rows(f"UPDATE {SESSIONS} SET snapshot_ip_types = %s::text[] WHERE session_id = %s", (array, key))
    trial = Trial(pgdb, _step())
    trial.apply()
    assert _values(pgdb) == ["vpn", "one", "changed"]
    pgdb.rows(f"UPDATE {SESSIONS} SET snapshot_ip_types = 'new' WHERE session_id = %s", (keys[4],))
    trial.revert()
    assert _values(pgdb) == [["vpn", "residential"], [], [None, "x"], ["one"], ["new"]]


def test_rewrite_declares_what_it_costs(pgdb: Database) -> None:
    """F: A05"""
    lengths = []
    for column, to in (
        ("matcher", "text"),
        ("matcher", "varchar(64)"),
        ("matcher", "varchar(8)"),
        ("risk_score", "bigint"),
    ):
        step = ChangeColumnType.model_validate({"column": f"{SESSIONS}.{column}", "to": to})
        with Trial(pgdb, step).look() as look:
            [one] = step.statements(look)
        lengths.append(one.length)
        assert one.lock == "ACCESS EXCLUSIVE"
    assert lengths == ["instant", "instant", "one rewrite", "one rewrite"]


def test_rewrite_widened_keeps_nothing(pgdb: Database) -> None:
    step = ChangeColumnType.model_validate({"column": f"{SESSIONS}.event_count", "to": "bigint"})
    trial = Trial(pgdb, step)
    trial.whole_life(SESSIONS)
    assert pgdb.value("SELECT count(*) FROM runbook.step_commit WHERE before LIKE '%\"values\":[[%'") == 0


def test_rewrite_back_refuses_to_cut(pgdb: Database) -> None:
    """A value that no longer fits stops the way back; it isn't cut"""
    step = ChangeColumnType.model_validate({"column": f"{SESSIONS}.matcher", "to": "text"})
    trial = Trial(pgdb, step)
    trial.apply()
    pgdb.script(f"UPDATE {SESSIONS} SET matcher = repeat('x', 40)")
    with pytest.raises(DatabaseFault) as fault:
        trial.revert()
    assert fault.value.sqlstate == "22001"


def test_rewrite_refused_for_a_view(pgdb: Database) -> None:
    pgdb.script(f"CREATE VIEW typed AS SELECT snapshot_ip_types FROM {SESSIONS}")
    [fault] = Trial(pgdb, _step()).preflight()
    assert "view public.typed depends on it" in fault


def test_already_so_on_sqlite(sqlite_path) -> None:
    database = Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")
    trial = Trial(database, _step(while_all_null="replace"))
    assert trial.state() is State.DONE
    assert trial.statements() == []
    assert trial.preflight() == []


def test_unknown_without_the_column(pgdb: Database) -> None:
    assert Trial(pgdb, _step(column=f"{SESSIONS}.absent")).state() is State.UNKNOWN


def test_replace_never_loses_values_by_wish() -> None:
    with pytest.raises(ValidationError, match="replace never loses"):
        _step(while_all_null="replace", keep_values=False)
