"""What plan says of taking back holds, and no step commits what its own check then calls undone: over every step type.

Backfills and fills, SQL, commands and `undo` have tests of their own: what they write is the author's. So have whole tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from databases import Database
from plain_context import Trial

from steps import registry
from steps.contract import Conditional, DatabaseFault, Refused, State, Step, StepError

ELSEWHERE = {
    "backfill",
    "clear_columns",
    "fill_table",
    "keep",
    "checkpoint",
    "command",
    "sql",
    "undo",
    "analyze",
    "end_sessions",
    "reindex",
    "vacuum",
    "create_table",
    "drop_table",
}
TABLE = (
    "CREATE TABLE t (id integer PRIMARY KEY, a integer, s varchar(20) DEFAULT 'x', n integer NOT NULL DEFAULT 1);"
    "INSERT INTO t (id, a) VALUES (1, 10), (2, 20), (3, 30); CREATE UNIQUE INDEX by_a ON t (a); CREATE INDEX by_n ON t (n)"
)

TRIGGER = {
    "postgresql": "; CREATE TRIGGER was BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "sqlite": "; CREATE TRIGGER was BEFORE UPDATE ON t BEGIN SELECT 1; END",
}
WIDER = "(id integer PRIMARY KEY, a integer CHECK (a > 0), s text DEFAULT 'x', n integer DEFAULT 1, x text)"


@dataclass(frozen=True)
class Promise:
    """A step, and what somebody does meanwhile that breaks its condition; "" where it promises without one."""

    kind: str
    fields: dict[str, object]
    breaks: str = ""
    on: str = ""
    others: str = "INSERT INTO t (id, a) VALUES (4, 40); UPDATE t SET n = 5 WHERE id = 1"
    mended: dict[str, object] = field(default_factory=dict)  # the author's word by which it is taken back all the same


PROMISES = [
    Promise("rename_column", {"column": "t.s", "to": "b"}, breaks="ALTER TABLE t ADD COLUMN s integer", others=""),
    Promise("add_column", {"column": "t.c", "of_type": "integer"}, breaks="UPDATE t SET c = 1", mended={"taken_back": "drop"}),
    Promise("add_column", {"column": "t.c", "of_type": "integer", "default": "7", "not_null": True},
            breaks="UPDATE t SET c = 8 WHERE id = 2", mended={"taken_back": "drop"}),
    Promise("add_column", {"column": "t.c", "of_type": "integer", "generated": "a + 1"}),
    Promise("add_column", {"column": "t.c", "of_type": "integer", "check": "c > 0"}, breaks="UPDATE t SET c = 8"),
    Promise("add_column", {"column": "t.c", "of_type": "integer", "references": "t.id"}, breaks="UPDATE t SET c = 1"),
    Promise("add_column", {"column": "t.c", "of_type": "text", "collation": {"postgresql": "C", "sqlite": "NOCASE"}},
            breaks="UPDATE t SET c = 'x'"),
    Promise("add_column", {"column": "t.c", "of_type": "bigint", "identity": "by default"}, breaks="UPDATE t SET c = 9 WHERE id = 1",
            on="postgresql", others="", mended={"taken_back": "drop"}),
    Promise("add_column", {"column": "t.c", "of_type": "uuid", "default": "gen_random_uuid()", "not_null": True},
            breaks="INSERT INTO t (id) VALUES (9)", on="postgresql", others=""),
    Promise("change_column_type", {"column": "t.s", "to": "text"}, breaks="UPDATE t SET s = repeat('x', 30)", on="postgresql"),
    Promise("change_column_type", {"column": "t.n", "to": "bigint"}, breaks="UPDATE t SET n = 5000000000", on="postgresql"),
    Promise("create_index", {"table": "t", "columns": ["s"]}),
    Promise("create_index", {"table": "t", "columns": ["id", "a"], "unique": True, "name": "u"},
            breaks="CREATE TABLE child (i integer, j integer, FOREIGN KEY (i, j) REFERENCES t (id, a))", on="postgresql"),
    Promise("drop_index", {"index": "by_n"}),
    Promise("drop_index", {"index": "by_a"}, breaks="UPDATE t SET a = 1"),
    Promise("add_constraint", {"table": "t", "name": "positive", "check": "a > 0"}, on="postgresql"),
    Promise("add_constraint", {"table": "t", "name": "some", "not_null": "s"}, on="postgresql"),
    Promise("add_constraint", {"table": "t", "name": "own", "foreign_key": {"columns": ["n"], "references": "t.id", "on_update": "cascade",
            "deferrable": "deferred"}}, on="postgresql", others=""),
    Promise("add_constraint", {"table": "t", "name": "u", "unique_index": "by_a"}, on="postgresql",
            breaks="CREATE TABLE child (a integer REFERENCES t (a))"),
    Promise("drop_column", {"column": "t.s"}, breaks="ALTER TABLE t ADD COLUMN s integer"),
    Promise("drop_constraint", {"table": "t", "name": "t_pkey"}, breaks="UPDATE t SET id = 1", on="postgresql"),
    Promise("create_trigger", {"table": "t", "name": "g", "fires": "BEFORE UPDATE", "does": {
            "postgresql": "FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", "sqlite": "BEGIN SELECT 1; END"}},
            breaks="DROP TRIGGER g; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", on="sqlite"),
    Promise("create_trigger", {"table": "t", "name": "g", "fires": "BEFORE UPDATE",
            "does": "FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"}, on="postgresql",
            breaks="""DROP TRIGGER g ON t; CREATE TRIGGER g BEFORE UPDATE OF a ON t FOR EACH ROW
              EXECUTE FUNCTION suppress_redundant_updates_trigger()"""),
    Promise("drop_trigger", {"table": "t", "name": "was"}),
    Promise("rebuild_table", {"table": "t", "definition": WIDER},
            on="sqlite", breaks="UPDATE t SET x = 'y'", mended={"taken_back": "drop"}),
]  # fmt: skip


def _kept_up(promise: Promise, database: Database) -> Step | None:
    """The step beside a table made anew; None where it doesn't exist on this database."""
    if promise.on and promise.on != database.dialect:
        return None
    _fresh(database)
    words = promise.fields.get("collation")
    more = {"collation": words[database.dialect]} if isinstance(words, dict) else {}
    return registry.step_types()[promise.kind].model_validate({**promise.fields, **more})


