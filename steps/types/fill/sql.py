"""SQL of a fill on both databases: the work table with the source's rows, and the batches from it into the table.

The source may be an aggregate, so it is evaluated once, into a work table whose rows are numbered in the order of the key.
Its columns: rb_n the number, rb_there whether the table had the key already, rb_keyless whether the key has a NULL, rb_c0 … the
source's values. Rows to be written come first; of the others only the key is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from steps.contract.dialect import Dialect
from steps.ledger.tables import table as ledger_table
from steps.sql.dialect import literal, quote
from steps.types.backfill.sql import wrap
from steps.types.backfill.store import DEAD_ACTION, DEFERRED
from steps.types.fill.shape import FillColumn, FillShape

TEMP = "temp.runbook_fill"
_OURS = "run = :run AND step = :step"


# ─── the work table ─────────────────────────────────────────────────────────────────────────────────────────────────
def create_work(shape: FillShape, work: str) -> list[str]:
    """The statements that make the work table; repeatable within a run."""
    bare = work.rpartition(".")[2].strip('"')
    index = f"CREATE UNIQUE INDEX {quote(f'{bare}_n')} ON {work} (rb_n)"
    return [f"DROP TABLE IF EXISTS {work}", f"CREATE TABLE {work} AS {numbered(shape)}", index]


def append_work(shape: FillShape, work: str) -> str:
    """The INSERT of rows that came into the source since, numbered after :base; dead rows are not among them."""
    known = _compared(shape, "rb_s", "rb_w", lambda column: f"rb_c{shape.number(column)}", by_text=False)
    names = ", ".join(["rb_n", "rb_there", "rb_keyless", *_names(shape)])
    values = ", ".join(f"rb_s.{one.sql} AS rb_c{n}" for n, one in enumerate(shape.columns))
    order = ", ".join(f"rb_s.{one.sql}" for one in shape.key)
    base = "CAST(:base AS bigint)" if shape.pg else ":base"
    return f"""INSERT INTO {work} ({names}) SELECT {base} + row_number() OVER (ORDER BY {order}), {_no(shape)}, {_no(shape)}, {values}
        FROM ({shape.source}) AS rb_s WHERE NOT ({_keyless(shape, "rb_s")})
        AND NOT EXISTS (SELECT 1 FROM {shape.table} AS target WHERE {_matched(shape, "rb_s")})
        AND NOT EXISTS (SELECT 1 FROM {work} AS rb_w WHERE {known})"""


def figures_of_work(work: str) -> str:
    """The SELECT of how many rows the source has, and how many of them are not to be written, and why."""
    return f"""SELECT count(*) AS rows, count(*) FILTER (WHERE rb_there) AS there,
        count(*) FILTER (WHERE rb_keyless) AS keyless FROM {work}"""


def duplicates(shape: FillShape, work: str) -> str:
    """The SELECT of one key that several of the source's rows have."""
    keys = ", ".join(f"rb_w.rb_c{shape.number(one)}" for one in shape.key)
    return f"""SELECT {key_of_work(shape)} AS key, count(*) AS n FROM {work} AS rb_w WHERE NOT rb_w.rb_keyless
        GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"""


def one_there(shape: FillShape, work: str) -> str:
    return f"SELECT {key_of_work(shape)} AS key FROM {work} AS rb_w WHERE rb_w.rb_there ORDER BY rb_w.rb_n LIMIT 1"


def numbered(shape: FillShape) -> str:
    """The SELECT of the source's rows as the work table gets them."""
    values = ", ".join(f"source.{one.sql} AS rb_c{n}" for n, one in enumerate(shape.columns))
    there = " AND ".join(f"target.{one.sql} IS NOT NULL" for one in shape.key)
    keys = {shape.number(one) for one in shape.key}
    kept = [
        f"rb_f.rb_c{n}"
        if n in keys
        else f"CASE WHEN NOT (rb_f.rb_there OR rb_f.rb_keyless) THEN rb_f.rb_c{n} END AS rb_c{n}"
        for n in range(len(shape.columns))
    ]
    order = ", ".join(["rb_f.rb_there OR rb_f.rb_keyless", *(f"rb_f.rb_c{n}" for n in sorted(keys))])
    return f"""SELECT row_number() OVER (ORDER BY {order}) AS rb_n, rb_f.rb_there, rb_f.rb_keyless, {", ".join(kept)}
        FROM (SELECT {there} AS rb_there, {_keyless(shape, "source")} AS rb_keyless, {values}
              FROM ({shape.source}) AS source LEFT JOIN {shape.table} AS target ON {_matched(shape, "source")}) AS rb_f"""


def _keyless(shape: FillShape, alias: str) -> str:
    return " OR ".join(f"{alias}.{one.sql} IS NULL" for one in shape.key)


