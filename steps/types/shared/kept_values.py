"""A dictionary of the values that a type change loses: each distinct value once, with the keys of the rows that held it.

It is written into the ledger's `undo`, by one statement that goes over the table in slices, so that neither this process nor
the server holds all of it at once. A payload is a two-dimensional text[]: old value, new value, and the keys of their rows;
those are a multirange where the key is one integer, else a JSON array of arrays.
"""

from __future__ import annotations

from typing import NamedTuple

from steps.catalog import catalog
from steps.contract import (
    QUERY_CANCELED,
    ColumnRef,
    DatabaseFault,
    Look,
    Model,
    Refused,
    RunPosition,
    StepError,
    TakenBack,
    Value,
    Work,
)
from steps.contract.dialect import Dialect
from steps.ledger.tables import table as ledger_table
from steps.sql.dialect import literal, quote
from steps.sql.unreadable import attempt, caused_by_a_row

SLICE = 64 * 1024 * 1024  # bytes of the table, TOAST included, that one statement goes over
TEMP = "pg_temp.runbook_kept"
CHANGED = "changed since"
_INTEGERS = {"smallint", "integer", "bigint"}
_LAST = 2**63 - 1  # the largest key; a range can't end behind it
_LAST_PAGE = 2**32 - 1
_LOST = "bring the ledger's rows back from a backup, or leave the step standing"


class ValueChange(NamedTuple):
    """What becomes of a column's values, as SQL over its row. new: the new value; back: the old one, made again of the new."""

    column: ColumnRef
    new: str
    back: str

    @property
    def old(self) -> str:
        return f"CAST({quote(self.column.column)} AS text)"

    @property
    def loses(self) -> str:
        """SQL that tells whether the way back alone wouldn't make this row's value again."""
        return f"{quote(self.column.column)} IS NOT NULL AND {self.old} IS DISTINCT FROM CAST({self.back} AS text)"


class Amount(NamedTuple):
    """How much there is to keep."""

    rows: int
    distinct: int

    def __str__(self) -> str:
        values = f"{self.distinct} distinct value{'s' * (self.distinct != 1)}"
        return f"keeps what {self.rows} row{'s' * (self.rows != 1)} held ({values}) in the ledger, for the way back"


class KeptValues(Model):
    """How rows are named in the dictionary. key, types: the table's primary key; ranges: see above."""

    key: tuple[str, ...]
    types: tuple[str, ...]
    ranges: bool


# ─── keeping ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def amount(look: Look, change: ValueChange) -> Amount | None:
    """How many values would have to be kept, by one scan of the table; None where it can't be told, or not in time."""
    name = catalog.sql_name(look, change.column.table)
    sql = f"SELECT count(*) AS n, count(DISTINCT {change.old}) AS values FROM {name} WHERE {change.loses}"
    try:
        with attempt(look):
            row = look.row(sql)
    except DatabaseFault as fault:
        if fault.sqlstate != QUERY_CANCELED and not caused_by_a_row(fault, look.dialect):
            raise
        return None
    return Amount(row.integer("n"), row.integer("values"))


def layout(look: Look, column: ColumnRef) -> KeptValues:
    """How the rows of the column's table will be named."""
    key, columns = catalog.primary_key(look, column.table), catalog.columns(look, column.table)
    types = tuple(columns[one].type for one in key)
    return KeptValues(key=key, types=types, ranges=_as_ranges(look, column.table, key, types))


def _as_ranges(look: Look, table: str, key: tuple[str, ...], types: tuple[str, ...]) -> bool:
    if len(key) != 1 or types[0] not in _INTEGERS:
        return False
    sql = f"SELECT coalesce(max({quote(key[0])}), 0) < {_LAST} AS fits FROM {catalog.sql_name(look, table)}"
    return look.row(sql).flag("fits")


def keep(work: Work, change: ValueChange, kept: KeptValues) -> None:
    """Keep each value that the change loses, and how many they were, in the caller's transaction.

    One statement, so that all is read in one snapshot while others write. Raises Refused where rows have no names.
    """
    if not kept.key:
        raise Refused(f"cannot keep the old values of {change.column}: its table has no primary key")
    place, (pages, step) = _place(work), _pages(work, change.column.table)
    params: dict[str, Value] = {"run": place.run, "step": place.step, "pages": pages, "size": step}
    rows = sum(row.integer("rows") for row in work.rows(_insert(work, change, kept), params))
    _record(work, place, "apply", written=rows)


