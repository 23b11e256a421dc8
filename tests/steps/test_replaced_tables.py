"""A table that was dropped and made again under its name is another one: no way back acts on it as on the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg15"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
on_pg = pytest.mark.parametrize("empty_database", ["pg15"], indirect=True)

MADE = "CREATE TABLE t (id integer PRIMARY KEY, n integer DEFAULT 0, v text)"
ROWS = "INSERT INTO t (id, n) VALUES (1, 0), (2, 0), (3, 0)"
UP = "- {id: act, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
FILL = """- id: act
  type: backfill
  table: t
  source: SELECT k, v FROM s
  match: source.k = target.id
  fill: [v]
  success_criteria: [{id: nothing_left, that: left == 0}]"""
# Each changes t; made: how t looks when somebody has made it again as the step left it.
STEPS = {
    "sql": (UP, MADE),
    "sql, each": (
        """- id: act
  type: sql
  statements:
    - {run: UPDATE t SET n = 1 WHERE id = 1, revert: UPDATE t SET n = 0 WHERE id = 1}
    - {run: UPDATE t SET n = 1 WHERE id = 2, revert: UPDATE t SET n = 0 WHERE id = 2}""",
        MADE,
    ),
    "backfill": (FILL, MADE),
    "rename_column": ("- {id: act, type: rename_column, column: t.v, to: w}", MADE.replace("v text", "w text")),
    "rename_column, as before": ("- {id: act, type: rename_column, column: t.v, to: w}", MADE),
    "add_column": ("- {id: act, type: add_column, column: t.w, of_type: text}", MADE.replace("v text", "v text, w text")),
    "create_index": ("- {id: act, type: create_index, table: t, columns: [n], name: t_n}", f"{MADE}; CREATE INDEX t_n ON t (n)"),
    "drop_index": ("- {id: act, type: drop_index, index: t_v}", MADE),
    "change_column_type": (
        "- {id: act, type: change_column_type, column: t.n, to: bigint}", MADE.replace("n integer", "n bigint"),
    ),
    "add_constraint": (
        "- {id: act, type: add_constraint, table: t, name: n_there, not_null: n}", MADE.replace("DEFAULT 0", "NOT NULL DEFAULT 0"),
    ),
}  # fmt: skip
ON_POSTGRESQL_ONLY = {"change_column_type", "add_constraint"}


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script(f"""{MADE}; {ROWS}; CREATE INDEX t_v ON t (v); CREATE TABLE s (k integer PRIMARY KEY, v text);
        INSERT INTO s VALUES (1, 'a'), (2, 'b'), (3, 'c')""")
    return InProcessCli(tmp_path, empty_database.url)


def again(database: Database, made: str = MADE) -> None:
    database.script(f"DROP TABLE t; {made}; {ROWS}")


def image(database: Database) -> list[object]:
    if database.dialect == "sqlite":
        names = database.rows("SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 't' ORDER BY 1, 2")
    else:
        names = database.rows(
            "SELECT attname, attnotnull, atttypid FROM pg_attribute WHERE attrelid = 't'::regclass ORDER BY 1"
        )
        names += database.rows(
            "SELECT indexrelid::regclass::text, 1, 1 FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1"
        )
    return [*names, *database.rows("SELECT * FROM t ORDER BY id")]


@on_both
@pytest.mark.parametrize("kind", STEPS)
def test_way_back_leaves_a_namesake_alone(desk: InProcessCli, empty_database: Database, kind: str) -> None:
    """It stops and says why; left standing by a person, the rollback ends in part, and the namesake is as it was."""
    if empty_database.dialect == "sqlite" and kind in ON_POSTGRESQL_ONLY:
        pytest.skip("only on PostgreSQL")
    step, made = STEPS[kind]
    written(desk, step)
    assert desk.runbook("exec", "change.yaml").code == 0
    again(empty_database, made)
    before = image(empty_database)
    stopped = desk.runbook("rollback", "latest")
    assert stopped.code == 10 and "is another table now" in stopped.err, stopped.text
    assert "--leave act" in stopped.err and image(empty_database) == before
    assert desk.runbook("rollback", "latest").code == 10 and image(empty_database) == before
    left = desk.runbook("rollback", "latest", "--leave", "act", "--reason", "the table was made again")
    assert left.code == 9 and image(empty_database) == before, left.text


@on_both
def test_person_may_say_that_it_is_the_table(desk: InProcessCli, empty_database: Database) -> None:
    """Restored from a copy, for example: settled as done, the way back is sent; settled as not done, it isn't."""
    for word, wanted in (("done", -1), ("not-done", 0)):
        written(desk, UP)
        assert desk.runbook("exec", "change.yaml").code == 0
        again(empty_database)
        assert desk.runbook("rollback", "latest").code == 10
        settled = desk.runbook("settle", "latest", "act", word, "--reason", "looked")
        assert settled.code == 0, settled.text
        back = desk.runbook("rollback", "latest")
        assert back.code == 0, back.text
        assert empty_database.rows("SELECT n FROM t WHERE id = 1") == [(wanted,)]


