"""Whether what the catalogue has is what a playbook writes: compared in the server's own words, never in ours."""

from __future__ import annotations

import re
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
    """Whether a column's type is the one that a playbook writes: `varchar(45)` is `character varying(45)`.

    On SQLite the affinity decides, because it alone says what is stored. Raises Unusable where `wants` is no type.
    """
    if has == wants.strip():
        return True
    if not catalog.on_postgresql(look):
        return scratch.affinity(look, has) == scratch.affinity(look, wants)
    mine, theirs = scratch.types(look, has, wants)
    return (mine.oid, mine.modifier) == (theirs.oid, theirs.modifier)


@dataclass(frozen=True)
class Conversion:
    """What turning one type into another costs without a USING.

    keeps: no value loses anything; session: what comes out depends on the session's time zone or date style.
    """

    keeps: bool
    session: bool


def conversion(look: Look, source: Type, target: Type) -> Conversion:
    """How PostgreSQL converts between two types without a USING."""
    rows = catalog.answers(look, "conversion", {"source": source.oid, "wanted": target.oid})
    row = rows[0]
    # a length that is too short is refused by ALTER TABLE, not cut; of a number it rounds
    sized = target.modifier not in (-1, source.modifier) and not row.flag("refuses_length")
    return Conversion(keeps=row.flag("keeps") and not sized, session=row.flag("session"))


def castable(look: Look, source: Type, target: Type) -> bool:
    """Whether PostgreSQL has an explicit cast: one of its own, or through text."""
    return bool(catalog.answers(look, "castable", {"source": source.oid, "wanted": target.oid}))


# ─── conditions ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def same_condition(look: Look, table: str, *, has: str, wants: str) -> bool:
    """Whether a condition of the catalogue is the one that a playbook writes, as the database itself would print it."""
    if not (has and wants):
        return not has and not wants
    if plain_sql(has) == plain_sql(wants):
        return True
    return catalog.on_postgresql(look) and has == printed(look, table, wants)


def printed(look: Look, table: str, condition: str) -> str:
    """The condition as PostgreSQL prints it back; raises Unusable where it has none for this table."""
    scratch.one_piece(condition, Dialect.POSTGRESQL)
    with scratch.twin(look, table) as twin:
        with scratch.understood(f"use {condition!r} as a condition on {table}"):
            twin.work.execute(f"ALTER TABLE {twin.name} ADD CONSTRAINT {PROBE} CHECK ({condition})")
        [found] = [one for one in catalog.constraints(twin.work, twin.table) if one.name == PROBE]
        return found.expression


def immutable(twin: scratch.Twin, expression: str) -> bool:
    """Whether an expression over the twin's columns always gives the same: else PostgreSQL refuses an index on it."""
    twin.work.execute(f"SAVEPOINT {PROBE}")
    try:
        twin.work.execute(f"CREATE INDEX {PROBE} ON {twin.name} (({expression}))")
    except DatabaseFault:
        return False
    finally:
        twin.work.execute(f"ROLLBACK TO SAVEPOINT {PROBE}")
    return True


def plain_sql(text: str) -> str:
    """SQL without what doesn't change its meaning: outer parentheses, spaces, letter case outside quotes."""
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
    """An index as a playbook writes it. keys and condition are SQL."""

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
    """The whole definition of an index that isn't there yet, in the server's words; to be compared with `body_of`."""
    if wanted.where:
        scratch.one_piece(wanted.where, look.dialect)
    if catalog.on_postgresql(look):
        # before 18 a generated column is a stored one, which can be indexed like any other
        with scratch.twin(look, wanted.table, like="INCLUDING GENERATED" * (look.version >= (18,))) as twin:
            with scratch.understood(f"make such an index on {wanted.table}"):
                twin.work.execute(wanted.made(PROBE, twin.name, pg=True))
            [found] = [one for one in catalog.indexes(twin.work, twin.table) if one.name == PROBE]
            return ("unique" * found.unique, found.definition.partition(f".{scratch.TWIN} ")[2])
    with scratch.memory(look) as memory:
        with scratch.understood(f"make such an index on {wanted.table}"):
            memory.execute(wanted.made(PROBE, quote(catalog.named(look, wanted.table)[1]), pg=False))
        return _sqlite_body(memory, PROBE)


def body_of(look: Look, found: IndexInfo) -> tuple[str, ...]:
    """The whole definition of an index of the catalogue, apart from its name and table."""
    if catalog.on_postgresql(look):
        return ("unique" * found.unique, found.body)
    return _sqlite_body(look, found.name)


def _sqlite_body(look: Look, name: str) -> tuple[str, ...]:
    """Keys with order and collation; of an index with expressions also its text, where alone they stand."""
    found = catalog.index(look, name)
    keys = catalog.answers(look, "index_keys", {"schema": look.schema, "index": name})
    if found is None or not keys:
        raise StepError(f"cannot find the index {name}")
    texts = tuple(f"{row.maybe_text('name')} {row.text('coll')} {'desc' * row.flag('descending')}" for row in keys)
    whole = "" if all(row["name"] for row in keys) else plain_sql(found.definition.partition("(")[2])
    return ("unique" * found.unique, *texts, plain_sql(found.predicate), whole)
