"""Compares parts of a declared shape with the catalogue's: first as text, and where that differs, as the server prints them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from steps.catalog import catalog, compare, scratch
from steps.catalog.definitions import ColumnInfo, ConstraintInfo, IndexInfo, TriggerInfo
from steps.catalog.scratch import READ_ONLY, TWIN, Twin, Unusable
from steps.catalog.shape import ColumnSpec, ConstraintSpec, IndexSpec, TriggerSpec
from steps.contract import INSUFFICIENT_PRIVILEGE, DatabaseFault, Look
from steps.sql.dialect import quote

_NOT_VALID = " NOT VALID"


# ─── columns ────────────────────────────────────────────────────────────────────────────────────────────────────────
def column(look: Look, table: str, has: ColumnInfo, wants: ColumnSpec) -> list[str]:
    """How the column differs from the declared one, each difference in words; [] where it doesn't."""
    found = []
    if not compare.same_type(look, has.type, wants.type):
        found.append(f"is {has.type}, declared {wants.type}")
    if has.not_null != wants.not_null:
        found.append(
            f"is {'NOT NULL' if has.not_null else 'nullable'}, declared {'NOT NULL' if wants.not_null else 'nullable'}"
        )
    found += _generated(look, table, has, wants)
    if not _same_expression(look, table, has, (has.default or "", wants.default or ""), generated=False):
        found.append(f"has the default {has.default or 'none'}, declared {wants.default or 'none'}")
    if has.identity != wants.identity:
        found.append(f"is generated as identity {has.identity or 'never'}, declared {wants.identity or 'never'}")
    if wants.collation not in {"", has.collation}:
        found.append(f"has the collation {has.collation or 'of its type'}, declared {wants.collation}")
    return found


def _generated(look: Look, table: str, has: ColumnInfo, wants: ColumnSpec) -> list[str]:
    if wants.generated and not has.generated:
        return [f"is an ordinary column (attgenerated is empty), declared as generated from {shown(wants.generated)}"]
    if has.generated and not wants.generated:
        return [f"is generated from {shown(has.generated)}, declared as an ordinary column"]
    if not wants.generated or _same_expression(
        look, table, has, (has.generated or "", wants.generated), generated=True
    ):
        return []
    return [f"is generated from {shown(generated_from(look, table, has))}, declared {shown(wants.generated)}"]


def generated_from(look: Look, table: str, has: ColumnInfo) -> str:
    """The expression of a generated column; SQLite has it only in the table's CREATE statement."""
    if catalog.on_postgresql(look) or not has.generated:
        return has.generated or ""
    part = next((one for one in catalog.create_parts(catalog.definition(look, table)) if _begins(one, has.name)), "")
    found = re.search(r"\bAS\s*(\(.*)", part, flags=re.IGNORECASE | re.DOTALL)
    return _balanced(found[1]) if found else ""


def _begins(part: str, name: str) -> bool:
    return re.match(rf'["`\[]?{re.escape(name)}["`\]]?\s', part, flags=re.IGNORECASE) is not None


