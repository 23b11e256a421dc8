"""Finds views and triggers of an SQLite schema that no longer compile: SQLite stores their text and parses it only on use."""

from __future__ import annotations

from steps.catalog import catalog
from steps.catalog.scratch import ScratchDatabase, fault_text, memory
from steps.contract import ColumnRef, DatabaseFault, Look
from steps.sql.dialect import quote


def broken(within: ScratchDatabase) -> dict[str, str]:
    """The views and triggers that SQLite can't compile → its message. Drops all triggers of `within`, to try each alone."""
    rows = catalog.answers(within, "whole_schema", {})
    found = {}
    for row in (one for one in rows if one.text("type") == "view"):
        if why := _refused(within, f"SELECT * FROM {quote(row.text('name'))}"):
            found[row.text("name")] = why
    triggers = [one for one in rows if one.text("type") == "trigger"]
    for row in triggers:
        within.execute(f"DROP TRIGGER {quote(row.text('name'))}")
    for row in triggers:
        firing = _firing(within, row.text("table_name"))
        # what the statements do without the trigger: on a view they fail unless an INSTEAD OF trigger stands for them
        without = [_refused(within, sql) for sql in firing]
        within.execute(row.text("sql"))
        refused = [why for sql, before in zip(firing, without, strict=True) if (why := _refused(within, sql)) != before]
        found |= {row.text("name"): why for why in refused[:1] if why}
        within.execute(f"DROP TRIGGER {quote(row.text('name'))}")
    return found


def names_still(look: Look, column: ColumnRef) -> list[str]:
    """The views and triggers that fail for lack of this column: they don't compile now, and do once it is added."""
    with memory(look) as without:
        failing = broken(without)
    if not failing:
        return []
    with memory(look) as there:
        there.execute(f"ALTER TABLE {catalog.sql_name(look, column.table)} ADD COLUMN {quote(column.column)}")
        unrelated = broken(there)
    return [name for name in failing if name not in unrelated]


def _firing(within: ScratchDatabase, table: str) -> list[str]:
    """Statements that between them fire every trigger on a table or view."""
    name = quote(table)
    columns = [quote(one.name) for one in catalog.columns(within, table).values() if not one.generated]
    return [
        f"INSERT INTO {name} DEFAULT VALUES",
        f"UPDATE {name} SET {', '.join(f'{one} = {one}' for one in columns)}",
        f"DELETE FROM {name}",
    ]


def _refused(within: ScratchDatabase, sql: str) -> str:
    """SQLite's message where it can't compile the statement (EXPLAIN compiles and runs nothing); "" where it can."""
    try:
        within.rows(f"EXPLAIN {sql}")
    except DatabaseFault as fault:
        return fault_text(fault)
    return ""
