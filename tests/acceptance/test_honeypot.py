"""The demo's database: its shape as the facts have it, and that the oracle agrees with a backfill in plain SQL."""

from __future__ import annotations

import contextlib
import json

import pytest
from databases import SEED, SESSIONS, Database

from playbooks.demo import generator
from playbooks.demo import honeypot as demo

SOURCE = {
    "postgresql": """coalesce(s.source_ip, s.enrichment -> 'session_metadata' ->> 'source_ip',
                              s.enrichment -> 'dshield' -> 'ip' ->> 'number')""",
    "sqlite": """coalesce(s.source_ip, CASE WHEN json_valid(s.enrichment) THEN coalesce(
                              json_extract(s.enrichment, '$.session_metadata.source_ip'),
                              json_extract(s.enrichment, '$.dshield.ip.number')) END)""",
}
FIRST_TYPE = {"postgresql": "i.ip_types[1]", "sqlite": "json_extract(i.ip_types, '$[0]')"}
TIME = {
    "postgresql": "to_char(i.enrichment_updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')",
    "sqlite": "i.enrichment_updated_at",
}


def _backfilled(database: Database) -> dict[str, demo.After]:
    """What the facts ask for, by a join that the database runs."""
    routable = "CASE WHEN NOT i.is_bogon THEN {} END"
    rows = database.rows(
        f"""SELECT s.session_id, i.ip_address, {routable.format("i.current_asn")},
                   {routable.format("nullif(i.geo_country, 'XX')")}, {routable.format(FIRST_TYPE[database.dialect])},
                   {TIME[database.dialect]}
              FROM session_summaries s LEFT JOIN ip_inventory i ON i.ip_address = {SOURCE[database.dialect]}""",
    )
    return {session_id: demo.After(*rest) for session_id, *rest in rows}


@pytest.mark.parametrize("shape", [pytest.param(name, marks=pytest.mark.shape(name)) for name in generator.SHARES])
def test_oracle_agrees_with_sql(honeypot: Database, shape: str) -> None:
    expected = demo.expected(sessions=SESSIONS, shape=shape, seed=SEED)
    assert _backfilled(honeypot) == expected.rows
    assert expected.total == SESSIONS == expected.inventory_hit + expected.not_in_inventory + expected.no_ip
    assert 0 < expected.private_in_inventory < expected.private
    low, high = (88, 92) if shape == "bad" else (96, 97.6)
    assert low < expected.coverage < high
    stored = honeypot.value("SELECT count(source_ip) FROM session_summaries")
    assert (stored > 0.97 * SESSIONS) == (shape == "stored")
    assert (stored == 0) == (shape != "stored")


def test_honeypot_has_the_rare_cases(honeypot: Database) -> None:
    rows = demo.World(SESSIONS, seed=SEED).sessions()
    kinds = {(row.enrichment or "NULL")[:12] for row in rows}
    assert {"NULL", "null", '["unreachabl', demo.CUT[:12]} <= kinds
    unknown = "SELECT count(*) FROM ip_inventory WHERE geo_country = 'XX' AND NOT is_bogon"
    assert honeypot.value(unknown) == 2
    assert honeypot.value("SELECT count(*) FROM session_summaries WHERE first_event_at IS NULL") > 0
    assert honeypot.value("SELECT count(*) FROM session_summaries WHERE snapshot_ip_types IS NOT NULL") == 0
    assert honeypot.value("SELECT max(enrichment_updated_at) < '2025-11-06' FROM ip_inventory")
    assert honeypot.value("SELECT value FROM schema_state WHERE key = 'schema_version'") == "16"
    assert honeypot.value("SELECT count(*) FROM files") * honeypot.value("SELECT count(*) FROM raw_events") > 0


def test_honeypot_catalogue(honeypot: Database) -> None:
    """The array column, no index on it nor on enrichment_at, and foreign keys that hold."""
    if honeypot.dialect == "sqlite":
        indexes = honeypot.rows("SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'session_summaries'")
        broken = honeypot.rows("PRAGMA foreign_key_check")
    else:
        indexes = honeypot.rows("SELECT indexdef FROM pg_indexes WHERE tablename = 'session_summaries'")
        broken = honeypot.rows("SELECT conname FROM pg_constraint WHERE NOT convalidated")
        udt = "SELECT udt_name FROM information_schema.columns WHERE column_name = 'snapshot_ip_types'"
        assert honeypot.value(udt) == "_text"
        correlation = "SELECT correlation FROM pg_stats WHERE attname = 'first_event_at'"
        assert 0.3 < honeypot.value(correlation) < 0.7
    text = " ".join(str(row[0]) for row in indexes)
    assert "(snapshot_asn)" in text
    assert "enrichment_at" not in text
    assert "ip_type" not in text
    assert broken == []


def test_late_sessions_are_new_and_counted(honeypot: Database) -> None:
    late = list(demo.late_sessions(12, sessions=SESSIONS, seed=SEED))
    with contextlib.closing(honeypot.connect()) as connection:
        demo.insert(connection, late)
    assert honeypot.value("SELECT count(*) FROM session_summaries") == SESSIONS + 12
    newest = "SELECT count(*) FROM session_summaries WHERE first_event_at > '2025-11-05 00:00:00'"
    assert honeypot.value(newest) == 12
    expected = demo.expected(sessions=SESSIONS, seed=SEED, late=12)
    assert expected.total == SESSIONS + 12
    assert _backfilled(honeypot) == expected.rows


def test_generator_same_seed_same_rows() -> None:
    one, two = (list(demo.World(300, seed=3).sessions()) for _ in range(2))
    other = next(demo.World(300, seed=4).sessions())
    assert one == two
    assert other.session_id != one[0].session_id
    assert len({row.session_id for row in one}) == 300


def test_generator_large_store_has_snowshoe() -> None:
    """One network with more than a hundred Chinese datacenter addresses; one pair of country and type that is rare."""
    world = demo.World(100_000)
    snow = world.networks["CN"][0]
    members = [
        each for each in world.addresses if each.current_asn == snow and (each.ip_types or [""])[0] == "DATACENTER"
    ]
    assert len(members) > 100
    iceland = [each for each in world.addresses if '"IS"' in each.enrichment.upper()]
    assert [each.ip_types for each in iceland] == [["TOR", "DATACENTER"]]
    assert json.loads(iceland[0].enrichment)["validation"] == {"is_bogon": False}