def _fresh(database: Database) -> None:
    kept = [] if database.server else database.rows("SELECT name FROM sqlite_master WHERE name LIKE 'runbook_kept%'")
    gone = ["child", "t", *(name for (name,) in kept)]
    database.script("".join(f"DROP TABLE IF EXISTS {name};" for name in gone) + TABLE + TRIGGER[database.dialect])


def _condition(step: Step) -> str:
    return step.back_if(None) if isinstance(step, Conditional) else ""


def test_taken_back_as_plan_promised(empty_database: Database) -> None:
    """Others write meanwhile what the condition allows: the table's definition is as before, and their rows stay."""
    for promise in PROMISES:
        if (step := _kept_up(promise, empty_database)) is not None:
            assert bool(_condition(step)) == bool(promise.breaks) or promise.kind == "drop_index", promise
            _taken_back(empty_database, promise, step)


def _taken_back(database: Database, promise: Promise, step: Step) -> None:
    trial = Trial(database, step)
    before, rows = trial.shape("t"), database.rows("SELECT id, s FROM t ORDER BY 1")
    trial.apply()
    assert trial.state() is State.DONE, trial.verify()
    assert Trial(database, step).preflight() == [], promise  # a second run calls it already applied
    if promise.others:
        database.script(promise.others)
    trial.revert()
    assert trial.state("revert") is not State.DONE, promise
    assert trial.shape("t") == before, promise
    assert database.rows("SELECT id, s FROM t WHERE id < 4 ORDER BY 1") == rows, promise
    if promise.others:
        assert database.rows("SELECT a, s, n FROM t WHERE id IN (1, 4) ORDER BY id") == [(10, "x", 5), (40, "x", 1)], (
            promise
        )


