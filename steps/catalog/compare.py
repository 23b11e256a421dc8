"""Compares catalogue objects with definitions in a playbook, both in the server's canonical form.

The playbook's text is given to the server in a rolled-back scratch table and read back: nothing here parses SQL for meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from steps.catalog import catalog, scratch
from steps.catalog.definitions import IndexInfo
from steps.catalog.scratch import Type
from steps.contract import DatabaseFault, Look, StepError
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote

PROBE = "runbook_probe"


# ─── types ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def same_type(look: Look, has: str, wants: str) -> bool:
    """Whether two spellings mean the same type: `varchar(45)` is `character varying(45)`.

    On SQLite types are the same if their affinity is, since it alone determines what is stored. Raises Unusable where `wants` is
    no type.
    """
    if has == wants.strip():
        return True
    if not catalog.on_postgresql(look):
        return scratch.affinity(look, has) == scratch.affinity(look, wants)
    actual, wanted = scratch.types(look, has, wants)
    return (actual.oid, actual.modifier) == (wanted.oid, wanted.modifier)


@dataclass(frozen=True)
class Conversion:
    """The properties of ALTER COLUMN TYPE between two types without USING.

    keeps: no value loses information. session: the result depends on the session's time zone or date style.
    """

    keeps: bool
    session: bool


def conversion(look: Look, source: Type, target: Type) -> Conversion:
    """How PostgreSQL converts between two types without a USING."""
    rows = catalog.answers(look, "conversion", {"source": source.oid, "wanted": target.oid})
    row = rows[0]
    # ALTER TABLE refuses a text that is too long and cuts nothing, but it rounds numbers to a smaller scale
    sized = target.modifier not in (-1, source.modifier) and not row.flag("refuses_length")
    return Conversion(keeps=row.flag("keeps") and not sized, session=row.flag("session"))


def castable(look: Look, source: Type, target: Type) -> bool:
    """Whether PostgreSQL has an explicit cast between the types, directly or through text."""
    return bool(catalog.answers(look, "castable", {"source": source.oid, "wanted": target.oid}))


# ─── conditions ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def same_condition(look: Look, table: str, *, has: str, wants: str) -> bool:
    """Whether a condition from the catalogue equals one from a playbook, as the database itself would print the latter."""
    if not (has and wants):
        return not has and not wants
    if plain_sql(has) == plain_sql(wants):
        return True
    return catalog.on_postgresql(look) and has == printed(look, table, wants)


def printed(look: Look, table: str, condition: str) -> str:
    """The condition in PostgreSQL's canonical form; raises Unusable where it is not a valid condition on this table."""
    scratch.one_piece(condition, Dialect.POSTGRESQL)
    with scratch.twin(look, table) as twin:
        with scratch.understood(f"use {condition!r} as a condition on {table}"):
            twin.work.execute(f"ALTER TABLE {twin.name} ADD CONSTRAINT {PROBE} CHECK ({condition})")
        [found] = [one for one in catalog.constraints(twin.work, twin.table) if one.name == PROBE]
        return found.expression


def immutable(twin: scratch.Twin, expression: str) -> bool:
    """Whether an expression over the twin's columns is immutable: PostgreSQL refuses an index on any other."""
    twin.work.execute(f"SAVEPOINT {PROBE}")
    try:
        twin.work.execute(f"CREATE INDEX {PROBE} ON {twin.name} (({expression}))")
    except DatabaseFault:
        return False
    finally:
        twin.work.execute(f"ROLLBACK TO SAVEPOINT {PROBE}")
    return True


def plain_sql(text: str) -> str:
    """SQL normalised in what doesn't affect its meaning: outer parentheses, white space, letter case outside quotes."""
    pieces = re.split(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""", text.strip())
    bare = "".join(piece if piece[:1] in {"'", '"'} else re.sub(r"\s+", " ", piece).lower() for piece in pieces)
    while _wrapped(bare):
        bare = bare[1:-1].strip()
    return re.sub(r" ?([=<>!,()]+) ?", r"\1", bare)


def _wrapped(text: str) -> bool:
    """Whether the first parenthesis closes at the very end."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return sign == ")" and place == len(text) - 1
    return False


# ─── indexes ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class WantedIndex:
    """An index as a playbook defines it. keys and where are SQL."""

    table: str
    keys: str
    method: str
    unique: bool
    where: str

    def made(self, name: str, table: str, *, pg: bool) -> str:
        """CREATE INDEX without CONCURRENTLY; name and table are quoted."""
        return (
            f"CREATE {'UNIQUE ' * self.unique}INDEX {name} ON {table}{f' USING {self.method}' * pg} ({self.keys})"
            f"{f' WHERE {self.where}' if self.where else ''}"
        )


def index_body(look: Look, wanted: WantedIndex) -> tuple[str, ...]:
    """The canonical definition of an index that doesn't exist yet, comparable with `body_of`."""
    if wanted.where:
        scratch.one_piece(wanted.where, look.dialect)
    return body_made_by(
        look, wanted.table, lambda name, table: wanted.made(name, table, pg=catalog.on_postgresql(look))
    )


def body_made_by(look: Look, table: str, make: Callable[[str, str], str]) -> tuple[str, ...]:
    """The canonical definition of the index that a CREATE INDEX makes; make: (quoted name, quoted table) → the statement."""
    if catalog.on_postgresql(look):
        # LIKE makes generated columns ordinary ones. Up to 17 they are always stored and can be indexed anyway; a virtual one
        # (18) can't be, and the twin must refuse what the table would refuse
        with scratch.twin(look, table, like="INCLUDING GENERATED" * (look.version >= (18,))) as twin:
            with scratch.understood(f"make such an index on {table}"):
                twin.work.execute(make(PROBE, twin.name))
            [found] = [one for one in catalog.indexes(twin.work, twin.table) if one.name == PROBE]
            return ("unique" * found.unique, found.definition.partition(f".{scratch.TWIN} ")[2])
    with scratch.memory(look) as memory:
        with scratch.understood(f"make such an index on {table}"):
            memory.execute(make(PROBE, quote(catalog.named(look, table)[1])))
        return _sqlite_body(memory, PROBE)


def body_of(look: Look, found: IndexInfo) -> tuple[str, ...]:
    """The canonical definition of an existing index, without its name and table."""
    if catalog.on_postgresql(look):
        return ("unique" * found.unique, found.body)
    return _sqlite_body(look, found.name)


def _sqlite_body(look: Look, name: str) -> tuple[str, ...]:
    """The keys with order and collation; for an index on expressions also its text, since SQLite shows them nowhere else."""
    found = catalog.index(look, name)
    keys = catalog.answers(look, "index_keys", {"schema": look.schema, "index": name})
    if found is None or not keys:
        raise StepError(f"cannot find the index {name}")
    texts = tuple(f"{row.maybe_text('name')} {row.text('coll')} {'desc' * row.flag('descending')}" for row in keys)
    whole = "" if all(row["name"] for row in keys) else plain_sql(found.definition.partition("(")[2])
    return ("unique" * found.unique, *texts, plain_sql(found.predicate), whole)
