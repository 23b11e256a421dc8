"""Triggers that have the last word over a row: whatever they do, forward and back, the figures say what stands in the table."""

from __future__ import annotations

import contextlib

import pytest
from databases import Database
from filling import adds_up, backfill, ledger, run, simple, table
from plain_context import PlainContext, PlainDatabase, Trial

from steps.contract import RunPosition, State

ROWS, HIT = 300, 30  # rows, and those of them whose number ends in 0
LETTERS = {"max": 1000, "pct": 100}
_DO = {
    "blanks": ("BEFORE UPDATE", "NEW.v := NULL; RETURN NEW;", ""),
    "skips": ("BEFORE UPDATE", "RETURN NULL;", ""),
    "blanks after": ("AFTER UPDATE", "UPDATE t SET v = NULL WHERE id = NEW.id; RETURN NULL;", ""),
    "blanks at commit": (
        "AFTER UPDATE",
        "UPDATE t SET v = NULL WHERE id = NEW.id; RETURN NULL;",
        "DEFERRABLE INITIALLY DEFERRED",
    ),
}
SQLITE = {
    "skips": "CREATE TRIGGER hit BEFORE UPDATE ON t WHEN {when} BEGIN SELECT RAISE(IGNORE); END",
    "blanks after": "CREATE TRIGGER hit AFTER UPDATE ON t WHEN {when} BEGIN UPDATE t SET v = NULL WHERE id = NEW.id; END",
}
FORWARD = "NEW.id % 10 = 0 AND NEW.v IS NOT NULL AND OLD.v IS NULL"


def meddle(database: Database, how: str, when: str = FORWARD) -> None:
    """A trigger that does it to the rows of this condition."""
    if database.dialect == "sqlite":
        if how not in SQLITE:
            pytest.skip("SQLite has no such triggers")
        database.script(SQLITE[how].format(when=when))
        return
    time, body, deferred = _DO[how]
    kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
    database.script(f"""CREATE FUNCTION hit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} END';
        CREATE {kind} hit {time} ON t {deferred} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION hit()""")


def letters(database: Database, action: str) -> list[tuple[str, str]]:
    return database.rows(
        f"SELECT key, message FROM {ledger(database, 'skipped_row')} WHERE action = '{action}' ORDER BY key"
    )


def filled(database: Database) -> int:
    return database.value("SELECT count(v) FROM t")


@pytest.mark.parametrize(("order", "undo"), [("auto", True), ("key", False)])
@pytest.mark.parametrize("how", _DO)
def test_what_a_trigger_keeps_empty_is_dead_by_name(empty_database: Database, how: str, order: str, undo: bool) -> None:
    """Never written, never left unsaid; what was written is taken back, and tried again it is dead again."""
    table(empty_database, rows=ROWS)
    meddle(empty_database, how)
    step = simple(
        triggers="acknowledged", dead_letters=LETTERS, order=order, undo=undo, batch={"time": "10 s", "rows": [70, 70]}
    )
    trial = Trial(empty_database, step)
    for _ in range(2):
        result, _reports = run(trial)
        assert adds_up(result)
        assert (result.written, result.dead, result.deferred, result.left) == (ROWS - HIT, HIT, 0, 0)
        assert result.visited == result.in_range == result.at_start == ROWS
        assert filled(empty_database) == ROWS - HIT
        assert len(letters(empty_database, "apply")) == HIT
        assert all("trigger" in message for _, message in letters(empty_database, "apply"))
        trial.step.reopen(PlainContext(trial.database("apply")))
    empty_database.script("DROP TRIGGER hit" + ("" if empty_database.dialect == "sqlite" else " ON t"))
    result, _ = run(trial)  # what held them is gone
    assert (result.written, result.dead, result.deferred) == (ROWS, 0, 0)
    if undo:
        trial.revert()
        assert filled(empty_database) == 0
        assert letters(empty_database, "revert") == []
    else:
        assert empty_database.value(f"SELECT count(*) FROM {ledger(empty_database, 'undo')}") == 0


def test_too_many_rows_that_a_trigger_keeps_empty(empty_database: Database) -> None:
    """They count against the dead letters that the playbook allows."""
    table(empty_database, rows=ROWS)
    meddle(empty_database, "skips")
    with pytest.raises(Exception, match="dead_letters allows 10"):
        run(Trial(empty_database, simple(triggers="acknowledged", dead_letters={"max": 10, "pct": 100})))


