"""The nine validation tests: the first seven decide before a backfill, all nine after it."""

from __future__ import annotations

import re
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Store

pytestmark = pytest.mark.read_only

SNAPSHOT = ("snapshot_asn", "snapshot_country", "snapshot_ip_type")
_OWN = "coalesce(CAST(enrichment AS text), '')"
FROM_INVENTORY = f"source_ip IS NOT NULL AND {_OWN} NOT LIKE '%\"cymru\"%' AND {_OWN} NOT LIKE '%\"maxmind\"%'"
SAMPLE = {
    "postgresql": "ORDER BY md5(session_id || ' validation') LIMIT 1000",
    "sqlite": "ORDER BY rowid * 69621 % 2147483647 LIMIT 1000",
}


def test_database_connectivity(store: Store) -> None:
    if store.is_sqlite:
        assert sqlite3.sqlite_version_info >= (3, 38)
        return
    found = store.row("SELECT current_setting('server_version_num')::int AS v, pg_is_in_recovery() AS standby")
    assert found["v"] >= 140000
    assert not found["standby"]


def test_baseline_snapshot_coverage(store: Store) -> None:
    """A figure that can be believed: no unknown country is counted. It needn't be 0, since v16 itself filled some."""
    coverage = store.row(store.text("coverage"))
    assert 0 <= coverage["covered"] <= coverage["total"]
    assert coverage["total"] > 0
    assert coverage["unknowns"] == 0


def test_backfill_requirements(store: Store) -> None:
    """The inventory has what the backfill wants to write, of each column some, and once for each address."""
    found = store.row(store.text("network_data"))
    assert found["with_asn"] > 0
    assert found["with_country"] > 0
    assert found["with_ip_type"] > 0
    source = store.text("snapshot_source")
    twice = f"SELECT source_ip FROM ({source}) AS s GROUP BY source_ip HAVING count(*) > 1"
    assert store.rows(twice) == []
    dry = _dry_run(store)
    assert dry["found"] > 0
    assert dry["unreadable"] <= 0.01 * dry["seen"]


def test_dry_run_safety(store: Store) -> None:
    """The dry run changes none of the sessions that it reads, and could not: the database refuses every write."""
    before = _first_thousand(store)
    _dry_run(store)
    if not store.is_sqlite:
        assert store.row("SELECT pg_current_xact_id_if_assigned() AS id")["id"] is None  # it has written nothing
    store.begin_again()
    after = _first_thousand(store)
    assert after.keys() & before.keys()
    assert all(
        after[key] == before[key] for key in after.keys() & before.keys()
    )  # others may have arrived between them
    with pytest.raises(_refusal(store)):
        store.connection.execute("UPDATE session_summaries SET snapshot_country = NULL WHERE session_id = ''")


def test_dry_run_batch_performance(store: Store) -> None:
    began = time.perf_counter()
    assert _dry_run(store)["seen"] > 0
    assert time.perf_counter() - began < store.limits["dry_run_s"]


def test_query_performance_snapshot_vs_join(store: Store) -> None:
    """Both ways give the same answer, and the snapshot's plan reads no whole table.

    How many times faster it is the playbook measures, with medians and noise; one clock reading would prove nothing.
    """
    _needs_snapshots(store)
    for name in ("country", "pair", "rare"):
        snapshot, join = store.row(store.text(name))["n"], store.row(store.text(f"{name}_join"))["n"]
        apart = (
            0.5 if name == "rare" else 0.05
        )  # addresses move, and snapshots stay; of few sessions one is a large part
        assert abs(snapshot - join) <= apart * max(snapshot, join)
        assert snapshot > 0 or name == "rare"
    for name in ("country", "pair"):
        assert not re.search(r"Seq Scan|SCAN (?!.*USING)", _plan(store, name))


