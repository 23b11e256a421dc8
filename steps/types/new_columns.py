"""Adds columns: a catalogue change that rewrites no row, unless the default differs from row to row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import PrivateAttr, model_validator

from steps.catalog import catalog, compare, definitions, feasibility, later_steps, scratch, touched_tables
from steps.catalog.definitions import ColumnInfo
from steps.contract import (
    Column,
    ColumnRef,
    Context,
    Effect,
    Look,
    Model,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Text,
    Work,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import ladder
from steps.contract.look import Trace
from steps.sql.dialect import literal, quote
from steps.types.shared import declared

OWN_FIELDS = "collation, identity, generated, default, not_null, references and check are fields of their own"


class Added(Model):
    """The column to drop in the undo.

    transaction: the id (xmin) of the transaction that gave each row its own value, "" where none did.
    value: the default's value in each row, as text.
    """

    table: str
    column: str
    transaction: str = ""
    value: str | None = None


class AddColumnBack(StepResult):
    """lost: rows with values written by others that were dropped with the column (`taken_back: drop`)."""

    lost: int = 0


class WantedColumn(NamedTuple):
    """The column as the server creates it from the playbook's definition, in a table without rows.

    check: its condition in the server's form. rewrites: adding it rewrites the table.
    """

    column: ColumnInfo
    check: str
    rewrites: bool
    check_alone: bool = False  # the check names no other column
    volatile: bool = False  # the default gives each row a value of its own


class AddColumn(Step[Added]):
    """Adds a column. The undo drops it while nobody else has written to it, or with everything in it (`taken_back: drop`).

    of_type is a type and nothing else: collation, identity, generated, default, not_null, references and check are fields.
    """

    kind: ClassVar[str] = "add_column"
    summary: ClassVar[str] = "add a column; taken back only while it holds nothing but its default"

    column: Column
    of_type: Text
    collation: str | None = None
    default: Text | None = None
    identity: Literal["always", "by default"] | None = None
    generated: Text | None = None
    not_null: bool = False
    references: Column | None = None
    on_delete: Literal["no action", "restrict", "cascade", "set null", "set default"] = "no action"
    check: Text | None = None
    comment: str | None = None
    taken_back: Annotated[Literal["unless_written", "drop"], ladder("unless_written", "drop")] = "unless_written"
    _later: later_steps.Later = PrivateAttr(default_factory=later_steps.Later)

    @model_validator(mode="after")
    def _one_origin(self) -> AddColumn:
        origins = {"default": self.default, "identity": self.identity, "generated": self.generated}
        given = [name for name, value in origins.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"cannot combine {' and '.join(given)}: a column's values have one origin")
        if self.on_delete != "no action" and self.references is None:
            raise ValueError("cannot use on_delete without references")
        return self

    def describe(self) -> str:
        types = " / ".join(dict.fromkeys(self.of_type.texts.values()))
        more = [f"collate {self.collation}"] * bool(self.collation) + [f"identity {self.identity}"] * bool(
            self.identity
        )
        more += ["generated"] * bool(self.generated) + ["not null"] * self.not_null
        more += [f"references {self.references}"] * bool(self.references) + ["with a check"] * bool(self.check)
        return " ".join([f"add column {self.column} {types}", *more])

    def back_if(self, look: Look | None) -> str:
        """The condition of the undo, in words that continue "yes, "."""
        if self.generated is not None:
            return ""
        if self.taken_back == "unless_written":
            return "unless somebody writes into it by then (taken_back: drop would drop it all the same)"
        written = self._count_written_by_others(look) if look is not None else 0
        return (
            f"with all that is in it by then (taken_back: drop){f'; now {written} values of others' if written else ''}"
        )

    def only_way_back_differs(self, before: Step) -> bool:
        """Whether `before` is the same step but for `taken_back`."""
        return isinstance(before, AddColumn) and before.model_copy(update={"taken_back": self.taken_back}) == self

    def _count_written_by_others(self, look: Look) -> int:
        there = self.column.column in catalog.columns(look, self.column.table)
        return self._written(look, Added(table=self.column.table, column=self.column.column)) if there else 0

    # ── what is there, and what is wanted ───────────────────────────────────────────────────────────────────────────
    def followed_by(self, later: Sequence[Step]) -> None:
        self._later = later_steps.Later(tuple(later))

    def verify(self, look: Look) -> Effect:
        """Also DONE where later steps of the playbook have since renamed or altered the column."""
        there, names = (
            catalog.columns(look, self.column.table),
            self._later.names(look, self.column.table, self.column.column),
        )
        found = next((there[name] for name in names if name in there), None)
        if found is None:
            return Effect(State.NOT_DONE, f"{self.column.table} has no {self.column.column}")
        if found.name != self.column.column:
            return Effect(State.DONE, f"{self.column} is there as {found.name}, which a later step makes of it")
        try:
            wrong = self._differences(look, found)
        except scratch.Unusable as fault:
            return Effect(State.UNKNOWN, f"{self.column} is there, and {fault}")
        if wrong:
            return Effect(State.PARTLY, f"{self.column} is there, but {', '.join(wrong)}")
        return Effect(State.DONE, f"{self.column} is there as {found.type}")

    def _differences(self, look: Look, found: ColumnInfo) -> list[str]:
        wanted, pg = self._wanted(look), look.dialect is Dialect.POSTGRESQL
        column = wanted.column
        if not pg:
            with scratch.memory(look) as memory:
                found = found._replace(collation=scratch.collation(memory, self.column.table, self.column.column))
        known = catalog.constraints(look, self.column.table)
        later = self._later.changes(look, self.column.table, [self.column.column])
        changed = {one.kind for one in later}
        retyped = [one.type for one in later if one.kind == "type"]
        checks = (
            (
                any(not one or compare.same_type(look, found.type, one) for one in (column.type, *retyped)),
                f"it is {found.type}, not {column.type}",
            ),
            (found.collation == column.collation, f"its collation is {found.collation or 'the default'}"),
            (found.not_null or not column.not_null or "not_null" in changed, "it may be NULL"),
            (column.not_null or not found.not_null or "not_null" in changed, "it is NOT NULL"),
            (
                bool(changed & {"default", "type"}) or _same_default(look, found.default, column.default),
                f"its default is {found.default or 'none'}",
            ),
            (
                found.generated == column.generated,
                f"it is {f'generated: {found.generated}' if found.generated else 'not generated'}",
            ),
            (
                found.identity == column.identity,
                f"it is {f'identity {found.identity}' if found.identity else 'no identity'}",
            ),
            (
                not self.references or any(self._is_key(look, one) for one in known),
                "it references nothing of that kind",
            ),
            (
                not wanted.check or any(one.expression == wanted.check and one.validated for one in known),
                "it has no such check",
            ),
            (not pg or self.comment is None or found.comment == self.comment, f"its comment is {found.comment!r}"),
        )
        return [words for good, words in checks if not good]

    def _is_key(self, look: Look, one: definitions.ConstraintInfo) -> bool:
        target = self.references
        return (
            target is not None
            and one.kind == "foreign key"
            and (
                one.columns,
                one.references,
                one.foreign_columns,
                one.on_delete,
                one.on_update,
                one.special,
                one.validated,
            )
            == (
                (self.column.column,),
                catalog.named(look, target.table),
                (target.column,),
                self.on_delete,
                "no action",
                "",
                True,
            )
        )

    def _wanted(self, look: Look) -> WantedColumn:
        """Create the column in a table without rows, and read it back; raises scratch.Unusable where the server refuses it."""
        for one in (self.default, self.generated, self.check):
            if one is not None:
                scratch.one_piece(one.text(look.dialect), look.dialect)
        return self._wanted_sqlite(look) if look.dialect is Dialect.SQLITE else self._wanted_postgresql(look)

    def _wanted_postgresql(self, look: Look) -> WantedColumn:
        # existing generated columns must be so in the twin too: no generated column can be computed from another
        with scratch.twin(look, self.column.table, like="INCLUDING GENERATED" if self.generated else "") as twin:
            with _a_type_alone():
                scratch.type_of(twin.work, self.of_type.text(look.dialect))
            name = quote(self.column.column)
            twin.work.execute(f"ALTER TABLE {twin.name} DROP COLUMN IF EXISTS {name} CASCADE")
            file = twin.file()
            with scratch.understood(f"add such a column to {self.column.table}"):
                twin.work.execute(f"ALTER TABLE {twin.name} ADD COLUMN {name} {self._clauses(look)}")
            found = catalog.columns(twin.work, twin.table)[self.column.column]
            checks = [one for one in catalog.constraints(twin.work, twin.table) if one.kind == "check"]
            if checks and self.column.column not in checks[0].columns:  # it would survive DROP COLUMN in the undo
                raise scratch.Unusable(f"the check doesn't name {self.column.column}; use add_constraint for it")
            alone = bool(checks) and checks[0].columns == (self.column.column,)
            rewrites = twin.file() != file
            volatile = rewrites and (self.identity is not None or self._volatile(look, twin, found.type))
            return WantedColumn(found, checks[0].expression if checks else "", rewrites, alone, volatile)

    def _volatile(self, look: Look, twin: scratch.Twin, kind: str) -> bool:
        """Whether the default itself causes the rewrite, since it differs from row to row.

        A domain with constraints causes one as well; so the default is tried again with the domain's base type.
        """
        default = self.default.text(look.dialect) if self.default else feasibility.domain_default_of(twin.work, kind)
        file, plain = twin.file(), feasibility.without_domain(twin.work, kind)
        if default:
            twin.work.execute(f"ALTER TABLE {twin.name} ADD COLUMN runbook_plain {plain} DEFAULT ({default})")
        return twin.file() != file

    def _wanted_sqlite(self, look: Look) -> WantedColumn:
        if self.identity:
            raise scratch.Unusable("cannot use identity: SQLite has no identity columns")
        with _a_type_alone():
            scratch.affinity(look, self.of_type.text(look.dialect))
        with scratch.memory(look) as memory:
            table, name = catalog.sql_name(look, self.column.table), quote(self.column.column)
            if self.column.column in catalog.columns(memory, self.column.table):
                memory.execute(f"ALTER TABLE {table} RENAME COLUMN {name} TO runbook_earlier")
            with scratch.understood(f"add such a column to {self.column.table}"):
                memory.execute(f"ALTER TABLE {table} ADD COLUMN {name} {self._clauses(look)}")
            found = catalog.columns(memory, self.column.table)[self.column.column]
            collation = scratch.collation(memory, self.column.table, self.column.column)
            return WantedColumn(found._replace(collation=collation), "", rewrites=False)

    def _clauses(self, look: Look, *, whole: bool = False, checked: bool = True) -> str:
        """The definition that follows the column's name.

        whole: include the foreign key, which a temporary table can't have. checked: include the check.
        """
        pg, words = look.dialect is Dialect.POSTGRESQL, [self.of_type.text(look.dialect)]
        if self.collation:
            words.append(f"COLLATE {catalog.collation(look, self.collation)}")
        if self.generated:
            words.append(f"GENERATED ALWAYS AS ({self.generated.text(look.dialect)}) {'STORED' if pg else 'VIRTUAL'}")
        if self.identity:
            words.append(f"GENERATED {self.identity.upper()} AS IDENTITY")
        if self.default:
            words.append(f"DEFAULT ({self.default.text(look.dialect)})")
        words += ["NOT NULL"] * self.not_null
        if self.check and checked:
            words.append(f"CHECK ({self.check.text(look.dialect)})")
        if self.references and (whole or not pg):
            table = (
                catalog.sql_name(look, self.references.table)
                if pg
                else quote(catalog.named(look, self.references.table)[1])
            )
            words.append(f"REFERENCES {table} ({quote(self.references.column)}) ON DELETE {self.on_delete.upper()}")
        return " ".join(words)

    # ── the change ──────────────────────────────────────────────────────────────────────────────────────────────────
    def statements(self, look: Look) -> list[Statement]:
        return self._statements(look, self._wanted(look) if catalog.columns(look, self.column.table) else None)

    def _statements(self, look: Look, wanted: WantedColumn | None) -> list[Statement]:
        table, name = catalog.sql_name(look, self.column.table), quote(self.column.column)
        pg = look.dialect is Dialect.POSTGRESQL
        scans = self.check is not None or (self.references is not None and self.default is not None)
        length = "one rewrite" if wanted and wanted.rewrites else "one scan" if scans else "instant"
        note = f"also on {self.references.table}" if self.references and pg else ""
        lock = "ACCESS EXCLUSIVE" if pg else "EXCLUSIVE"
        sql = f"ALTER TABLE {table} ADD COLUMN {name} {self._clauses(look, whole=True)}"
        made = [Statement(sql, lock=lock, length=length, table=self.column.table, note=note)]
        if self.comment is not None and pg:
            text = f"COMMENT ON COLUMN {table}.{name} IS {literal(self.comment)}"
            made.append(Statement(text, lock="SHARE UPDATE EXCLUSIVE", length="instant", table=self.column.table))
        return made

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.column.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        return (Trace("column", self.column.table, self.column.column, type=self.of_type.text(look.dialect)),)

    def preflight(self, look: Look) -> list[str]:
        if not catalog.columns(look, self.column.table):
            return [f"cannot add {self.column}: there is no table {self.column.table}"]
        state, evidence = self.verify(look)
        if state is State.DONE:
            return []
        faults = catalog.not_owned(look, self.column.table)
        if state is not State.NOT_DONE:
            return [*faults, f"cannot add {self.column}: {evidence}"]
        filled = self.default or self.identity or self.generated
        if self.not_null and not filled and _has_rows(look, self.column.table):
            faults.append(f"cannot add {self.column} as NOT NULL: the table has rows; give it a default")
        faults += [
            f"cannot add {self.column}: {why}"
            for why in feasibility.no_place_for(look, self.column.table, self.column.column)
        ]
        try:
            if not faults:
                self._try(look, self._wanted(look))
        except scratch.Unusable as fault:
            faults.append(f"cannot add {self.column}: {fault}")
        return faults

    def _try(self, look: Look, wanted: WantedColumn) -> None:
        """Raises scratch.Unusable where existing rows, or the referenced table, don't permit the column."""
        pg = look.dialect is Dialect.POSTGRESQL
        if self.references and pg:
            target, adds = self.references, self.of_type.text(look.dialect)
            feasibility.refuse_unless_it_refers(
                look, self.column.table, (self.column.column,), target.table, (target.column,), adds=adds
            )
        if wanted.volatile or self.generated or not _has_rows(look, self.column.table):
            return  # evaluating a default that differs from row to row has side effects: nextval() consumes numbers
        if self.references and self.default and pg:
            value = f"CAST(({self.default.text(look.dialect)}) AS {wanted.column.type})"
            feasibility.refuse_unless_there(look, self.references.table, self.references.column, value)
        whole = self._clauses(look)
        bare = self._clauses(look, checked=False)
        feasibility.refuse_unless_rows_take(
            look, self.column.column, bare if pg and not wanted.check_alone else whole, without_check=bare
        )

    def apply(self, ctx: Context) -> StepResult:
        with ctx.db.look() as look:
            if faults := self.preflight(look):
                raise Refused("; ".join(faults))
            if self.verify(look).state is State.DONE:
                return StepResult()
            wanted = self._wanted(look)
            statements = self._statements(look, wanted)
        ctx.patiently("add", lambda work: self._add(work, ctx, statements, rewrites=wanted.rewrites))
        return StepResult()

    def _add(self, work: Work, ctx: Context, statements: list[Statement], *, rewrites: bool) -> None:
        own = work.row("SELECT pg_current_xact_id()::xid::text AS id").text("id") if rewrites else ""
        with feasibility.refusal_explained(f"add {self.column}"):
            declared.execute(work, statements)
        value = None if rewrites else self._value(work)
        ctx.remember(Added(table=self.column.table, column=self.column.column, transaction=own, value=value))

    def _value(self, work: Work) -> str | None:
        """The value that each row now has from the default; None where it isn't needed.

        A default such as now() is evaluated once by ADD COLUMN; evaluated again in the same transaction, it gives the same value.
        """
        if work.dialect is Dialect.SQLITE or self.identity or self.generated:
            return None  # in SQLite an added column's default is constant: the undo can evaluate it again
        kind = catalog.columns(work, self.column.table)[self.column.column].type
        default = self.default.text(work.dialect) if self.default else feasibility.domain_default_of(work, kind)
        if not default:
            return None
        return work.row(f"SELECT CAST(CAST(({default}) AS {kind}) AS text) AS text").maybe_text("text")

    # ── undo ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def revert(self, ctx: Context, before: Added) -> AddColumnBack:
        """Drop the column; raises StepError where others have written to it, unless `taken_back: drop`."""
        column = ColumnRef(table=before.table, column=before.column)
        with ctx.db.look() as look:
            there = before.column in catalog.columns(look, before.table)
            lost = self._written(look, before) if there else 0
        if lost and self.taken_back != "drop":
            raise StepError(
                f"cannot take {column} back: it holds values that this step didn't write, in {lost} rows, and dropping it "
                "loses them; save and clear them, or write taken_back: drop, then roll back again"
            )
        ctx.patiently("drop", lambda work: _drop(work, column))
        return AddColumnBack(lost=lost)

    def _written(self, look: Look, before: Added) -> int:
        """The number of rows with a value that the step itself didn't write."""
        if self.generated is not None:
            return 0
        table, name = catalog.sql_name(look, before.table), quote(before.column)
        default = self.default.text(look.dialect) if self.default else ""
        written = f"{name} IS NOT NULL"
        if before.transaction:  # each row has its own value: xmin tells whether another transaction wrote it since
            written = f"CAST(xmin AS text) <> {literal(before.transaction)}"
        elif default and look.dialect is Dialect.SQLITE:
            written = f"{name} IS NOT ({default})"
        elif before.value is not None:  # as texts, because a json has no equality
            written = f"CAST({name} AS text) IS DISTINCT FROM {literal(before.value)}"
        elif default:  # a run of an earlier version, which didn't record the value
            kind = catalog.columns(look, before.table)[before.column].type
            written = f"CAST({name} AS text) IS DISTINCT FROM CAST(CAST(({default}) AS {kind}) AS text)"
        return look.row(f"SELECT count(*) AS n FROM {table} WHERE {written}").integer("n")


@contextlib.contextmanager
def _a_type_alone() -> Iterator[None]:
    try:
        yield
    except scratch.Unusable as fault:
        raise scratch.Unusable(f"{fault} (of_type is a type and nothing else; {OWN_FIELDS})") from fault


def _same_default(look: Look, has: str | None, wants: str | None) -> bool:
    if has is None or wants is None or look.dialect is Dialect.POSTGRESQL:
        return has == wants
    if compare.plain_sql(has) == compare.plain_sql(wants):
        return True
    return look.row(f"SELECT quote({has}) = quote({wants}) AS same").flag("same")  # an ADD COLUMN's default is constant


def _drop(work: Work, column: ColumnRef) -> None:
    if column.column in catalog.columns(work, column.table):
        work.execute(f"ALTER TABLE {catalog.sql_name(work, column.table)} DROP COLUMN {quote(column.column)}")


def _has_rows(look: Look, table: str) -> bool:
    return bool(look.rows(f"SELECT 1 AS one FROM {catalog.sql_name(look, table)} LIMIT 1"))
