"""SQL that a backfill uses on both databases: the rows of a window, and the verdict on each of them.

Every alias made up here begins with rb_, so that it can't collide with names in a playbook's expressions over `target` and
`source`. Columns of a row: rb_k0… its key, rb_n0… whether the column is to be written, rb_m0… the values of `match`, rb_v0… the
source's values, rb_o0… its position in the pass's order, rb_c the verdict: written, already (nothing to fill), no_key,
not_in_source, or outside (of `where`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from steps.contract import Value
from steps.contract.dialect import Dialect
from steps.ledger.tables import table as ledger_table
from steps.sql.dialect import quote
from steps.types.backfill.match import Pair

ROWID = "rowid"


@dataclass(frozen=True)
class Named:
    """A column with its type as the catalogue writes it, a domain's base type for a domain. row: it is of a composite type."""

    name: str
    type: str
    row: bool = False

    @property
    def sql(self) -> str:
        return self.name if self.name == ROWID and self.type == ROWID else quote(self.name)


@dataclass(frozen=True)
class Shape:
    """The parts of a backfill's SQL, resolved against this database.

    table: qualified and quoted. many: its rows are in several heaps (partitions, inheritance).
    touched_columns: set to themselves in each written row; see `catalog.touched_columns`. oid: 0 on SQLite.
    triggers: a trigger may change what the UPDATE writes, in the same transaction.
    clears: the columns are emptied instead of filled: there is no source, and a row needs it where any of them holds a value.
    """

    dialect: Dialect
    table: str
    key: tuple[Named, ...]
    fill: tuple[Named, ...]
    source: str
    pairs: tuple[Pair, ...]
    where: str = ""
    many: bool = False
    undo: bool = True
    touched_columns: tuple[str, ...] = ()
    oid: int = 0
    triggers: bool = False
    clears: bool = False

    @property
    def pg(self) -> bool:
        return self.dialect is Dialect.POSTGRESQL


@dataclass(frozen=True)
class Window:
    """The rows that one batch examines: a condition over target, with its parameters.

    order: the columns whose last values become the cursor; () where the cursor is `end`. limit: the maximum number of rows.
    fresh: row versions created since the pass began may be met a second time, and must not be counted again: an UPDATE moves
    a row to another place in the heap. listed: the rows are given by their keys. pages: a range of heap pages.
    guarded: rows with the keys in :rb_bad can't be read: they are out of scope, and nothing of the playbook's is evaluated.
    """

    condition: str
    params: dict[str, Value] = field(compare=False)
    order: tuple[Named, ...] = ()
    limit: int | None = None
    end: str = ""
    fresh: bool = False
    listed: bool = False
    pages: bool = False
    guarded: bool = False

    @property
    def split(self) -> bool:
        """Whether rows that need nothing are counted by a query of their own: where there are many, that is much cheaper."""
        return self.pages and self.limit is None

    def without(self, bad: Sequence[str]) -> Window:
        """The window without the rows that have these keys."""
        if not bad:
            return self
        return replace(self, guarded=True, params={**self.params, "rb_bad": json.dumps(list(bad))})

    @property
    def form(self) -> Window:
        """The window without its parameters: equal for all windows with the same SQL, so that the text can be cached."""
        return replace(self, params={}, end="", limit=None if self.limit is None else 0)

    def all_params(self) -> dict[str, Value]:
        limited: dict[str, Value] = {} if self.limit is None else {"rb_rows": self.limit}
        return {**self.params, **limited}


# ─── windows ────────────────────────────────────────────────────────────────────────────────────────────────────────
def pages(lo: str, hi: str, *, start_xid: str, limit: int | None = None) -> Window:
    """The rows between two TIDs, both exclusive."""
    condition = "target.ctid > CAST(:rb_lo AS tid) AND target.ctid < CAST(:rb_hi AS tid)"
    params: dict[str, Value] = {"rb_lo": lo, "rb_hi": hi, "rb_xid": start_xid}
    order = () if limit is None else (Named("ctid", "tid"),)
    return Window(condition, params, order=order, limit=limit, end=hi, fresh=True, pages=True)


