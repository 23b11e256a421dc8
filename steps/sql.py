"""Statements of the playbook's own: each sent alone, recorded alone, resumed at the first that isn't done."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from steps import ledger
from steps.base import (
    AlreadyCommitted,
    Context,
    Effect,
    Look,
    Place,
    Progress,
    Refused,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Value,
    Work,
)
from steps.dialect import BadSql, Dialect, controls_transaction, needs_autocommit, parameters, split
from steps.reading import ReadQuery
from steps.statements import is_dml, lock_of, whole_table_verb
from steps.words import Model, Query, Text

BEGUN = " begun"


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Texts = Annotated[tuple[Text, ...], BeforeValidator(_several)]


class SqlBefore(Model):
    """Nothing but the fact that the step began: the way back is in the playbook."""

    statements: int


class SqlResult(StepResult):
    """rows: touched by the statements that this attempt sent (those done before a resume are not counted again)."""

    statements: int
    rows: int


class Sql(Step):
    """Runs SQL. A statement that touches no row fails, unless `expect_rows` says otherwise: zero rows is a decision.

    transaction: `each` statement in one of its own, or all in `one`. What can't be in a transaction is sent outside.
    `applied_if` asks the database whether the change is there; without it the ledger says which statements committed.
    """

    kind: ClassVar[str] = "sql"
    summary: ClassVar[str] = "runs statements of the playbook's own, each recorded and resumed alone"
    Result: ClassVar[type[StepResult]] = SqlResult
    Before: ClassVar[type[BaseModel]] = SqlBefore

    text: Text | None = None
    statement_list: Texts = Field(default=(), alias="statements")
    transaction: Literal["each", "one"] = "each"
    applied_if: ReadQuery | None = None
    way_back: Texts | None = Field(default=None, alias="revert")
    expect_rows: Literal["any", "some"] | Annotated[int, Field(ge=0)] = "some"
    whole_table: bool = False
    params: Mapping[str, str | int | float | bool | None] = {}

    @model_validator(mode="after")
    def _one_source(self) -> Sql:
        if (self.text is None) == (not self.statement_list):
            raise ValueError("cannot tell what to run: write either text or statements")
        return self

    @field_validator("text", "statement_list", "way_back")
    @classmethod
    def _readable(cls, value: Text | tuple[Text, ...] | None) -> Text | tuple[Text, ...] | None:
        for one in (value,) if isinstance(value, Text) else value or ():
            for dialect, text in one.texts.items():
                _refuse(text, [Dialect(dialect)] if dialect else list(Dialect))
        return value

    def describe(self) -> str:
        found = self._texts_for_reading()
        first = " ".join(found[0].split())
        first = first if len(first) <= 80 else first[:79] + "…"
        return f"run {first}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")

    # ─── before ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def statements(self, look: Look) -> list[Statement]:
        return [self._statement(sql, look.dialect) for sql in self._pieces(look.dialect)]

    def misfits(self, dialect: Dialect) -> list[str]:
        faults = []
        for n, sql in enumerate(self._pieces(dialect), 1):
            verb = whole_table_verb(sql, dialect)
            if verb and not self.whole_table:
                faults.append(
                    f"cannot run statement {n}: {verb} without WHERE changes the whole table at once; add a WHERE, "
                    "use a backfill, or write whole_table: true"
                )
            missing = [name for name in parameters(sql, dialect) if name not in self.params]
            if missing:
                faults.append(f"cannot run statement {n}: it needs {', '.join(missing)}; give it under params")
            if self.transaction == "one" and needs_autocommit(sql, dialect=dialect):
                faults.append(
                    f"cannot run statement {n} in a transaction: the database refuses; write transaction: each"
                )
        return faults

    def verify(self, look: Look) -> Effect:
        place = look.place
        labels = set(ledger.committed_labels(look, Place(place.run, place.step, "apply"))) if place else set()
        if self.applied_if is not None:
            return _asked(look, self.applied_if, some=bool(labels))
        if place and self.way_back and self._taken_back(look, place):
            return Effect(State.NOT_DONE, "taken back")
        return self._from_ledger(labels, self._labels(look.dialect))

    def _taken_back(self, look: Look, place: Place) -> bool:
        done = ledger.committed_labels(look, Place(place.run, place.step, "revert"))
        return set(_numbered(self._back(look.dialect))) <= set(done)

    @staticmethod
    def _from_ledger(done: set[str], labels: list[str]) -> Effect:
        doubt = [label for label in labels if label not in done and label + BEGUN in done]
        if doubt:
            return Effect(
                State.UNKNOWN,
                f"{doubt[0]} was sent outside of a transaction and its end is not known: look, then settle",
            )
        count = sum(label in done for label in labels)
        told = f"{count} of {len(labels)} statements committed"
        return Effect(State.DONE if count == len(labels) else State.PARTLY if count else State.NOT_DONE, told)

    # ─── the change ─────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> SqlResult:
        dialect = ctx.db.dialect
        pieces = self._pieces(dialect)
        faults = self.misfits(dialect)
        if faults:
            raise Refused(faults[0])
        ctx.remember(SqlBefore(statements=len(pieces)))
        return SqlResult(
            statements=len(pieces), rows=self._run(ctx, pieces, one=self.transaction == "one", counted=True)
        )

    def revert(self, ctx: Context, before: BaseModel) -> None:
        del before
        if self.way_back is None:
            raise StepError(f"cannot take back: {self.one_way()}")
        self._run(ctx, self._back(ctx.db.dialect), one=self.transaction == "one", counted=False)

    def one_way(self) -> str:
        return "" if self.way_back is not None else "the playbook gives no SQL for the way back (revert:)"

    def _run(self, ctx: Context, pieces: list[str], *, one: bool, counted: bool) -> int:
        """The statements that the ledger hasn't got yet; how many rows they touched."""
        touched: list[int] = []
        if one:
            ctx.patiently(
                "statements", lambda work: touched.extend(self._send(work, sql, counted=counted) for sql in pieces)
            )
            return sum(touched)
        for n, sql in enumerate(pieces, 1):
            ctx.pulse(Progress(n - 1, len(pieces), "statements"))
            self._alone(ctx, f"statement {n}", sql, touched=touched, counted=counted)
        return sum(touched)

    def _alone(self, ctx: Context, label: str, sql: str, *, touched: list[int], counted: bool) -> None:
        def act(work: Work) -> None:
            touched.append(self._send(work, sql, counted=counted))

        if not needs_autocommit(sql, dialect=ctx.db.dialect):
            ctx.patiently(label, act)
        elif label not in ctx.db.committed():
            with contextlib.suppress(AlreadyCommitted), ctx.db.commit(label + BEGUN):
                pass  # so that a kill in the middle is seen as doubt
            with ctx.db.outside(label) as work:
                act(work)
            with contextlib.suppress(AlreadyCommitted), ctx.db.commit(label):
                pass

    def _send(self, work: Work, sql: str, *, counted: bool) -> int:
        rows = work.execute(sql, self._values(sql, work.dialect))
        if not (counted and is_dml(sql, work.dialect)):
            return 0
        wanted = self.expect_rows
        if (wanted == "some" and rows == 0) or (isinstance(wanted, int) and rows != wanted):
            raise StepError(
                f"cannot go on: {' '.join(sql.split())[:80]!r} touched {rows} rows and expect_rows is {wanted}; "
                "it was rolled back"
            )
        return max(rows, 0)

    # ─── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _statement(self, sql: str, dialect: Dialect) -> Statement:
        alone = needs_autocommit(sql, dialect=dialect)
        lock = lock_of(sql) if dialect is Dialect.POSTGRESQL else ""
        return Statement(sql, self._values(sql, dialect), lock=lock, transactional=not alone)

    def _values(self, sql: str, dialect: Dialect) -> dict[str, Value]:
        return {name: self.params[name] for name in parameters(sql, dialect) if name in self.params}

    def _pieces(self, dialect: Dialect) -> list[str]:
        return _cut((self.text,) if self.text else self.statement_list, dialect)

    def _back(self, dialect: Dialect) -> list[str]:
        return _cut(self.way_back or (), dialect)

    def _labels(self, dialect: Dialect) -> list[str]:
        return ["statements"] if self.transaction == "one" else _numbered(self._pieces(dialect))

    def _texts_for_reading(self) -> list[str]:
        return [next(iter(one.texts.values())) for one in ((self.text,) if self.text else self.statement_list)]


