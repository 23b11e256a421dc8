"""A column's definition on SQLite, which shows it nowhere but in the text of CREATE TABLE: all that ADD COLUMN needs to make it again."""

from __future__ import annotations

import re
from typing import NamedTuple

from steps.catalog import catalog, scratch
from steps.contract import DatabaseFault, Look
from steps.sql.dialect import quote

_NAME = re.compile(r"""\s*(?:"((?:[^"]|"")*)"|`((?:[^`]|``)*)`|\[([^\]]*)\]|'((?:[^']|'')*)'|([^\s"'`\[(),]+))""")


class ColumnText(NamedTuple):
    """clauses: what follows the column's name. why_not: why ADD COLUMN wouldn't make it again, "" where it would."""

    clauses: str
    why_not: str = ""


def read(look: Look, table: str, column: str) -> ColumnText:
    """Found by dropping it in memory, since SQLite cuts exactly the column's text out; and adding it again, with a row there."""
    name = catalog.named(look, table)[1]
    with scratch.nothing() as memory:
        memory.execute(catalog.definition(look, table))
        before, wanted = catalog.definition(memory, name), _described(memory, name, column)
        try:
            memory.execute(f"ALTER TABLE {quote(name)} DROP COLUMN {quote(column)}")
        except DatabaseFault:
            return ColumnText("")  # dropping.not_dropped says why
        clauses = _cut_out(before, catalog.definition(memory, name), column)
        if clauses is None:
            return ColumnText("", "its definition can't be told from the text of CREATE TABLE")
        try:
            _one_row(memory, name)
            memory.execute("PRAGMA foreign_keys = ON")  # as it may be in the session that adds it
            memory.execute(f"ALTER TABLE {quote(name)} ADD COLUMN {quote(column)} {clauses}")
        except DatabaseFault as fault:
            return ColumnText("", f"SQLite wouldn't add it again: {scratch.fault_text(fault)}")
        same = _described(memory, name, column) == wanted
        return ColumnText(clauses, "" if same else "SQLite wouldn't add it again as it is")


def _cut_out(before: str, after: str, column: str) -> str | None:
    """What follows the column's name in the part of `before` that `after` lacks."""
    size = len(before) - len(after)
    for at in range(len(after) + 1):
        if before[:at] + before[at + size :] == after:
            text = before[at : at + size].strip().strip(",")
            found = _NAME.match(text)
            if found and _plain(found).lower() == column.lower():
                return text[found.end() :].strip()
    return None


def _plain(found: re.Match[str]) -> str:
    double, back, square, single, bare = found.groups()
    if double is not None:
        return str(double).replace('""', '"')
    if back is not None:
        return str(back).replace("``", "`")
    if single is not None:
        return str(single).replace("''", "'")
    return str(square if square is not None else bare)


def _one_row(memory: scratch.ScratchDatabase, name: str) -> None:
    """A row with a value of its declared type in each column: some defaults can only be added to a table without rows."""
    memory.execute("PRAGMA ignore_check_constraints = ON")
    columns = [one for one in catalog.columns(memory, name).values() if not one.generated]
    names = ", ".join(quote(one.name) for one in columns)
    values = ", ".join("x'31'" if one.type.lower() == "blob" else "1" for one in columns)
    memory.execute(f"INSERT INTO {quote(name)} ({names}) VALUES ({values})")
    memory.execute("PRAGMA ignore_check_constraints = OFF")


def _described(memory: scratch.ScratchDatabase, name: str, column: str) -> tuple[object, ...]:
    found = catalog.columns(memory, name)[column]
    keys = memory.rows(
        """SELECT "table" AS other, "to" AS target, on_update, on_delete FROM pragma_foreign_key_list(:name)
           WHERE "from" = :column COLLATE NOCASE ORDER BY 1, 2""",
        {"name": name, "column": column},
    )
    return (*found._replace(position=0), tuple(tuple(row.items()) for row in keys))