def keys(shape: Shape, order: tuple[Named, ...], *, lo: str, hi: str, limit: int | None, extra: str = "") -> Window:
    """The rows after `lo` ("": from the first) up to and including `hi`, both JSON arrays of `order`'s values.

    Positions are compared by the server alone, since only it knows the order of its types and collations.
    """
    names = ", ".join(f"target.{column.sql}" for column in order)
    parts, params = [extra] if extra else [], dict[str, Value]()
    for sign, text, letter in ((">", lo, "lo"), ("<=", hi, "hi")):
        if text:
            values = position(shape, text)
            names_of = [f"rb_{letter}{n}" for n in range(len(order))]
            casts = ", ".join(cast_to(shape, c, f":{p}") for c, p in zip(order, names_of, strict=True))
            parts.append(f"({names}) {sign} ({casts})")
            params |= dict(zip(names_of, values, strict=True))
    return Window(" AND ".join(parts) or "true", params, order=order, limit=limit, end=hi)


def listed(shape: Shape, wanted: Sequence[str]) -> Window:
    """The rows with these keys, each a JSON array."""
    values = json.dumps([json.loads(key) for key in wanted])
    end = wanted[-1] if wanted else ""
    same = " AND ".join(f"target.{c.sql} = {cast_to(shape, c, _element(shape, n))}" for n, c in enumerate(shape.key))
    return Window(same, {"rb_keys": values}, end=end, listed=True)


def position(shape: Shape, text: str) -> list[Value]:
    """The values of a cursor, a JSON array; TypeError for any other JSON."""
    values = json.loads(text)
    if not isinstance(values, list):
        raise TypeError(f"cannot read the cursor {text!r}: it isn't a list")
    return values if shape.pg else [unwrapped(one) for one in values]


def cast_to(shape: Shape, column: Named, expression: str) -> str:
    """SQL that turns a text into a value of the column's type; a SQLite value carries its own type."""
    return f"CAST(CAST({expression} AS text) AS {column.type})" if shape.pg else expression


def as_text(shape: Shape, expression: str) -> str:
    return f"CAST({expression} AS text)" if shape.pg else expression


def json_of(shape: Shape, expressions: Sequence[str]) -> str:
    """SQL for a JSON array of these values, as text: how keys and cursors are stored."""
    if shape.pg:
        return f"CAST(json_build_array({', '.join(expressions)}) AS text)"
    return f"json_array({', '.join(wrap(one) for one in expressions)})"


def key_text(shape: Shape, alias: str) -> str:
    """SQL for a row's key as the ledger stores it."""
    return json_of(shape, [f"{alias}.rb_k{n}" for n in range(len(shape.key))])


def _element(shape: Shape, n: int) -> str:
    return f"(rb_l.value ->> {n})" if shape.pg else unwrap(f"json_extract(rb_l.value, '$[{n}]')")


def is_null(column: Named, expression: str) -> str:
    """SQL that tells whether the value itself is NULL: `IS NULL` is also true for a composite value of only NULL fields."""
    return f"{expression} IS NOT DISTINCT FROM NULL" if column.row else f"{expression} IS NULL"


def is_value(column: Named, expression: str) -> str:
    return f"{expression} IS DISTINCT FROM NULL" if column.row else f"{expression} IS NOT NULL"


def to_do(column: Named, expression: str, *, clears: bool) -> str:
    """SQL that tells whether the column is still as it was before: NULL, or holding a value where columns are emptied."""
    return is_value(column, expression) if clears else is_null(column, expression)


def done(column: Named, expression: str, *, clears: bool) -> str:
    return to_do(column, expression, clears=not clears)


# ─── SQLite's values in JSON ────────────────────────────────────────────────────────────────────────────────────────
# A SQLite column may hold any kind of value, whatever its declared type. SQLite's JSON has no blobs, and rounds reals to 15 digits.
REAL, BLOB, TEXT, NULS = "real:", "blob:", "text:", "nulx:"
_DIGITS = "'0123456789ABCDEF'"
_BYTES = "x'" + bytes(range(256)).hex() + "'"


def wrap(expression: str) -> str:
    """SQL that encodes a value for the ledger's JSON: `real:0.1`, `blob:00FF`, `nulx:610062` for a text with NULs.

    A text that begins like one of these is escaped as `text:…`; all else stays as it is.
    """
    looks = f"substr({expression}, 1, 5) IN ('{REAL}', '{BLOB}', '{TEXT}', '{NULS}')"
    nuls = f"instr(CAST({expression} AS BLOB), x'00')"  # SQLite's JSON ends a text at its first NUL
    return f"""CASE typeof({expression}) WHEN 'real' THEN '{REAL}' || quote({expression})
        WHEN 'blob' THEN '{BLOB}' || hex({expression})
        WHEN 'text' THEN CASE WHEN {nuls} THEN '{NULS}' || hex({expression})
            WHEN {looks} THEN '{TEXT}' || {expression} ELSE {expression} END ELSE {expression} END"""


