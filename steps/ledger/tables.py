"""The ledger's tables: their names, columns and version, and which of them are there.

In PostgreSQL they are a schema of their own, `runbook`; in SQLite their names begin with `runbook_`.
"""

from __future__ import annotations

from collections.abc import Mapping

from steps.contract import DatabaseFault, Look, Work
from steps.contract.dialect import Dialect

SCHEMA = "runbook"
BEGAN = "runbook.began"  # PostgreSQL's setting that says when one of our transactions began, in seconds since 1970

# {id}: a growing number; {now}: the server's clock; {texts}: a table of texts; {at}: a point in time
_TABLES: Mapping[str, str] = {
    "run": """run text PRIMARY KEY, playbook text NOT NULL, digest text NOT NULL, approval_digest text NOT NULL,
        kind text NOT NULL, state text NOT NULL, target text NOT NULL, identity text NOT NULL, inputs text NOT NULL,
        operator text NOT NULL, host text NOT NULL, started_at {at} NOT NULL DEFAULT {now}, ended_at {at},
        rolled_back_at {at}, steps text NOT NULL, source text NOT NULL,
        figures text NOT NULL, trail_head text NOT NULL, trail_length bigint NOT NULL""",
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
}
VERSION = 3  # of these tables; 1 had neither anchor nor meta, 2 had some under other names and no step_commit.touched
_LATER = frozenset({"anchor", "meta"})  # tables that version 1 didn't have
# as of version 3: a table → its name before, and the word for a step's state before → today's
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


def table(name: str, dialect: Dialect) -> str:
    """The ledger table's name as SQL: `runbook.batch`, or `runbook_batch` on SQLite."""
    return f"{SCHEMA}.{name}" if dialect is Dialect.POSTGRESQL else f"{SCHEMA}_{name}"


def now_sql(dialect: Dialect) -> str:
    """The server's clock, in SQL."""
    return _WORDS[dialect]["now"]


def ddl(dialect: Dialect) -> list[str]:
    """The statements that make the ledger; safe to repeat."""
    statements = [f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"] if dialect is Dialect.POSTGRESQL else []
    statements += [
        f"CREATE TABLE IF NOT EXISTS {table(name, dialect)} ({columns.format(**_WORDS[dialect])})"
        for name, columns in _TABLES.items()
    ]
    if dialect is Dialect.POSTGRESQL:  # compressing it took as long as a sixth of the rows' own update
        statements.append(f"ALTER TABLE {table('undo', dialect)} ALTER COLUMN payload SET STORAGE EXTERNAL")
    meta = table("meta", dialect)
    statements.append(
        f"""INSERT INTO {meta} (name, value) SELECT 'version', '{VERSION}'
            WHERE NOT EXISTS (SELECT 1 FROM {meta} WHERE name = 'version')"""
    )
    return statements


def columns(dialect: Dialect) -> dict[str, str]:
    """Each table of the ledger → its columns and constraints as SQL."""
    return {name: " ".join(words.format(**_WORDS[dialect]).split()) for name, words in _TABLES.items()}


def grants(role: str) -> list[str]:
    """What a DBA runs so that `role` (a quoted identifier) can work with a ledger it does not own."""
    return [
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {SCHEMA} TO {role}",
    ]


class OldLedger(DatabaseFault):
    """Some of the ledger's tables have the names of an earlier version."""


def exists(look: Look) -> bool:
    """Whether all of the ledger's tables are there (steps.ledger.form says of which version).

    Raises OldLedger, because what stands there under other names must not be taken for nothing.
    """
    found = _there(look, [*_TABLES, *FORMER.values()])
    if not found.isdisjoint(FORMER.values()):
        raise OldLedger("cannot read the ledger in this target: an earlier version made it")
    return set(_TABLES) - _LATER <= found


def tables(look: Look) -> set[str]:
    """Which of the ledger's tables are there."""
    return _there(look, list(_TABLES))


def former(look: Look) -> dict[str, str]:
    """The tables that stand there under the names of an earlier version, each with that name."""
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
    """Make the ledger where it is missing."""
    for statement in ddl(work.dialect):
        work.execute(statement)
