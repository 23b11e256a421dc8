"""A store at schema version 15, and every state in which its migration v16 has been found, made by v16's own statements."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator

import psycopg
from databases import Database

from playbooks.demo import migration

SESSIONS = 40
INVALID = "idx_session_snapshot_asn"

# Four sessions for each address, two addresses for each ASN; every tenth session tells no address.
_ROWS = """
INSERT INTO session_summaries (session_id, first_event_at, last_event_at, event_count, enrichment, created_at)
SELECT md5(n::text), timestamp '2025-01-01' + n * interval '1 min', timestamp '2025-01-01' + n * interval '2 min', n,
       CASE WHEN mod(n, 10) = 0 THEN '{}' ELSE json_build_object(
         'dshield', json_build_object('ip', json_build_object('number', host('10.0.0.0'::inet + n / 4), 'ascountry', 'NL')),
         'cymru', json_build_object('asn', (64500 + n / 8)::text, 'country', 'DE')) END,
       timestamptz '2025-01-01 00:00 UTC'
FROM generate_series(1, %s) AS n;
INSERT INTO files (session_id, shasum) SELECT md5(n::text), md5('file' || n) FROM generate_series(1, %s) AS n;
INSERT INTO raw_events (session_id, payload) SELECT md5(n::text), '{}' FROM generate_series(1, %s) AS n;
"""
_ASN_0 = """
INSERT INTO session_summaries (session_id, first_event_at, last_event_at, enrichment)
VALUES ('asn0', now(), now(), '{"dshield": {"ip": {"number": "10.9.9.9"}}, "cymru": {"asn": "0", "country": "DE"}}')"""


def v15(database: Database, *, sessions: int = SESSIONS) -> None:
    """The store before v16 (PostgreSQL), with rows that v16 can swallow."""
    database.script(";\n".join([*migration.tables("postgresql"), _ROWS % (sessions, sessions, sessions)]))
    database.script(";\n".join(migration.indexes("postgresql")))


def migrate(database: Database, *, leaving: Collection[str] = (), until: str = "") -> None:
    """Run v16's statements, each in a transaction of its own. leaving: those that aren't run; until: the first that isn't."""
    for statement in migration.v16("postgresql"):
        if statement.name == until:
            return
        if statement.name not in leaving:
            database.script(statement.sql)


# ─── the states ─────────────────────────────────────────────────────────────────────────────────────────────────────
def models_tables_only(database: Database) -> None:
    """A tool made the models' tables, which know no generated columns."""
    _only(database, "asn_inventory", "ip_inventory")
    for column in ("geo_country", "is_scanner", "is_bogon"):
        database.script(f"ALTER TABLE ip_inventory ALTER COLUMN {column} DROP EXPRESSION")
    database.script("CREATE TABLE ip_asn_history (ip_address varchar(45), asn_number integer, seen timestamptz)")


def source_ip_empty(database: Database) -> None:
    _only(database, "add_source_ip")


def ip_inventory_empty(database: Database) -> None:
    migrate(database, until="fill_ip_inventory")


def some_snapshot_columns(database: Database) -> None:
    migrate(database, until="add_snapshot_country")


def all_columns_no_keys(database: Database) -> None:
    migrate(database, leaving={"idx_session_snapshot_country"}, until="count_orphans")


def key_not_valid(database: Database) -> None:
    database.script(_ASN_0)
    migrate(database, leaving={"validate_fk_ip_current_asn"})


def column_missing(database: Database) -> None:
    migrate(database)
    database.script(
        "ALTER TABLE session_summaries DROP COLUMN snapshot_country; ALTER TABLE ip_inventory DROP COLUMN geo_country"
    )


def orphans(database: Database) -> None:
    migrate(database, leaving={"fk_session_source_ip", "validate_fk_session_source_ip", "idx_session_source_ip"})
    database.script("DELETE FROM ip_inventory WHERE ip_address IN (SELECT min(ip_address) FROM ip_inventory)")


def geo_country_not_generated(database: Database) -> None:
    migrate(database)
    database.script("ALTER TABLE ip_inventory ALTER COLUMN geo_country DROP EXPRESSION")


def index_invalid(database: Database) -> None:
    migrate(database)
    database.script(f"DROP INDEX {INVALID}")
    with psycopg.connect(database.url) as writer, psycopg.connect(database.url, autocommit=True) as builder:
        writer.execute("UPDATE session_summaries SET risk_score = 1 WHERE session_id = md5('1')")
        builder.execute("SET statement_timeout = '200ms'")
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            builder.execute(f"CREATE INDEX CONCURRENTLY {INVALID} ON session_summaries (snapshot_asn)")
        writer.rollback()


def phase1_then_v16_again(database: Database) -> None:
    """Phase 1 of ADR-007 renamed a column, then v16 added the old one anew."""
    migrate(database)
    database.script(
        "ALTER TABLE session_summaries RENAME COLUMN snapshot_ip_types TO snapshot_ip_type;"
        "ALTER TABLE session_summaries ALTER COLUMN snapshot_ip_type TYPE text USING snapshot_ip_type[1];"
        "ALTER TABLE session_summaries ADD COLUMN snapshot_ip_types text[] DEFAULT NULL"
    )


STATES: dict[str, Callable[[Database], None]] = {
    one.__name__: one
    for one in (
        models_tables_only,
        source_ip_empty,
        ip_inventory_empty,
        some_snapshot_columns,
        all_columns_no_keys,
        key_not_valid,
        column_missing,
        orphans,
        geo_country_not_generated,
        index_invalid,
        phase1_then_v16_again,
    )
}
"""What v16 left behind, by name; the twelfth state is `running`."""


@contextlib.contextmanager
def running(database: Database) -> Iterator[int]:
    """v16 in one transaction that is still open after phase 1, whoever began it; the pid of its server process."""
    with psycopg.connect(database.url) as connection:
        for statement in migration.v16("postgresql"):
            if statement.phase == 1:
                connection.execute(statement.sql)
        yield connection.info.backend_pid
        with contextlib.suppress(psycopg.OperationalError):  # somebody may have ended it
            connection.rollback()


@contextlib.contextmanager
def running_on(database: Database) -> Iterator[int]:
    """v16 run again on a store where it broke off: an open transaction that has locked the sessions; its server process."""
    with psycopg.connect(database.url) as connection:
        connection.execute("ALTER TABLE session_summaries ADD COLUMN IF NOT EXISTS source_ip varchar(45)")
        connection.execute("LOCK TABLE session_summaries IN ACCESS EXCLUSIVE MODE")
        yield connection.info.backend_pid
        with contextlib.suppress(psycopg.OperationalError):
            connection.rollback()


def _only(database: Database, *names: str) -> None:
    for statement in migration.v16("postgresql"):
        if statement.name in names:
            database.script(statement.sql)
