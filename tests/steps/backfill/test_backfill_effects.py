"""What a backfill does beside filling: triggers that fire, row versions, room on pages, what the application set to NULL."""

from __future__ import annotations

import contextlib

import pytest
from databases import Database
from filling import backfill as step_of
from filling import changed, checksum, ledger, run, stock, undo_keys, updated
from inside import until
from plain_context import Trial

from steps.contract import Paused
from steps.types.backfill.step import Backfill

ROWS = 1000
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
AUDIT = {
    "sqlite": """CREATE TABLE audit (id bigint, v text, w integer);
        CREATE TRIGGER audited AFTER UPDATE ON t BEGIN INSERT INTO audit VALUES (NEW.id, NEW.v, NEW.w); END;""",
    "postgresql": """CREATE TABLE audit (id bigint, v text, w integer);
        CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO audit VALUES (NEW.id, NEW.v, NEW.w); NEW.note := NEW.note + 1; RETURN NEW; END';
        CREATE TRIGGER audited BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION audited()""",
}


def filling(**words) -> Backfill:
    own = {"table": "t", "source": "SELECT k, v, w FROM s", "match": "source.k = target.k", "fill": ["v", "w"]}
    return step_of(**{**own, "batch": {"time": "10 s", "rows": [100, 100]}, **words})


# ─── triggers ───────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_acknowledged_trigger_fires_once_for_each_written_row(empty_database: Database) -> None:
    """Also when a batch dies and is done again; never for a row that is only looked at. F: H01"""
    stock(empty_database, rows=ROWS)
    empty_database.script(AUDIT[empty_database.dialect])
    assert "its triggers audited would fire for each written row" in Trial(empty_database, filling()).preflight()[0]
    trial = Trial(empty_database, filling(triggers="acknowledged"))
    assert trial.preflight() == []
    for n in (3, 5):
        with contextlib.suppress(KeyboardInterrupt):
            trial.dying_before(f"batch {n}").apply()
    trial.apply()
    updated(empty_database)
    assert empty_database.rows("SELECT v, w FROM t ORDER BY id") == empty_database.rows(
        "SELECT v, w FROM twin ORDER BY id"
    )
    fired = "SELECT count(*), count(DISTINCT id) FROM audit"
    assert empty_database.rows(fired) == [(changed(empty_database), changed(empty_database))]
    Trial(empty_database, filling(triggers="acknowledged")).apply()
    assert empty_database.rows(fired) == [(changed(empty_database), changed(empty_database))]


@on_18
def test_trigger_that_refuses_a_row(empty_database: Database) -> None:
    """RETURN NULL leaves a row as it is: it is not counted as written, and the pass doesn't call itself complete. F: H01"""
    stock(empty_database, rows=ROWS)
    empty_database.script("""CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF NEW.id = 20000 THEN RETURN NULL; END IF; RETURN NEW; END';
        CREATE TRIGGER keep BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION keep();
        UPDATE was SET v = NULL, w = NULL, k = 1 WHERE id = 20000""")
    empty_database.script(
        "ALTER TABLE t DISABLE TRIGGER keep; UPDATE t SET v = NULL, w = NULL, k = 1 WHERE id = 20000;"
        "ALTER TABLE t ENABLE TRIGGER keep"
    )
    result, _ = run(Trial(empty_database, filling(triggers="acknowledged")))
    updated(empty_database)
    assert empty_database.rows("SELECT v, w FROM t WHERE id = 20000") == [(None, None)]
    assert result.written == changed(empty_database) - 1 == len(undo_keys(empty_database))
    assert result.deferred + result.dead + result.left == 1


# ─── row versions and room ──────────────────────────────────────────────────────────────────────────────────────────
@on_18
@pytest.mark.parametrize("fillfactor", [50, 100])
def test_room_on_the_page_keeps_the_table_small(empty_database: Database, fillfactor: int) -> None:
    """One new version for each written row; with room on its page it stays there, and the pause tells the growth. F: H03"""
    stock(empty_database, rows=ROWS)
    empty_database.script(f"ALTER TABLE t SET (fillfactor = {fillfactor}, autovacuum_enabled = false)")
    empty_database.script("VACUUM (FULL, ANALYZE) t")
    size = "SELECT pg_relation_size('t')"
    before = empty_database.value(size)
    with pytest.raises(Paused) as pause:
        Trial(empty_database, filling(pause_after={"batches": 9}, order="key")).apply()
    grown = empty_database.value(size) - before
    written = len(undo_keys(empty_database))
    until(lambda: empty_database.value("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 't'") == written)
    hot = empty_database.value("SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 't'")
    if fillfactor == 50:
        assert (hot, grown) == (written, 0)
    else:
        assert hot < written and grown > 0
        assert "it grew by 0 B" not in str(pause.value)


@on_both
def test_batch_that_fills_nothing_makes_no_row_version(empty_database: Database) -> None:
    """Rows without a source, without a key, or complete are looked at only. F: H03"""
    stock(empty_database, rows=ROWS)
    empty_database.script("DELETE FROM s")
    version = "rowid" if empty_database.dialect == "sqlite" else "ctid::text || xmin::text"
    before = empty_database.rows(f"SELECT id, {version} FROM t ORDER BY id")
    result, _ = run(Trial(empty_database, filling()))
    assert (result.visited, result.written, result.left) == (ROWS, 0, 0)
    assert empty_database.rows(f"SELECT id, {version} FROM t ORDER BY id") == before


# ─── NULL as the application's word ─────────────────────────────────────────────────────────────────────────────────
def test_null_that_the_application_sets_later_stays(empty_database: Database) -> None:
    """On the way back such a row is the application's: it is refused and listed, not written. F: H04 F: F02"""
    stock(empty_database, rows=ROWS)
    trial = Trial(empty_database, filling())
    trial.apply()
    cleared = "SELECT id FROM was WHERE id % 7000 = 0 AND v IS NULL AND k % 7 > 0 AND k < 200"
    keys = [row[0] for row in empty_database.rows(cleared)]
    empty_database.script(f"UPDATE t SET v = NULL WHERE id IN ({cleared})")
    kept = empty_database.rows(f"SELECT * FROM t WHERE id IN ({cleared}) ORDER BY id")
    trial.revert()
    assert empty_database.rows(f"SELECT * FROM t WHERE id IN ({cleared}) ORDER BY id") == kept
    refused = f"SELECT key FROM {ledger(empty_database, 'skipped_row')} WHERE action = 'revert'"
    assert {row[0] for row in empty_database.rows(refused)} == {
        f'["{key}"]' if empty_database.dialect == "postgresql" else f"[{key}]" for key in keys
    }
    empty_database.script(
        f"DELETE FROM t WHERE id IN ({cleared}); DELETE FROM was WHERE id % 7000 = 0 AND v IS NULL AND k % 7 > 0 AND k < 200"
    )
    assert keys and checksum(empty_database, "t") == checksum(empty_database, "was")
