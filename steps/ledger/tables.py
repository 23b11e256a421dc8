"""The ledger's tables: definitions, and the queries on runs, steps, commits, anchors and commands.

On PostgreSQL they are in a schema of their own, `runbook`; on SQLite their names begin with `runbook_`. They are in the target
database, and not beside the trail, so that the record of a change commits in the same transaction as the change: after a
crash either both are there or neither is, and a resumed run needs no guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from steps.contract import DatabaseFault, Look, Question, Row, RunPosition, Value, Work
from steps.contract.dialect import Dialect

SCHEMA = "runbook"
BEGAN = "runbook.began"  # a PostgreSQL setting, local to each of our transactions: when it began (seconds since 1970)

# The columns of each table. {id}: an ascending number; {now}: the server's clock; {texts}: an array of texts; {at}: a timestamp.
# step_commit's UNIQUE (run, step, action, label) is what makes a repeated commit fail instead of doing the work twice.
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
VERSION = 3  # of this schema; 1 had no anchor and no meta, 2 had other names for some tables and no step_commit.touched
_LATER = frozenset({"anchor", "meta"})  # tables that version 1 didn't have
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


def columns(dialect: Dialect) -> dict[str, str]:
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
    return set(_TABLES) - _LATER <= found


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


# ─── commits: what each step committed ──────────────────────────────────────────────────────────────────────────────
def committed_labels(look: Look, place: RunPosition | None) -> list[str]:
    """The labels that this step has committed, in order; [] outside of a run or where there is no ledger."""
    if place is None or not exists(look):
        return []
    sql = f"""SELECT label FROM {table("step_commit", look.dialect)}
              WHERE run = :run AND step = :step AND action = :action ORDER BY seq"""
    return [row.text("label") for row in look.rows(sql, _where(place))]


def is_committed(look: Look, place: RunPosition, *, label: str) -> bool:
    """Whether this label is committed."""
    sql = f"""SELECT 1 AS one FROM {table("step_commit", look.dialect)}
              WHERE run = :run AND step = :step AND action = :action AND label = :label"""
    return bool(look.rows(sql, {**_where(place), "label": label}))


def record_commit(
    dialect: Dialect, place: RunPosition, *, label: str, epoch: int, before: str | None, touched: str | None = None
) -> Question:
    """The INSERT that records one commit of a step; it runs last in the very transaction that it records.

    before: JSON that `revert` will need. touched: JSON of the tables changed (steps.catalog.touched_tables).
    """
    names, values = ("", "") if touched is None else (", touched", ", :touched")
    sql = f"""INSERT INTO {table("step_commit", dialect)} (run, step, action, label, epoch, before{names})
              VALUES (:run, :step, :action, :label, :epoch, :before{values})"""
    more: dict[str, Value] = {} if touched is None else {"touched": touched}
    return sql, {**_where(place), "label": label, "epoch": epoch, "before": before, **more}


@dataclass(frozen=True)
class Touch:
    """The identity of the tables that one commit changed; text: JSON, written by steps.catalog.touched_tables."""

    run: str
    step: str
    action: str
    text: str


def touches(look: Look, place: RunPosition) -> list[Touch]:
    """The touches of all commits since this step's first commit, of any run, in order."""
    commits = table("step_commit", look.dialect)
    first = f"SELECT min(seq) FROM {commits} WHERE run = :run AND step = :step AND action = 'apply'"
    sql = f"""SELECT run, step, action, touched FROM {commits}
              WHERE touched IS NOT NULL AND seq >= ({first}) ORDER BY seq"""
    rows = look.rows(sql, {"run": place.run, "step": place.step})
    return [Touch(r.text("run"), r.text("step"), r.text("action"), r.text("touched")) for r in rows]


def remembered(look: Look, *, run: str, step: str, last: bool = False) -> str | None:
    """The first (or last) document that `apply` kept for `revert`, as JSON; None where it kept none."""
    sql = f"""SELECT before FROM {table("step_commit", look.dialect)} WHERE run = :run AND step = :step AND action = 'apply'
              AND before IS NOT NULL ORDER BY seq {"DESC" if last else "ASC"} LIMIT 1"""
    rows = look.rows(sql, {"run": run, "step": step})
    return rows[0].text("before") if rows else None


def acted(look: Look, *, run: str, action: str) -> set[str]:
    """The steps of a run that have committed anything under this action ("apply" or "revert")."""
    sql = f"SELECT DISTINCT step FROM {table('step_commit', look.dialect)} WHERE run = :run AND action = :action"
    return {row.text("step") for row in look.rows(sql, {"run": run, "action": action})}


def standing(look: Look, run: str) -> set[str]:
    """The steps of a run whose change stands: they have commits, and are not completely reverted."""
    back = {row.step for row in step_rows(look, run) if row.action == "revert" and row.state == "reverted"}
    return acted(look, run=run, action="apply") - back