def test_snapshot_accuracy_sampling(store: Store) -> None:
    """A random sample over all sessions with an address, compared column by column; NULL equals NULL.

    What v16 took from a session's own JSON is as it was at the attack, and the inventory may say otherwise by now.
    """
    _needs_snapshots(store)
    same = "IS" if store.is_sqlite else "IS NOT DISTINCT FROM"
    equal = " AND ".join(f"target.{column} {same} source.{column}" for column in SNAPSHOT)
    found = store.row(
        f"""SELECT count(*) AS sampled, count(source.source_ip) AS known,
                   sum(CASE WHEN source.source_ip IS NOT NULL AND {equal} THEN 1 ELSE 0 END) AS matched
            FROM (SELECT * FROM session_summaries WHERE {FROM_INVENTORY} {SAMPLE[store.dialect]}) AS target
            LEFT JOIN ({store.text("snapshot_source")}) AS source ON source.source_ip = target.source_ip"""
    )
    assert found["known"] == found["sampled"] > 0  # none is an orphan
    assert 100 * found["matched"] / found["sampled"] >= store.limits["accuracy_pct"]


def test_sample_session_inspection(store: Store) -> None:
    sessions = store.rows(store.text("ten_sessions"))
    assert len(sessions) == 10
    for session in sessions:
        print(session)
        assert session["session_id"]
        if session["snapshot_country"] is not None:
            assert re.fullmatch("[A-Z]{2}", session["snapshot_country"])


def test_production_readiness_checklist(store: Store) -> None:
    """The schema is the models', what the backfill reads is there, and each stored address has its row."""
    columns = {column.lower(): kind.lower() for column, kind in _columns(store, "session_summaries").items()}
    assert columns["snapshot_ip_type"] == "text"
    assert "snapshot_ip_types" not in columns
    assert {"source_ip", "enrichment", "enrichment_at", *SNAPSHOT} <= set(columns)
    assert {"geo_country", "is_bogon", "ip_types", "current_asn"} <= set(_columns(store, "ip_inventory"))
    assert store.row(store.text("orphans"))["orphans"] == 0


def _dry_run(store: Store) -> dict[str, int]:
    """The read half of one batch: what the first 1,000 sessions would get; `unreadable` ones are looked at no further."""
    keys = [
        row["session_id"]
        for row in store.rows("SELECT session_id FROM session_summaries ORDER BY session_id LIMIT 1000")
    ]
    found, unreadable = _matches(store, keys)
    return {"seen": len(keys), "found": found, "unreadable": unreadable}


def _matches(store: Store, keys: list[str]) -> tuple[int, int]:
    """How many of them the inventory has; where a row fails, the others are counted without it."""
    listed = ", ".join("'" + key.replace("'", "''") + "'" for key in keys)
    sql = f"""SELECT count(source.source_ip) AS found FROM session_summaries AS target
        LEFT JOIN ({store.text("snapshot_source")}) AS source ON ({store.session_ip}) WHERE target.session_id IN ({listed})"""
    found = store.tried(sql)
    if found is not None:
        return found["found"], 0
    if len(keys) == 1:
        return 0, 1
    halves = [_matches(store, keys[::2]), _matches(store, keys[1::2])]
    return sum(half[0] for half in halves), sum(half[1] for half in halves)


def _first_thousand(store: Store) -> dict[str, dict[str, object]]:
    """What a backfill could change in them, by their keys."""
    columns = ", ".join(("session_id", "source_ip", *SNAPSHOT, "enrichment_at"))
    found = store.rows(f"SELECT {columns} FROM session_summaries ORDER BY session_id LIMIT 1000")
    return {row["session_id"]: row for row in found}


def _needs_snapshots(store: Store) -> None:
    if store.row(store.text("coverage"))["covered"] == 0:
        pytest.skip("no session has a snapshot yet")


def _refusal(store: Store) -> type[Exception]:
    if store.is_sqlite:
        return sqlite3.OperationalError
    import psycopg

    return psycopg.errors.ReadOnlySqlTransaction


def _plan(store: Store, name: str) -> str:
    explain = "EXPLAIN QUERY PLAN" if store.is_sqlite else "EXPLAIN"
    return "\n".join(" ".join(map(str, row.values())) for row in store.rows(f"{explain} {store.text(name)}"))


def _columns(store: Store, table: str) -> dict[str, str]:
    """The columns with their types, of the table that a plain query finds, and of no other schema's."""
    if store.is_sqlite:
        sql = f"SELECT name, type FROM pragma_table_xinfo('{table}')"
    else:
        sql = f"""SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
                  WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"""
    return {row["name"]: row["type"] for row in store.rows(sql)}
