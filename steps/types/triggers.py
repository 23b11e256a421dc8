"""Creates and drops triggers; their definition is compared and kept as the server prints it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import ClassVar

from steps.catalog import catalog, compare, compiled_schema, descendants, feasibility, scratch, touched_tables
from steps.catalog.definitions import TriggerInfo
from steps.contract import (
    Context,
    Effect,
    Identifier,
    Look,
    Model,
    Refused,
    Row,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Text,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import literal, quote
from steps.sql.scanner import scan
from steps.types.shared import absence, declared

_STATES = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}  # as in records of earlier versions
_NAME = r'(?:"(?:[^"]|"")*"|[^\s."]+)'
_PRINTED = re.compile(rf"CREATE (CONSTRAINT )?TRIGGER {_NAME} (.*?) ON {_NAME}\.{_NAME} (.*)", re.DOTALL)


class CreatedTrigger(Model):
    """The trigger to drop in the undo, as the server printed it when it was created."""

    definition: str


class CreateTrigger(Step[CreatedTrigger]):
    """Creates a trigger: CREATE TRIGGER name *fires* ON table *does*.

    fires: when, such as AFTER INSERT OR UPDATE OF price. does: all that follows the table, such as FOR EACH ROW EXECUTE FUNCTION
    f(), or BEGIN … END on SQLite. A function that it calls must be there.
    """

    kind: ClassVar[str] = "create_trigger"
    summary: ClassVar[str] = "create a trigger; revert drops it unless somebody changed it"

    table: Identifier
    name: Identifier
    fires: Text
    does: Text
    constraint: bool = False  # CREATE CONSTRAINT TRIGGER, which can be deferred

    def describe(self) -> str:
        fires = " / ".join(dict.fromkeys(self.fires.texts.values()))
        return f"create trigger {self.name} on {self.table}: {fires.lower()}"

    def back_if(self, look: Look | None) -> str:
        del look
        return "unless somebody gives it another definition by then"

    def verify(self, look: Look) -> Effect:
        there = catalog.relation(look, self.table)
        found = _found(look, self.table, self.name)
        if there is None:
            return Effect(State.UNKNOWN, f"there is no table {self.table}")
        if found is None:
            return Effect(State.NOT_DONE, f"no trigger {self.name} on {self.table}")
        try:
            wanted = self._printed(look)
        except scratch.Unusable as fault:
            return Effect(State.UNKNOWN, f"trigger {self.name} is there, and {fault}")
        if _behaviour(look, found.definition) != wanted:
            return Effect(State.PARTLY, f"trigger {self.name} is there, but it is {found.definition}")
        if not found.enabled:
            return Effect(State.PARTLY, f"trigger {self.name} is there, but it is disabled")
        return Effect(State.DONE, f"trigger {self.name} on {self.table} is there")

    def statements(self, look: Look) -> list[Statement]:
        sql = self._sql(look, catalog.sql_name(look, self.table))
        lock = "SHARE ROW EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
        return [Statement(sql, lock=lock, length="instant", table=self.table)]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("trigger", self.table, self.name),)

    def preflight(self, look: Look) -> list[str]:
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        if state is not State.NOT_DONE:
            return [f"cannot create trigger {self.name}: {evidence}"]
        faults = catalog.not_owned(look, self.table)
        if taken := _elsewhere(look, self.table, self.name):
            faults.append(f"cannot create trigger {self.name}: {taken} has one of this name, and SQLite needs another")
        try:
            self._printed(look)
        except scratch.Unusable as fault:
            faults.append(f"cannot create trigger {self.name}: {fault}")
        return faults

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            if self.verify(look).state is State.DONE:
                return StepResult()
        ctx.patiently("create", lambda work: self._create(work, ctx))
        return StepResult()

    def _create(self, work: Work, ctx: Context) -> None:
        with feasibility.refusal_explained(f"create trigger {self.name}"):
            declared.execute(work, self.statements(work))
        found = _found(work, self.table, self.name)
        ctx.remember(CreatedTrigger(definition=found.definition if found else ""))

    def revert(self, ctx: Context, before: CreatedTrigger) -> None:
        """Drop it; raises StepError where somebody has given it another definition."""
        ctx.patiently("drop", lambda work: self._drop(work, before))

    def _drop(self, work: Work, before: CreatedTrigger) -> None:
        found = _found(work, self.table, self.name)
        if found is None:
            return
        if found.definition != before.definition:
            raise StepError(
                f"cannot take trigger {self.name} back: somebody made it anew as {found.definition}; drop it by hand if it is to go"
            )
        work.execute(_drop_sql(work, self.table, self.name))

    # ── the definition ──────────────────────────────────────────────────────────────────────────────────────────────
    def _sql(self, look: Look, table: str) -> str:
        pg = look.dialect is Dialect.POSTGRESQL
        name = quote(self.name) if pg else catalog.sql_name(look, self.name)
        on = table if pg else quote(catalog.named(look, self.table)[1])
        kind = "CONSTRAINT TRIGGER" if self.constraint else "TRIGGER"
        return (
            f"CREATE {kind} {name} {self.fires.text(look.dialect)} ON {on} {self.does.text(look.dialect).rstrip('; ')}"
        )

    def _printed(self, look: Look) -> str:
        """What the trigger does, as the server prints it; it is created on a copy of the table without rows."""
        scratch.one_piece(self.fires.text(look.dialect), look.dialect)
        if look.dialect is Dialect.SQLITE:
            return self._tried_in_memory(look)
        scratch.one_piece(self.does.text(look.dialect), look.dialect)
        with self._twin(look) as (work, table), scratch.understood("create it"):
            work.execute(self._sql(work, catalog.sql_name(work, table)))
            [found] = [one for one in catalog.triggers(work, table) if one.name == self.name]
            return _behaviour(work, found.definition)

    def _tried_in_memory(self, look: Look) -> str:
        fires = [one for one in scan(self.fires.text(look.dialect), look.dialect) if one.means_something]
        of = next((n for n, one in enumerate(fires) if one.keyword == "OF"), len(fires))
        known = {name.lower() for name in catalog.columns(look, self.table)}
        if odd := [one.name for one in fires[of + 1 :] if one.sign != "," and one.name.lower() not in known]:
            raise scratch.Unusable(f"{self.table} has no column {odd[0]}")  # SQLite would never fire, and not say so
        with scratch.memory(look) as memory:
            memory.execute(f"DROP TRIGGER IF EXISTS {quote(self.name)}")
            with scratch.understood("create it"):
                memory.execute(self._sql(memory, ""))
            if why := compiled_schema.broken(memory).get(self.name):
                raise scratch.Unusable(f"cannot create it: {why}")
        return _behaviour(look, self._sql(look, ""))

    @contextlib.contextmanager
    def _twin(self, look: Look) -> Iterator[tuple[Work, str]]:
        there = catalog.relation(look, self.table)
        if there is None or there.kind != "view":
            with scratch.twin(look, self.table, like="INCLUDING GENERATED") as twin:
                yield twin.work, twin.table
            return
        with look.trial("definition") as work:
            name = f"pg_temp.{scratch.TWIN}"
            work.execute(f"CREATE TEMPORARY VIEW {scratch.TWIN} AS SELECT * FROM {catalog.sql_name(look, self.table)}")
            schema = work.row("SELECT CAST(pg_my_temp_schema()::regnamespace AS text) AS name").text("name")
            yield work, name.replace("pg_temp", schema)


class DroppedTrigger(Model):
    """A trigger as it was. states: statements that disable it again, or enable it otherwise, in the table and its partitions."""

    gone: str
    definition: str
    state: str = "O"
    states: tuple[str, ...] = ()
    comment: str = ""


class DropTrigger(Step[DroppedTrigger]):
    """Drops a trigger; the undo creates it again as it was, disabled if it was."""

    kind: ClassVar[str] = "drop_trigger"
    summary: ClassVar[str] = "drop a trigger; revert creates it again as it was"

    table: Identifier
    name: Identifier
    absent: absence.Absent = "refused"

    def describe(self) -> str:
        return f"drop trigger {self.name} on {self.table}{' (absent: fine)' if self.absent == 'fine' else ''}"

    def verify(self, look: Look) -> Effect:
        found = _found(look, self.table, self.name)
        if found is None:
            return absence.effect(look, self._what(look), absent=self.absent)
        return Effect(
            State.NOT_DONE, f"trigger {self.name} on {self.table} is there{'' if found.enabled else ', disabled'}"
        )

    def statements(self, look: Look) -> list[Statement]:
        lock = "ACCESS EXCLUSIVE" if look.dialect is Dialect.POSTGRESQL else "EXCLUSIVE"
        if _found(look, self.table, self.name) is None:
            return []
        sql = _drop_sql(look, self.table, self.name)
        return [Statement(sql, lock=lock, length="instant", table=self.table)]

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("dropped", self.table, self.name),)

    def preflight(self, look: Look) -> list[str]:
        if _found(look, self.table, self.name) is None:
            return []
        faults = catalog.not_owned(look, self.table)
        if look.dialect is Dialect.POSTGRESQL and _state(look, self.table, self.name).flag("cloned"):
            faults.append(
                f"cannot drop trigger {self.name}: {self.table} has it from its partitioned table; drop it there"
            )
        return faults

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
        ctx.patiently("drop", lambda work: self._drop(work, ctx))
        return StepResult()

    def _drop(self, work: Work, ctx: Context) -> None:
        found = _found(work, self.table, self.name)
        if found is None:
            return
        kept = DroppedTrigger(gone=self._what(work), definition=found.definition)
        if work.dialect is Dialect.POSTGRESQL:
            row = _state(work, self.table, self.name)
            states = descendants.trigger_states(work, self.table, self.name)
            kept = kept.model_copy(update={"states": states, "comment": row.maybe_text("comment") or ""})
        ctx.remember(kept)
        declared.execute(work, self.statements(work))

    def revert(self, ctx: Context, before: DroppedTrigger) -> None:
        """Create it again."""
        ctx.patiently("create", lambda work: self._create(work, before))

    def _create(self, work: Work, before: DroppedTrigger) -> None:
        if _found(work, self.table, self.name) is not None:
            raise StepError(
                f"cannot create trigger {self.name} on {self.table} again: somebody has made one of this name; drop or rename it, "
                "then roll back again"
            )
        work.execute(before.definition)
        table, name = catalog.sql_name(work, self.table), quote(self.name)
        if before.state in _STATES:
            work.execute(f"ALTER TABLE {table} {_STATES[before.state]} TRIGGER {name}")
        for sql in before.states:
            work.execute(sql)
        if before.comment:
            work.execute(f"COMMENT ON TRIGGER {name} ON {table} IS {literal(before.comment)}")

    def _what(self, look: Look) -> str:
        return f"trigger {self.name} of {'.'.join(catalog.named(look, self.table))}"


def _found(look: Look, table: str, name: str) -> TriggerInfo | None:
    return next((one for one in catalog.triggers(look, table) if one.name == name), None)


def _elsewhere(look: Look, table: str, name: str) -> str:
    """Another table with a trigger of this name on SQLite, where such names are unique in the schema."""
    if look.dialect is Dialect.POSTGRESQL:
        return ""
    rows = catalog.answers(look, "whole_schema", {})
    own = catalog.named(look, table)[1].lower()
    found = [row.text("table_name") for row in rows if row.text("type") == "trigger" and row.text("name") == name]
    return next((one for one in found if one.lower() != own), "")


def _state(look: Look, table: str, name: str) -> Row:
    sql = """SELECT t.tgparentid <> 0 AS cloned, obj_description(t.oid, 'pg_trigger') AS comment
             FROM pg_catalog.pg_trigger t WHERE t.tgrelid = CAST(:table AS regclass) AND t.tgname = :name AND NOT t.tgisinternal"""
    return look.row(sql, {"table": catalog.sql_name(look, table), "name": name})


def _drop_sql(look: Look, table: str, name: str) -> str:
    if look.dialect is Dialect.SQLITE:
        return f"DROP TRIGGER {catalog.sql_name(look, name)}"
    return f"DROP TRIGGER {quote(name)} ON {catalog.sql_name(look, table)}"


def _behaviour(look: Look, definition: str) -> str:
    """A trigger's definition without its own name and its table's, in one spelling."""
    if look.dialect is Dialect.POSTGRESQL:
        found = _PRINTED.match(definition)
        return " ".join(part or "" for part in found.groups()) if found else definition
    # SQLite keeps the text as it was written: quotes around plain names, and the schema's name, say nothing
    plain = re.sub(r'"(\w+)"', r"\1", compare.plain_sql(definition)).replace("main.", "").lower().rstrip("; ")
    return re.sub(r"^create (temp |temporary )?trigger (if not exists )?", "", plain)