@on_both
def test_same_table_changed_by_others_is_taken_back(desk: InProcessCli, empty_database: Database) -> None:
    """Columns, indexes, other tables, a rename there and back: it is still the table."""
    written(desk, UP)
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script("""ALTER TABLE t ADD COLUMN more text; CREATE INDEX t_more ON t (more); DROP TABLE s; CREATE TABLE s (k integer);
        ALTER TABLE t RENAME TO t_aside; ALTER TABLE t_aside RENAME TO t""")
    assert desk.runbook("rollback", "latest").code == 0
    assert empty_database.rows("SELECT n FROM t WHERE id = 1") == [(0,)]


@on_sqlite
def test_vacuum_moves_no_table_out_of_sight(desk: InProcessCli, empty_database: Database) -> None:
    """VACUUM gives tables other pages and other rows in sqlite_master."""
    empty_database.script(
        "CREATE TABLE a (x); CREATE INDEX a_x ON a (x); CREATE TABLE b (x); DROP TABLE a; CREATE TABLE c (x)"
    )
    written(desk, UP)
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script("DROP TABLE b")
    empty_database.script("VACUUM")
    assert desk.runbook("rollback", "latest").code == 0
    assert empty_database.rows("SELECT n FROM t WHERE id = 1") == [(0,)]
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script("VACUUM")
    again(empty_database)
    assert desk.runbook("rollback", "latest").code == 10


@on_sqlite
@pytest.mark.parametrize("others", [False, True])
def test_newest_table_and_what_other_steps_made_since(
    desk: InProcessCli, empty_database: Database, others: bool
) -> None:
    """The newest table of a file is known as long as the runs' own commits account for every change of the schema."""
    made = "- {{id: {0}, type: sql, text: CREATE TABLE {0} (x integer), revert: DROP TABLE {0}}}"
    written(desk, "\n".join(made.format(name) for name in ("one", "two")) + "\n- {id: seen, type: sql, "
            "text: CREATE VIEW both_of_them AS SELECT x FROM one UNION SELECT x FROM two, revert: DROP VIEW both_of_them}")  # fmt: skip
    written(desk, made.format("three"), name="second")
    assert desk.runbook("exec", "change.yaml").code == 0
    first = desk.newest.parent.name
    assert desk.runbook("exec", "second.yaml").code == 0
    assert desk.runbook("rollback", "latest").code == 0
    if others:
        empty_database.script("CREATE INDEX s_v ON s (v)")
    back = desk.runbook("rollback", first)
    assert back.code == (10 if others else 0), back.text


REBUILT = """
- id: rebuilt
  type: rebuild_table
  table: t
  definition: (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0, v text)
"""


@on_sqlite
def test_table_that_a_run_rebuilt(desk: InProcessCli, empty_database: Database) -> None:
    """There and back: in the same run, between two steps; by another run since, and that taken back too."""
    more = UP.replace("id: act", "id: more").replace("id = 1", "id = 2")
    written(desk, f"{UP}\n{REBUILT}\n{more}")
    written(desk, UP, name="first")
    written(desk, REBUILT, name="second")
    assert desk.runbook("exec", "change.yaml").code == 0
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
    assert empty_database.rows("SELECT id, n FROM t ORDER BY id") == [(1, 0), (2, 0), (3, 0)]
    for taken_back in (True, False):
        assert desk.runbook("exec", "first.yaml").code == 0
        first = desk.newest.parent.name
        assert desk.runbook("exec", "second.yaml").code == 0
        if taken_back:
            assert desk.runbook("rollback", "second").code == 0
        back = desk.runbook("rollback", first)
        assert back.code == 0, back.text
        assert empty_database.rows("SELECT id, n FROM t ORDER BY id") == [(1, 0), (2, 0), (3, 0)]