BACK = "NEW.id % 10 = 0 AND NEW.v IS NULL"
WRITES_BACK = {
    "before": ("BEFORE UPDATE", "NEW.v := OLD.v; RETURN NEW;", ""),
    "skips": ("BEFORE UPDATE", "RETURN NULL;", ""),
    "after": ("AFTER UPDATE", "UPDATE t SET v = OLD.v WHERE id = NEW.id; RETURN NULL;", ""),
    "at commit": (
        "AFTER UPDATE",
        "UPDATE t SET v = OLD.v WHERE id = NEW.id; RETURN NULL;",
        "DEFERRABLE INITIALLY DEFERRED",
    ),
}
SQLITE_BACK = {
    "skips": "CREATE TRIGGER hit BEFORE UPDATE ON t WHEN {when} BEGIN SELECT RAISE(IGNORE); END",
    "after": "CREATE TRIGGER hit AFTER UPDATE ON t WHEN {when} BEGIN UPDATE t SET v = OLD.v WHERE id = NEW.id; END",
}


@pytest.mark.parametrize("how", WRITES_BACK)
def test_what_a_trigger_writes_back_is_refused_by_name(empty_database: Database, how: str) -> None:
    table(empty_database, rows=ROWS)
    trial = Trial(empty_database, simple(batch={"time": "10 s", "rows": [70, 70]}))
    assert trial.apply().written == ROWS
    if empty_database.dialect == "sqlite":
        if how not in SQLITE_BACK:
            pytest.skip("SQLite has no such triggers")
        empty_database.script(SQLITE_BACK[how].format(when=BACK))
    else:
        time, body, deferred = WRITES_BACK[how]
        kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
        empty_database.script(f"""CREATE FUNCTION hit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} END';
            CREATE {kind} hit {time} ON t {deferred} FOR EACH ROW WHEN ({BACK}) EXECUTE FUNCTION hit()""")
    trial.revert()
    assert filled(empty_database) == HIT
    found = letters(empty_database, "revert")
    assert len(found) == HIT and all("trigger" in message for _, message in found)
    sums = f"SELECT sum(seen), sum(written), sum(dead) FROM {ledger(empty_database, 'batch')} WHERE action = 'revert'"
    assert tuple(map(int, empty_database.rows(sums)[0])) == (ROWS, ROWS - HIT, HIT)


def test_row_that_is_only_partly_kept_empty(empty_database: Database) -> None:
    """One of its two values stands: it is dead, and yet that value is taken back."""
    empty_database.script("""CREATE TABLE s (k integer PRIMARY KEY, v text, w text); INSERT INTO s VALUES (1, 'v', 'w');
        CREATE TABLE t (id integer PRIMARY KEY, v text, w text, k integer); INSERT INTO t (id, k) VALUES (1, 1), (2, 1), (10, 1)""")
    meddle(empty_database, "blanks after")
    words = {"table": "t", "source": "SELECT * FROM s", "match": "source.k = target.k", "fill": ["v", "w"]}
    trial = Trial(empty_database, backfill(**words, triggers="acknowledged", dead_letters=LETTERS))
    result, _ = run(trial)
    assert (result.written, result.dead) == (2, 1)
    assert empty_database.rows("SELECT id, v, w FROM t ORDER BY id") == [(1, "v", "w"), (2, "v", "w"), (10, None, "w")]
    trial.revert()
    assert empty_database.value("SELECT count(*) FROM t WHERE v IS NOT NULL OR w IS NOT NULL") == 0
    assert letters(empty_database, "revert") == []


REWRITES = {
    "before": "CREATE TRIGGER hit BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION hit()",
    "after": "CREATE TRIGGER hit AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.v IN ('one', 'two')) EXECUTE FUNCTION hit()",
}


