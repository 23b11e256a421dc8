"""The demo's stores: their schema and rows as the facts have them, and that the oracle agrees with plain SQL."""

from __future__ import annotations

import contextlib
import json

import pytest
from databases import DOCUMENTED, SEED, SESSIONS, Database, Databases, described
from schemas import definitions

from playbooks.demo import honeypot as demo
from playbooks.demo import migration
from playbooks.demo.generator import CUT, World
from playbooks.demo.oracle import After, Expected, expected

STORES = ("raw", "enriched", "rich", "bad")
EACH_STORE = [pytest.param(name, marks=pytest.mark.store(name)) for name in (*STORES, DOCUMENTED)]
READABLE = {
    "postgresql": r"CASE WHEN s.enrichment::text !~ '[^\\](\\\\)*\\u0000' THEN s.enrichment END",
    "sqlite": "CASE WHEN json_valid(s.enrichment) THEN s.enrichment END",
}
FIRST_TYPE = {"postgresql": "i.ip_types[1]", "sqlite": "json_extract(i.ip_types, '$[0]')"}
TIME = {"postgresql": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')", "sqlite": "{}"}


def _backfilled(database: Database) -> dict[str, After]:
    """What the facts ask for, by a join that the database runs."""
    known, at = "CASE WHEN i.ip_address NOT LIKE '10.%' THEN {} END", TIME[database.dialect].format
    rows = database.rows(
        f"""WITH s AS (SELECT s.*, {READABLE[database.dialect]} AS json FROM session_summaries AS s)
            SELECT s.session_id, coalesce(s.source_ip, i.ip_address),
                   coalesce(s.snapshot_asn, {known.format("i.current_asn")}),
                   coalesce(s.snapshot_country, {known.format("nullif(nullif(i.geo_country, 'XX'), '')")}),
                   {known.format(FIRST_TYPE[database.dialect])},
                   coalesce({at("s.enrichment_at")}, {at("i.enrichment_updated_at")})
              FROM s LEFT JOIN ip_inventory i ON i.ip_address =
                coalesce(s.source_ip, json -> 'session_metadata' ->> 'source_ip', json -> 'dshield' -> 'ip' ->> 'number')"""
    )
    return {session_id: After(*rest) for session_id, *rest in rows}


def _stored(database: Database) -> dict[str, After]:
    at = TIME[database.dialect].format("enrichment_at")
    sql = f"SELECT session_id, source_ip, snapshot_asn, snapshot_country, NULL, {at} FROM session_summaries"
    return {session_id: After(*rest) for session_id, *rest in database.rows(sql)}


def _oracle(store: str, **more: int) -> Expected:
    return expected(**described(store), **more)


@pytest.mark.parametrize("_store", EACH_STORE)
def test_oracle_agrees_with_sql(honeypot: Database, _store: str) -> None:
    """Before a backfill and after it."""
    oracle = _oracle(_store)
    assert _stored(honeypot) == oracle.stored
    assert _backfilled(honeypot) == oracle.rows
    parts = oracle.inventory_hit + oracle.not_in_inventory + oracle.no_ip + oracle.unreadable
    assert oracle.total == SESSIONS == parts
    assert 0 < oracle.private_in_inventory < oracle.private
    low, high = {"raw": (0, 0), "bad": (88, 92)}.get(_store, (95.5, 98.5))
    assert low <= oracle.coverage <= high


@pytest.mark.parametrize("_store", [pytest.param(name, marks=pytest.mark.store(name)) for name in STORES])
def test_store_is_as_v16_leaves_it(honeypot: Database, _store: str) -> None:
    """What is filled, by whom, and what came later."""

    def count(table: str, condition: str) -> int:
        return honeypot.value(f"SELECT count(*) FROM {table} WHERE {condition}")

    later = round(SESSIONS * 0.01)
    assert count("session_summaries", "enrichment_at IS NULL") == later
    filled = count("session_summaries", "snapshot_country IS NOT NULL") / SESSIONS
    assert (0.5 < filled < 0.65) if _store == "rich" else filled == 0
    unplaced = count("session_summaries", "snapshot_country IS NOT NULL AND source_ip IS NULL")
    assert (unplaced > 0) == (_store == "rich")
    total = count("ip_inventory", "ip_address > ''")
    networks = count("ip_inventory", "current_asn IS NOT NULL") / total
    assert networks == 0 if _store == "raw" else 0.7 < networks < 1
    assert (count("asn_inventory", "asn_number > 0") == 0) == (_store == "raw")
    assert count("ip_inventory", "geo_country = ''") * count("ip_inventory", "geo_country = 'XX'") > 0
    assert count("ip_inventory", "is_bogon") == 0
    if honeypot.server:
        assert count("session_summaries", "snapshot_ip_types = '{}'") == SESSIONS - later
        assert count("session_summaries", "snapshot_ip_types IS NULL") == later
        empty = count("ip_inventory", "ip_types = '{}'") / total
        assert empty == 1 if _store == "raw" else 0 < empty < 0.3


@pytest.mark.store("enriched")
def test_store_has_rows_that_cannot_be_read(honeypot: Database) -> None:
    """A \\u0000 on PostgreSQL, broken JSON on SQLite; a backslash before u0000 is neither."""
    assert _oracle("enriched").unreadable == 1
    if honeypot.server:
        assert (
            honeypot.value(r"SELECT count(*) FROM session_summaries WHERE enrichment::text LIKE '%root\\u0000%'") == 1
        )
    else:
        assert honeypot.value("SELECT count(*) FROM session_summaries WHERE NOT json_valid(enrichment)") >= 1
    harmless = r"SELECT enrichment -> 'login' ->> 'username' FROM session_summaries WHERE enrichment LIKE '%C:%u0000%'"
    if honeypot.server:
        harmless = harmless.replace("enrichment LIKE", "enrichment::text LIKE")
    assert {row[0] for row in honeypot.rows(harmless)} == {"C:\\u0000"}


def test_sessions_have_the_rare_cases(honeypot: Database) -> None:
    kinds = {(row.enrichment or "NULL")[:12] for row in World(SESSIONS, seed=SEED).before()}
    assert {"NULL", "null", '["unreachabl', CUT[:12]} <= kinds
    assert honeypot.value("SELECT count(*) FROM session_summaries WHERE first_event_at IS NULL") > 0
    assert honeypot.value("SELECT max(enrichment_updated_at) < '2025-11-06' FROM ip_inventory")
    assert honeypot.value("SELECT value FROM schema_state WHERE key = 'schema_version'") == "16"
    for table in ("files", "raw_events", "password_session_usage", "longtail_detection_sessions"):
        assert honeypot.value(f"SELECT count(*) FROM {table}") > 0


def test_catalogue_after_v16(honeypot: Database) -> None:
    """json, an array column without an index, foreign keys that hold, from others too."""
    if honeypot.dialect == "sqlite":
        indexes = honeypot.rows("SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'session_summaries'")
        broken = honeypot.rows("PRAGMA foreign_key_check")
    else:
        indexes = honeypot.rows("SELECT indexdef FROM pg_indexes WHERE tablename = 'session_summaries'")
        broken = honeypot.rows("SELECT conname FROM pg_constraint WHERE NOT convalidated")
        kinds = """SELECT string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attname) FROM pg_attribute
            WHERE attrelid = 'session_summaries'::regclass AND attname IN ('enrichment', 'source_files', 'snapshot_ip_types')"""
        assert honeypot.value(kinds) == "json text[] json"
        keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'session_summaries'::regclass"
        assert honeypot.value(keys) == 2
        assert honeypot.value("SELECT pg_get_serial_sequence('asn_inventory', 'asn_number') IS NOT NULL")
        correlation = "SELECT correlation FROM pg_stats WHERE attname = 'first_event_at'"
        assert 0.3 < honeypot.value(correlation) < 0.7
    text = " ".join(str(row[0]) for row in indexes)
    assert "idx_session_snapshot_asn" in text
    assert "enrichment_at" not in text
    assert "ip_type" not in text
    assert broken == []


def test_v16_statement_by_statement(databases: Databases) -> None:
    """Each is a statement of its own, in five phases; committed one by one they make the same schema."""
    with databases.kind("pg18").database() as one, databases.kind("pg18").database(DOCUMENTED) as whole:
        demo.populate(one.url, sessions=300, store="rich", version=15)
        assert one.value("SELECT value FROM schema_state WHERE key = 'schema_version'") == "15"
        assert one.value("SELECT to_regclass('ip_inventory') IS NULL")
        for statement in migration.v16("postgresql"):
            one.script(statement.sql)
        assert one.value("SELECT value FROM schema_state WHERE key = 'schema_version'") == "16"
        assert definitions(one) == definitions(whole)
    assert [each.phase for each in migration.v16("postgresql")] == sorted(
        each.phase for each in migration.v16("postgresql")
    )
    assert {each.phase for each in migration.v16("postgresql")} == {1, 2, 3, 4, 5}


@pytest.mark.store("raw")
def test_enricher_makes_an_enriched_store_of_a_raw_one(honeypot: Database) -> None:
    demo.enrich(honeypot.url, sessions=SESSIONS, seed=SEED)
    assert _backfilled(honeypot) == _oracle("enriched").rows


@pytest.mark.store("rich")
def test_late_sessions_are_new_and_counted(honeypot: Database) -> None:
    late = list(demo.late_sessions(12, sessions=SESSIONS, store="rich", seed=SEED))
    with contextlib.closing(honeypot.connect()) as connection:
        demo.insert(connection, late)
    assert honeypot.value("SELECT count(*) FROM session_summaries") == SESSIONS + 12
    newest = "SELECT count(*) FROM session_summaries WHERE first_event_at > '2025-11-05 00:00:00'"
    assert honeypot.value(newest) == 12
    oracle = _oracle("rich", late=12)
    assert oracle.total == SESSIONS + 12
    assert _backfilled(honeypot) == oracle.rows


def test_generator_same_seed_same_rows() -> None:
    one, two = (list(World(300, seed=3).before()) for _ in range(2))
    other = next(World(300, seed=4).before())
    assert one == two
    assert other.session_id != one[0].session_id
    assert len({row.session_id for part in World(300, seed=3).sessions() for row in part}) == 300


def test_generator_large_store_has_snowshoe() -> None:
    """One network with more than a hundred Chinese datacenter addresses; one pair of country and type that is rare."""
    networks = World(100_000).networks
    snow = networks.by_country["CN"][0]
    members = [each for each in networks.addresses if each.network == snow and each.types[:1] == ["DATACENTER"]]
    assert len([each for each in members if each.enriched]) > 100
    iceland = [each for each in networks.addresses if '"IS"' in json.dumps(each.found).upper()]
    assert [each.types for each in iceland] == [["TOR", "DATACENTER"]]