SWAP = """
- id: swap
  type: sql
  transaction: one
  statements:
    - {run: CREATE TABLE t_new AS SELECT * FROM t, revert: []}
    - {run: ALTER TABLE t RENAME TO t_old, revert: ALTER TABLE t_old RENAME TO t}
    - {run: ALTER TABLE t_new RENAME TO t, revert: DROP TABLE t}
"""


@on_both
def test_table_that_the_run_itself_replaced(desk: InProcessCli, empty_database: Database) -> None:
    """Whatever the run put in a table's place, there and back, is meant."""
    written(desk, f"{UP}\n{SWAP}\n{UP.replace('id: act', 'id: more').replace('id = 1', 'id = 2')}")
    assert desk.runbook("exec", "change.yaml").code == 0
    back = desk.runbook("rollback", "latest")
    assert back.code == 0, back.text
    assert empty_database.rows("SELECT id, n FROM t ORDER BY id") == [(1, 0), (2, 0), (3, 0)]


@on_both
def test_undo_leaves_a_namesake_alone(desk: InProcessCli, empty_database: Database) -> None:
    written(desk, UP)
    assert desk.runbook("exec", "change.yaml").code == 0
    again(empty_database)
    text = (desk.directory / "change.yaml").read_text()
    (desk.directory / "undo.yaml").write_text(
        "runbook: 1\nname: back\ntitle: Back\nsteps:\n- {id: back, type: undo, of: "
        + text.split("name: ")[1].split("\n")[0]
        + "}\n"
        "success_criteria: {none: a test}\n"
    )
    undone = desk.runbook("exec", "undo.yaml")
    assert undone.code == 10 and "is another table now" in undone.err, undone.text
    assert empty_database.rows("SELECT n FROM t WHERE id = 1") == [(0,)]


@on_both
@pytest.mark.parametrize("kind", ["sql", "backfill", "rename_column", "add_column"])
def test_resume_does_not_take_a_namesake_for_the_table(desk: InProcessCli, empty_database: Database, kind: str) -> None:
    """What was done went with the old one; a person who copied it over may say so."""
    step, made = STEPS[kind]
    written(desk, f"{step}\n- {{id: look, type: checkpoint, approval: {{by: [ines]}}}}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    again(empty_database, made)
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "looked").code == 0
    stopped = desk.runbook("resume", "latest")
    assert stopped.code == 6 and "is another table now" in stopped.err, stopped.text
    assert "runbook close" in stopped.err and "--accept-changes" in stopped.err
    assert desk.runbook("resume", "latest", "--accept-changes", "--reason", "its rows were copied").code == 0
    (resumed,) = desk.events("run_resumed")
    assert resumed.reason == "its rows were copied"


ANEW = {
    "steps of their own": """
- {id: gone, type: drop_table, table: t}
- {id: anew, type: create_table, table: t, columns: {id: integer NOT NULL, n: integer, v: text}, primary_key: id}
""",
    "sql": f"""
- {{id: gone, type: sql, text: DROP TABLE t, revert: "{MADE}"}}
- {{id: anew, type: sql, text: "{MADE}", revert: DROP TABLE t}}
""",
}  # fmt: skip
LOOK = "- {id: look, type: checkpoint, approval: {by: [ines]}}"


def waiting(desk: InProcessCli, steps: str) -> None:
    """The run has done these steps and waits behind them; the way on is free."""
    written(desk, f"{UP}\n{steps}\n{LOOK}")
    found = desk.runbook("exec", "change.yaml", "--operator", "dana")
    assert found.code == 5, found.text
    assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "looked").code == 0


@on_both
@pytest.mark.parametrize("how", ANEW)
def test_resume_knows_the_table_that_the_run_made_anew(desk: InProcessCli, empty_database: Database, how: str) -> None:
    """What it did to the first table went by its own word: nobody has to accept that."""
    waiting(desk, ANEW[how])
    resumed = desk.runbook("resume", "latest")
    assert resumed.code == 0, resumed.text
    if how != "sql":
        assert desk.runbook("rollback", "latest").code == 0
        assert empty_database.rows("SELECT id, n FROM t ORDER BY id") == [(1, 0), (2, 0), (3, 0)]


@on_both
def test_resume_refuses_a_namesake_of_the_table_that_the_run_made_anew(
    desk: InProcessCli, empty_database: Database
) -> None:
    waiting(desk, ANEW["steps of their own"])
    again(empty_database)
    stopped = desk.runbook("resume", "latest")
    assert stopped.code == 6 and "is another table now" in stopped.err, stopped.text
