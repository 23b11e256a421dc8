"""What changes that were broken off leave in a database, whoever made them: found without any playbook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from steps.catalog import catalog, compiled_schema, scratch
from steps.catalog.shape import ColumnSpec, ConstraintSpec, Kind, ResolvedShape, TriggerSpec
from steps.contract import DatabaseFault, Look
from steps.ledger import tables
from steps.sql.unreadable import attempt


class Leftover(NamedTuple):
    """Something left behind. evidence: what the catalogue says; mend: a statement for it, "" where a person must decide.

    harmless: it is only named (a copy that a run kept), or somebody is still at work on it.
    """

    kind: str
    name: str
    evidence: str
    mend: str = ""
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.evidence}"


def leftovers(look: Look, shapes: Iterable[ResolvedShape] = (), whole: Iterable[ResolvedShape] = ()) -> list[Leftover]:
    """All that is found. shapes: declared ones, whose generated columns are looked at too; whole: those that the database has,
    in which a constraint may be NOT VALID and a trigger disabled because they are declared so.
    """
    found = _on_server(look, _declared(look, whole)) if catalog.on_postgresql(look) else _in_file(look)
    return [*found, *_kept(look), *_not_generated(look, shapes)]


def _on_server(look: Look, declared: set[tuple[str, ...]]) -> list[Leftover]:
    rows = catalog.answers(look, "leftovers", {})
    return [
        Leftover(r.text("kind"), r.text("name"), r.text("evidence"), r.text("mend"), harmless=r.flag("at_work"))
        for r in rows
        if tuple(r.text(one) for one in ("kind", "schema", "relation", "part")) not in declared
    ]


def _declared(look: Look, shapes: Iterable[ResolvedShape]) -> set[tuple[str, ...]]:
    """Constraints that are declared as not validated, and triggers that are declared as disabled: kind, schema, table, name."""
    return {
        (str(part.kind), *catalog.named(look, part.table), part.name)
        for shape in shapes
        for part in shape.parts.values()
        if (isinstance(part.wanted, ConstraintSpec) and not part.wanted.validated)
        or (isinstance(part.wanted, TriggerSpec) and not part.wanted.enabled)
    }


def _in_file(look: Look) -> list[Leftover]:
    """SQLite: views and triggers that no longer compile, for lack of a table, column or function."""
    with scratch.memory(look) as memory:
        return [
            Leftover("object", name, f"it doesn't compile: {why}")
            for name, why in compiled_schema.broken(memory).items()
        ]


def _kept(look: Look) -> Iterator[Leftover]:
    """Tables that runs kept for their way back, and those beside the ledger that are none of its own."""
    pg = catalog.on_postgresql(look)
    own = {*tables.columns(look.dialect), *tables.FORMER.values()}
    for row in catalog.answers(look, "kept", {"schema": tables.SCHEMA if pg else look.schema, "kept": tables.KEPT}):
        if row.text("name").removeprefix("" if pg else "runbook_") not in own:
            shown = row.text("sql")
            yield Leftover(
                "kept table",
                shown,
                "a run kept it; drop it when nobody needs it any more",
                f"DROP TABLE {shown}",
                harmless=True,
            )


def _not_generated(look: Look, shapes: Iterable[ResolvedShape]) -> Iterator[Leftover]:
    wanted = {
        (part.table, part.name)
        for shape in shapes
        for part in shape.parts.values()
        if part.kind is Kind.COLUMN and isinstance(part.wanted, ColumnSpec) and part.wanted.generated
    }
    for table, name in sorted(wanted):
        try:
            with attempt(look):
                column = catalog.columns(look, table).get(name)
        except DatabaseFault as fault:  # somebody holds ACCESS EXCLUSIVE
            if fault.lost:
                raise
            yield Leftover("column", f"{table}.{name}", f"can't be seen: {scratch.fault_text(fault)}")
            continue
        if column is not None and not column.generated:
            yield Leftover(
                "column", f"{table}.{name}", "it is an ordinary column, and a declared shape has it generated"
            )
