"""Lets time pass for a target: what its ledger has of runs and monitors becomes so much older. No clock is moved.

With a negative number it becomes younger, as if the server's clock went back.
"""

from __future__ import annotations

from databases import Database

_TIMES = {
    "run": ("started_at", "ended_at"),
    "observation": ("due_at", "at", "broken_since", "alert_since"),
    "monitor_claim": ("until",),
    "monitor_act": ("at", "until"),
}


def let_pass(database: Database, seconds: float) -> None:
    """Make everything that the ledger has of runs and monitors older by so many seconds."""
    for table, columns in _TIMES.items():
        if database.server:
            name = f"runbook.{table}"
            there = database.value(f"SELECT to_regclass('{name}') IS NOT NULL")
            sets = ", ".join(f"{one} = {one} - interval '{seconds} s'" for one in columns)
        else:
            name = f"runbook_{table}"
            there = database.value(f"SELECT count(*) FROM sqlite_master WHERE name = '{name}'")
            sets = ", ".join(
                f"{one} = strftime('%Y-%m-%dT%H:%M:%fZ', {one}, '{-seconds:+} seconds')" for one in columns
            )
        if there:
            database.rows(f"UPDATE {name} SET {sets}")
