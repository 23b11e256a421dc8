"""What partitions and inheriting tables have of their own, which a change of their parent takes and doesn't bring back."""

from __future__ import annotations

from steps.catalog import catalog
from steps.contract import Look
from steps.contract.dialect import Dialect


def tables(look: Look, table: str) -> list[str]:
    """All partitions and inheriting tables below it as `schema.table`, nearest first; [] on SQLite."""
    if look.dialect is Dialect.SQLITE:
        return []
    return [row.text("name") for row in catalog.answers(look, "descendants", _params(look, table))]


def differing(look: Look, table: str, column: str) -> list[str]:
    """Those in which the column has a default, grants, a comment or settings that it doesn't have from the table."""
    if look.dialect is Dialect.SQLITE:
        return []
    params = {**_params(look, table), "column": column}
    return [row.text("name") for row in catalog.answers(look, "differing_descendants", params)]


def trigger_states(look: Look, table: str, name: str) -> tuple[str, ...]:
    """Statements that give a trigger its state again in the table and in each partition, where it isn't just enabled."""
    if look.dialect is Dialect.SQLITE:
        return ()
    params = {**_params(look, table), "name": name}
    return tuple(row.text("sql") for row in catalog.answers(look, "trigger_states", params))


def enabled_triggers(look: Look, table: str) -> dict[str, str]:
    """Statements that put each trigger of the table and of all below it to rest → those that wake it again (PostgreSQL)."""
    rows = catalog.answers(look, "enabled_triggers", _params(look, table))
    return {row.text("rest"): row.text("wake") for row in rows}


def _params(look: Look, table: str) -> dict[str, str]:
    schema, name = catalog.named(look, table)
    return {"schema": schema, "table": name}