def _asked(look: Look, query: Query, *, some: bool) -> Effect:
    answer = next(iter(look.row(query.text(look.dialect)).values()), None)
    name = query.name or "applied_if"
    if answer is None:
        return Effect(State.UNKNOWN, f"{name} answers NULL")
    if answer:
        return Effect(State.DONE, f"{name} is true")
    return Effect(State.PARTLY if some else State.NOT_DONE, f"{name} is false")


def _cut(texts: tuple[Text, ...], dialect: Dialect) -> list[str]:
    return [piece.text for one in texts for piece in split(one.text(dialect), dialect)]


def _numbered(pieces: list[str]) -> list[str]:
    return [f"statement {n}" for n in range(1, len(pieces) + 1)]


def _refuse(text: str, dialects: list[Dialect]) -> None:
    """Raises ValueError unless one of the dialects can read the text as statements without transaction control."""
    reasons = [_why_not(text, dialect) for dialect in dialects]
    if all(reasons):
        raise ValueError(reasons[0])


def _why_not(text: str, dialect: Dialect) -> str:
    try:
        if not split(text, dialect):
            return "cannot run an empty text: write a statement"
        if controls_transaction(text, dialect=dialect):
            return (
                "cannot run BEGIN, COMMIT or ROLLBACK: the engine sees to transactions; write transaction: one or each"
            )
    except BadSql as fault:
        return str(fault)
    return ""
