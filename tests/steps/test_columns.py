"""rename_column and add_column through their whole lives, on every database."""

from __future__ import annotations

import pytest
from databases import Database
from plain_context import Trial

from steps.contract import DatabaseFault, Refused, State, StepError
from steps.types.columns import RenameColumn
from steps.types.new_columns import AddColumn

SESSIONS = "session_summaries"


def _rename(**more: object) -> RenameColumn:
    return RenameColumn.model_validate({"column": f"{SESSIONS}.snapshot_ip_types", "to": "snapshot_ip_type", **more})


def _add(**fields: object) -> AddColumn:
    return AddColumn.model_validate({"column": f"{SESSIONS}.reviewed", "of_type": "text", **fields})


def test_rename_whole_life(honeypot: Database) -> None:
    step = _rename()
    trial = Trial(honeypot, step).whole_life(SESSIONS)
    assert step.describe() == "rename column session_summaries.snapshot_ip_types to snapshot_ip_type"
    assert trial.shape(SESSIONS).columns.keys() >= {"snapshot_ip_type"}


def test_rename_verify_says_what_it_saw(honeypot: Database) -> None:
    trial = Trial(honeypot, _rename())
    honeypot.script(f"ALTER TABLE {SESSIONS} ADD COLUMN snapshot_ip_type text")
    assert trial.state() is State.PARTLY
    honeypot.script(f"ALTER TABLE {SESSIONS} DROP COLUMN snapshot_ip_type")
    honeypot.script(f"ALTER TABLE {SESSIONS} DROP COLUMN snapshot_ip_types")
    assert trial.state() is State.UNKNOWN
    absent = RenameColumn.model_validate({"column": "nowhere.a", "to": "b"})
    assert Trial(honeypot, absent).state() is State.UNKNOWN


def test_rename_resumed_after_commit(honeypot: Database) -> None:
    """F: E07: a second apply in the same run does nothing twice"""
    trial = Trial(honeypot, _rename())
    trial.apply()
    trial.apply()
    assert trial.state() is State.DONE


def test_rename_function_body_uses_name(databases) -> None:
    """F: G04, T: 22"""
    with databases.kind("pg15").database("documented") as database:
        database.script(f"""CREATE FUNCTION types() RETURNS bigint LANGUAGE plpgsql AS $$
            BEGIN RETURN (SELECT count(snapshot_ip_types) FROM {SESSIONS}); END $$""")
        trial = Trial(database, _rename())
        [fault] = trial.preflight()
        assert "function public.types" in fault
        with pytest.raises(Refused, match=r"public\.types"):
            trial.apply()
        assert trial.state() is State.NOT_DONE


def test_rename_view_follows(honeypot: Database) -> None:
    """F: J06"""
    honeypot.script(f"CREATE VIEW typed AS SELECT session_id, snapshot_ip_types FROM {SESSIONS}")
    trial = Trial(honeypot, _rename())
    assert trial.preflight() == []
    trial.apply()
    assert trial.state() is State.DONE
    honeypot.rows("SELECT * FROM typed LIMIT 1")


def test_rename_view_left_behind(sqlite_path, databases) -> None:
    """F: J06: what an older rename left broken is seen"""
    database = Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")
    database.script(f"CREATE VIEW typed AS SELECT session_id, snapshot_ip_types FROM {SESSIONS}")
    trial = Trial(database, _rename())
    database.script(f"""PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET sql = replace(sql, 'snapshot_ip_types', 'snapshot_ip_type')
        WHERE name = '{SESSIONS}';""")
    found = trial.verify()
    assert found.state is State.PARTLY
    assert "typed" in found.evidence


def test_rename_in_schema_written_before_table(databases) -> None:
    """F: G01"""
    with databases.kind("pg18").database() as database:
        database.script("CREATE SCHEMA other; CREATE TABLE other.t (a int); CREATE TABLE t (a int)")
        Trial(database, RenameColumn.model_validate({"column": "other.t.a", "to": "b"})).apply()
        assert database.rows("SELECT a.b FROM other.t a") == []


def test_rename_refused_without_ownership(databases) -> None:
    with databases.kind("pg15").database() as database:
        database.script(
            f"CREATE TABLE t (a int); CREATE ROLE other_{database.name}; GRANT SELECT ON t TO other_{database.name}"
        )
        step = RenameColumn.model_validate({"column": "t.a", "to": "b"})
        with Trial(database, step).look() as look:
            look.connection.execute(f"SET ROLE other_{database.name}")
            [fault] = step.preflight(look)
        assert "belongs to" in fault