def unwrap(expression: str) -> str:
    """SQL that decodes what `wrap` encoded."""
    rest = f"substr({expression}, 6)"
    return f"""CASE WHEN typeof({expression}) <> 'text' THEN {expression} ELSE CASE substr({expression}, 1, 5)
        WHEN '{TEXT}' THEN {rest} WHEN '{BLOB}' THEN {_unhex(rest)} WHEN '{NULS}' THEN CAST({_unhex(rest)} AS TEXT)
        WHEN '{REAL}' THEN CASE {rest} WHEN 'Inf' THEN 9e999 WHEN '-Inf' THEN -9e999 ELSE CAST({rest} AS REAL) END
        ELSE {expression} END END"""


def _unhex(text: str) -> str:
    """SQL that decodes hexadecimal digits, for SQLite before 3.41, which has no unhex().

    A recursive query takes two digits at a time and looks their byte up in a blob of all 256 bytes.
    """
    high, low = (f"instr({_DIGITS}, substr(rb_h, {at}, 1))" for at in ("rb_at", "rb_at + 1"))
    return f"""(WITH RECURSIVE rb_hex(rb_h, rb_at, rb_b) AS (SELECT {text}, 1, '' UNION ALL
        SELECT rb_h, rb_at + 2, rb_b || substr({_BYTES}, 16 * {high} + {low} - 16, 1) FROM rb_hex WHERE rb_at < length(rb_h))
        SELECT CAST(rb_b AS BLOB) FROM rb_hex ORDER BY rb_at DESC LIMIT 1)"""


def unwrapped(value: Value) -> Value:
    """`unwrap` in Python, for a value that was already parsed from JSON."""
    if not isinstance(value, str) or value[:5] not in (REAL, BLOB, TEXT, NULS):
        return value
    rest = value[5:]
    if value.startswith(NULS):
        return bytes.fromhex(rest).decode()
    return float(rest) if value.startswith(REAL) else bytes.fromhex(rest) if value.startswith(BLOB) else rest


# ─── rows and verdicts ──────────────────────────────────────────────────────────────────────────────────────────────
def needs(shape: Shape) -> str:
    """SQL that tells whether any column is to be written."""
    each = (to_do(column, f"target.{column.sql}", clears=shape.clears) for column in shape.fill)
    return "(" + " OR ".join(each) + ")"


def inside(shape: Shape) -> str:
    """SQL that tells whether a row is in scope, by the playbook's `where` (the line end closes a comment in it)."""
    return f"(({shape.where}\n) IS TRUE)" if shape.where else "true"


def scope(shape: Shape, window: Window, *, unless: str = "", otherwise: str = "false") -> str:
    """Like `inside`, but `otherwise` for rows that can't be read, and where `unless` holds: nothing is evaluated for those."""
    held = " OR ".join([*([unless] if unless else []), *([_is_bad(shape)] if window.guarded else [])])
    return f"CASE WHEN {held} THEN {otherwise} ELSE {inside(shape)} END" if held else inside(shape)


def _is_bad(shape: Shape) -> str:
    bad = "json_array_elements_text(CAST(:rb_bad AS json))" if shape.pg else "json_each(:rb_bad)"
    return f"{own_key(shape)} IN (SELECT value FROM {bad})"


def own_key(shape: Shape) -> str:
    """SQL for the key of target's row as the ledger stores it."""
    return json_of(shape, [as_text(shape, f"target.{column.sql}") for column in shape.key])