def _balanced(text: str) -> str:
    """The text up to the parenthesis that closes the first one, without the two."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[1:place].strip()
    return text


def _same_expression(look: Look, table: str, has: ColumnInfo, texts: tuple[str, str], *, generated: bool) -> bool:
    mine, wanted = (generated_from(look, table, has), texts[1]) if generated else texts
    if not (mine and wanted):
        return not mine and not wanted
    if compare.plain_sql(mine) == compare.plain_sql(wanted):
        return True
    if not catalog.on_postgresql(look):
        return False
    clause = f"GENERATED ALWAYS AS ({wanted}) STORED" if generated else f"DEFAULT {wanted}"

    def made(twin: Twin) -> str | None:
        twin.work.execute(f"ALTER TABLE {twin.name} ADD COLUMN {compare.PROBE} {has.type} {clause}")
        one = catalog.columns(twin.work, twin.table)[compare.PROBE]
        return one.generated if generated else one.default

    scratch.one_piece(wanted, look.dialect)
    return _on_twin(look, table, made) == mine


# ─── indexes, constraints, triggers ─────────────────────────────────────────────────────────────────────────────────
def index(look: Look, table: str, has: IndexInfo, wants: IndexSpec) -> list[str]:
    """How the index differs from the declared one."""
    found = [f"is {word} ({flag} is false)" for word, flag, held in (
        ("INVALID", "indisvalid", has.valid), ("not ready", "indisready", has.ready)) if not held]  # fmt: skip
    text = index_text(look, has)
    if compare.plain_sql(text) != compare.plain_sql(wants.definition) and not _same_index(look, table, has, wants):
        found.append(f"is {text}, declared {wants.definition}")
    return found


def index_text(look: Look, has: IndexInfo) -> str:
    """An index in the form in which a shape declares it."""
    if catalog.on_postgresql(look):
        return f"{'unique ' * has.unique}{has.body.removeprefix('USING ')}"
    return f"{'unique ' * has.unique}btree ({has.definition.partition('(')[2]}"


def _same_index(look: Look, table: str, has: IndexInfo, wants: IndexSpec) -> bool:
    unique, method, rest = wants.parts
    using = f" USING {method}" if catalog.on_postgresql(look) else ""
    scratch.one_piece(rest, look.dialect)
    try:
        made = compare.body_made_by(
            look, table, lambda name, on: f"CREATE {'UNIQUE ' * unique}INDEX {name} ON {on}{using} {rest}"
        )
    except Unusable as refusal:
        _raise_if_not_asked(refusal)
        return False
    return made == compare.body_of(look, has)


def constraint(look: Look, table: str, has: ConstraintInfo, wants: ConstraintSpec) -> list[str]:
    """How the constraint differs from the declared one (PostgreSQL)."""
    found = []
    if has.validated != wants.validated:
        found.append("is NOT VALID (convalidated is false)" if wants.validated else "is valid, declared NOT VALID")
    mine, wanted = has.definition.removesuffix(_NOT_VALID), wants.definition.removesuffix(_NOT_VALID)
    if compare.plain_sql(mine) != compare.plain_sql(wanted) and not _same_constraint(look, table, has, wanted):
        found.append(f"is {mine}, declared {wanted}")
    return found


def _same_constraint(look: Look, table: str, has: ConstraintInfo, wanted: str) -> bool:
    plain = wanted.replace(f" {look.schema}.", " ").replace(f' "{look.schema}".', " ")  # a twin refers to twins only
    scratch.one_piece(plain, look.dialect)

    def made(twin: Twin) -> str | None:
        if has.references:
            other = ".".join(has.references)
            name = quote(has.references[1])
            twin.work.execute(f"CREATE TEMPORARY TABLE {name} (LIKE {catalog.sql_name(look, other)} INCLUDING INDEXES)")
        twin.work.execute(f"ALTER TABLE {twin.name} ADD CONSTRAINT {compare.PROBE} {plain}")
        return next(one.definition for one in catalog.constraints(twin.work, twin.table) if one.name == compare.PROBE)

    return _on_twin(look, table, made) == has.definition.removesuffix(_NOT_VALID)


def sqlite_has(look: Look, table: str, known: Iterable[ConstraintInfo], wants: ConstraintSpec) -> bool:
    """Whether an SQLite table has this constraint; a CHECK exists there only in the text of the table."""
    wanted = _bare(wants.definition)
    key = f"PRIMARY KEY ({', '.join(catalog.primary_key(look, table))})"
    if wanted in {_bare(key), *(_bare(sqlite_text(one)) for one in known)}:
        return True
    return wanted.startswith("check") and wanted in _bare(catalog.definition(look, table))


def sqlite_text(info: ConstraintInfo) -> str:
    """The definition of an SQLite constraint, as a shape declares it."""
    columns = ", ".join(info.columns)
    if info.references is None:
        return f"{info.kind.upper()} ({columns})"
    actions = "".join(
        f" ON {event} {act.upper()}"
        for event, act in (("DELETE", info.on_delete), ("UPDATE", info.on_update))
        if act != "no action"
    )
    return f"FOREIGN KEY ({columns}) REFERENCES {info.references[1]} ({', '.join(info.foreign_columns)}){actions}"


def _bare(text: str) -> str:
    return compare.plain_sql(text).replace('"', "").replace(" (", "(")


def trigger(has: TriggerInfo, wants: TriggerSpec) -> list[str]:
    """How the trigger differs from the declared one."""
    found = []
    if has.enabled != wants.enabled:
        found.append("is enabled, declared disabled" if has.enabled else "is disabled (tgenabled is D)")
    if compare.plain_sql(has.definition) != compare.plain_sql(wants.definition):
        found.append(f"is {has.definition}, declared {wants.definition}")
    return found


# ─── asking the server ──────────────────────────────────────────────────────────────────────────────────────────────
def _on_twin(look: Look, table: str, made: Callable[[Twin], str | None]) -> str | None:
    """What the server prints of a definition that `made` gives the table's twin; None where it refuses it there.

    Raises Unusable where it can't be asked: it only reads, or this role may make no temporary table.
    """
    try:
        with scratch.twin(look, table) as twin, scratch.understood(f"make such a definition on {TWIN}"):
            return made(twin)
    except Unusable as refusal:
        _raise_if_not_asked(refusal)
        return None


def _raise_if_not_asked(refusal: Unusable) -> None:
    cause = refusal.__cause__
    if isinstance(cause, DatabaseFault) and cause.sqlstate in {READ_ONLY, INSUFFICIENT_PRIVILEGE}:
        raise refusal


def shown(text: str) -> str:
    """An expression on one line."""
    return " ".join(text.split())
