"""What goes with a table, a column or a constraint when it is dropped, and the SQL that brings it back.

PostgreSQL is asked for its own dependencies and definitions; SQLite, which knows none, is tried in memory. A playbook lists under
`cascade` what a drop may take along; nothing else is ever taken, and no statement says CASCADE.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from steps.catalog import access, catalog, compiled_schema, descendants, scratch
from steps.contract import DatabaseFault, Look, Model, Row, Work
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.sql.dialect import quote

Via = Literal["own", "bound", "with"]
_OF_A_TABLE = {
    "foreign key",
    "constraint",
    "trigger",
    "rule",
    "policy",
    "statistics",
    "generated column",
}  # named within their table
_VIEWS = {"view", "materialized view"}
SHOWN = 8


@dataclass(frozen=True)
class DropTarget:
    """What is to be dropped: a table, one of its columns, or one of its constraints."""

    table: str
    column: str = ""
    constraint: str = ""

    def __str__(self) -> str:
        return f"{self.table}.{self.column}" if self.column else self.constraint or self.table


class TakenAlong(Model):
    """An object that goes with what is dropped.

    via: "own" goes silently, "bound" only where CASCADE is said, "with" goes with something bound. alone: it is about the dropped
    column and no other. drop, restore, finish: SQL; finish validates a constraint that restore makes NOT VALID. grants: all that a
    restored view is to have; None in records of earlier versions, where restore has them. index_definition:
    where it is, or stands on, an index that is built without blocking anybody. why_not: why no step takes it along.
    """

    kind: str
    name: str
    schema_name: str = ""
    table: str = ""
    via: Via = "bound"
    alone: bool = False
    drop: str = ""
    restore: tuple[str, ...] = ()
    index_definition: str = ""
    index_name: str = ""
    index_comment: str = ""
    finish: str = ""
    grants: tuple[str, ...] | None = None
    why_not: str = ""
    owned: bool = True

    def __str__(self) -> str:
        if self.kind == "object":  # the server's own description
            return self.name
        return f"{self.kind} {self.name}" + f" of {self.table}" * (self.kind in _OF_A_TABLE)

    def called(self, schema: str) -> set[str]:
        """The names by which a playbook of this schema can list it."""
        if self.kind in _OF_A_TABLE:
            return {self.name, f"{self.table}.{self.name}", f"{self.schema_name}.{self.table}.{self.name}"}
        return {f"{self.schema_name}.{self.name}"} | ({self.name} if self.schema_name in ("", schema) else set())


# ─── what goes with it ──────────────────────────────────────────────────────────────────────────────────────────────────
def goes_with(look: Look, target: DropTarget) -> list[TakenAlong]:
    """All that goes with it, in the order in which it can be dropped; restored in the reverse order."""
    found = _on_sqlite(look, target) if look.dialect is Dialect.SQLITE else _asked(look, target, itself=False)
    gone = {(*catalog.named(look, one.table), one.name) for one in look.assumed if one.kind == "dropped"}
    return [one for one in found if not _places(one) & gone]


def traces(look: Look, target: DropTarget) -> tuple[Trace, ...]:
    """What goes along, for the steps that follow in a plan: they no longer depend on it."""
    taken = (one for one in goes_with(look, target) if one.table)
    return tuple(
        Trace("dropped", one.table if one.schema_name == look.schema else f"{one.schema_name}.{one.table}", one.name)
        for one in taken
    )


def _places(one: TakenAlong) -> set[tuple[str, str, str]]:
    """Where earlier steps may have dropped it: by itself, or with its table."""
    return {(one.schema_name, one.table, one.name), (one.schema_name, one.table, one.table)}


def itself(look: Look, target: DropTarget) -> TakenAlong:
    """A constraint that is there, with the SQL that restores it (PostgreSQL only)."""
    [found] = _asked(look, target, itself=True)
    return found


def must_be_listed(taken: Sequence[TakenAlong], target: DropTarget) -> list[TakenAlong]:
    """What the playbook must list under `cascade`: what DROP refuses to take, and what isn't the dropped thing's own alone."""
    return [one for one in taken if one.via == "bound" or (one.via == "own" and not _own_alone(one, target))]


def _own_alone(one: TakenAlong, target: DropTarget) -> bool:
    if not target.column:
        return one.kind != "table"  # a partition
    return one.alone or one.kind == "sequence"


def below(look: Look, target: DropTarget, taken: Sequence[TakenAlong]) -> list[str]:
    """Why a column can't be dropped from partitions and inheriting tables: they have something about it that the table hasn't."""
    known, faults = {(one.kind, one.name) for one in taken}, []
    for table in descendants.tables(look, target.table):
        own = goes_with(look, DropTarget(table, column=target.column))
        faults += [f"the {one} depends on {table}.{target.column}" for one in own if (one.kind, one.name) not in known]
    return [f"cannot drop {target}: {one}; drop that in a step of its own first" for one in faults]


def refused(look: Look, taken: Sequence[TakenAlong], target: DropTarget, cascade: Sequence[str]) -> list[str]:
    """Why it can't be dropped: what depends on it and isn't listed, and what no step takes along."""
    listed, faults = must_be_listed(taken, target), []
    for word in cascade:
        meant = [str(one) for one in listed if word in one.called(look.schema)]
        if len(meant) > 1:
            faults.append(f"{word} under cascade is {' and '.join(meant)}: write table.name, or schema.name")
    missing = [one for one in listed if not one.why_not and not one.called(look.schema) & set(cascade)]
    faults += [f"the {one} depends on it: {one.why_not}" for one in listed if one.why_not]
    alone = [one for one in taken if target.column and one not in listed and one.kind != "sequence"]
    faults += [f"the {one} would go with it: {one.why_not}" for one in alone if one.why_not]
    faults += [f"the {one} isn't this role's" for one in listed if not one.owned]
    if missing:
        names = ", ".join(map(str, missing))
        more = (
            f"cascade: [{', '.join(one.name for one in missing)}] takes {'it' if len(missing) == 1 else 'them'} along"
        )
        faults.append(f"{names} would go with it and {'is' if len(missing) == 1 else 'are'} not listed; {more}")
    return [f"cannot drop {target}: {one}" for one in faults]


def in_words(rows: int, unit: str, taken: Sequence[TakenAlong]) -> str:
    """What a drop takes: rows or values, and the objects by name, the first few of them."""
    names = list(dict.fromkeys(map(str, taken)))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    along = f"; with it go {', '.join(names[:SHOWN])}{more}" if names else ""
    return f"{counted(rows, unit)}{along}"


def counted(rows: int, unit: str) -> str:
    return f"{rows} {unit}{'' if rows == 1 else 's'}"


def count(look: Look, table: str, where: str = "") -> int:
    """How many rows would go."""
    condition = f" WHERE {where}" if where else ""
    return look.row(f"SELECT count(*) AS n FROM {catalog.sql_name(look, table)}{condition}").integer("n")


# ─── PostgreSQL ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _asked(look: Look, target: DropTarget, *, itself: bool) -> list[TakenAlong]:
    schema, table = catalog.named(look, target.table)
    params = {"schema": schema, "table": table, "column": target.column, "constraint": target.constraint}
    with _qualified(look):  # the server then prints definitions that hold under any search_path
        found = [_taken(row) for row in catalog.answers(look, "goes_with", {**params, "itself": itself})]
        return [one.model_copy(update=_as_it_stands(look, one)) for one in found]


def _as_it_stands(look: Look, one: TakenAlong) -> dict[str, object]:
    """What comes back by further statements: a trigger's state in each partition, a view's grants."""
    if one.kind == "trigger":
        states = descendants.trigger_states(look, f"{one.schema_name}.{one.table}", one.name)
        return {"restore": (*one.restore, *states)}
    if one.kind in _VIEWS:
        return {"grants": access.grants(look, f"{one.schema_name}.{one.name}")}
    return {}


@contextlib.contextmanager
def _qualified(look: Look) -> Iterator[None]:
    was = look.row("SELECT current_setting('search_path') AS was").text("was")
    _set_path(look, "pg_catalog")
    yield  # after a fault the transaction is aborted, and its settings end with it
    _set_path(look, was)


def _set_path(look: Look, path: str) -> None:
    look.row("SELECT set_config('search_path', :path, true) AS now", {"path": path})


def _taken(row: Row) -> TakenAlong:
    via = row.text("via")
    return TakenAlong(
        kind=row.text("kind"),
        name=row.text("name"),
        schema_name=row.text("schema"),
        table=row.text("table_name"),
        via="own" if via == "own" else "with" if via == "with" else "bound",
        alone=row.flag("alone"),
        drop=row.text("drop"),
        restore=tuple(row.texts("restore")),
        index_definition=row.text("index_definition"),
        index_name=row.text("index_name"),
        index_comment=row.text("index_comment"),
        finish=row.text("finish"),
        why_not=row.text("why_not"),
        owned=row.flag("owned"),
    )


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _on_sqlite(look: Look, target: DropTarget) -> list[TakenAlong]:
    params = {"schema": look.schema, "table": catalog.named(look, target.table)[1], "column": target.column}
    found = [_of_a_pragma(row, target) for row in catalog.answers(look, "goes_with", params)]
    with scratch.memory(look) as memory:
        sound = compiled_schema.broken(memory)
    rows = {row.text("name"): row for row in catalog.answers(look, "whole_schema", {})}
    naming = [_of_the_schema(rows[name]) for name in reversed(_naming(look, target))]
    with scratch.memory(look) as memory, contextlib.suppress(DatabaseFault):  # what it refuses, `not_dropped` says
        _drop_in_memory(memory, target)
        for one in naming:
            memory.execute(one.drop)
        fails = compiled_schema.broken(memory)
        found += [_of_the_schema(rows[name]) for name in reversed(fails) if name not in sound]
    found += naming
    if not target.column:
        found += _own_triggers(look, target, {one.name for one in found})
    return found


def _naming(look: Look, target: DropTarget) -> list[str]:
    """Views and triggers that name the column: those that SQLite writes anew where it is renamed. They may compile without it,
    since SQLite then takes "name" for a text.
    """
    if not target.column:
        return []
    with scratch.memory(look) as memory, contextlib.suppress(DatabaseFault):  # something is broken already
        before = _stored(memory)
        table = quote(catalog.named(memory, target.table)[1])
        memory.execute(f"ALTER TABLE {table} RENAME COLUMN {quote(target.column)} TO runbook_named")
        after = _stored(memory)
        return [name for name, sql in before.items() if after.get(name) != sql]
    return []


def _stored(memory: scratch.ScratchDatabase) -> dict[str, str]:
    """The text of each view and trigger."""
    rows = catalog.answers(memory, "whole_schema", {})
    return {row.text("name"): row.text("sql") for row in rows if row.text("type") in {"view", "trigger"}}


def not_dropped(look: Look, target: DropTarget) -> str:
    """Why SQLite refuses to drop the column, whatever depends on it; "" where it doesn't."""
    with scratch.memory(look) as memory:
        try:
            _drop_in_memory(memory, target)
        except DatabaseFault as fault:
            return scratch.fault_text(fault)
    return ""