def looked_at(shape: Shape, window: Window, *, unless: str = "") -> str:
    """The SELECT of a window's rows; of a split window only those that need something.

    unless: a condition under which nothing is evaluated for a row. `match` is evaluated for no row that needs nothing or is out of
    scope either: such a row might make the expression fail.
    """
    here = scope(shape, window, unless=unless)
    columns = [f"{as_text(shape, f'target.{c.sql}')} AS rb_k{n}" for n, c in enumerate(shape.key)]
    columns += [f"{to_do(c, f'target.{c.sql}', clears=shape.clears)} AS rb_n{n}" for n, c in enumerate(shape.fill)]
    if shape.clears:  # what stands there is what the undo needs
        columns += [f"{as_text(shape, f'target.{c.sql}')} AS rb_v{n}" for n, c in enumerate(shape.fill)]
    columns += [f"{needs(shape)} AS rb_needs", f"{here} AS rb_inside"]
    asked = f"{needs(shape)} AND {here}"
    columns += [f"CASE WHEN {asked} THEN ({pair.expression}\n) END AS rb_m{n}" for n, pair in enumerate(shape.pairs)]
    columns += _place_columns(shape, window)
    needy = f" AND {needs(shape)} AND {here}" if window.split else ""
    return f"SELECT {', '.join(columns)} FROM {rows_from(shape, window)}{needy}{_limited(window)}"


def _place_columns(shape: Shape, window: Window) -> list[str]:
    columns = [f"{as_text(shape, f'target.{c.sql}')} AS rb_o{n}" for n, c in enumerate(window.order)]
    if window.order:
        columns.append(f"row_number() OVER (ORDER BY {_ordering(window)}) AS rb_at")
    if shape.pg:
        columns += ["target.ctid AS rb_tid", "target.xmin AS rb_xmin", "(SELECT pg_current_wal_insert_lsn()) AS rb_lsn"]
        columns += ["target.tableoid AS rb_rel"] if shape.many else []
        columns.append(f"{_fresh() if window.fresh else 'false'} AS rb_fresh")
    else:
        columns.append("0 AS rb_fresh")
    return columns


def _fresh() -> str:
    """SQL that tells whether this row version was created since the pass began; age() is negative beyond 2^31 transactions."""
    return "(age(target.xmin) BETWEEN 0 AND age(CAST(:rb_xid AS xid)))"


def rows_from(shape: Shape, window: Window) -> str:
    """What stands behind FROM for a window's rows, as target."""
    if not window.listed:
        return f"{shape.table} AS target WHERE {window.condition}"
    if shape.pg:
        return f"json_array_elements(CAST(:rb_keys AS json)) AS rb_l JOIN {shape.table} AS target ON {window.condition}"
    return f"json_each(:rb_keys) AS rb_l CROSS JOIN {shape.table} AS target WHERE {window.condition}"


def _limited(window: Window) -> str:
    if window.limit is None:
        return ""
    return f" ORDER BY {_ordering(window)} LIMIT :rb_rows"


def _ordering(window: Window) -> str:
    return ", ".join(f"target.{column.sql}" for column in window.order)


def judged(shape: Shape, rows: str, *, known: bool = False) -> str:
    """The SELECT that joins the source to examined rows and adds the verdict rb_c to each.

    known: a row version created since the pass began gets the verdict outside if its row is dead or deferred: it was already
    counted as such.
    """
    met = (
        f"WHEN rb_w.rb_fresh AND rb_w.rb_needs AND {set_aside(shape, key_text(shape, 'rb_w'))} THEN 'outside' "
        if known
        else ""
    )
    if shape.clears:
        return f"""SELECT rb_w.*, CASE WHEN NOT rb_w.rb_inside THEN 'outside' {met}WHEN rb_w.rb_needs THEN 'written'
            ELSE 'already' END AS rb_c FROM ({rows}) AS rb_w"""
    values = ", ".join(f"source.{c.sql} AS rb_v{n}" for n, c in enumerate(shape.fill))
    found = " AND ".join(f"source.{quote(p.column)} = rb_w.rb_m{n}" for n, p in enumerate(shape.pairs))
    keyless = " OR ".join(f"rb_w.rb_m{n} IS NULL" for n in range(len(shape.pairs)))
    changes = " OR ".join(f"rb_w.rb_n{n} AND {is_value(c, f'source.{c.sql}')}" for n, c in enumerate(shape.fill))
    return f"""SELECT rb_w.*, {values},
        CASE WHEN NOT rb_w.rb_inside THEN 'outside' {met}WHEN NOT rb_w.rb_needs THEN 'already' WHEN {keyless} THEN 'no_key'
             WHEN source.{quote(shape.pairs[0].column)} IS NULL THEN 'not_in_source' WHEN {changes} THEN 'written'
             ELSE 'already' END AS rb_c
        FROM ({rows}) AS rb_w LEFT JOIN ({shape.source}\n) AS source ON {found}"""