def _matched(shape: FillShape, alias: str) -> str:
    """SQL that tells whether `target` has the key of the source's row; where types differ, by their texts."""
    return _compared(shape, alias, "target", lambda column: column.sql)


def _compared(
    shape: FillShape, alias: str, other: str, name: Callable[[FillColumn], str], *, by_text: bool = True
) -> str:
    each = []
    for one in shape.key:
        mine, theirs = f"{alias}.{one.sql}", f"{other}.{name(one)}"
        each.append(f"{as_text(mine)} = {as_text(theirs)}" if by_text and not one.alike else f"{mine} = {theirs}")
    return " AND ".join(each)


def _names(shape: FillShape) -> list[str]:
    return [f"rb_c{n}" for n in range(len(shape.columns))]


def _no(shape: FillShape) -> str:
    return "false" if shape.pg else "0"


def key_of_work(shape: FillShape) -> str:
    """SQL for the key of a row rb_w of the work table, as the ledger stores it."""
    each = [f"rb_w.rb_c{shape.number(one)}" for one in shape.key]
    if shape.pg:
        return f"CAST(json_build_array({', '.join(as_text(one) for one in each)}) AS text)"
    return f"json_array({', '.join(wrap(one) for one in each)})"


def as_text(expression: str) -> str:
    return f"CAST({expression} AS text)"


# ─── a batch ────────────────────────────────────────────────────────────────────────────────────────────────────────
WINDOW = "rb_w.rb_n > :lo AND rb_w.rb_n <= :hi"


def insert(shape: FillShape, rows: str) -> str:
    """The INSERT of these rows, called rb_w, in the order of their numbers."""
    names = ", ".join(one.sql for one in shape.columns)
    values = ", ".join(value_of(shape, one) for one in shape.columns)
    conflict = f" ON CONFLICT ({', '.join(one.sql for one in shape.key)}) DO NOTHING" if shape.skip else ""
    # OR ABORT overrides a constraint's own ON CONFLICT clause: REPLACE would delete rows, IGNORE skip ours unseen
    verb = "INSERT INTO" if shape.pg else "INSERT OR ABORT INTO"
    return f"{verb} {shape.table} AS target ({names}) SELECT {values} FROM {rows} AS rb_w WHERE true ORDER BY rb_w.rb_n{conflict}"


def value_of(shape: FillShape, column: FillColumn) -> str:
    """SQL for the value of a work table's row rb_w as it is written; a cast to varchar(2) would cut it, and so isn't made."""
    plain = f"rb_w.rb_c{shape.number(column)}"
    return f"CAST({as_text(plain)} AS {column.column.type})" if column.parsed else plain


def fingerprint(dialect: Dialect, columns: Sequence[str]) -> str:
    """SQL for a text by which it is told whether the row `target` is as it was written."""
    if dialect is Dialect.POSTGRESQL:
        return f"md5(CAST(ROW({', '.join(as_text(f'target.{quote(name)}') for name in columns)}) AS text))"
    return " || ',' || ".join(f"quote(target.{quote(name)})" for name in columns)


def statement(shape: FillShape, work: str) -> str:
    """PostgreSQL: a whole batch as one statement: the rows, what the undo needs, and how many were seen and written."""
    keys = [f"{as_text(f'target.{one.sql}')} AS rb_k{n}" for n, one in enumerate(shape.key)]
    texts = ", ".join([*(f"rb_i.rb_k{n}" for n in range(len(keys))), "rb_i.rb_o0"])
    return f"""WITH rb_w AS MATERIALIZED (SELECT rb_w.* FROM {work} AS rb_w WHERE {WINDOW}),
        rb_i AS ({insert(shape, "rb_w")} RETURNING {", ".join(keys)}, {fingerprint(shape.dialect, shape.whole)} AS rb_o0),
        rb_undo AS (INSERT INTO {ledger_table("undo", shape.dialect)} (run, step, n, rows, payload)
            SELECT CAST(:run AS text), CAST(:step AS text), CAST(:n AS bigint), count(*), array_agg(ARRAY[{texts}])
            FROM rb_i HAVING count(*) > 0)
        SELECT (SELECT count(*) FROM rb_w) AS seen, (SELECT count(*) FROM rb_i) AS written"""