def test_add_whole_life(honeypot: Database) -> None:
    Trial(honeypot, _add(comment="who's looked at it")).whole_life(SESSIONS)
    Trial(honeypot, _add(column=f"{SESSIONS}.score", of_type="integer", default="7", not_null=True)).whole_life(
        SESSIONS
    )


def test_add_type_by_dialect(honeypot: Database) -> None:
    step = _add(of_type={"postgresql": "varchar(45)", "sqlite": "TEXT"})
    Trial(honeypot, step).whole_life(SESSIONS)
    assert step.describe() == "add column session_summaries.reviewed varchar(45) / TEXT"


def test_add_exists_with_another_type(honeypot: Database) -> None:
    honeypot.script(f"ALTER TABLE {SESSIONS} ADD COLUMN reviewed integer")
    trial = Trial(honeypot, _add())
    assert trial.state() is State.PARTLY
    with pytest.raises(Refused, match="integer"):
        trial.apply()


def test_add_not_null_without_default(honeypot: Database) -> None:
    [fault] = Trial(honeypot, _add(not_null=True)).preflight()
    assert "give it a default" in fault


def test_add_keeps_written_values(honeypot: Database) -> None:
    """F: F03: taking the column back would lose what others wrote"""
    trial = Trial(honeypot, _add(default="'no'"))
    trial.apply()
    honeypot.script(
        f"UPDATE {SESSIONS} SET reviewed = 'yes' WHERE session_id = (SELECT min(session_id) FROM {SESSIONS})"
    )
    with pytest.raises(StepError, match="holds values"):
        trial.revert()
    honeypot.script(f"UPDATE {SESSIONS} SET reviewed = 'no'")
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE


def test_add_volatile_default_is_a_rewrite(databases) -> None:
    with databases.kind("pg18").database("documented") as database:
        for default, length in (("gen_random_uuid()", "one rewrite"), ("now()", "instant"), ("0", "instant")):
            step = _add(of_type="text", default=default)
            with Trial(database, step).look() as look:
                assert step.statements(look)[0].length == length


def test_rename_gives_up_behind_a_reader(databases) -> None:
    """F: A01: the lock policy of the commit bounds the wait, and nothing is changed"""
    with databases.kind("pg18").database("documented") as database:
        trial = Trial(database, _rename())
        reader = database.connect()
        reader.execute("BEGIN")
        reader.execute(f"SELECT 1 FROM {SESSIONS} LIMIT 1")
        with pytest.raises(DatabaseFault) as fault:
            trial.apply()
        assert fault.value.sqlstate == "55P03"
        reader.close()
        assert trial.state() is State.NOT_DONE


def test_rename_and_a_trigger_on_another_tables_column(sqlite_path) -> None:
    """A trigger that names another table's column of the same word isn't what a rename breaks"""
    database = Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")
    database.script(
        """CREATE TABLE a (id INTEGER PRIMARY KEY, state TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY, state TEXT);
        CREATE TRIGGER told AFTER INSERT ON a BEGIN UPDATE b SET state = 'new' WHERE id = NEW.id; END;
        CREATE VIEW both_of AS SELECT a.id, b.state FROM a JOIN b ON b.id = a.id;
        CREATE TRIGGER into_view INSTEAD OF INSERT ON both_of BEGIN INSERT INTO b VALUES (NEW.id, NEW.state); END;
        CREATE VIEW broken_before AS SELECT absent FROM a"""
    )
    database.script("DROP VIEW broken_before")
    trial = Trial(database, RenameColumn.model_validate({"column": "a.state", "to": "status"}))
    trial.apply()
    assert trial.state() is State.DONE, trial.verify()
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE


def test_rename_trigger_left_behind(sqlite_path) -> None:
    database = Database(str(sqlite_path), "sqlite", f"sqlite:///{sqlite_path}")
    database.script(
        """CREATE TABLE a (id INTEGER PRIMARY KEY, state TEXT);
        CREATE TRIGGER old_word AFTER INSERT ON a BEGIN UPDATE a SET state = upper(NEW.state) WHERE id = NEW.id; END;
        PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET sql = replace(sql, 'state', 'status') WHERE type = 'table' AND name = 'a';"""
    )
    found = Trial(database, RenameColumn.model_validate({"column": "a.state", "to": "status"})).verify()
    assert (found.state, "old_word" in found.evidence) == (State.PARTLY, True)