def _lost(look: Look, run: str) -> set[str]:
    """The steps recorded as done without any commit: maintenance outside a transaction, or deleted ledger rows."""
    rows = step_rows(look, run)
    back = {row.step for row in rows if row.action == "revert" and row.state == "reverted"}
    done = {row.step for row in rows if row.action == "apply" and row.state == "done"}
    return done - back - acted(look, run=run, action="apply")


def _where(place: RunPosition) -> dict[str, Value]:
    return {"run": place.run, "step": place.step, "action": place.action}


# ─── runs: the authority on what happened to this target ────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class RunRow:
    """A run as recorded in the target. identity, inputs, steps and figures are JSON texts."""

    run: str
    playbook: str
    digest: str
    approval_digest: str
    kind: str
    state: str
    target: str
    identity: str
    inputs: str
    operator: str
    host: str
    steps: str
    source: str
    figures: str
    trail_head: str
    trail_length: int
    age_s: float = 0.0  # since its end, or its start where it hasn't ended, by the server's clock
    rolled_back: bool = False
    going_back: bool = False  # it succeeded, and a rollback of it has committed something but has not completed


_COLUMNS = (
    "run, playbook, digest, approval_digest, kind, state, target, identity, inputs, operator, host, steps, source, figures, "
    "trail_head, trail_length"
)


def add_run(work: Work, row: RunRow) -> None:
    """Record a run that starts."""
    names = [name.strip() for name in _COLUMNS.split(",")]
    sql = (
        f"""INSERT INTO {table("run", work.dialect)} ({_COLUMNS}) VALUES ({", ".join(":" + name for name in names)})"""
    )
    work.execute(sql, {name: cast("Value", getattr(row, name)) for name in names})


def end_run(work: Work, *, run: str, state: str, figures: str, head: str, length: int) -> None:
    """Record a run's state as its process ends: succeeded, failed, waiting …"""
    now = now_sql(work.dialect)
    sql = f"""UPDATE {table("run", work.dialect)} SET state = :state, figures = :figures, trail_head = :head,
              trail_length = :length, ended_at = {now},
              rolled_back_at = CASE WHEN :gone = 1 THEN {now} ELSE rolled_back_at END WHERE run = :run"""
    gone = 1 if state == "rolled_back" else 0
    work.execute(sql, {"run": run, "state": state, "figures": figures, "head": head, "length": length, "gone": gone})


def take_up_run(work: Work, *, run: str, head: str, length: int) -> None:
    """Record that a process continues the run, forwards or backwards: its former end state no longer holds."""
    sql = f"""UPDATE {table("run", work.dialect)} SET state = 'running', trail_head = :head, trail_length = :length
              WHERE run = :run"""
    work.execute(sql, {"run": run, "head": head, "length": length})


def change_run(work: Work, row: RunRow) -> None:
    """Record the playbook that a run follows from here on, after a person has accepted a changed one."""
    names = ("digest", "approval_digest", "steps", "source", "trail_head", "trail_length")
    sql = f"UPDATE {table('run', work.dialect)} SET {', '.join(f'{name} = :{name}' for name in names)} WHERE run = :run"
    work.execute(sql, {name: cast("Value", getattr(row, name)) for name in ("run", *names)})


def find_run(look: Look, run: str) -> RunRow | None:
    """The run with this id, None where there is none."""
    rows = _runs(look, where="run = :run", params={"run": run})
    return rows[0] if rows else None


def latest_runs(look: Look, *, playbook: str) -> list[RunRow]:
    """The runs of a playbook on this target, newest first."""
    return _runs(look, where="playbook = :playbook", params={"playbook": playbook})


def latest_standing(look: Look, playbook: str) -> RunRow | None:
    """The newest run of a playbook whose changes stand; None where there is none."""
    runs = [run for run in latest_runs(look, playbook=playbook) if not run.rolled_back]
    found = next((run for run in runs if standing(look, run.run)), None)
    return found or next((run for run in runs if _lost(look, run.run)), None)


def _runs(look: Look, *, where: str, params: Mapping[str, Value]) -> list[RunRow]:
    age = (
        "extract(epoch FROM clock_timestamp() - coalesce(ended_at, started_at))"
        if look.dialect is Dialect.POSTGRESQL
        else "(julianday('now') - julianday(coalesce(ended_at, started_at))) * 86400.0"
    )
    back = f"SELECT 1 FROM {table('step_commit', look.dialect)} AS a WHERE a.run = r.run AND a.action = 'revert'"
    sql = f"""SELECT {_COLUMNS}, {age} AS age_s, rolled_back_at IS NOT NULL AS rolled_back,
                     rolled_back_at IS NULL AND state IN ('succeeded', 'ended_unproven') AND EXISTS ({back}) AS going_back
              FROM {table("run", look.dialect)} AS r WHERE {where} ORDER BY started_at DESC, run DESC"""
    return [_run(row) for row in look.rows(sql, params)]


def _run(row: Row) -> RunRow:
    texts = {name.strip(): row.text(name.strip()) for name in _COLUMNS.split(",") if name.strip() != "trail_length"}
    length, age = row.integer("trail_length"), row.number("age_s")
    return RunRow(**texts, trail_length=length, age_s=age, rolled_back=row.flag("rolled_back"),
                  going_back=row.flag("going_back"))  # fmt: skip