def counts(*, split: bool = False) -> str:
    """The counters of the judged rows rb_j, by name. taken: all rows of the window.

    A split window's rb_j lacks the rows that need nothing; rb_rest counted all rows. So `seen` and `already` get the difference:
    the rows of rb_rest that are older than the pass and in scope, less those of them that are in rb_j.
    """
    old = "NOT (rb_j.rb_fresh AND rb_j.rb_c = 'already')"
    each = ", ".join(f"count(*) FILTER (WHERE rb_j.rb_c = '{name}') AS {name}" for name in ("no_key", "not_in_source"))
    taken, settled = "count(*)", ""
    if split:
        taken = "(SELECT rb_rest.n FROM rb_rest)"
        settled = " + (SELECT rb_rest.old FROM rb_rest) - count(*) FILTER (WHERE NOT rb_j.rb_fresh)"
    return f"""{taken} AS taken, count(*) FILTER (WHERE rb_j.rb_c = 'written') AS wanted,
        count(*) FILTER (WHERE rb_j.rb_c <> 'outside' AND {old}){settled} AS seen,
        count(*) FILTER (WHERE rb_j.rb_c = 'already' AND {old}){settled} AS already, {each}"""


def rest(shape: Shape, window: Window) -> str:
    """Counts all rows of a split window (n), and those in scope that are older than the pass (old)."""
    old = f"count(*) FILTER (WHERE {scope(shape, window)} AND NOT {_fresh()})"
    return f"SELECT count(*) AS n, {old} AS old FROM {shape.table} AS target WHERE {window.condition}"


# ─── looking only ───────────────────────────────────────────────────────────────────────────────────────────────────
def preview(shape: Shape, window: Window) -> str:
    """The counters that a batch of this window would produce, without writing anything."""
    others = f"WITH rb_rest AS ({rest(shape, window)}) " if window.split else ""
    return f"{others}SELECT {counts(split=window.split)} FROM ({judged(shape, looked_at(shape, window))}) AS rb_j"


def missed(shape: Shape, window: Window, *, limit: int) -> tuple[str, dict[str, Value]]:
    """The keys of rows that could still be filled, in order, without dead and deferred rows, which are listed already."""
    order = ", ".join(f"rb_j.rb_k{n}" for n in range(len(shape.key)))
    sql = f"""SELECT {key_text(shape, "rb_j")} AS key FROM ({_fillable(shape, window)}) AS rb_j
              WHERE rb_j.rb_c = 'written' ORDER BY {order} LIMIT :rb_most"""
    return sql, {**window.all_params(), "rb_most": limit}


def left(shape: Shape, window: Window) -> str:
    """Counts the rows that could still be filled, including rows added since the pass began."""
    return f"SELECT count(*) AS n FROM ({_fillable(shape, window)}) AS rb_j WHERE rb_j.rb_c = 'written'"


def _fillable(shape: Shape, window: Window) -> str:
    known = set_aside(shape, own_key(shape))
    needy = replace(window, condition=f"{window.condition} AND {needs(shape)}", order=(), limit=None, fresh=False)
    return judged(shape, looked_at(shape, needy, unless=known))


def set_aside(shape: Shape, key: str) -> str:
    """SQL that tells whether the row with this key is dead or deferred."""
    return f"""EXISTS (SELECT 1 FROM {ledger_table("skipped_row", shape.dialect)} AS rb_d
        WHERE rb_d.run = :run AND rb_d.step = :step AND rb_d.action IN ('apply', 'deferred') AND rb_d.key = {key})"""


def counting(shape: Shape, window: Window) -> str:
    """Counts a window's rows in scope."""
    here = f" AND {scope(shape, window)}" if shape.where else ""
    return f"SELECT count(*) AS n FROM {shape.table} AS target WHERE {window.condition}{here}"


def numbered(shape: Shape, window: Window, *, known: bool) -> str:
    """The keys of a window's rows for which something would be evaluated. known: with whether they are set aside already."""
    own = own_key(shape)
    needy = "true" if shape.where else needs(shape)
    columns = f"{own} AS key, {set_aside(shape, own) if known else 'false'} AS known, {needy} AS rb_needs"
    rows = f"SELECT {columns} FROM {rows_from(shape, window)}{_limited(window)}"
    return f"SELECT rb_w.key, rb_w.known FROM ({rows}) AS rb_w WHERE rb_w.rb_needs"