def _pages(look: Look, table: str) -> tuple[int, int]:
    """(pages of the largest heap behind the name, pages of one slice); at least one of each."""
    sql = """WITH RECURSIVE tree AS (SELECT CAST(CAST(:name AS regclass) AS oid) AS oid UNION
                 SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
             SELECT coalesce(max(pg_relation_size(oid)) / CAST(current_setting('block_size') AS bigint), 0) AS pages,
                    coalesce(sum(pg_table_size(oid)), 0) AS bytes FROM tree"""
    row = look.row(sql, {"name": catalog.sql_name(look, table)})
    pages, size = max(row.integer("pages"), 1), row.integer("bytes")
    return pages, max(1, pages * SLICE // max(size, SLICE))


def _insert(look: Look, change: ValueChange, kept: KeptValues) -> str:
    """The INSERT of a payload for each slice of the table; the last one has no end, since the table may grow meanwhile."""
    keys = [f"{quote(one)} AS rb_k{n}" for n, one in enumerate(kept.key)]
    each = ", ".join(f"CAST(rb_k{n} AS text)" for n in range(len(kept.key)))
    gathered = "range_agg(int8range(rb_k0, rb_k0, '[]'))" if kept.ranges else f"json_agg(json_build_array({each}))"
    inner = ", ".join([f"{change.old} AS rb_old", f"CAST({change.new} AS text) AS rb_new", *keys])
    last = f"CASE WHEN rb_slice.lo + :size >= :pages THEN {_LAST_PAGE} ELSE rb_slice.lo + :size END"
    return f"""INSERT INTO {ledger_table("undo", Dialect.POSTGRESQL)} (run, step, n, rows, payload)
        SELECT CAST(:run AS text), CAST(:step AS text), rb_slice.lo / :size + 1, rb_all.rows, rb_all.payload
        FROM generate_series(CAST(0 AS bigint), CAST(:pages AS bigint) - 1, CAST(:size AS bigint)) AS rb_slice (lo)
        CROSS JOIN LATERAL (
            SELECT sum(rb_rows) AS rows, array_agg(ARRAY[rb_old, rb_new, rb_keys]) AS payload
            FROM (SELECT rb_old, rb_new, count(*) AS rb_rows, CAST({gathered} AS text) AS rb_keys
                  FROM (SELECT {inner} FROM {catalog.sql_name(look, change.column.table)}
                        WHERE ctid >= CAST('(' || rb_slice.lo || ',0)' AS tid)
                        AND ctid < CAST('(' || {last} || ',0)' AS tid) AND {change.loses}) AS rb_row
                  GROUP BY rb_old, rb_new) AS rb_value HAVING count(*) > 0) AS rb_all
        RETURNING rows"""


def is_kept(look: Look) -> bool:
    """Whether the values of the step that this connection serves are all in the ledger."""
    return _noted(look, _place(look)) is not None


def _noted(look: Look, place: RunPosition) -> int | None:
    sql = f"""SELECT written FROM {ledger_table("batch", look.dialect)}
              WHERE run = :run AND step = :step AND action = 'apply'"""
    rows = look.rows(sql, {"run": place.run, "step": place.step})
    return rows[0].integer("written") if rows else None


# ─── putting back ───────────────────────────────────────────────────────────────────────────────────────────────────────
def unpack(work: Work, kept: KeptValues) -> None:
    """Make the dictionary a temporary table, a row for each row of the table: rb_old, rb_new, rb_k0 …"""
    place, undo = _place(work), ledger_table("undo", work.dialect)
    sql = f"SELECT coalesce(sum(rows), 0) AS n FROM {undo} WHERE run = :run AND step = :step"
    there, noted = work.row(sql, {"run": place.run, "step": place.step}).integer("n"), _noted(work, place)
    if there != noted:
        what = f"of {noted} values, the ledger has lost {noted - there}" if noted else "the ledger has lost its values"
        raise StepError(f"cannot take back {place.step}: {what}; {_LOST}")
    one = "rb_range.key" if kept.ranges else "rb_each.value"
    typed = (
        [f"CAST({one} AS {kept.types[0]}) AS rb_k0"]
        if kept.ranges
        else [f"CAST({one} ->> {n} AS {kind}) AS rb_k{n}" for n, kind in enumerate(kept.types)]
    )
    each = (
        """unnest(CAST(rb_v.rb_keys AS int8multirange)) AS rb_part (span)
           CROSS JOIN LATERAL generate_series(lower(rb_part.span), upper(rb_part.span) - 1) AS rb_range (key)"""
        if kept.ranges
        else "json_array_elements(CAST(rb_v.rb_keys AS json)) AS rb_each (value)"
    )
    parts = ", ".join(
        f"max(rb_e.text) FILTER (WHERE (rb_e.at - 1) % 3 = {n}) AS {name}"
        for n, name in enumerate(("rb_old", "rb_new", "rb_keys"))
    )
    make(
        work,
        f"""SELECT rb_v.rb_old, rb_v.rb_new, {", ".join(typed)}
            FROM (SELECT {parts} FROM {undo} AS rb_u CROSS JOIN LATERAL unnest(rb_u.payload) WITH ORDINALITY AS rb_e (text, at)
                  WHERE rb_u.run = {literal(place.run)} AND rb_u.step = {literal(place.step)}
                  GROUP BY rb_u.n, (rb_e.at - 1) / 3) AS rb_v CROSS JOIN LATERAL {each}""",
    )


def make(work: Work, rows: str) -> None:
    """Make the temporary table of these rows; it goes with the transaction."""
    work.execute(f"CREATE TEMPORARY TABLE runbook_kept ON COMMIT DROP AS {rows}")
    work.execute(f"ANALYZE {TEMP}")


def commonest(work: Work, column: ColumnRef) -> str | None:
    """The kept value that more than half of all rows held; None where there is none."""
    name = catalog.sql_name(work, column.table)
    sql = f"""SELECT rb_old FROM {TEMP} GROUP BY rb_old HAVING count(*) * 2 > (SELECT count(*) FROM {name})"""
    rows = work.rows(sql)
    return rows[0].text("rb_old") if rows else None


def blank_others(work: Work, column: ColumnRef, key: tuple[str, ...], *, value: str) -> None:
    """Set the column to NULL in all rows but those that held this value."""
    name = catalog.sql_name(work, column.table)
    sql = f"""UPDATE {name} AS target SET {quote(column.column)} = NULL WHERE NOT EXISTS
              (SELECT 1 FROM {TEMP} AS kept WHERE kept.rb_old = :value AND {_same(key)})"""
    work.execute(sql, {"value": value})


def put_back(work: Work, column: ColumnRef, key: tuple[str, ...], *, kind: str, ours: str) -> None:
    """Restore the kept values where the row holds what the change wrote; record the other rows as refused.

    kind: the old type; ours: SQL over `kept` for what a row holds by now that nobody changed since.
    """
    place, target = _place(work), f"target.{quote(column.column)}"
    name, old = catalog.sql_name(work, column.table), f"CAST(kept.rb_old AS {kind})"
    work.execute(
        f"""UPDATE {name} AS target SET {quote(column.column)} = {old} FROM {TEMP} AS kept WHERE {_same(key)}
            AND CAST({target} AS text) IS NOT DISTINCT FROM CAST({ours} AS text)"""
    )
    each = ", ".join(f"CAST(kept.rb_k{n} AS text)" for n in range(len(key)))
    refused = work.execute(
        f"""INSERT INTO {ledger_table("skipped_row", work.dialect)} (run, step, action, key, sqlstate, message, attempt)
            SELECT :run, :step, :action, CAST(json_build_array({each}) AS text), '', '{CHANGED}', 1 FROM {TEMP} AS kept
            WHERE NOT EXISTS (SELECT 1 FROM {name} AS target
                              WHERE {_same(key)} AND CAST({target} AS text) = CAST({old} AS text))""",
        {"run": place.run, "step": place.step, "action": place.action},
    )
    rows = work.row(f"SELECT count(*) AS n FROM {TEMP}").integer("n")
    _record(work, place, place.action, written=rows - refused, dead=refused)


def _same(key: tuple[str, ...]) -> str:
    return " AND ".join(f"target.{quote(one)} = kept.rb_k{n}" for n, one in enumerate(key))


def _place(look: Look) -> RunPosition:
    if look.place is None:
        raise StepError("cannot keep values, or put them back, outside of a run")
    return look.place


def _record(work: Work, place: RunPosition, action: str, *, written: int, dead: int = 0) -> None:
    """Note the figures in the same transaction, for a process that comes after this one."""
    figures: dict[str, Value] = {"seen": written + dead, "written": written, "dead": dead}
    work.execute(
        f"""INSERT INTO {ledger_table("batch", work.dialect)} (run, step, action, n, worker, seen, written, already,
                no_key, not_in_source, deferred, dead, ms)
            VALUES (:run, :step, :action, 1, 0, :seen, :written, 0, 0, 0, 0, :dead, 0)""",
        {"run": place.run, "step": place.step, "action": action, **figures},
    )


def taken_back(look: Look) -> TakenBack:
    """The figures of the undo that this connection serves, from the ledger."""
    place = look.place
    if place is None:
        return TakenBack()
    sql = f"""SELECT coalesce(sum(written), 0) AS restored, coalesce(sum(dead), 0) AS refused
              FROM {ledger_table("batch", look.dialect)} WHERE run = :run AND step = :step AND action = :action"""
    row = look.row(sql, {"run": place.run, "step": place.step, "action": place.action})
    return TakenBack(restored=row.integer("restored"), refused=row.integer("refused"))
