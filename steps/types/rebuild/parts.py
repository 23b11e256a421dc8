"""The statements of a SQLite table rebuild and of its undo. Foreign keys must be off throughout: see OFF.

Everything happens in one transaction, DDL included, so a crash at any point leaves the old table as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from steps.catalog import catalog, compare, compiled_schema, scratch
from steps.catalog.definitions import ColumnInfo
from steps.catalog.scratch import ScratchDatabase
from steps.contract import Look, Model, StepError, Work
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote
from steps.sql.scanner import scan

# Must be off before BEGIN, because the PRAGMA is ignored inside a transaction. Otherwise DROP TABLE would first delete all rows
# of the table, and with ON DELETE CASCADE those that refer to them.
OFF = ("foreign_keys",)
NEW = "runbook_new"
_MAPPED = "runbook_wrote_"


class TablePart(Model):
    """An index or trigger of the table."""

    kind: str
    name: str
    sql: str


class Rebuilt(Model):
    """What the undo needs: the old definition, and what the rebuild wrote into each column, as SQL over the old row.

    kept: the table with a copy of the old rows. pieces: indexes and triggers. old: the old table's columns.
    wrote: new column → SQL; evaluated over a kept row, it gives again the value that the rebuild wrote.
    """

    table: str
    kept: str
    definition: str
    pieces: tuple[TablePart, ...]
    key: tuple[str, ...]
    old: tuple[str, ...]
    wrote: Mapping[str, str]

    @property
    def only_new(self) -> list[str]:
        """Columns that only the new table has."""
        return [one for one in self.wrote if one not in self.old]


@dataclass(frozen=True)
class Move:
    """A rebuild, resolved. old, new: columns that store values (not generated ones); wrote: new column → SQL over the old row;
    rowid: the name by which the rowid is copied, "" where it need not be."""

    table: str
    create: str
    kept: str
    old: tuple[str, ...]
    new: Mapping[str, ColumnInfo]
    wrote: Mapping[str, str]
    key: tuple[str, ...]
    new_key: tuple[str, ...]
    rowid: str

    def before(self, definition: str, own: Sequence[TablePart]) -> Rebuilt:
        """The record for the undo."""
        return Rebuilt(
            table=self.table,
            kept=self.kept,
            definition=definition,
            pieces=tuple(own),
            key=self.key,
            old=self.old,
            wrote={name: self.wrote.get(name) or column.default or "NULL" for name, column in self.new.items()},
        )

    def statements(self) -> list[str]:
        """The statements in order; indexes and triggers, which go with the old table, are created again afterwards.

        The new table is filled under a temporary name, and takes the old name only when the old table is gone: SQLite's manual
        warns of the other order, in which the first rename would redirect references of other tables.
        """
        names = [*([self.rowid] if self.rowid else []), *map(quote, self.wrote)]
        values = [*([self.rowid] if self.rowid else []), *(f"({one})" for one in self.wrote.values())]
        table = quote(self.table)
        rows = f"SELECT {', '.join(map(quote, self.old))} FROM {table}"
        keep = [f"CREATE TABLE {quote(self.kept)} AS {rows}"] if self.kept else []
        return [
            *keep,
            self.create,
            # OR ABORT overrides ON CONFLICT REPLACE or IGNORE in the definition, with which rows would silently disappear
            f"INSERT OR ABORT INTO {quote(NEW)} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE {quote(NEW)} RENAME TO {table}",
        ]

    def carry_out(self, work: Work) -> None:
        """Run the statements, then restore the table's indexes, triggers and AUTOINCREMENT counter."""
        own, number = pieces(work, self.table), _sequence(work, self.table)
        _rename_nothing_else(work)
        for sql in self.statements():
            work.execute(sql)
        _go_on_counting(work, self.table, number, self.create)
        for one in own:
            work.execute(one.sql)

    def nulls(self, look: Look) -> list[str]:
        """Faults for rows that would violate NOT NULL in the new definition."""
        bad = []
        for name, column in self.new.items():
            if column.not_null and name in self.wrote:
                sql = f"SELECT count(*) AS n FROM {quote(self.table)} WHERE ({self.wrote[name]}) IS NULL"
                count = look.row(sql).integer("n")
                bad += [
                    f"{count} rows would have NULL in {name}, which is NOT NULL; say with values what goes there"
                ] * bool(count)
        return bad


