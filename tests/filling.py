"""The honeypot's backfill as the playbooks write it, and a context whose pulses a test can use to act as the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from databases import Database
from plain_context import PlainContext, PlainDatabase, Trial

from playbooks.demo import honeypot
from steps.backfill import Backfill, BackfillResult
from steps.base import Place, Progress, Tuning
from steps.words import Query

SOURCE = """SELECT ip_address AS source_ip, enrichment_updated_at AS enrichment_at,
    CASE WHEN NOT is_bogon THEN current_asn END AS snapshot_asn,
    CASE WHEN NOT is_bogon THEN nullif(geo_country, 'XX') END AS snapshot_country,
    CASE WHEN NOT is_bogon THEN {first} END AS snapshot_ip_type FROM ip_inventory"""
QUERY = Query(
    name="snapshot_source",
    texts={"postgresql": SOURCE.format(first="ip_types[1]"), "sqlite": SOURCE.format(first="ip_types ->> 0")},
)
MATCH = """source.source_ip = coalesce(target.source_ip, target.enrichment -> 'session_metadata' ->> 'source_ip',
    target.enrichment -> 'dshield' -> 'ip' ->> 'number')"""
FILL = ["source_ip", "snapshot_asn", "snapshot_country", "snapshot_ip_type", "enrichment_at"]


def snapshots(**words: Any) -> Backfill:
    """The step `fill` of phase 3, with batches that are small enough to be several."""
    own = {"table": "session_summaries", "source": "snapshot_source", "match": MATCH, "fill": FILL}
    batch = {"batch": {"time": "250 ms", "rows": [100, 400]}}
    return Backfill.model_validate({**own, **batch, **words}, context={"queries": {"snapshot_source": QUERY}})


def backfill(**words: Any) -> Backfill:
    return Backfill.model_validate(words, context={"queries": {}})


def prepare(database: Database) -> None:
    """What phase 1 does before."""
    table = "ALTER TABLE session_summaries"
    if database.dialect == "sqlite":
        database.script(f"{table} RENAME COLUMN snapshot_ip_types TO snapshot_ip_type")
    else:
        database.script(f"{table} DROP COLUMN snapshot_ip_types; {table} ADD COLUMN snapshot_ip_type text")


def filled(database: Database) -> dict[str, tuple]:
    """The five columns by session, in the oracle's form."""
    at = (
        "enrichment_at"
        if database.dialect == "sqlite"
        else "to_char(enrichment_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
    )
    rows = database.rows(
        f"SELECT session_id, source_ip, snapshot_asn, snapshot_country, snapshot_ip_type, {at} FROM session_summaries"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def oracle(database: Database) -> dict[str, tuple]:
    wanted = honeypot.expected(sessions=2_000, shape=database.shape)
    return {session: tuple(after) for session, after in wanted.rows.items()}


@dataclass
class Watched(PlainContext):
    """Calls `act` at each safe point, where the application gets its turn; keeps what was reported."""

    act: Callable[[Progress], None] = lambda _: None
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        self.seen: list[Progress] = []

    def pulse(self, progress: Progress) -> Tuning:
        self.seen.append(progress)
        self.act(progress)
        return self.tuning


def run(
    trial: Trial,
    act: Callable[[Progress], None] = lambda _: None,
    *,
    lock_timeout: str = "200ms",
    tuning: Tuning = Tuning(),
):
    """Apply with the application at work; (result, reports)."""
    database = PlainDatabase(trial.target, Place(trial.run, "step", "apply"), lock_timeout=lock_timeout)
    context = Watched(database, act, tuning)
    result = trial.step.apply(context)
    assert isinstance(result, BackfillResult)
    return result, context.seen


def adds_up(result: BackfillResult) -> bool:
    parts = result.written + result.already + result.no_key + result.not_in_source + result.deferred + result.dead
    return result.visited == parts


def table(database: Database, *, rows: int) -> None:
    """t(id, v, k) with v to be filled from s(k, v)."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    database.script(f"""CREATE TABLE s (k integer PRIMARY KEY, v text); INSERT INTO s VALUES (1, 'one'), (2, NULL);
        CREATE TABLE t (id integer PRIMARY KEY, v text, k integer);
        INSERT INTO t (id, v, k) {numbers} SELECT i, NULL, 1 FROM n;""")


def simple(**words: Any) -> Backfill:
    return backfill(
        **{"table": "t", "source": "SELECT k, v FROM s", "match": "source.k = target.k", "fill": ["v"], **words}
    )