@pytest.mark.parametrize("undo", [True, False])
@pytest.mark.parametrize("when", REWRITES)
def test_value_that_a_trigger_rewrites_is_dead_by_name(empty_database: Database, when: str, *, undo: bool) -> None:
    """What stands isn't what was wanted, so it isn't counted as written; the trigger's value is taken back with the rest."""
    table(empty_database, rows=ROWS)
    if empty_database.dialect == "sqlite":
        empty_database.script("""CREATE TRIGGER hit AFTER UPDATE ON t WHEN NEW.v = 'one' AND NEW.id % 10 = 0 BEGIN
            UPDATE t SET v = 'ONE' WHERE id = NEW.id; END""")
    else:
        body = {
            "before": "IF NEW.id % 10 = 0 THEN NEW.v := upper(NEW.v); END IF; RETURN NEW;",
            "after": "IF NEW.id % 10 = 0 THEN UPDATE t SET v = upper(NEW.v) WHERE id = NEW.id; END IF; RETURN NULL;",
        }[when]
        empty_database.script(
            f"CREATE FUNCTION hit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {body} END'; {REWRITES[when]}"
        )
    trial = Trial(empty_database, simple(triggers="acknowledged", dead_letters=LETTERS, undo=undo))
    result, _ = run(trial)
    assert adds_up(result)
    assert (result.written, result.dead, result.left) == (ROWS - HIT, HIT, 0)
    dead = {key.strip('["]') for key, _ in letters(empty_database, "apply")}
    assert dead == {str(n) for n in range(10, ROWS + 1, 10)}
    assert all("wrote another value" in message for _, message in letters(empty_database, "apply"))
    assert filled(empty_database) == ROWS
    if undo:
        trial.revert()
        assert filled(empty_database) == 0


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_trigger_of_a_partition_counts(empty_database: Database) -> None:
    empty_database.script("""CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'one');
        CREATE TABLE t (id integer PRIMARY KEY, v text, k integer) PARTITION BY RANGE (id);
        CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (900);
        INSERT INTO t SELECT i, NULL, 1 FROM generate_series(1, 300) i;
        CREATE FUNCTION hit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = NULL WHERE id = NEW.id; RETURN NULL; END';
        CREATE TRIGGER hit AFTER UPDATE ON t2 FOR EACH ROW WHEN (NEW.v IS NOT NULL) EXECUTE FUNCTION hit()""")
    assert "hit (of public.t2)" in Trial(empty_database, simple()).preflight()[0]
    trial = Trial(empty_database, simple(triggers="acknowledged", dead_letters=LETTERS))
    assert trial.preflight() == []
    result, _ = run(trial)
    assert (result.written, result.dead, result.left) == (99, 201, 0)


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_rule_that_redirects_is_refused(empty_database: Database) -> None:
    table(empty_database, rows=10)
    empty_database.script("""CREATE TABLE other (LIKE t);
        CREATE RULE away AS ON UPDATE TO t DO INSTEAD UPDATE other SET v = NEW.v WHERE id = NEW.id""")
    assert "a rule on UPDATE" in Trial(empty_database, simple()).preflight()[0]


class Emptying(PlainDatabase):
    """After each batch the application empties one row again."""

    times = 99

    @contextlib.contextmanager
    def commit(self, label, **words):
        with super().commit(label, **words) as work:
            yield work
        if label.startswith("batch") and self.times:
            self.times -= 1
            self.target.script("UPDATE t SET v = NULL WHERE id = 7")


@pytest.mark.parametrize("times", [1, 99])
def test_row_that_the_application_empties_again(empty_database: Database, times: int) -> None:
    """It is written once more; emptied each time, it is dead in the end; each row counts once, and all of it goes back."""
    table(empty_database, rows=ROWS)
    trial = Trial(empty_database, simple(order="key", batch={"time": "10 s", "rows": [70, 70]}))
    database = Emptying(empty_database, RunPosition(trial.run, "step", "apply"))
    database.times = times
    result = trial.step.apply(PlainContext(database))
    assert adds_up(result)
    assert (result.visited, result.in_range, result.left) == (ROWS, ROWS, 0)
    if times > 1:
        assert (result.written, result.dead) == (ROWS - 1, 1)
        assert "NULL again" in letters(empty_database, "apply")[0][1]
        assert trial.state() is State.DONE
        trial.step.reopen(PlainContext(trial.database("apply")))
        result, _ = run(trial)
    assert (result.written, result.dead) == (ROWS, 0)
    trial.revert()
    assert filled(empty_database) == 0
    assert letters(empty_database, "revert") == []
