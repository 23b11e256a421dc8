"""Drops and creations in real runs: killed at every record and commit, resumed, rolled back; the plan; and a replaced table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import KILLED, Cli
from databases import Database
from definitions import differences, schema
from inside import InProcessCli, written

pytestmark = pytest.mark.newest

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_pg = pytest.mark.parametrize("empty_database", ["pg15"], indirect=True)
TABLES = """CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1);
    CREATE TABLE t (id integer PRIMARY KEY, ip varchar(45), n integer NOT NULL DEFAULT 7);
    INSERT INTO t VALUES (1, '::1', 1), (2, NULL, 2); CREATE INDEX by_ip ON t (ip); CREATE VIEW seen AS SELECT id, ip FROM t;
    CREATE TABLE old (id integer PRIMARY KEY, v text); INSERT INTO old VALUES (1, 'x'); CREATE INDEX by_v ON old (v)"""
PG = """; CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER noted BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE t ADD CONSTRAINT counted CHECK (n > 0)"""
LITE = "; CREATE TRIGGER noted AFTER UPDATE ON p BEGIN SELECT 1; END"
STEPS = """- {id: made, type: create_table, table: fresh, columns: {id: integer NOT NULL, v: text}, primary_key: id}
- {id: column, type: drop_column, column: t.ip, cascade: seen}
- {id: whole, type: drop_table, table: old}
- {id: untriggered, type: drop_trigger, table: p, name: noted}
- {id: never, type: drop_index, index: never_there, absent: fine}"""
TRIGGER = {
    "postgresql": "\n- {id: triggered, type: create_trigger, table: t, name: watched, fires: BEFORE UPDATE,"
    " does: FOR EACH ROW EXECUTE FUNCTION note()}"
    "\n- {id: unbound, type: drop_constraint, table: t, name: counted}",
    "sqlite": "\n- {id: triggered, type: create_trigger, table: t, name: watched, fires: AFTER UPDATE, does: BEGIN SELECT 1; END}",
}
POINTS = ("trail.before", "trail.after", "commit.before", "commit.after")


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.script(TABLES + (PG if empty_database.server else LITE))
    return empty_database


def _rows(database: Database) -> list[tuple]:
    return database.rows("SELECT id, ip, n FROM t ORDER BY id") + database.rows("SELECT id, v FROM old")


def _points(database: Database, *, every: bool) -> list[str]:
    if every:
        return [f"{name}:{n}" for name in POINTS for n in range(1, 34)]
    return [
        "trail.after:6",
        "commit.before:4",
        "commit.after:4",
        "commit.before:6",
        "commit.after:6",
        "commit.after:8",
        "trail.before:17",
    ]


def _killed(database: Database, directory: Path, points: list[str], *, rollback: bool) -> None:
    """Killed on the way forward, or on the way back: what is resumed ends as if nothing had happened."""
    before, rows = schema(database), _rows(database)
    after: dict[str, list[tuple]] = {}
    for point in points:
        here = directory / point.replace(":", "-")
        here.mkdir()
        desk = Cli(here, database.url)
        written(desk, STEPS + TRIGGER[database.dialect])
        done = desk.runbook("exec", "change.yaml", fault="" if rollback else point)
        if done.code == KILLED and (here / "runs").exists() and desk.trail.stat().st_size:
            done = desk.runbook("resume", "latest")
        elif done.code == KILLED:
            done = desk.runbook("exec", "change.yaml")
        assert done.code == 0 or "it has ended (succeeded)" in done.text, (point, done.text)
        after = after or schema(database)
        assert differences(after, schema(database)) == [], point
        back = desk.runbook("rollback", "latest", fault=point if rollback else "")
        if back.code == KILLED:
            back = desk.runbook("rollback", "latest")
        assert back.code == 0 or "rolled_back" in back.text, (point, back.text)
        assert differences(before, schema(database)) == [], point
        assert _rows(database) == rows, point


@on_both
def test_killed_on_the_way(database: Database, tmp_path: Path) -> None:
    _killed(database, tmp_path, _points(database, every=False), rollback=False)


@on_both
def test_killed_on_the_way_back(database: Database, tmp_path: Path) -> None:
    _killed(database, tmp_path, _points(database, every=False), rollback=True)


@pytest.mark.soak
@pytest.mark.parametrize("rollback", [False, True])
def test_killed_at_all_points(database: Database, tmp_path: Path, rollback: bool) -> None:
    _killed(database, tmp_path, _points(database, every=True), rollback=rollback)


@on_both
def test_dependants_stop_the_run_before_its_first_act(database: Database, tmp_path: Path) -> None:
    """The view is found by the plan and by exec, although the step that it stops is the second."""
    desk, before = InProcessCli(tmp_path, database.url), schema(database)
    written(desk, STEPS.replace(", cascade: seen", ""))
    for words in (["plan", "change.yaml"], ["exec", "change.yaml"]):
        done = desk.runbook(*words)
        assert done.code == 6, done.text
        assert "view seen" in " ".join(done.text.split())
    assert schema(database) == before


@on_both
def test_plan_shows_what_each_drop_takes(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    written(desk, STEPS)
    text = " ".join(desk.runbook("plan", "change.yaml").text.split())
    for words in (
        ": 1 value; with it go",
        "index by_ip",
        "old is there, a table: 1 row;",
        "keeps 1 row",
        "taking along seen",
        "absent: fine",
    ):
        assert words in text, words
    written(desk, "- {id: gone, type: drop_table, table: old, keep: false}", "rollback: {none: it is archived}\n")
    text = " ".join(desk.runbook("plan", "change.yaml").text.split())
    assert "a table: 1 row;" in text
    assert "one way: its rows aren't kept" in text


@on_both
def test_mistyped_name_stops_the_run(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    for step in (
        "{id: a, type: drop_table, table: odl}",
        "{id: a, type: drop_column, column: t.pi}",
        "{id: a, type: drop_index, index: by_pi}",
        "{id: a, type: drop_trigger, table: p, name: note}",
    ):
        written(desk, f"- {step}")
        done = desk.runbook("exec", "change.yaml")
        assert done.code == 6, done.text
        assert "absent: fine" in done.text


@on_both
def test_second_run_knows_what_the_first_dropped(database: Database, tmp_path: Path) -> None:
    desk = InProcessCli(tmp_path, database.url)
    written(desk, STEPS)
    assert desk.runbook("exec", "change.yaml").code == 0
    again = desk.runbook("exec", "change.yaml")
    assert again.code == 0, again.text


AGAIN: dict[str, Callable[[str], str]] = {
    "drop_column": lambda _: "- {id: act, type: drop_column, column: p.v}",
    "create_trigger": lambda dialect: TRIGGER[dialect].strip().split("\n")[0].replace("table: t", "table: p"),
    "drop_trigger": lambda _: "- {id: act, type: drop_trigger, table: p, name: noted}",
    "create_table": lambda _: "- {id: act, type: create_table, table: p2, columns: {id: integer}}",
}


@on_both
@pytest.mark.parametrize("kind", sorted(AGAIN))
def test_way_back_leaves_a_namesake_alone(database: Database, tmp_path: Path, kind: str) -> None:
    desk = InProcessCli(tmp_path, database.url)
    database.script("ALTER TABLE p ADD COLUMN v text; CREATE TABLE newest (id integer)")
    written(desk, AGAIN[kind](database.dialect))
    done = desk.runbook("exec", "change.yaml")
    assert done.code == 0, done.text
    table = "p2" if kind == "create_table" else "p"
    database.script(f"DROP TABLE {table}; CREATE TABLE {table} (id integer PRIMARY KEY)")
    before = schema(database)
    back = desk.runbook("rollback", "latest")
    assert back.code != 0, back.text
    assert schema(database) == before


@on_pg
def test_drops_that_clear_the_way_for_each_other(database: Database, tmp_path: Path) -> None:
    """A plan counts what its earlier steps will have dropped: keys with their column, constraint or table."""
    database.script("""CREATE TABLE asn (id int PRIMARY KEY);
        CREATE TABLE ips (ip text PRIMARY KEY, asn int CONSTRAINT to_asn REFERENCES asn);
        CREATE TABLE s (id int PRIMARY KEY, ip text CONSTRAINT to_ip REFERENCES ips, asn int CONSTRAINT s_asn REFERENCES asn);
        INSERT INTO asn VALUES (1); INSERT INTO ips VALUES ('::1', 1); INSERT INTO s VALUES (1, '::1', 1)""")
    desk, before, rows = InProcessCli(tmp_path, database.url), schema(database), database.rows("SELECT * FROM s")
    written(desk, """- {id: key, type: drop_constraint, table: s, name: s_asn}
