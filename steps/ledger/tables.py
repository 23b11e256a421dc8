"""The ledger's tables: their names, columns and version, and which of them exist.

On PostgreSQL they are in a schema of their own, `runbook`; on SQLite their names begin with `runbook_`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from steps.contract import DatabaseFault, Look, Work
from steps.contract.dialect import Dialect

SCHEMA = "runbook"
KEPT = "runbook_kept"  # what steps keep for their way back; on SQLite a prefix
BEGAN = "runbook.began"  # a PostgreSQL setting, local to each of our transactions: when it began (seconds since 1970)

# The columns of each table. {id}: an ascending number; {now}: the server's clock; {texts}: an array of texts; {at}: a timestamp.
# step_commit's UNIQUE (run, step, action, label) is what makes a repeated commit fail instead of doing the work twice.
_TABLES: Mapping[str, str] = {
    "run": """run text PRIMARY KEY, playbook text NOT NULL, digest text NOT NULL, approval_digest text NOT NULL,
        kind text NOT NULL, state text NOT NULL, target text NOT NULL, identity text NOT NULL, inputs text NOT NULL,
        operator text NOT NULL, host text NOT NULL, started_at {at} NOT NULL DEFAULT {now}, ended_at {at},
        rolled_back_at {at}, steps text NOT NULL, source text NOT NULL,
        figures text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL, removes text NOT NULL DEFAULT ''""",
    "lease": """scope text PRIMARY KEY, epoch bigint NOT NULL, run text NOT NULL, holder text NOT NULL,
        taken_at {at} NOT NULL DEFAULT {now}""",
    "heartbeat": "scope text PRIMARY KEY, epoch bigint NOT NULL, beat_at {at} NOT NULL DEFAULT {now}",
    "step_commit": """seq {id}, run text NOT NULL, step text NOT NULL, action text NOT NULL, label text NOT NULL, epoch bigint NOT NULL,
        before text, at {at} NOT NULL DEFAULT {now}, touched text, UNIQUE (run, step, action, label)""",
    "step": """run text NOT NULL, step text NOT NULL, action text NOT NULL, state text NOT NULL, results text NOT NULL,
        trail_head text NOT NULL, trail_length bigint NOT NULL, at {at} NOT NULL DEFAULT {now}, PRIMARY KEY (run, step, action)""",
    "control": """seq {id}, run text NOT NULL, command text NOT NULL, by_whom text NOT NULL, reason text NOT NULL,
        at {at} NOT NULL DEFAULT {now}""",
    "backfill_pass": """run text NOT NULL, step text NOT NULL, action text NOT NULL, document text NOT NULL,
        at {at} NOT NULL DEFAULT {now}, PRIMARY KEY (run, step, action)""",
    "batch": """run text NOT NULL, step text NOT NULL, action text NOT NULL, n bigint NOT NULL, worker integer NOT NULL,
        lo text, hi text, seen bigint NOT NULL, written bigint NOT NULL, already bigint NOT NULL, no_key bigint NOT NULL,
        not_in_source bigint NOT NULL, deferred bigint NOT NULL, dead bigint NOT NULL, ms double precision NOT NULL,
        server_wal_bytes bigint, at {at} NOT NULL DEFAULT {now}, PRIMARY KEY (run, step, action, n)""",
    "undo": """run text NOT NULL, step text NOT NULL, n bigint NOT NULL, rows bigint NOT NULL, payload {texts} NOT NULL,
        PRIMARY KEY (run, step, n)""",
    "skipped_row": """run text NOT NULL, step text NOT NULL, action text NOT NULL, key text NOT NULL, sqlstate text NOT NULL,
        message text NOT NULL, attempt integer NOT NULL, at {at} NOT NULL DEFAULT {now}, PRIMARY KEY (run, step, action, key)""",
    "anchor": """seq {id}, run text NOT NULL, what text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL,
        at {at} NOT NULL DEFAULT {now}""",
    "meta": "name text PRIMARY KEY, value text NOT NULL",
    "observation": """seq {id}, run text NOT NULL, monitor text NOT NULL, due_at {at} NOT NULL, at {at} NOT NULL DEFAULT {now},
        answer text NOT NULL, text text NOT NULL, figures text NOT NULL, broken_since {at}, alert_since {at},
        seconds double precision NOT NULL, missed bigint NOT NULL, host text NOT NULL, UNIQUE (run, monitor, due_at)""",
    "monitor_claim": """run text NOT NULL, monitor text NOT NULL, holder text NOT NULL, until {at} NOT NULL,
        PRIMARY KEY (run, monitor)""",
    "monitor_act": """seq {id}, run text NOT NULL, monitor text NOT NULL, act text NOT NULL, by_whom text NOT NULL,
        os_user text NOT NULL, host text NOT NULL, reason text NOT NULL, until {at}, at {at} NOT NULL DEFAULT {now}""",
}
VERSION = 3  # of this schema; 1 had no anchor and no meta, 2 had other names for some tables and no step_commit.touched
_LATER = frozenset({"anchor", "meta"})  # tables that version 1 didn't have
ON_DEMAND = frozenset(
    {"observation", "monitor_claim", "monitor_act"}
)  # a ledger is whole without them: monitors make them
# renamed in version 3: table → its former name, and a step's former state → its name today
FORMER: Mapping[str, str] = {"step_commit": "act", "backfill_pass": "pass", "skipped_row": "dead"}
FORMER_STATES: Mapping[str, str] = {"already_so": "already_applied"}
_WORDS: Mapping[Dialect, Mapping[str, str]] = {
    Dialect.POSTGRESQL: {
        "id": "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "now": "clock_timestamp()",
        "at": "timestamptz",
        "texts": "text[]",
    },
    Dialect.SQLITE: {
        "id": "integer PRIMARY KEY AUTOINCREMENT",
        "now": "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        "at": "text",
        "texts": "text",  # a JSON array of arrays
    },
}


AHEAD_S = 60.0
"""A time that lies so far ahead of the server's clock was written before that clock went back; nothing may rest on it."""


