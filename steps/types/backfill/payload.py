"""The undo payload: the keys and values that a run wrote, compared with the table's current rows.

One ledger row per batch. PostgreSQL: a two-dimensional text[], one inner array per row. SQLite: a JSON array of arrays. In the SQL
`rb_d` is a payload's row, and `target` the table's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steps.contract import Look, RunPosition, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import table as ledger_table
from steps.types.backfill.sql import Named, Shape, done, to_do, unwrap


@dataclass(frozen=True)
class UndoPayload:
    """The layout of a payload. table: qualified and quoted; fill: the columns whose values it holds.

    clears: the values are those that stood there before the columns were emptied, instead of those that were written.
    """

    dialect: Dialect
    table: str
    key: tuple[Named, ...]
    fill: tuple[Named, ...]
    clears: bool = False

    @staticmethod
    def of(shape: Shape) -> UndoPayload:
        return UndoPayload(shape.dialect, shape.table, shape.key, shape.fill, shape.clears)

    @property
    def pg(self) -> bool:
        return self.dialect is Dialect.POSTGRESQL

    @property
    def keys(self) -> list[str]:
        return [f"rb_k{n}" for n in range(len(self.key))]

    @property
    def values(self) -> list[str]:
        return [f"rb_o{n}" for n in range(len(self.fill))]

    @property
    def matches(self) -> str:
        """SQL that tells whether `target` is the row of `rb_d`, by key."""
        if self.pg:
            same = [f"target.{c.sql} = CAST(rb_d.rb_k{n} AS {c.type})" for n, c in enumerate(self.key)]
        else:
            same = [f"target.{c.sql} = rb_d.rb_k{n}" for n, c in enumerate(self.key)]
        return " AND ".join(same)

    @property
    def blanked(self) -> str:
        """SQL that tells whether any of the columns is by now as it was before: NULL, or where it was emptied, a value."""
        return self._any(to_do)

    @property
    def refilled(self) -> str:
        """SQL that tells whether any of the columns that the undo restored is as it was written again."""
        return self._any(done)

    @property
    def altered(self) -> str:
        """SQL that tells whether any of the columns holds another value than the written one."""
        each = [f"rb_d.rb_o{n} <> CAST(target.{column.sql} AS text)" for n, column in enumerate(self.fill)]
        return "(" + " OR ".join(each) + ")"

    def _any(self, of: Callable[..., str]) -> str:
        each = [
            f"rb_d.rb_o{n} IS NOT NULL AND {of(column, f'target.{column.sql}', clears=self.clears)}"
            for n, column in enumerate(self.fill)
        ]
        return "(" + " OR ".join(f"({one})" for one in each) + ")"

    def key_text(self, alias: str = "rb_d") -> str:
        """SQL for a payload row's key as the ledger's other tables store it."""
        names = ", ".join(f"{alias}.{'rb_k' if self.pg else 'rb_q'}{n}" for n in range(len(self.key)))
        return f"CAST(json_build_array({names}) AS text)" if self.pg else f"json_array({names})"


def rows_of(payload: UndoPayload, *, where: str = "", values: bool = True) -> str:
    """The SELECT of payload rows: batch (rb_n), number in it (rb_at), keys (rb_k0 …) and values (rb_o0 …) as text.

    On SQLite also rb_q0 …: the keys as they are stored, still wrapped.
    unnest flattens a two-dimensional array, so element `at` belongs to row (at - 1) / width and column (at - 1) % width.
    """
    undo, narrower = ledger_table("undo", payload.dialect), f" AND {where}" if where else ""
    ours = f"rb_x.run = :run AND rb_x.step = :step{narrower}"
    keys, width = len(payload.key), len(payload.key) + len(payload.fill)
    names = [*payload.keys, *(payload.values if values else [])]
    if payload.pg:
        read = [
            f"max(rb_e.text) FILTER (WHERE (rb_e.at - 1) % {width} = {n}) AS {name}" for n, name in enumerate(names)
        ]
        return f"""SELECT rb_x.n AS rb_n, (rb_e.at - 1) / {width} AS rb_at, {", ".join(read)} FROM {undo} AS rb_x
            CROSS JOIN LATERAL unnest(rb_x.payload) WITH ORDINALITY AS rb_e (text, at)
            WHERE {ours} AND (rb_e.at - 1) % {width} < {len(names)} GROUP BY rb_x.n, (rb_e.at - 1) / {width}"""
    each = [f"json_extract(rb_e.value, '$[{n}]')" for n in range(width)]
    read = [f"{unwrap(one)} AS rb_k{n}" for n, one in enumerate(each[:keys])]
    read += [f"{one} AS rb_q{n}" for n, one in enumerate(each[:keys])]
    read += [f"{one} AS rb_o{n}" for n, one in enumerate(each[keys:])] if values else []
    return f"""SELECT rb_x.n AS rb_n, rb_e.key AS rb_at, {", ".join(read)} FROM {undo} AS rb_x
        CROSS JOIN json_each(rb_x.payload) AS rb_e WHERE {ours}"""


def listed(dialect: Dialect) -> str:
    """The SELECT that unpacks the JSON array of keys in :keys."""
    if dialect is Dialect.POSTGRESQL:
        return "SELECT value FROM json_array_elements_text(CAST(:keys AS json))"
    return "SELECT value FROM json_each(:keys)"


def written_before(look: Look, place: RunPosition, payload: UndoPayload, keys: Sequence[str]) -> list[tuple[int, str]]:
    """(batch, key) for those of the keys that this run has already written."""
    if not keys:
        return []
    key = payload.key_text()
    sql = f"""SELECT rb_d.rb_n AS n, {key} AS key FROM ({rows_of(payload, values=False)}) AS rb_d
        WHERE {key} IN ({listed(payload.dialect)})"""
    rows = look.rows(sql, {**_ours(place), "keys": json.dumps(list(keys))})
    return [(row.integer("n"), row.text("key")) for row in rows]


def blanked_keys(look: Look, place: RunPosition, payload: UndoPayload, *, n: int) -> list[str]:
    """The keys of a batch's rows in which a written value is NULL again, without those already recorded as dead."""
    return _not_dead(look, place, payload, n=n, where=payload.blanked)


