"""VACUUM and ANALYZE of one table: removes a backfill's dead rows, and gathers statistics for the planner."""

from __future__ import annotations

from typing import ClassVar

from steps.catalog import catalog
from steps.contract import Identifier, Look, Statement
from steps.contract.dialect import Dialect
from steps.types.shared.maintenance import Maintenance


class Vacuum(Maintenance):
    """Removes dead rows and marks pages all-visible, which index-only scans need."""

    kind: ClassVar[str] = "vacuum"
    summary: ClassVar[str] = "clear a table's dead rows, with fresh statistics; SQLite: statistics only"

    table: Identifier
    analyze: bool = True

    def describe(self) -> str:
        return f"vacuum{' and analyze' if self.analyze else ''} {self.table}"

    def statements(self, look: Look) -> list[Statement]:
        """VACUUM; on SQLite only ANALYZE, because its VACUUM rewrites the whole file and blocks everybody meanwhile."""
        if look.dialect is Dialect.SQLITE:
            return [_analyze(look, self.table, note="on SQLite instead of VACUUM, which would rewrite the whole file")]
        options = " (ANALYZE)" if self.analyze else ""
        return [
            Statement(
                f"VACUUM{options} {catalog.sql_name(look, self.table)}",
                table=self.table,
                lock="SHARE UPDATE EXCLUSIVE",
                length="one scan",
                transactional=False,
                note="readers and writers go on",
            )
        ]

    def preflight(self, look: Look) -> list[str]:
        return _not_allowed(look, self.table)


class Analyze(Maintenance):
    """Gathers the statistics that the planner uses."""

    kind: ClassVar[str] = "analyze"
    summary: ClassVar[str] = "gather a table's statistics, from which plans are made"

    table: Identifier

    def describe(self) -> str:
        return f"analyze {self.table}"

    def statements(self, look: Look) -> list[Statement]:
        return [_analyze(look, self.table)]

    def preflight(self, look: Look) -> list[str]:
        return _not_allowed(look, self.table)


def _analyze(look: Look, table: str, *, note: str = "") -> Statement:
    lock = "SHARE UPDATE EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
    sql = f"ANALYZE {catalog.sql_name(look, table)}"
    return Statement(sql, table=table, lock=lock, length="one scan", note=note)


def _not_allowed(look: Look, table: str) -> list[str]:
    """Faults of privileges, checked beforehand: VACUUM and ANALYZE skip a table of another role with only a warning."""
    if catalog.may_maintain(look, table):
        return []
    return [f"cannot vacuum or analyze {table}: it isn't this role's; connect as its owner, or GRANT MAINTAIN (17 on)"]