def _drop_in_memory(memory: scratch.ScratchDatabase, target: DropTarget) -> None:
    table = quote(catalog.named(memory, target.table)[1])
    memory.execute("PRAGMA legacy_alter_table = ON")  # SQLite then leaves broken views and triggers for us to find
    if not target.column:
        memory.execute(f"DROP TABLE {table}")
        return
    params = {"schema": memory.schema, "table": catalog.named(memory, target.table)[1], "column": target.column}
    for row in catalog.answers(memory, "goes_with", params):
        if row.text("kind") == "index":
            memory.execute(f"DROP INDEX {quote(row.text('name'))}")
    memory.execute(f"ALTER TABLE {table} DROP COLUMN {quote(target.column)}")


def _of_a_pragma(row: Row, target: DropTarget) -> TakenAlong:
    index, name = row.text("kind") == "index", row.text("name")
    child = row.text("table_name")
    return TakenAlong(
        kind=row.text("kind"),
        name=name,
        schema_name="main",
        table=child,
        via="own" if index else "bound",
        alone=row.flag("alone"),
        drop=f"DROP INDEX {quote(name)}" if index and target.column else "",
        restore=(row.text("sql"),) if index else (),
        why_not="" if index else f"SQLite drops no key alone: rebuild_table {child} without it first",
    )