def altered_keys(look: Look, place: RunPosition, payload: UndoPayload, *, n: int) -> list[str]:
    """The keys of a batch's rows that hold another value than the written one, without those already recorded as dead.

    On PostgreSQL values are compared as the server's text.
    """
    return _not_dead(look, place, payload, n=n, where=payload.altered)


def _not_dead(look: Look, place: RunPosition, payload: UndoPayload, *, n: int, where: str) -> list[str]:
    skipped = ledger_table("skipped_row", payload.dialect)
    sql = f"""SELECT {payload.key_text()} AS key FROM ({rows_of(payload, where="rb_x.n = :n")}) AS rb_d
        JOIN {payload.table} AS target ON {payload.matches} WHERE {where} AND NOT EXISTS (SELECT 1 FROM {skipped} AS rb_l
        WHERE rb_l.run = :run AND rb_l.step = :step AND rb_l.action = 'apply' AND rb_l.key = {payload.key_text()})"""
    return [row.text("key") for row in look.rows(sql, {**_ours(place), "n": n})]


def prune(
    work: Work, place: RunPosition, payload: UndoPayload, *, n: int, keys: Sequence[str], now: bool = False
) -> None:
    """Remove from a batch's payload the values that are NULL again in these rows, since nothing of them is left to undo.

    now: called in the transaction that wrote the rows (PostgreSQL): where a trigger changed a value, the payload gets the
    trigger's value, so that the undo recognises it.
    """
    undo = ledger_table("undo", payload.dialect)
    params = {**_ours(place), "n": n, "keys": json.dumps(list(keys))}
    there = "target.ctid IS NOT NULL" if payload.pg else f"target.{payload.key[0].sql} IS NOT NULL"

    def standing(m: int, column: str) -> str:
        was = f"rb_d.rb_o{m}"
        written = f"CASE WHEN {there} AND {was} IS NOT NULL THEN CAST({column} AS text) ELSE {was} END"
        return written if now and not payload.clears else was

    kept = [
        f"CASE WHEN {there} AND {to_do(c, f'target.{c.sql}', clears=payload.clears)} THEN NULL "
        f"ELSE {standing(m, f'target.{c.sql}')} END AS rb_o{m}"
        for m, c in enumerate(payload.fill)
    ]
    names = [f"{'rb_k' if payload.pg else 'rb_q'}{m}" for m in range(len(payload.key))]
    rows = f"""SELECT rb_d.rb_at, {", ".join([*(f"rb_d.{name}" for name in names), *kept])}
        FROM ({rows_of(payload, where="rb_x.n = :n")}) AS rb_d
        LEFT JOIN ({listed(payload.dialect)}) AS rb_l ON rb_l.value = {payload.key_text()}
        LEFT JOIN {payload.table} AS target ON rb_l.value IS NOT NULL AND {payload.matches}"""
    inside = ", ".join([*names, *payload.values])
    # array_agg needs an order; json_group_array takes what comes, and the rows of a payload are independent of each other
    whole = (
        f"coalesce(array_agg(ARRAY[{inside}] ORDER BY rb_at), '{{}}')"
        if payload.pg
        else f"json_group_array(json_array({inside}))"
    )
    some = " OR ".join(f"{name} IS NOT NULL" for name in payload.values)
    work.execute(
        f"""UPDATE {undo} SET (rows, payload) = (SELECT count(*), {whole} FROM ({rows}) AS rb_f WHERE {some})
            WHERE run = :run AND step = :step AND n = :n""",
        params,
    )
    work.execute(f"DELETE FROM {undo} WHERE run = :run AND step = :step AND n = :n AND rows = 0", _of(place, n))


def drop(work: Work, place: RunPosition, *, n: int) -> None:
    """Delete a batch's payload."""
    work.execute(
        f"DELETE FROM {ledger_table('undo', work.dialect)} WHERE run = :run AND step = :step AND n = :n", _of(place, n)
    )


def _ours(place: RunPosition) -> dict[str, Value]:
    return {"run": place.run, "step": place.step}


def _of(place: RunPosition, n: int) -> dict[str, Value]:
    return {**_ours(place), "n": n}
