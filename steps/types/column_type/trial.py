"""Tries a column type change on a copy of the table without rows: its cost, the default and collation after it, its faults."""

from __future__ import annotations

from typing import NamedTuple

from steps.catalog import catalog, compare, scratch
from steps.catalog.definitions import ColumnInfo
from steps.catalog.scratch import Twin, Type
from steps.contract import ColumnRef, DatabaseFault, Look
from steps.contract.dialect import Dialect
from steps.sql.dialect import literal, quote

ZONE = "what comes out depends on the session's time zone, date style or currency"
_WHOLE_NUMBERS = {"smallint", "integer", "bigint"}


class TypeChange(NamedTuple):
    """A type change as the playbook defines it. using: SQL, "" for the default cast; collation: "" to keep the current one.

    empty: the column holds no values, so that only its default must be converted. nulls: SQL of values that become NULL.
    """

    column: ColumnRef
    to: str
    using: str
    collation: str
    empty: bool = False
    nulls: tuple[str, ...] = ()


class Tried(NamedTuple):
    """The outcome of the trial. actions: those of one ALTER TABLE; default: the new one, None where there is none;
    length, note: how long the lock is held, and for what (see Statement); faults: what prevents the change.
    nothing: SQL that is true for values that become NULL, "" for none; new: SQL of the new value."""

    source: Type
    target: Type
    actions: tuple[str, ...]
    collation: str
    default: str | None
    length: str
    note: str
    faults: tuple[str, ...]
    nothing: str = ""
    new: str = ""


def tried(look: Look, change: TypeChange, found: ColumnInfo) -> Tried:
    """Try the change on an empty twin; raises scratch.Unusable where the type, the collation or USING is invalid."""
    like = f"INCLUDING INDEXES INCLUDING CONSTRAINTS{' INCLUDING GENERATED' * bool(found.generated)}"
    with scratch.twin(look, change.column.table, like=like) as twin:
        work, name = twin.work, quote(change.column.column)
        source, target = scratch.type_of(work, found.type), scratch.type_of(work, change.to)
        if change.using:
            scratch.one_piece(change.using, look.dialect)
        nothing = _nothing(twin, change, found)
        whole = change._replace(using=_whole(change, nothing))
        collation = _collation(look, change, found, target)
        collate = f" COLLATE {collation}" if collation else ""
        using = f" USING {whole.using}" if whole.using else ""
        default, faults = _default(twin, whole, found, f"TYPE {change.to}{collate}{using}")
        actions = [f"ALTER COLUMN {name} TYPE {change.to}{collate}{using}"]
        if default is not None:
            actions = [f"ALTER COLUMN {name} DROP DEFAULT", *actions, f"ALTER COLUMN {name} SET DEFAULT {default}"]
        if not faults:
            _set_default(twin, change, found)
        faults += _of_the_session(twin, change, source, target)
        if found.identity and target.name not in _WHOLE_NUMBERS:
            faults.append(f"cannot change {change.column} to {target.name}: it is an identity column, which counts")
        if found.generated and whole.using:
            word = "using" if change.using else "treat_as_null"
            faults.append(f"cannot use `{word}` for {change.column}: it is generated, and computed anew; leave it out")
            return Tried(source, target, tuple(actions), collation, None, "", "", tuple(faults))
        before = _files(twin)
        with scratch.understood(f"change {change.column} to {change.to}"):
            work.execute(f"ALTER TABLE {twin.name} {', '.join(actions)}")
        length, note = _cost(look, change, before, _files(twin))
        made = catalog.columns(work, twin.table)[change.column.column].default
        new = f"CAST({whole.using or name} AS {change.to})"
        return Tried(source, target, tuple(actions), collation, made, length, note, tuple(faults), nothing, new)


def _nothing(twin: Twin, change: TypeChange, found: ColumnInfo) -> str:
    """SQL that is true where the column holds one of the values that mean nothing, compared as the server's text of both."""
    texts = []
    for one in change.nulls:
        scratch.one_piece(one, Dialect.POSTGRESQL)
        with scratch.understood(f"treat {one} of {change.column} as NULL"):
            text = twin.work.row(f"SELECT CAST(CAST(({one}) AS {found.type}) AS text) AS text").maybe_text("text")
        if text is None:
            raise scratch.Unusable(f"cannot treat {one} of {change.column} as NULL: it is NULL already")
        texts.append(literal(text))
    return f"CAST({quote(change.column.column)} AS text) IN ({', '.join(texts)})" if texts else ""


def _whole(change: TypeChange, nothing: str) -> str:
    """What stands behind USING: the playbook's expression, and NULL for values that mean nothing."""
    if not nothing:
        return change.using
    return f"CASE WHEN {nothing} THEN NULL ELSE {change.using or quote(change.column.column)} END"