def test_refused_where_the_condition_is_broken(empty_database: Database) -> None:
    for promise in PROMISES:
        step = _kept_up(promise, empty_database) if promise.breaks else None
        if step is not None:
            _refused(empty_database, promise, step)


def _refused(database: Database, promise: Promise, step: Step) -> None:
    trial = Trial(database, step)
    trial.apply()
    database.script(promise.breaks)
    shape, rows = trial.shape("t"), database.rows("SELECT * FROM t ORDER BY id")
    with pytest.raises(StepError):
        trial.revert()
    assert trial.shape("t") == shape, promise
    assert database.rows("SELECT * FROM t ORDER BY id") == rows, promise
    if promise.mended:
        mended = Trial(database, step.model_copy(update=promise.mended), run=trial.run)
        assert "drop" in _condition(mended.step)
        mended.revert()
        assert mended.state("revert") is not State.DONE, promise


def test_every_reversible_type_is_tried() -> None:
    tried = {one.kind for one in PROMISES}
    assert tried | ELSEWHERE == set(registry.step_types())
    assert all(hasattr(registry.step_types()[kind], "revert") for kind in tried)


# ─── nothing commits and then fails in its own check ────────────────────────────────────────────────────────────────────
ODD_TYPES = [
    'text COLLATE "C"', "bigint GENERATED BY DEFAULT AS IDENTITY", "integer REFERENCES t", "text NOT NULL", "text DEFAULT 'x'",
    "VarChar ( 5 )", "timestamptz(3)", "text[]", "nosuchtype", "text); DROP TABLE t; --", '"char"', "pg_catalog.int8", " ", "serial",
]  # fmt: skip
ODD_WORDS = ["0", "NULL", "0 NOT NULL", "now()", "1; DROP TABLE t", "1)", "a", "CURRENT_TIMESTAMP"]


def _odd() -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = []
    for text in ODD_TYPES:
        found += [
            ("add_column", {"column": "t.c", "of_type": text}),
            ("change_column_type", {"column": "t.s", "to": text}),
        ]
    for text in ODD_WORDS:
        found += [
            ("add_column", {"column": "t.c", "of_type": "text", "default": text}),
            ("add_column", {"column": "t.c", "of_type": "integer", "generated": text}),
            ("add_column", {"column": "t.c", "of_type": "integer", "check": text}),
            ("create_index", {"table": "t", "columns": ["a"], "where": text, "name": "i"}),
            ("add_constraint", {"table": "t", "name": "k", "check": text}),
            (
                "rebuild_table",
                {"table": "t", "definition": f"(id integer PRIMARY KEY, a integer, s text DEFAULT {text}, n integer)"},
            ),
        ]
    return found


def test_done_or_refused_before_anything_is_changed(empty_database: Database) -> None:
    """Whatever words the author writes: the step is done and its check says so, or it was refused and nothing is changed."""
    empty_database.script(TABLE)
    done = 0
    for kind, fields in _odd():
        step = registry.step_types()[kind].model_validate(fields)
        if step.only and step.only != empty_database.dialect:
            continue
        trial = Trial(empty_database, step)
        before = trial.shape("t")
        try:
            trial.apply()
        except StepError as fault:
            # a row that is against it is found by the statement itself, which is rolled back
            assert isinstance(fault, Refused | DatabaseFault), (kind, fields, fault)
            assert trial.shape("t") == before, (kind, fields)
            continue
        assert trial.state() is State.DONE, (kind, fields, trial.verify())
        if trial.shape("t") != before:
            done += 1
            trial.revert()
            assert trial.shape("t") == before, (kind, fields)
    assert done > 15
