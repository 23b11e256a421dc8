"""The undo of a fill: deletes exactly the rows that it wrote, where they are as they were written and nothing refers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steps.catalog import catalog
from steps.catalog.definitions import Reference
from steps.contract import Context, DatabaseFault, Look, Model, RunPosition, StepError, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger.tables import table as ledger_table
from steps.sql.dialect import literal, qualified, quote
from steps.types.backfill.payload import UndoPayload, rows_of
from steps.types.backfill.sql import Named
from steps.types.backfill.store import REFUSED
from steps.types.backfill.throttle import Throttle
from steps.types.backfill.undo import (
    CHANGED,
    KEPT,
    REWRITTEN,
    TEMP,
    Part,
    Taken,
    accounted,
    count_as_refused,
    part_rows,
    same_table,
    sqlite_accounts,
    take_back_batches,
)
from steps.types.fill.batch import payload_of
from steps.types.fill.passes import FOREIGN_KEY
from steps.types.fill.sql import fingerprint

GONE = "deleted since"


class Filled(Model):
    """What a fill records before its first change: the table, its key, the columns compared, and the work table."""

    table: str  # qualified and quoted
    name: str  # as the playbook has it
    key: tuple[Named, ...]
    whole: tuple[str, ...]
    work: str
    oid: int = 0


@dataclass(frozen=True)
class _Undo:
    """How rows are deleted. references: what may refer to them. own_too: rows that refer to others of the same part may go with
    them; else they keep those others in place."""

    filled: Filled
    dialect: Dialect
    references: tuple[Reference, ...]
    triggers: bool
    own_too: bool = True

    @property
    def payload(self) -> UndoPayload:
        return payload_of(self.dialect, self.filled.table, self.filled.key)

    @property
    def ours(self) -> str:
        return f"({fingerprint(self.dialect, self.filled.whole)} = rb_d.rb_o0)"

    @property
    def referenced(self) -> str:
        """SQL that tells whether a row of another table, or one that stays, refers to `target`."""
        return "(" + " OR ".join([self._refers(one) for one in self.references] or ["false" if self._pg else "0"]) + ")"

    @property
    def _pg(self) -> bool:
        return self.dialect is Dialect.POSTGRESQL

    def _refers(self, one: Reference) -> str:
        table = qualified(one.schema, one.table, self.dialect)
        same = " AND ".join(
            f"rb_r.{quote(mine)} = target.{quote(theirs)}"
            for mine, theirs in zip(one.columns, one.foreign_columns, strict=True)
        )
        goes = ""
        if self.own_too and one.keeps and table == self.filled.table:
            keys = ", ".join(f"rb_r.{column.sql}" for column in self.filled.key)
            goes = f" AND ({keys}) NOT IN (SELECT {self._keys()} FROM {'rb_d' if self._pg else TEMP} AS rb_g)"
        return f"EXISTS (SELECT 1 FROM {table} AS rb_r WHERE {same}{goes})"

    def _keys(self) -> str:
        each = (f"rb_g.rb_k{n}" for n in range(len(self.filled.key)))
        if not self._pg:
            return ", ".join(each)
        return ", ".join(f"CAST({one} AS {c.type})" for one, c in zip(each, self.filled.key, strict=True))


def take_back(ctx: Context, filled: Filled, *, throttle: Throttle) -> Taken:
    """Delete the rows of the step that this connection serves, newest first; a repeated call continues where it stopped."""
    with ctx.db.look() as look:
        spec = _spec(look, filled)

    def undo(label: str, place: RunPosition, part: Part) -> None:
        try:
            ctx.patiently(label, lambda work: _part(work, place, spec, part))
        except DatabaseFault as fault:
            if fault.sqlstate != FOREIGN_KEY or not spec.own_too:
                raise
            ctx.patiently(label, lambda work: _part(work, place, replace(spec, own_too=False), part))

    ctx.patiently("drop work table", lambda work: _drop(work, filled.work))
    return take_back_batches(ctx, undo, throttle=throttle)


def _drop(work: Work, table: str) -> None:
    work.execute(f"DROP TABLE IF EXISTS {table}")


def _spec(look: Look, filled: Filled) -> _Undo:
    """How to delete this table's rows; raises StepError where it isn't the table that was filled."""
    if look.dialect is Dialect.POSTGRESQL:
        same_table(look, filled.table, filled.oid)
    missing = [name for name in filled.whole if name not in catalog.columns(look, filled.name)]
    if missing:
        raise StepError(
            f"cannot take back what was written into {filled.name}: its columns {', '.join(missing)} are gone, so it can't be "
            "told whether rows are as they were written; take back first what removed them"
        )
    references = tuple(catalog.referencing(look, filled.name))
    triggers = any(one.enabled for one in catalog.triggers(look, filled.name))
    return _Undo(filled, look.dialect, references, triggers)


def _part(work: Work, place: RunPosition, spec: _Undo, part: Part) -> None:
    """Delete one part's rows inside the caller's transaction, and record the counters and the rows left alone."""
    params: dict[str, Value] = {"run": place.run, "step": place.step, "n": part.n}
    if work.dialect is Dialect.SQLITE:
        for sql in _sqlite(spec):
            work.execute(sql, {name: value for name, value in params.items() if f":{name}" in sql})
        return
    within: dict[str, Value] = {**params, "lo": part.lo, "hi": part.hi}
    # Who adds a row that refers to one of ours holds it until COMMIT: we wait here, and the next statement sees that row.
    work.rows(
        f"""SELECT 1 AS one FROM ({part_rows(spec.payload)}) AS rb_d JOIN {spec.filled.table} AS target
            ON {spec.payload.matches} FOR UPDATE OF target""",
        within,
    )
    work.row(_statement(spec), within)
    if spec.triggers:
        work.execute("SET CONSTRAINTS ALL IMMEDIATE")
        count_as_refused(work, place, part, rows=work.execute(_there_again(spec), within))


def _statement(spec: _Undo) -> str:
    payload, table = spec.payload, spec.filled.table
    keys = ", ".join(f"rb_d.{name}" for name in payload.keys)
    delete = f"""DELETE FROM {table} AS target USING rb_d WHERE {payload.matches} AND {spec.ours} AND NOT {spec.referenced}
        RETURNING {keys}, false AS rb_back"""
    there = f"EXISTS (SELECT 1 FROM {table} AS target WHERE {payload.matches}"
    why = f"""CASE WHEN {there} AND {spec.ours} AND {spec.referenced}) THEN {_referred(spec.references)}
        WHEN {there} AND {spec.ours}) THEN '{KEPT}' WHEN {there}) THEN '{CHANGED}' ELSE '{GONE}' END"""
    return accounted(payload, delete, why=why)


def _referred(references: Sequence[Reference]) -> str:
    return literal(f"a row of {' or '.join(dict.fromkeys(one.table for one in references))} refers to it")


def _there_again(spec: _Undo) -> str:
    """The INSERT that records rows of a part that a trigger has written again; those refused before are recorded already."""
    payload, skipped = spec.payload, ledger_table("skipped_row", spec.dialect)
    return f"""INSERT INTO {skipped} (run, step, action, key, sqlstate, message, attempt)
        SELECT CAST(:run AS text), CAST(:step AS text), '{REFUSED}', {payload.key_text()}, '', '{REWRITTEN}', 1
        FROM ({part_rows(payload)}) AS rb_d JOIN {spec.filled.table} AS target ON {payload.matches} ON CONFLICT DO NOTHING"""


def _sqlite(spec: _Undo) -> list[str]:
    payload, table = spec.payload, spec.filled.table
    there = f"EXISTS (SELECT 1 FROM {table} AS target WHERE {payload.matches}"
    keys = ", ".join(f"{column.sql}" for column in spec.filled.key)
    found = ", ".join(f"target.{column.sql}" for column in spec.filled.key)
    return [
        f"DROP TABLE IF EXISTS {TEMP}",
        f"CREATE TEMP TABLE runbook_back AS SELECT rb_d.*, '{GONE}' AS rb_why FROM ({rows_of(payload, where='rb_x.n = :n')}) AS rb_d",
        f"UPDATE {TEMP} AS rb_d SET rb_why = '{CHANGED}' WHERE {there})",
        f"UPDATE {TEMP} AS rb_d SET rb_why = '' WHERE {there} AND {spec.ours})",
        f"UPDATE {TEMP} AS rb_d SET rb_why = {_referred(spec.references)} WHERE rb_d.rb_why = '' AND {there} AND {spec.referenced})",
        f"""DELETE FROM {table} WHERE ({keys}) IN (SELECT {found} FROM {TEMP} AS rb_d CROSS JOIN {table} AS target
            WHERE {payload.matches} AND rb_d.rb_why = '')""",
        f"UPDATE {TEMP} AS rb_d SET rb_why = '{KEPT}' WHERE rb_d.rb_why = '' AND {there})",
        *sqlite_accounts(payload),
    ]