def table(name: str, dialect: Dialect) -> str:
    """A ledger table's name as SQL: `runbook.batch`, or `runbook_batch` on SQLite."""
    return f"{SCHEMA}.{name}" if dialect is Dialect.POSTGRESQL else f"{SCHEMA}_{name}"


def now_sql(dialect: Dialect) -> str:
    """The SQL expression for the server's clock; all times in the ledger are the server's, never this host's."""
    return _WORDS[dialect]["now"]


def ddl(dialect: Dialect) -> list[str]:
    """The statements that create the ledger; idempotent."""
    statements = [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"] if dialect is Dialect.POSTGRESQL else []
    statements += [
        f"CREATE TABLE IF NOT EXISTS {table(name, dialect)} ({columns.format(**_WORDS[dialect])})"
        for name, columns in _TABLES.items()
    ]
    if dialect is Dialect.POSTGRESQL:
        # uncompressed: compressing the payloads took up to a sixth of the time of updating the rows themselves
        statements.append(f"ALTER TABLE {table('undo', dialect)} ALTER COLUMN payload SET STORAGE EXTERNAL")
    meta = table("meta", dialect)
    statements.append(
        f"""INSERT INTO {meta} (name, value) SELECT 'version', '{VERSION}'
            WHERE NOT EXISTS (SELECT 1 FROM {meta} WHERE name = 'version')"""
    )
    return statements


@functools.cache
def columns(dialect: Dialect) -> Mapping[str, str]:
    """Each ledger table → its columns and constraints as SQL."""
    return {name: " ".join(words.format(**_WORDS[dialect]).split()) for name, words in _TABLES.items()}


def grants(role: str) -> list[str]:
    """The GRANT statements with which `role` (a quoted identifier) can use a ledger that it does not own."""
    return [
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {role}",
    ]


class OldLedger(DatabaseFault):
    """The ledger was created by an earlier version: some of its tables have their former names."""


def exists(look: Look) -> bool:
    """Whether the ledger exists (steps.ledger.form tells its version).

    Raises OldLedger where tables have their former names: a ledger that can't be read must not be mistaken for an absent one.
    """
    found = _there(look, [*_TABLES, *FORMER.values()])
    if not found.isdisjoint(FORMER.values()):
        raise OldLedger("cannot read the ledger in this target: an earlier version made it")
    return set(_TABLES) - _LATER - ON_DEMAND <= found


def tables(look: Look) -> set[str]:
    """The names of those ledger tables that exist."""
    return _there(look, list(_TABLES))


def former(look: Look) -> dict[str, str]:
    """The tables that exist under their former names: today's name → former name."""
    found = _there(look, list(FORMER.values()))
    return {name: old for name, old in FORMER.items() if old in found}


def _there(look: Look, names: list[str]) -> set[str]:
    if look.dialect is Dialect.POSTGRESQL:
        sql = """SELECT c.relname::text AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
                 WHERE s.nspname = 'runbook' AND c.relkind = 'r' AND c.relname = ANY(:names)"""
        return {row.text("name") for row in look.rows(sql, {"names": [*names]})}
    listed = ", ".join(f"'{SCHEMA}_{name}'" for name in names)
    rows = look.rows(f"SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ({listed})")
    return {row.text("name").removeprefix(f"{SCHEMA}_") for row in rows}


def create(work: Work) -> None:
    """Create the ledger where it is missing."""
    for statement in ddl(work.dialect):
        work.execute(statement)
