"""A step of slow statements under guards on a level that a test sets, and what the trail says of them."""

from __future__ import annotations

from pathlib import Path

from databases import Database
from inside import InProcessCli, written

SLEEPING = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'runbook:%' AND wait_event = 'PgSleep'"
QUERIES = "queries: {level: SELECT max(n) AS n FROM level, slow: SELECT 1 AS n FROM pg_sleep(0.1)}\n"
BUMP = "UPDATE t SET n = n + 1 WHERE id = {}"
SLEEP = "{run: SELECT pg_sleep(s) FROM pause, revert: []}"
BUMPS = [f"{{run: {BUMP.format(n)}, revert: {BUMP.format(n).replace('+', '-')}}}" for n in (1, 2)]
LONG = f"statements: [{BUMPS[0]}, {SLEEP}, {BUMPS[1]}]"
MANY = f"statements: [{', '.join([SLEEP] * 200)}]"
ONE = f"text: {BUMP.format(1)}"
LEVEL = "check: query, query: level, every: 50 ms"


def at_desk(database: Database, directory: Path) -> InProcessCli:
    """Where the playbooks below can be run: two rows to work on, the level 0, and how long a statement sleeps."""
    database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    database.script("INSERT INTO t (id) VALUES (1), (2)")
    database.script("CREATE TABLE level (n integer); INSERT INTO level VALUES (0)")
    database.script("CREATE TABLE pause (s double precision); INSERT INTO pause VALUES (0.02)")
    return InProcessCli(directory, database.url)


def guarded(desk: InProcessCli, work: str, *words: str, head: str = "", more: str = "") -> str:
    """A playbook with one `sql` step of this work, under these guards."""
    listed = ", ".join(f"{{{one}}}" for one in words)
    back = "" if "revert" in work else "revert: SELECT 1, "
    return written(desk, f"- {{id: work, type: sql, {back}guards: [{listed}], {work}{more}}}", QUERIES + head)


def level(database: Database, n: int) -> None:
    database.script(f"UPDATE level SET n = {n}")


def bumped(database: Database) -> list[int]:
    return [n for (n,) in database.rows("SELECT n FROM t ORDER BY id")]


def answers(desk: InProcessCli, name: str) -> list[str]:
    begun = any((desk.directory / "runs").glob("*/trail.jsonl"))
    return [one.answer.value for one in desk.events("check_answered") if one.id == name] if begun else []


def acts(database: Database) -> int:
    return database.value("SELECT count(*) FROM runbook.step_commit")


def holds(desk: InProcessCli) -> list[dict[str, str]]:
    status = desk.status()
    return [{"by": by, "reason": one.reason} for by, one in status.holds.items()]
