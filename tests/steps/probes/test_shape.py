"""The probe shape: whole, absent, more, and each half-done state of the store's migration, with what the catalogue says."""

from __future__ import annotations

from pathlib import Path

import half_done
import pytest
from databases import Database
from looking import role
from plain_look import PlainDatabase

from runner.playbook.load import load_file
from steps.probes.shape import ShapeProbe, ShapeResult

PLAYBOOK = """runbook: 1
name: shapes
title: The shapes
include: adr007-shapes.yaml
steps: [{id: at, type: checkpoint, success_criteria: [{id: whole, check: shape, shape: v16}]}]
"""
SHAPES = Path(__file__).parents[3] / "playbooks" / "adr007-shapes.yaml"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    (folder / SHAPES.name).write_text(SHAPES.read_text())
    (folder / "shapes.yaml").write_text(PLAYBOOK)
    return load_file(folder / "shapes.yaml").shapes


@pytest.fixture
def store(empty_pg: Database) -> Database:
    half_done.v15(empty_pg)
    return empty_pg


def seen(database: Database, shapes, name: str, *, user: str | None = None) -> ShapeResult:
    with PlainDatabase(database, user=user).look() as look:
        return ShapeProbe(shape=shapes[name]).observe(look)


def test_v15_is_whole_and_v16_absent(store: Database, shapes):
    assert seen(store, shapes, "v15").state == "whole"
    assert seen(store, shapes, "v16").state == "absent"


def test_v16_is_whole_and_v15_is_not(store: Database, shapes):
    half_done.migrate(store)
    v16, v15 = seen(store, shapes, "v16"), seen(store, shapes, "v15")
    assert (v16.state, v16.missing, v16.differing, v16.more) == ("whole", (), (), ())
    assert v15.state == "half"
    assert "table ip_inventory" in v15.more


# state → what the catalogue must be quoted with
SAID = {
    "models_tables_only": ["geo_country: is an ordinary column (attgenerated is empty)", "table ip_asn_history"],
    "source_ip_empty": [
        "fill session_summaries.source_ip: 0 of 40",
        "table ip_inventory",
        "value is '15', declared '16'",
    ],
    "ip_inventory_empty": [
        "fill ip_inventory.ip_address: 0 of 0",
        "sessions without an inventory row: 36, declared at most 0",
    ],
    "some_snapshot_columns": ["column session_summaries.snapshot_country: the catalogue has no such column"],
    "all_columns_no_keys": ["constraint fk_session_source_ip", "index idx_session_snapshot_country", "value is '15'"],
    "key_not_valid": ["constraint fk_ip_current_asn on ip_inventory: is NOT VALID (convalidated is false)"],
    "column_missing": ["column session_summaries.snapshot_country", "column ip_inventory.geo_country"],
    "orphans": [
        "constraint fk_session_source_ip",
        "inventory row: 3, declared at most 0",
        "index idx_session_source_ip",
    ],
    "geo_country_not_generated": ["column ip_inventory.geo_country: is an ordinary column (attgenerated is empty)"],
    "index_invalid": ["index idx_session_snapshot_asn on session_summaries: is INVALID (indisvalid is false)"],
    "phase1_then_v16_again": ["column session_summaries.snapshot_ip_type"],
}


@pytest.mark.parametrize("state", half_done.STATES)
def test_each_half_done_state_is_told(store: Database, shapes, state: str):
    half_done.STATES[state](store)
    found = seen(store, shapes, "v16")
    assert found.state == ("more" if state == "phase1_then_v16_again" else "half")
    said = "\n".join([*found.missing, *found.differing, *found.more])
    for words in SAID[state]:
        assert words in said


def test_a_migration_that_still_runs_is_told_by_its_server_process(store: Database, shapes):
    with half_done.running(store) as pid:
        for name in ("v15", "v16"):
            found = seen(store, shapes, name)
            assert found.state == "changing"
            [who] = found.changers
            assert who.startswith(f"pid {pid}, ")
            assert "holds ACCESS EXCLUSIVE on public.session_summaries" in who
    assert seen(store, shapes, "v15").state == "whole"


def test_a_read_only_role_sees_the_catalogue_and_is_told_what_it_cannot(store: Database, shapes):
    half_done.migrate(store)
    with role(store, "GRANT USAGE ON SCHEMA public TO {}") as user:
        from steps.contract import Unknown

        with pytest.raises(Unknown, match="can't be seen: permission denied"):
            seen(store, shapes, "v16", user=user)
        store.script("ALTER TABLE session_summaries DROP COLUMN snapshot_asn")
        assert seen(store, shapes, "v16", user=user).state == "half"


def test_definitions_are_compared_as_the_server_prints_them(store: Database):
    """Every part spelled as a person would; and a change of meaning in each of them is seen."""
    half_done.migrate(store)
    store.script("CREATE INDEX ix_part ON session_summaries (source_ip) WHERE vt_flagged")
    spelled = {
        "columns": {
            "session_id": {"type": "varchar(64)", "not_null": True},
            "event_count": {"type": "int4", "not_null": True, "default": "0::int"},
        },
        "constraints": {
            "snapshot_country_iso": "CHECK (snapshot_country IS NULL OR snapshot_country ~ '^[A-Z]{2}$')",
            "fk_session_source_ip": "FOREIGN KEY (source_ip) REFERENCES public.ip_inventory (ip_address)",
        },
        "indexes": {"ix_part": "btree (source_ip) WHERE (vt_flagged)"},
    }
    generated = "upper(coalesce(enrichment -> 'maxmind' ->> 'country', enrichment -> 'cymru' ->> 'country', 'XX'))"
    right = generated.replace("'XX'", "enrichment -> 'dshield' -> 'ip' ->> 'ascountry', 'XX'")

    def found(sessions: dict, expression: str) -> ShapeResult:
        inventory = {"columns": {"geo_country": {"type": "varchar(2)", "generated": expression}}}
        shape = {"tables": {"session_summaries": sessions, "ip_inventory": inventory}}
        with PlainDatabase(store).look() as look:
            return ShapeProbe.model_validate({"shape": shape}).observe(look)

    assert found(spelled, right).differing == ()
    other = {
        "columns": {
            "session_id": {"type": "varchar(65)", "not_null": True},
            "event_count": {"type": "int4", "not_null": True, "default": 1},
        },
        "constraints": {
            "snapshot_country_iso": "CHECK (snapshot_country IS NULL OR snapshot_country ~ '^[A-Z]{3}$')",
            "fk_session_source_ip": "FOREIGN KEY (source_ip) REFERENCES ip_inventory ON DELETE CASCADE",
        },
        "indexes": {"ix_part": "unique btree (source_ip) WHERE vt_flagged"},
    }
    assert len(found(other, generated).differing) == 6