# ─── steps: outcome and anchor of the trail's chain ─────────────────────────────────────────────────────────────────
def end_step(work: Work, place: RunPosition, *, state: str, results: str, head: str, length: int) -> None:
    """Record a step's outcome and the trail's chain head, out of reach of whoever can rewrite the trail's file."""
    sql = f"""INSERT INTO {table("step", work.dialect)} (run, step, action, state, results, trail_head, trail_length)
              VALUES (:run, :step, :action, :state, :results, :head, :length)
              ON CONFLICT (run, step, action) DO UPDATE SET state = excluded.state, results = excluded.results,
              trail_head = excluded.trail_head, trail_length = excluded.trail_length"""
    work.execute(sql, {**_where(place), "state": state, "results": results, "head": head, "length": length})


@dataclass(frozen=True)
class Anchor:
    """The head of a trail's hash chain at one moment, kept to detect a rewritten trail. what: that moment, for display."""

    what: str
    head: str
    length: int


@dataclass(frozen=True)
class StepRow:
    """A step's recorded outcome; results is a JSON text."""

    step: str
    action: str
    state: str
    results: str
    age_s: float = 0.0


def step_rows(look: Look, run: str) -> list[StepRow]:
    """The outcomes of a run's steps, in the order in which they ended (the trail only grows)."""
    age = (
        "extract(epoch FROM clock_timestamp() - at)"
        if look.dialect is Dialect.POSTGRESQL
        else "(julianday('now') - julianday(at)) * 86400.0"
    )
    sql = f"""SELECT step, action, state, results, {age} AS age_s FROM {table("step", look.dialect)}
              WHERE run = :run ORDER BY trail_length"""
    return [
        StepRow(r.text("step"), r.text("action"), r.text("state"), r.text("results"), r.number("age_s"))
        for r in look.rows(sql, {"run": run})
    ]


def anchors(look: Look, run: str) -> list[Anchor]:
    """All anchors of a run, earliest first."""
    sql = f"""SELECT 'the end of step ' || step AS what, trail_head, trail_length FROM {table("step", look.dialect)}
              WHERE run = :run AND trail_head <> ''"""
    if "anchor" in tables(look):
        by_hand = table("anchor", look.dialect)
        sql += f" UNION ALL SELECT what, trail_head, trail_length FROM {by_hand} WHERE run = :run AND trail_head <> ''"
    rows = look.rows(f"{sql} ORDER BY trail_length", {"run": run})
    return [Anchor(row.text("what"), row.text("trail_head"), row.integer("trail_length")) for row in rows]


def anchor_anew(work: Work, *, run: str, head: str, length: int) -> None:
    """Replace a run's anchors by one of its new trail: it was rebuilt from the ledger, and no old head can match it."""
    for name in ("step", "anchor"):
        sql = f"UPDATE {table(name, work.dialect)} SET trail_head = '', trail_length = 0 WHERE run = :run"
        work.execute(sql, {"run": run})
    sql = f"UPDATE {table('run', work.dialect)} SET trail_head = :head, trail_length = :length WHERE run = :run"
    work.execute(sql, {"run": run, "head": head, "length": length})


def add_anchor(work: Work, *, run: str, what: str, head: str, length: int) -> None:
    """Record the chain head after an intervention by a person; what: which one."""
    sql = f"""INSERT INTO {table("anchor", work.dialect)} (run, what, trail_head, trail_length)
              VALUES (:run, :what, :head, :length)"""
    work.execute(sql, {"run": run, "what": what, "head": head, "length": length})


# ─── control: how a running run is steered from elsewhere ───────────────────────────────────────────────────────────
@dataclass(frozen=True)
class RunCommand:
    """A command to a running run. order: JSON such as {"hold": true} or {"batch_seconds": 0.1}."""

    seq: int
    order: str
    by: str
    reason: str


def add_command(work: Work, *, run: str, order: Mapping[str, Value], by: str, reason: str) -> None:
    """Send a command to a run, which reads it at its next safe point."""
    sql = f"INSERT INTO {table('control', work.dialect)} (run, command, by_whom, reason) VALUES (:run, :order, :by, :reason)"
    work.execute(sql, {"run": run, "order": json.dumps(order), "by": by, "reason": reason})


def commands(look: Look, *, run: str, after: int) -> list[RunCommand]:
    """The commands with a higher seq than `after`, oldest first."""
    sql = f"""SELECT seq, command, by_whom, reason FROM {table("control", look.dialect)}
              WHERE run = :run AND seq > :after ORDER BY seq"""
    rows = look.rows(sql, {"run": run, "after": after})
    return [RunCommand(r.integer("seq"), r.text("command"), r.text("by_whom"), r.text("reason")) for r in rows]


def missing(fault: DatabaseFault) -> bool:
    """Whether a fault means that there is no ledger (undefined schema or table)."""
    return fault.sqlstate in {"3F000", "42P01"}
