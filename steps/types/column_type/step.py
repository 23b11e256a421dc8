"""Changes a column's type on PostgreSQL: by ALTER TYPE, which keeps the values, or instantly where there are none."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from steps.catalog import catalog, compare, feasibility, scratch, touched_tables
from steps.catalog.definitions import ColumnInfo, Tie
from steps.contract import (
    LONGEST_NAME,
    Column,
    Context,
    Effect,
    Look,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    TakenBack,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import MORE, OFF
from steps.contract.fields import one_or_more
from steps.contract.look import Trace
from steps.sql.dialect import quote
from steps.types.column_type import convertible, trial
from steps.types.shared import column_rewrite, concurrent_index, kept_values

_DEFAULT = 'pg_catalog."default"'
_REBUILT = {"foreign key", "statistics"}  # dependants that ALTER TYPE rebuilds by itself


class ChangeColumnType(Step[column_rewrite.Converted]):
    """Changes a column's type. Old values are kept for the undo where the conversion loses information.

    The column keeps its collation unless `collation` names another; a constant default is converted like the values.
    Values that `treat_as_null` names (SQL, such as "'{}'") mean nothing: they become NULL, and come back with the undo.
    """

    kind: ClassVar[str] = "change_column_type"
    summary: ClassVar[str] = "change a column's type: a rewrite that keeps its values, or an instant where all are NULL"
    only: ClassVar[str] = "postgresql"

    column: Column
    to: Annotated[str, Field(min_length=1)]
    using: str | None = None
    collation: str | None = None
    while_all_null: Literal["rewrite", "replace"] = "rewrite"
    treat_as_null: Annotated[
        tuple[str, ...], BeforeValidator(one_or_more, json_schema_input_type=tuple[str, ...] | str), MORE
    ] = ()
    keep_values: Annotated[bool, OFF] = True

    @model_validator(mode="after")
    def _meaningful(self) -> ChangeColumnType:
        if self.while_all_null == "replace" and not self.keep_values:
            raise ValueError("cannot combine replace with keep_values: false: replace never loses a value")
        return self

    def describe(self) -> str:
        how = " (replaced, while all are NULL)" if self._replaces else f" using {self.using}" if self.using else ""
        return f"change {self.column} to {self.to}{how}"

    def one_way(self) -> str:
        return "" if self.keep_values else "the old values aren't kept (keep_values: false)"

    def back_if(self, look: Look | None) -> str:
        del look
        return "unless a value that is written meanwhile doesn't fit the old type"

    def verify(self, look: Look) -> Effect:
        found = catalog.columns(look, self.column.table).get(self.column.column)
        if found is None:
            return Effect(State.UNKNOWN, f"there is no {self.column}")
        from steps.ledger import step_commits  # imported here to keep loading a playbook fast

        labels = step_commits.committed_labels(look, look.place)
        if {"replace", "back"} & {*labels} and "indexes" not in labels:
            return Effect(State.PARTLY, f"{self.column} is {found.type}; its indexes aren't built again yet")
        try:
            same, collation = compare.same_type(look, found.type, self.to), self._wanted_collation(look)
        except (scratch.Unusable, Refused) as fault:
            return Effect(State.UNKNOWN, str(fault))
        if not same:
            return Effect(State.NOT_DONE, f"{self.column} is {found.type}, not {self.to}")
        if collation and collation != (found.collation or _DEFAULT):
            return Effect(
                State.NOT_DONE, f"{self.column} is {found.type} with the collation {found.collation or _DEFAULT}"
            )
        return Effect(State.DONE, f"{self.column} is {found.type}")

    def _wanted_collation(self, look: Look) -> str:
        pg = look.dialect is Dialect.POSTGRESQL
        return catalog.collation(look, self.collation) if self.collation and pg else ""

    def _tried(self, look: Look, found: ColumnInfo) -> trial.Tried:
        using = self.using or ""
        if self._replaces and not using:  # no values: only the default needs a conversion, and one through text will do
            using = f"CAST(CAST({quote(self.column.column)} AS text) AS {self.to})"
        change = trial.TypeChange(
            self.column, self.to, using, self.collation or "", empty=self._replaces, nulls=self.treat_as_null
        )
        return trial.tried(look, change, found)

    def _conversion(self, found: ColumnInfo, tried: trial.Tried) -> kept_values.ValueChange:
        """What becomes of the values. Those of a replaced column are NULL or mean nothing."""
        new = "NULL" if self._replaces else tried.new
        back = new if self._replaces else column_rewrite.turned_back(new, found.type, new=self.to)
        return kept_values.ValueChange(self.column, new, back)

    def _told(self, look: Look, found: ColumnInfo, tried: trial.Tried) -> str:
        """What the plan says of the old values that will be kept; "" where the column is yet to come."""
        if not self._loses(look, found, tried) or any(self.column.column == one.name for one in look.assumed):
            return ""
        amount = kept_values.amount(look, self._conversion(found, tried))
        if amount is None:
            return "keeps old values in the ledger, for the way back; they could not be counted"
        return str(amount) if amount.rows else ""

    def statements(self, look: Look) -> list[Statement]:
        found = catalog.columns(look, self.column.table).get(self.column.column)
        if found is None or look.dialect is Dialect.SQLITE:
            return []
        tried = self._tried(look, found)
        kept = self._told(look, found, tried)
        if not self._replaces:
            one = self._rewrite(look, tried)
            return [replace(one, note="; ".join(filter(None, (one.note, kept))))]
        before = self._read(look, found, tried)
        builds = [one.build(look.dialect).sql for one in before.indexes]
        first = (
            column_rewrite.lock(look, self.column),
            column_rewrite.filled(look, self.column, nothing=tried.nothing),
        )
        return [
            *(self._declared(sql) for sql in first),
            *(self._declared(sql, note=kept) for sql in column_rewrite.replaced(look, before)),
            *([self._declared(column_rewrite.drop_aside(look, before))] if before.aside else []),
            *(
                Statement(
                    sql,
                    lock="SHARE UPDATE EXCLUSIVE",
                    length=concurrent_index.WRITES_GO_ON,
                    table=self.column.table,
                    transactional=False,
                )
                for sql in builds
            ),
        ]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.column.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("column", self.column.table, self.column.column, was=self.column.column, type=self.to),)

    def preflight(self, look: Look) -> list[str]:
        found = catalog.columns(look, self.column.table).get(self.column.column)
        state, evidence = self.verify(look)
        if found is None or state is State.DONE or look.dialect is Dialect.SQLITE:
            return []
        if state is State.UNKNOWN:
            return [f"cannot change {self.column}: {evidence}"]
        faults = catalog.not_owned(look, self.column.table)
        faults += self._not_replaceable(look, found) if self._replaces else self._in_the_way(look)
        try:
            faults += [
                f"cannot change {self.column}: {why}"
                for why in feasibility.not_to_be_changed(look, self.column.table, self.column.column, self.to)
            ]
            if faults:
                return faults
            tried = self._tried(look, found)
        except (scratch.Unusable, Refused) as fault:
            return [str(fault)]
        if self._replaces and look.row(column_rewrite.filled(look, self.column, nothing=tried.nothing)).flag("filled"):
            return [*tried.faults, column_rewrite.FILLED.format(self.column)]
        return [*tried.faults, *self._not_restorable(look, found, tried)] or self._not_convertible(look, tried)

    def apply(self, ctx: Context) -> StepResult:
        if not {"replace", "rewrite"} & {*ctx.db.committed()}:
            with ctx.db.look() as look:
                if faults := self.preflight(look):
                    raise Refused("; ".join(faults))
                found = catalog.columns(look, self.column.table).get(self.column.column)
                if found is None:
                    raise Refused(f"cannot change {self.column}: there is no such column")
                tried = self._tried(look, found)
            act = self._replace_now if self._replaces else self._rewrite_now
            ctx.patiently("replace" if self._replaces else "rewrite", lambda work: act(work, ctx, tried))
        if self._replaces:
            before = self._remembered(ctx)
            column_rewrite.keep_aside(ctx, before)
            _build_indexes(ctx, before)
        return StepResult()

    def _remembered(self, ctx: Context) -> column_rewrite.Converted:
        with ctx.db.look() as look:
            place = look.place
            from steps.ledger import step_commits

            kept = step_commits.remembered(look, run=place.run, step=place.step) if place else None
        if kept is None:
            raise StepError("cannot build the indexes again: the ledger doesn't have what this step remembered")
        return self.recall(kept)

    def revert(self, ctx: Context, before: column_rewrite.Converted) -> TakenBack:
        """Restore the old type, with the old values where nobody changed them since."""
        column_rewrite.keep_aside(ctx, before)
        if before.replaced:
            with contextlib.suppress(Refused):  # it has values by now, or can't be proven empty in time: convert below
                ctx.patiently("back", lambda work: column_rewrite.go_back_empty(work, before))
        if "back" not in ctx.db.committed():
            ctx.patiently("back", lambda work: column_rewrite.go_back_filled(work, before))
        _build_indexes(ctx, before)
        with ctx.db.look() as look:
            return kept_values.taken_back(look)

    # ── replace ─────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def _replaces(self) -> bool:
        return self.while_all_null == "replace"

    def _replace_now(self, work: Work, ctx: Context, tried: trial.Tried) -> None:
        work.execute(column_rewrite.lock(work, self.column))
        if column_rewrite.is_filled(work, self.column, nothing=tried.nothing):
            raise Refused(column_rewrite.FILLED.format(self.column))
        found = catalog.columns(work, self.column.table)[self.column.column]
        before = self._read(work, found, tried)
        ctx.remember(before)
        for sql in column_rewrite.replaced(work, before):
            work.execute(sql)

    def _not_replaceable(self, look: Look, found: ColumnInfo) -> list[str]:
        known = [one for one in catalog.dependants(look, self.column) if one.how is not Tie.TEXT]
        bound = [one for one in known if one.kind != "index"]
        odd = [
            one.name
            for one in column_rewrite.indexes(look, self.column)
            if not column_rewrite.rebuildable(one, column=self.column.column)
        ]
        reasons = (
            (found.not_null or found.generated or found.identity, "it is NOT NULL or generated"),
            (catalog.partitioned(look, self.column.table), "its table is partitioned"),
            (bound, f"{', '.join(map(str, bound))} would go with it"),
            (odd, f"index {', '.join(odd)} can't be built the same way on {self.to}: drop it first (drop_index)"),
        )
        return [
            f"cannot replace {self.column}: {why}; or use while_all_null: rewrite"
            for applies, why in reasons
            if applies
        ]

    def _in_the_way(self, look: Look) -> list[str]:
        tracked = [one for one in catalog.dependants(look, self.column) if one.how is Tie.TRACKED]
        blocking = [str(one) for one in tracked if one.kind not in _REBUILT]
        why = "PostgreSQL changes no type that they use; drop them first and make them again"
        return [f"cannot change {self.column}: {', '.join(blocking)} depends on it; {why}"] if blocking else []

    def _declared(self, sql: str, *, note: str = "") -> Statement:
        return Statement(sql, lock="ACCESS EXCLUSIVE", length="instant", table=self.column.table, note=note)

    # ── rewrite ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _rewrite(self, look: Look, tried: trial.Tried) -> Statement:
        sql = f"ALTER TABLE {catalog.sql_name(look, self.column.table)} {', '.join(tried.actions)}"
        return Statement(sql, lock="ACCESS EXCLUSIVE", length=tried.length, table=self.column.table, note=tried.note)

    def _rewrite_now(self, work: Work, ctx: Context, tried: trial.Tried) -> None:
        work.execute(column_rewrite.lock(work, self.column))
        found = catalog.columns(work, self.column.table)[self.column.column]
        before = self._read(work, found, tried)
        with feasibility.refusal_explained(f"change {self.column} to {self.to}"):
            ctx.remember(before)
            if before.kept is not None:
                kept_values.keep(work, self._conversion(found, tried), before.kept)
            work.execute(self._rewrite(work, tried).sql)

    def _loses(self, look: Look, found: ColumnInfo, tried: trial.Tried) -> bool:
        if not self.keep_values or found.generated:  # the undo computes generated values anew
            return False
        if self._replaces:
            return bool(tried.nothing)
        changed = self.using is not None or bool(tried.nothing)
        return changed or not compare.conversion(look, tried.source, tried.target).keeps

    def _not_convertible(self, look: Look, tried: trial.Tried) -> list[str]:
        """The rows that ALTER TYPE would fail at, under its lock and after rewriting half of the table."""
        if self._replaces or tried.length != "one rewrite" or look.assumed:
            return []
        rows = convertible.failing(look, self.column, tried.new)
        if not rows:
            return []
        named = "; ".join(f"{one.key}: {one.message}" for one in rows[:3])
        more = f"{len(rows)} row{'s' * (len(rows) > 1)} can't be converted ({named}{'; …' * (len(rows) > 3)})"
        return [f"cannot change {self.column}: {more}; mend them, or say in `using` what becomes of them"]

    def _not_restorable(self, look: Look, found: ColumnInfo, tried: trial.Tried) -> list[str]:
        if not self._loses(look, found, tried):
            return []
        faults = []
        if not catalog.primary_key(look, self.column.table):
            faults.append(f"{self.column.table} has no primary key by which old values could be put back")
        [element] = scratch.types(look, tried.source.name.removesuffix("[]"))
        if not self._replaces and not compare.castable(look, tried.target, element):
            faults.append(f"nothing turns {self.to} back into {tried.source.name}")
        return [f"cannot revert {self.column}: {why}; keep_values: false makes it one-way" for why in faults]

    def _read(self, look: Look, found: ColumnInfo, tried: trial.Tried) -> column_rewrite.Converted:
        kept = (
            [concurrent_index.KeptIndex.of(one) for one in column_rewrite.indexes(look, self.column)]
            if self._replaces
            else []
        )
        loses = self._loses(look, found, tried)
        return column_rewrite.Converted(
            column=self.column,
            type=found.type,
            new_type=self.to,
            collation=found.collation,
            default=found.default,
            comment=found.comment,
            settings=found.settings,
            grants=found.grants,
            indexes=tuple(kept),
            replaced=self._replaces,
            new_default=tried.default,
            new_collation=tried.collation,
            kept=kept_values.layout(look, self.column) if loses else None,
            aside=f"runbook_kept_{self.column.column}"[:LONGEST_NAME] if loses and self._replaces else "",
        )


def _build_indexes(ctx: Context, before: column_rewrite.Converted) -> None:
    for kept in before.indexes:
        concurrent_index.create(ctx, kept.build(ctx.db.dialect), label=f"index {kept.name}")
    if "indexes" not in ctx.db.committed():
        with ctx.db.commit("indexes"):
            pass  # the label tells verify that no index is missing
