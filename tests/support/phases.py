"""What the phases of ADR-007 make of a store, in single statements made of the playbooks' own words."""

from __future__ import annotations

from pathlib import Path

from databases import Database

from runner.playbook.load import load_file

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
READABLE = {  # JSON that the database can take apart, else NULL; a backslash before \u0000 makes it harmless
    "postgresql": r"(CASE WHEN target.enrichment::text !~ '(^|[^\\])(\\\\)*\\u0000' THEN target.enrichment END)",
    "sqlite": "(CASE WHEN json_valid(target.enrichment) THEN target.enrichment END)",
}


def rename_types(database: Database) -> None:
    """What phase 1 makes of the schema."""
    if database.server:
        database.script("ALTER TABLE session_summaries ALTER snapshot_ip_types TYPE text USING snapshot_ip_types[1]")
    database.script("ALTER TABLE session_summaries RENAME COLUMN snapshot_ip_types TO snapshot_ip_type")


def fill(database: Database, table: str = "session_summaries") -> None:
    """What phase 3 makes of the rows, in one careful UPDATE that looks into no JSON that can't be read."""
    step = load_file(PLAYBOOKS / "adr007-phase3.yaml").entry("fill").step
    sets = ", ".join(f"{name} = coalesce(target.{name}, source.{name})" for name in step.fill)  # type: ignore[attr-defined]
    source, match = step.source.text(database.dialect), step.match.text(database.dialect)  # type: ignore[attr-defined]
    match = match.replace("target.enrichment", READABLE[database.dialect])
    database.script(f"UPDATE {table} AS target SET {sets} FROM ({source}) AS source WHERE {match}")
