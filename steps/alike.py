"""Whether a type or a condition of the catalogue is the one that a playbook writes, and what a conversion costs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from steps import catalog
from steps.base import INSUFFICIENT_PRIVILEGE, DatabaseFault, Look

_SERIAL = {"serial": "integer", "bigserial": "bigint", "smallserial": "smallint"}


def same_type(look: Look, has: str, wants: str) -> bool:
    """Whether a column's type is the one that a playbook writes: `varchar(45)` is `character varying(45)`.

    On SQLite the affinity decides, because it alone says what is stored.
    """
    if has.lower() == wants.strip().lower():
        return True
    if not catalog.on_postgresql(look):
        return affinity(has) == affinity(wants)
    return (_base_type(look, has), _modifier(has)) == (_base_type(look, wants), _modifier(wants))


def affinity(declared: str) -> str:
    """SQLite's affinity of a declared type, by the rules of its documentation."""
    text = declared.upper()
    rules = (
        ("INTEGER", ("INT",)),
        ("TEXT", ("CHAR", "CLOB", "TEXT")),
        ("BLOB", ("BLOB",)),
        ("REAL", ("REAL", "FLOA", "DOUB")),
    )
    if not text:
        return "BLOB"
    return next((name for name, words in rules if any(word in text for word in words)), "NUMERIC")


@dataclass(frozen=True)
class Conversion:
    """What turning one type into another costs. binary: no row is touched; keeps: no value loses anything."""

    binary: bool
    keeps: bool


def conversion(look: Look, source: str, target: str) -> Conversion:
    """How PostgreSQL converts between two types without a USING."""
    if {_base_type(look, source), _base_type(look, target)} <= {"character varying", "text"}:
        # what is too long is refused, not cut; a length that only grows is no rewrite
        room, had = _modifier(target), _modifier(source)
        return Conversion(binary=not room or (bool(had) and int(room) >= int(had)), keeps=True)
    rows = catalog.answers(look, "cast", {"source": _bare(source), "wanted": _bare(target)})
    if _modifier(target) or not rows:
        return Conversion(binary=False, keeps=False)
    return Conversion(binary=rows[0].flag("binary"), keeps=rows[0].flag("binary") or rows[0].flag("implicit"))


def castable(look: Look, source: str, target: str) -> bool:
    """Whether PostgreSQL has an explicit cast: one of its own, or through text."""
    if _base_type(look, source) == _base_type(look, target):
        return True
    return bool(catalog.answers(look, "castable", {"source": _bare(source), "wanted": _bare(target)}))


def volatile(look: Look, expression: str) -> bool:
    """Whether a default calls a function that answers anew for each row, so that adding it rewrites the table."""
    names = re.findall(r"([a-z_]\w*)\s*\(", expression.lower())
    return (
        bool(names) and catalog.on_postgresql(look) and bool(catalog.answers(look, "volatile", {"names": list(names)}))
    )


def same_condition(look: Look, table: str, *, has: str, wants: str) -> bool:
    """Whether a condition of the catalogue is the one that a playbook writes, as the database itself would print it."""
    if plain_sql(has) == plain_sql(wants):
        return True
    return (
        catalog.on_postgresql(look)
        and bool(wants)
        and bool(has)
        and plain_sql(has) == plain_sql(_printed(look, table, wants))
    )


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


def _printed(look: Look, table: str, condition: str) -> str:
    """The condition as PostgreSQL prints it back, asked of a temporary table of the same columns, rolled back."""
    with look.trial("condition") as work:
        try:
            work.execute(f"CREATE TEMPORARY TABLE runbook_condition (LIKE {catalog.sql_name(look, table)})")
            work.execute(f"ALTER TABLE pg_temp.runbook_condition ADD CONSTRAINT runbook_condition CHECK ({condition})")
        except DatabaseFault as fault:
            if fault.sqlstate == INSUFFICIENT_PRIVILEGE:  # no right to make temporary tables: not comparable
                return ""
            raise
        sql = """SELECT pg_get_expr(conbin, conrelid) AS printed FROM pg_catalog.pg_constraint
                 WHERE conname = 'runbook_condition' AND conrelid = 'pg_temp.runbook_condition'::regclass"""
        return work.row(sql).text("printed")


def _base_type(look: Look, text: str) -> str:
    bare = _bare(text)
    return catalog.answers(look, "type", {"wanted": _SERIAL.get(bare, bare)})[0].maybe_text("name") or bare


def _bare(text: str) -> str:
    return re.sub(r"\s*\([^)]*\)", "", text.strip().lower() if '"' not in text else text.strip())


def _modifier(text: str) -> str:
    found = re.search(r"\(([^)]*)\)", text)
    if found is None:
        return "1" if text.strip().lower() in {"char", "character"} else ""
    return found.group(1).replace(" ", "")