def _of_the_schema(row: Row) -> TakenAlong:
    kind, name = row.text("type"), row.text("name")
    return TakenAlong(
        kind=kind,
        name=name,
        schema_name="main",
        table=row.text("table_name") if kind == "trigger" else "",
        drop=f"DROP {kind.upper()} {quote(name)}",
        restore=(row.text("sql"),),
    )


def _own_triggers(look: Look, target: DropTarget, known: set[str]) -> list[TakenAlong]:
    own = [one for one in catalog.triggers(look, target.table) if one.name not in known]
    table = catalog.named(look, target.table)[1]
    return [
        TakenAlong(kind="trigger", name=one.name, schema_name="main", table=table, via="own", restore=(one.definition,))
        for one in own
    ]


# ─── dropping it ────────────────────────────────────────────────────────────────────────────────────────────────────────
def first(look: Look, taken: Sequence[TakenAlong], target: DropTarget) -> list[TakenAlong]:
    """What is dropped by a statement of its own before the target is; the rest goes with these, or with the target itself."""
    apart = {"bound"} | ({"own"} if look.dialect is Dialect.SQLITE and target.column else set())
    return [one for one in taken if one.drop and one.via in apart]


def put_back(work: Work, taken: Sequence[TakenAlong]) -> None:
    """Restore what was taken, last dropped first, but for what `finish` and indexes do later."""
    for one in reversed(taken):
        for sql in one.restore:
            work.execute(sql)
        if one.grants is not None:
            access.give(work, f"{one.schema_name}.{one.name}", one.grants)