def sqlite_statements(shape: FillShape, work: str) -> list[str]:
    """SQLite: the statements of a batch; BEGIN IMMEDIATE keeps all other writers out meanwhile."""
    same = same_key(shape)
    missing = f" AND NOT EXISTS (SELECT 1 FROM {shape.table} AS target WHERE {same})" if shape.skip else ""
    keys = [f"{wrap(f'target.{one.sql}')} AS rb_k{n}" for n, one in enumerate(shape.key)]
    texts = ", ".join([*(f"rb_i.rb_k{n}" for n in range(len(keys))), "rb_i.rb_o0"])
    return [
        f"DROP TABLE IF EXISTS {TEMP}",
        f"CREATE TEMP TABLE runbook_fill AS SELECT rb_w.* FROM {work} AS rb_w WHERE {WINDOW}{missing}",
        insert(shape, TEMP),
        f"""INSERT INTO {ledger_table("undo", shape.dialect)} (run, step, n, rows, payload)
            SELECT :run, :step, :n, count(*), json_group_array(json_array({texts}))
            FROM (SELECT DISTINCT {", ".join(keys)}, {fingerprint(shape.dialect, shape.whole)} AS rb_o0
                  FROM {TEMP} AS rb_w CROSS JOIN {shape.table} AS target WHERE {same}) AS rb_i HAVING count(*) > 0""",
    ]


def same_key(shape: FillShape) -> str:
    """SQL that tells whether `target` has the key of the work table's row rb_w."""
    return " AND ".join(f"target.{one.sql} = {_key_value(shape, one)}" for one in shape.key)


def _key_value(shape: FillShape, column: FillColumn) -> str:
    plain = f"rb_w.rb_c{shape.number(column)}"
    return plain if column.alike else f"CAST({as_text(plain)} AS {column.column.type})"


def not_written(shape: FillShape, work: str) -> str:
    """The SELECT of the keys of a window's rows that the table lacks: a trigger kept them from being written."""
    return f"""SELECT {key_of_work(shape)} AS key FROM {work} AS rb_w WHERE {WINDOW}
        AND NOT EXISTS (SELECT 1 FROM {shape.table} AS target WHERE {same_key(shape)}) ORDER BY rb_w.rb_n"""


def returned(shape: FillShape, work: str) -> str:
    """The DELETE of the records of a window's rows that had been set aside to be tried again."""
    skipped = ledger_table("skipped_row", shape.dialect)
    return f"""DELETE FROM {skipped} WHERE {_OURS} AND action = '{DEFERRED}'
        AND key IN (SELECT {key_of_work(shape)} FROM {work} AS rb_w WHERE {WINDOW})"""


def forget_deferred(shape: FillShape, work: str, *, there: bool) -> str:
    """The DELETE of the records of rows to be tried again that the table has by now (`there`), or the source no longer has."""
    skipped = ledger_table("skipped_row", shape.dialect)
    found = f"IN (SELECT {key_of_work(shape)} FROM {work} AS rb_w WHERE rb_w.rb_there)"
    if not there:
        found = f"NOT IN (SELECT {key_of_work(shape)} FROM {work} AS rb_w)"
    return f"DELETE FROM {skipped} WHERE {_OURS} AND action = '{DEFERRED}' AND key {found}"


def key_of(shape: FillShape, work: str) -> str:
    """The SELECT of the key of row :n of the work table."""
    return f"SELECT {key_of_work(shape)} AS key FROM {work} AS rb_w WHERE rb_w.rb_n = :n"


def those_in_work(shape: FillShape, work: str, keys: Sequence[str]) -> str:
    """The SELECT of those of the keys that the work table has."""
    return f"SELECT {key_of_work(shape)} AS key FROM {work} AS rb_w WHERE {key_of_work(shape)} IN ({', '.join(map(literal, keys))})"


def last_number(work: str) -> str:
    return f"SELECT coalesce(max(rb_n), 0) AS n FROM {work}"


def deferred(shape: FillShape, work: str) -> str:
    """The SELECT of the numbers of the rows that were set aside to be tried again."""
    skipped = ledger_table("skipped_row", shape.dialect)
    return f"""SELECT rb_w.rb_n AS n FROM {work} AS rb_w WHERE NOT rb_w.rb_there AND {key_of_work(shape)} IN
        (SELECT key FROM {skipped} WHERE {_OURS} AND action = '{DEFERRED}') ORDER BY 1"""


def left(shape: FillShape, work: str) -> str:
    """The SELECT of how many rows of the work table are neither in the table nor set aside."""
    skipped = ledger_table("skipped_row", shape.dialect)
    aside = f"SELECT key FROM {skipped} WHERE {_OURS} AND action IN ('{DEAD_ACTION}', '{DEFERRED}')"
    materialized = " MATERIALIZED" if shape.pg else ""  # a dead row's key may be no value of the column's type
    return f"""WITH rb_w AS{materialized} (SELECT * FROM {work} AS rb_w WHERE NOT rb_w.rb_there AND NOT rb_w.rb_keyless
            AND {key_of_work(shape)} NOT IN ({aside}))
        SELECT count(*) AS n FROM rb_w WHERE NOT EXISTS (SELECT 1 FROM {shape.table} AS target WHERE {same_key(shape)})"""