def _collation(look: Look, change: TypeChange, found: ColumnInfo, target: Type) -> str:
    """The collation that the playbook names; else the column's own, if the new type has collations."""
    if change.collation:
        return catalog.collation(look, change.collation)
    return found.collation if target.collation else ""


def _of_the_session(twin: Twin, change: TypeChange, source: Type, target: Type) -> list[str]:
    if change.empty or not compare.conversion(twin.work, source, target).session:
        return []
    if change.using and compare.immutable(twin, f"CAST(({change.using}) AS {change.to})"):
        return []
    example = f"{change.column.column} AT TIME ZONE 'Europe/Berlin'"
    return [f"cannot change {change.column} to {target.name}: {ZONE}; name it with using:, for instance {example}"]


# ─── the default ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _default(twin: Twin, change: TypeChange, found: ColumnInfo, action: str) -> tuple[str | None, list[str]]:
    """(the default to set explicitly, None where PostgreSQL converts it correctly by itself; faults).

    A constant is converted like the values, by USING too, which ALTER TYPE doesn't do. A volatile expression can only be cast.
    """
    if found.default is None:
        return None, []
    by_itself = _by_itself(twin, change, found, action)
    if compare.immutable(twin, f"({found.default})"):
        value, text = _turned(twin, change, found)
        same = by_itself is not None and _text(twin, by_itself) == text
        return (None if same else value), []
    if by_itself is not None:
        return None, []
    why = f"its default {found.default} can't be turned into {change.to}: drop it first, and set the new one after"
    return f"CAST(NULL AS {change.to})", [f"cannot change {change.column}: {why}"]


def _by_itself(twin: Twin, change: TypeChange, found: ColumnInfo, action: str) -> str | None:
    """The default after PostgreSQL's own conversion; None where it can't convert it."""
    work = twin.work
    work.execute("SAVEPOINT runbook_default")
    try:
        _set_default(twin, change, found)
        work.execute(f"ALTER TABLE {twin.name} ALTER COLUMN {quote(change.column.column)} {action}")
        return catalog.columns(work, twin.table)[change.column.column].default
    except DatabaseFault as fault:
        if fault.lost:
            raise
        return None
    finally:
        work.execute("ROLLBACK TO SAVEPOINT runbook_default")


def _set_default(twin: Twin, change: TypeChange, found: ColumnInfo) -> None:
    if found.default is not None:
        name = quote(change.column.column)
        twin.work.execute(f"ALTER TABLE {twin.name} ALTER COLUMN {name} SET DEFAULT {found.default}")


def _turned(twin: Twin, change: TypeChange, found: ColumnInfo) -> tuple[str, str | None]:
    """A constant default after the same conversion as the values: (SQL, its value as text)."""
    name, table = quote(change.column.column), quote(change.column.table.rpartition(".")[2])
    row = f"(SELECT CAST(({found.default}) AS {found.type}) AS {name}) AS {table}"
    with scratch.understood(f"turn the default {found.default} of {change.column} into {change.to}"):
        new = f"CAST(CAST(({change.using or name}) AS {change.to}) AS text)"
        text = twin.work.row(f"SELECT {new} AS text FROM {row}").maybe_text("text")
    return (f"CAST({'NULL' if text is None else literal(text)} AS {change.to})", text)


def _text(twin: Twin, expression: str) -> str | None:
    return twin.work.row(f"SELECT CAST(({expression}) AS text) AS text").maybe_text("text")


# ─── the cost ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _files(twin: Twin) -> dict[str, int]:
    """The file numbers of the twin ("") and of its indexes, by the text of their keys; a rewrite changes them."""
    made = {"": twin.file()}
    for row in catalog.answers(twin.work, "files_of_indexes", {"name": twin.name}):
        made[row.text("name")] = row.integer("file")
    return made


def _cost(look: Look, change: TypeChange, before: dict[str, int], after: dict[str, int]) -> tuple[str, str]:
    """(how long the lock is held, why): judged by which files were rewritten, and which checks must be validated again."""
    if after[""] != before[""]:
        return "one rewrite", ""
    rebuilt = sorted(set(after.items()) - set(before.items()))
    proven = [
        one.name
        for one in catalog.constraints(look, change.column.table)
        if one.kind == "check" and change.column.column in one.columns
    ]
    reasons = [f"{len(rebuilt)} index{'es' * (len(rebuilt) > 1)} built anew"] * bool(rebuilt)
    reasons += [f"{', '.join(proven)} proven again"] * bool(proven)
    return ("one scan", " and ".join(reasons)) if reasons else ("instant", "")