def move(memory: ScratchDatabase, table: str, *, create: str, values: Mapping[str, str], kept: str) -> Move:
    """Resolve a rebuild from the old and the new definition; creates the new table in memory and drops it there."""
    memory.execute(create)
    old, new = _holding(memory, table), _holding(memory, NEW)
    both = {name: quote(name) for name in new if name in catalog.columns(memory, table)}
    wrote = {name: sql for name in new if (sql := values.get(name) or both.get(name))}
    found = Move(
        table,
        create,
        kept,
        tuple(old),
        new,
        wrote,
        catalog.primary_key(memory, table),
        catalog.primary_key(memory, NEW),
        _rowid(memory, table, new=new),
    )
    memory.execute(f"DROP TABLE {quote(NEW)}")
    return found


def same(wanted: str, found: str) -> bool:
    """Whether two CREATE TABLE statements define the same table, whatever its name."""
    return _text(wanted) == _text(found)


def pieces(look: Look, table: str) -> list[TablePart]:
    """The table's indexes and triggers with their original SQL; automatic indexes of constraints have none."""
    rows = catalog.answers(look, "whole_schema", {})
    own = [row for row in rows if row.text("type") in {"index", "trigger"}]
    mine = [row for row in own if row.text("table_name").lower() == table.lower()]
    return [TablePart(kind=row.text("type"), name=row.text("name"), sql=row.text("sql")) for row in mine]


def safely(work: Work, act: Callable[[], None]) -> None:
    """Run `act`; raises StepError, so that all is rolled back, where it orphans rows or breaks a view or trigger.

    Foreign keys are off, so they are checked here, before COMMIT. What was orphaned or broken before doesn't count.
    """
    orphans, broken = _orphans(work), _broken(work)
    act()
    worse = [
        f"{n} rows of {child} refer to no row of {parent}"
        for (child, parent), n in _orphans(work).items()
        if n > orphans.get((child, parent), 0)
    ]
    worse += [f"{name} fails: {why}" for name, why in _broken(work).items() if name not in broken]
    if worse:
        raise StepError(f"cannot leave it so, and nothing was changed: {'; '.join(worse)}")


# ─── undo ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def homeless(look: Look, before: Rebuilt) -> int:
    """The number of rows with a value that somebody else wrote, in a column that the old table doesn't have."""
    if not before.only_new:
        return 0
    # in a row added since (no kept row), any value counts as somebody's
    changed = " OR ".join(
        f"CASE WHEN {_matched(before)} THEN {_changed(one)} ELSE now.{quote(one)} IS NOT NULL END"
        for one in before.only_new
    )
    return look.row(f"SELECT count(*) AS n FROM {_joined(before, quote(before.table))} WHERE {changed}").integer("n")


def go_back(work: Work, before: Rebuilt) -> None:
    """Restore the old table: with the old values where the rebuild's are unchanged, otherwise with the current ones.

    Rows added since are kept, rows deleted since stay deleted. Indexes and triggers created since are restored too.
    """
    table, known = quote(before.table), {one.name for one in before.pieces}
    since = [one for one in pieces(work, before.table) if one.name not in known]
    number = _sequence(work, before.table)
    with scratch.memory(work) as memory:
        rowid = _rowid(memory, before.table, new=None)
    _rename_nothing_else(work)
    for one in pieces(work, before.table):
        work.execute(f"DROP {one.kind.upper()} {quote(one.name)}")
    work.execute(f"ALTER TABLE {table} RENAME TO {quote(NEW)}")
    work.execute(before.definition)
    rowid = rowid if rowid and not _whole_key(work, before.table) else ""
    defaults = {one.name: one.default for one in catalog.columns(work, before.table).values()}
    names = [*([rowid] if rowid else []), *map(quote, before.old)]
    values = [*([f"now.{rowid}"] if rowid else []), *(_value(before, one, defaults.get(one)) for one in before.old)]
    work.execute(
        f"INSERT OR ABORT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {_joined(before, quote(NEW))}"
    )
    work.execute(f"DROP TABLE {quote(NEW)}")
    work.execute(f"DROP TABLE {quote(before.kept)}")
    _go_on_counting(work, before.table, number, before.definition)
    for one in [*before.pieces, *since]:
        work.execute(one.sql)


def _value(before: Rebuilt, column: str, default: str | None) -> str:
    old = f"old.{quote(column)}"
    if column in before.wrote:
        return f"CASE WHEN {_matched(before)} AND NOT {_changed(column)} THEN {old} ELSE now.{quote(column)} END"
    return f"CASE WHEN {_matched(before)} THEN {old} ELSE ({default or 'NULL'}) END"