- {id: column, type: drop_column, column: s.ip}
- {id: ips, type: drop_table, table: ips}
- {id: asn, type: drop_table, table: asn}""")  # fmt: skip
    planned = desk.runbook("plan", "change.yaml")
    assert planned.code == 0, planned.text
    done = desk.runbook("exec", "change.yaml")
    assert done.code == 0, done.text
    assert desk.runbook("rollback", "latest").code == 0
    assert differences(before, schema(database)) == []
    assert database.rows("SELECT id, ip, asn FROM s") == rows


@on_pg
def test_plan_knows_the_names_that_its_own_steps_keep(database: Database, tmp_path: Path) -> None:
    """Of two tables of one name only one can be kept aside; values of their columns have names of their own."""
    database.script(
        "CREATE SCHEMA b; CREATE TABLE b.old (id integer PRIMARY KEY, v text); INSERT INTO b.old VALUES (2, 'y')"
    )
    desk, before = InProcessCli(tmp_path, database.url), schema(database)
    written(desk, "- {id: one, type: drop_table, table: old}\n- {id: two, type: drop_table, table: b.old}")
    for words in ("plan", "exec"):
        done = desk.runbook(words, "change.yaml")
        assert done.code == 6, done.text
        assert "an earlier step of the playbook keeps something as runbook_kept.old" in " ".join(done.text.split())
    assert schema(database) == before
    written(desk, "- {id: one, type: drop_column, column: old.v}\n- {id: two, type: drop_column, column: b.old.v}")
    assert desk.runbook("exec", "change.yaml").code == 0
    assert desk.runbook("rollback", "latest").code == 0
    assert differences(before, schema(database)) == []
    assert database.rows("SELECT * FROM old UNION ALL SELECT * FROM b.old") == [(1, "x"), (2, "y")]