def _joined(before: Rebuilt, now: str) -> str:
    """A FROM clause: each current row (now) with its kept row (old) and the values that the rebuild computed from that.

    The kept table gets the original table's name as its alias, since the expressions in `wrote` may use it.
    """
    wrote = "".join(f", ({sql}) AS {quote(_MAPPED + name)}" for name, sql in before.wrote.items())
    old = f"(SELECT *{wrote} FROM {quote(before.kept)} AS {quote(before.table)}) AS old"
    same = " AND ".join(f"old.{quote(one)} = now.{quote(one)}" for one in before.key)
    return f"{now} AS now LEFT JOIN {old} ON {same}"


def _matched(before: Rebuilt) -> str:
    return f"old.{quote(before.key[0])} IS NOT NULL"


def _changed(column: str) -> str:
    """SQL that tells whether somebody changed the column since the rebuild; BINARY, since letter case counts as a change."""
    return f"(now.{quote(column)} COLLATE BINARY IS NOT old.{quote(_MAPPED + column)})"


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _rename_nothing_else(work: Work) -> None:
    """Keep ALTER TABLE RENAME from rewriting references in views, triggers and foreign keys: they must keep the old name."""
    work.execute("PRAGMA legacy_alter_table = ON")


def _holding(look: Look, table: str) -> dict[str, ColumnInfo]:
    return {name: one for name, one in catalog.columns(look, table).items() if not one.generated}


def _whole_key(look: Look, table: str) -> bool:
    """Whether a column is an alias of the rowid: INTEGER PRIMARY KEY. Copying that column copies the rowid."""
    key = catalog.primary_key(look, table)
    return len(key) == 1 and catalog.columns(look, table)[key[0]].type == "integer"


def _rowid(memory: ScratchDatabase, table: str, *, new: Mapping[str, ColumnInfo] | None) -> str:
    """The name by which a table's rowid can be copied; "" where there is none, or a column is it already.

    Rowids are kept although nothing need refer to them: FTS tables and applications do. new: the target table's columns.
    """
    if new is not None and (_whole_key(memory, NEW) or not _has_rowid(memory, NEW)):
        return ""
    taken = {one.lower() for one in (*catalog.columns(memory, table), *(new or ()))}
    free = [one for one in ("rowid", "_rowid_", "oid") if one not in taken]
    return free[0] if free and _has_rowid(memory, table) else ""


def _has_rowid(memory: ScratchDatabase, table: str) -> bool:
    return not memory.row("SELECT wr FROM pragma_table_list(:table)", {"table": table}).flag("wr")


def _text(create: str) -> str:
    with scratch.nothing() as memory:
        with scratch.understood("read the definition"):
            memory.execute(create)
        memory.execute("PRAGMA legacy_alter_table = ON")
        [row] = catalog.answers(memory, "whole_schema", {})
        memory.execute(f"ALTER TABLE {quote(row.text('name'))} RENAME TO runbook_table")
        return compare.plain_sql(catalog.definition(memory, "runbook_table"))


def _orphans(work: Work) -> dict[tuple[str, str], int]:
    sql = 'SELECT "table" AS child, parent, count(*) AS n FROM pragma_foreign_key_check GROUP BY 1, 2'
    return {(row.text("child"), row.text("parent")): row.integer("n") for row in work.rows(sql)}


def _broken(work: Work) -> dict[str, str]:
    with scratch.memory(work) as memory:
        return compiled_schema.broken(memory)


def _sequence(work: Work, table: str) -> int:
    """The highest number that AUTOINCREMENT has given out in this table; 0 where it has none."""
    if not work.rows("SELECT 1 AS one FROM sqlite_master WHERE name = 'sqlite_sequence'"):
        return 0
    rows = work.rows("SELECT seq FROM sqlite_sequence WHERE name = :table COLLATE NOCASE", {"table": table})
    return rows[0].integer("seq") if rows else 0


def _go_on_counting(work: Work, table: str, number: int, create: str) -> None:
    """Restore the AUTOINCREMENT counter: DROP TABLE deleted it, and numbers of deleted rows would be given out again."""
    counts = any(token.keyword == "AUTOINCREMENT" for token in scan(create, Dialect.SQLITE))
    if number > _sequence(work, table) and counts:
        work.execute("DELETE FROM sqlite_sequence WHERE name = :table COLLATE NOCASE", {"table": table})
        work.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)", {"table": table, "number": number}
        )
