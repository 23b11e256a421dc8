"""Runs the playbook's own SQL: each statement is a commit of its own, and a resume continues with the first that isn't done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, PrivateAttr, field_validator, model_validator

from steps.catalog import later_steps, touched_tables
from steps.contract import (
    LOCK_NOT_AVAILABLE,
    AlreadyCommitted,
    Context,
    DatabaseFault,
    Effect,
    Figure,
    Look,
    Model,
    Progress,
    Query,
    Refused,
    RunPosition,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    Text,
    Value,
    Work,
    cutting,
)
from steps.contract.dialect import Dialect
from steps.contract.direction import ON
from steps.contract.look import Trace
from steps.contract.values import NoPlace, decode, encode, for_sqlite
from steps.ledger import step_commits
from steps.sql import settings
from steps.sql.dialect import needs_autocommit, parameters
from steps.sql.queries import ReadQuery
from steps.sql.scanner import BadSql, split
from steps.sql.session_statements import void
from steps.sql.statements import is_dml, lock_of, waits_in_the_way, what_goes_with_it, whole_table_verb
from steps.types.sql.back import (
    BEGUN,
    ENDED,
    GIVEN_UP,
    Items,
    Texts,
    back_labels,
    begun_label,
    given_up,
    most_pieces,
    numbered,
    pieces,
    without_end,
)

TOGETHER = "statements"  # label of the commit where all statements share one transaction


class SqlBefore(Model):
    """Records that the step began, and with which parameters; the SQL of the undo is in the playbook."""

    statements: int
    figures: Mapping[str, JsonValue] = {}  # values of earlier steps' figures, as they were bound


class SqlResult(StepResult):
    """rows: affected by the statements that this attempt sent; those done before a resume are not counted again."""

    statements: int
    rows: int


class Sql(Step[SqlBefore]):
    """Runs SQL. A statement that affects no row fails, unless `expect_rows` permits it.

    transaction: `each` statement in its own, or all in `one`. What can't run in a transaction is sent outside.
    set: settings for each of these transactions, and for those of the undo. SET, PRAGMA, LOCK and the like are refused where
    they would have no effect on what follows.
    `applied_if` asks the database whether the change is there; without it the ledger says which statements committed.
    `revert` is the undo of the whole step; a statement may have its own instead ({run: …, revert: …}), which is sent only where
    the statement was committed, last first.
    """

    kind: ClassVar[str] = "sql"
    summary: ClassVar[str] = "runs statements of the playbook's own, each recorded and resumed alone"
    Result: ClassVar[type[StepResult]] = SqlResult

    text: Text | None = None
    statement_list: Items = Field(default=(), alias="statements")
    transaction: Literal["each", "one"] = "each"
    applied_if: ReadQuery | None = None
    way_back: Texts | None = Field(default=None, alias="revert")
    expect_rows: Literal["any", "some"] | Annotated[int, Field(ge=0)] = "some"
    whole_table: Annotated[bool, ON] = False
    params: Mapping[str, str | int | float | bool | Figure | None] = {}
    wanted: settings.Settings = Field(default={}, alias="set")
    _bound: dict[str, Value] = PrivateAttr(default_factory=dict)  # values of earlier steps' figures, set when it starts

    @model_validator(mode="after")
    def _one_source(self) -> Sql:
        if (self.text is None) == (not self.statement_list):
            raise ValueError("cannot tell what to run: write either text or statements")
        return self

    @model_validator(mode="after")
    def _nothing_void(self) -> Sql:
        for one in self._all_texts():
            for dialect, text in one.texts.items():
                reasons = [self._why_void(text, of) for of in ([Dialect(dialect)] if dialect else Dialect)]
                if all(reasons):  # a text for both may be meant for one of them
                    raise ValueError(reasons[0])
        return self

    @model_validator(mode="after")
    def _one_way_back(self) -> Sql:
        own = [one for one in self.statement_list if one.revert is not None]
        if own and self.way_back is not None:
            raise ValueError("cannot tell the way back: write revert for the step or for its statements, not for both")
        if own and len(own) < len(self.statement_list):
            raise ValueError(
                "cannot take back a part of the step: give each of its statements a revert ([] where there is nothing to do)"
            )
        if any(most_pieces([one.run]) > 1 for one in own):
            raise ValueError("cannot take back several statements by one revert of theirs: write one statement an item")
        return self

    @field_validator("text", "way_back")
    @classmethod
    def _readable(cls, value: Text | tuple[Text, ...] | None) -> Text | tuple[Text, ...] | None:
        _refuse_unreadable((value,) if isinstance(value, Text) else value or ())
        return value

    @field_validator("statement_list")
    @classmethod
    def _all_readable(cls, value: Items) -> Items:
        for one in value:
            _refuse_unreadable((one.run, *(one.revert or ())))
        return value

    def describe(self) -> str:
        found = self._texts_for_reading()
        first = cutting.on_one_line(found[0], 80)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"run {first}{more}" + (f" (set {settings.shown(self.wanted)})" if self.wanted else "")

    # ─── before ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def statements(self, look: Look) -> list[Statement]:
        return [self._statement(sql, look.dialect) for sql in self._pieces(look.dialect)]

    def preflight(self, look: Look) -> list[str]:
        faults = settings.faults(look, self.wanted)
        if look.dialect is Dialect.SQLITE:
            faults += [fault for sql in self._pieces(look.dialect) for fault in what_goes_with_it(look, sql)]
        return faults

    def misfits(self, dialect: Dialect) -> list[str]:
        texts = (one.text(dialect) for one in self._all_texts())
        faults = [why for text in texts if (why := self._why_void(text, dialect))]
        for n, sql in enumerate(self._pieces(dialect), 1):
            verb = whole_table_verb(sql, dialect)
            if verb and not self.whole_table:
                faults.append(
                    f"cannot run statement {n}: {verb} without WHERE changes the whole table at once; add a WHERE, "
                    "use a backfill, or write whole_table: true"
                )
            faults += self._unsendable(sql, f"statement {n}", dialect)
        for n, sql in enumerate(self._back(dialect), 1):
            faults += self._unsendable(sql, f"statement {n} of the way back", dialect)
        return faults

    def _unsendable(self, sql: str, name: str, dialect: Dialect) -> list[str]:
        faults = []
        if dialect is Dialect.SQLITE:
            unkept = ((one, _unkept(value)) for one, value in self._values(sql, dialect).items())
            faults += [f"cannot run {name}: {one}: {why}" for one, why in unkept if why]
        missing = [one for one in parameters(sql, dialect) if one not in self.params]
        if missing:
            faults.append(f"cannot run {name}: it needs {', '.join(missing)}; give it under params")
        if self.transaction == "one" and needs_autocommit(sql, dialect=dialect):
            faults.append(f"cannot run {name} in a transaction: the database refuses; write transaction: each")
        return faults

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.named_in([*self._pieces(look.dialect), *self._back(look.dialect)], look.dialect)

    def goes_on(self, look: Look) -> tuple[Trace, ...]:
        return tuple(one for sql in self._pieces(look.dialect) for one in later_steps.altered(sql, look.dialect))

    def touches_back(self, look: Look) -> tuple[str, ...]:
        return touched_tables.named_in(self._back(look.dialect), look.dialect)

    def verify(self, look: Look) -> Effect:
        place = look.place
        labels = self._done(look, "apply")
        if place and ENDED in self._done(look, "revert"):
            return self._still(look) or Effect(State.NOT_DONE, "taken back")
        if place and place.action == "revert":
            return self._still(look) or self._between(labels, look.dialect)
        if self.applied_if is not None:
            return _asked(look, self.applied_if, some=bool(labels))
        return self._from_ledger(set(labels), self._labels(look.dialect))

    def _still(self, look: Look) -> Effect | None:
        """The answer of `applied_if` during an undo; None without one."""
        return _asked(look, self.applied_if, some=False) if self.applied_if is not None else None

    def _between(self, done: list[str], dialect: Dialect) -> Effect:
        """The state during an unfinished undo: without `applied_if` only a person can tell what it left."""
        if not done:
            return Effect(State.NOT_DONE, "none of its statements was committed")
        evidence = f"{self._committed_text(set(done), dialect)}, and their way back did not come to its end"
        return Effect(
            State.UNKNOWN, f"{evidence}: without applied_if only a person can say whether anything still stands"
        )

    def _committed_text(self, done: set[str], dialect: Dialect) -> str:
        labels = self._labels(dialect)
        return f"{sum(label in done for label in labels)} of {len(labels)} statements committed"

    @staticmethod
    def _done(look: Look, action: str) -> list[str]:
        place = look.place
        return step_commits.committed_labels(look, RunPosition(place.run, place.step, action)) if place else []

    @staticmethod
    def _from_ledger(done: set[str], labels: list[str]) -> Effect:
        doubt = [label for label in labels if label not in done and begun_label(label, given_up(label, done)) in done]
        if doubt:
            return Effect(
                State.UNKNOWN,
                f"{doubt[0]} was sent outside of a transaction and its end is not known: look, then settle",
            )
        count = sum(label in done for label in labels)
        evidence = f"{count} of {len(labels)} statements committed"
        return Effect(State.DONE if count == len(labels) else State.PARTLY if count else State.NOT_DONE, evidence)

    # ─── the change ─────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> SqlResult:
        dialect = ctx.db.dialect
        statements = self._pieces(dialect)
        faults = self.misfits(dialect)
        if not faults:
            with ctx.db.look() as look:
                faults = self.preflight(look)
        if faults:
            raise Refused(faults[0])
        ctx.remember(
            SqlBefore(statements=len(statements), figures={key: encode(value) for key, value in self._bound.items()})
        )
        return SqlResult(statements=len(statements), rows=self._run(ctx, statements))

    def revert(self, ctx: Context, before: SqlBefore) -> None:
        if before.figures and not self._bound:
            self.with_figures({key: decode(value) for key, value in before.figures.items()}).revert(ctx, before)
            return
        if self.one_way():
            raise StepError(f"cannot take back: {self.one_way()}")
        with ctx.db.look() as look:
            statements = self._due(set(self._done(look, "apply")), look.dialect)
        if statements and self.transaction == "one":
            self._together(ctx, statements, counted=False)
        elif statements:
            self._each(ctx, statements, back_labels(statements, set(ctx.db.committed())), counted=False)
        ctx.patiently(ENDED, lambda _work: None)

    def figures(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.figure for one in self.params.values() if isinstance(one, Figure)))

    def with_figures(self, values: Mapping[str, Value]) -> Sql:
        bound = self.model_copy()
        bound.bind(values)
        return bound

    def bind(self, values: Mapping[str, Value]) -> None:
        """Set the values of earlier steps' figures; called on the copy that runs."""
        self._bound = dict(values)

    def one_way(self) -> str:
        back = self.way_back is not None or any(one.revert is not None for one in self.statement_list)
        return "" if back else "the playbook gives no SQL for the way back (revert:)"

    def half_way_back(self) -> str:
        texts = [self.text] if self.text else [one.run for one in self.statement_list]
        if self.way_back is None or self.transaction == "one" or most_pieces(texts) < 2:
            return ""
        return (
            "its revert is for all of its statements, each of which has a transaction of its own; "
            "write transaction: one, or give each statement its own ({run: …, revert: …})"
        )

    def doubt(self, look: Look) -> str:
        back = without_end(self._done(look, "revert"))
        if back:
            return "a statement of the way back was sent outside of a transaction and its end is not known: look"
        done = self._done(look, "apply")
        sent = without_end(done)
        if sent and not self._is_there(look):
            return f"{sent[0]} was sent outside of a transaction and its end is not known: look"
        labels = self._labels(look.dialect)
        count = sum(label in done for label in labels)
        if self.way_back is not None and 0 < count < len(labels):
            return f"{self._committed_text(set(done), look.dialect)}, and its revert is for all of them"
        return ""

    def _is_there(self, look: Look) -> bool:
        return self.applied_if is not None and _asked(look, self.applied_if, some=True).state is State.DONE

    def only_way_back_differs(self, before: Step) -> bool:
        return isinstance(before, Sql) and self._forward() == before._forward()  # noqa: SLF001 - of this class

    def _forward(self) -> Sql:
        items = tuple(one.model_copy(update={"revert": None}) for one in self.statement_list)
        return self.model_copy(update={"way_back": None, "statement_list": items})

    def _run(self, ctx: Context, statements: list[str]) -> int:
        """Run the statements that aren't in the ledger yet; returns the number of rows they affected."""
        if self.transaction == "one":
            return self._together(ctx, statements, counted=True)
        return self._each(ctx, statements, numbered(statements), counted=True)

    def _together(self, ctx: Context, statements: list[str], *, counted: bool) -> int:
        counts: list[int] = []
        ctx.patiently(TOGETHER, lambda work: counts.extend(self._send_all(work, statements, counted=counted)))
        return sum(counts)

    def _each(self, ctx: Context, statements: list[str], labels: list[str], *, counted: bool) -> int:
        counts: list[int] = []
        for n, (label, sql) in enumerate(zip(labels, statements, strict=True)):
            ctx.pulse(Progress(n, len(statements), "statements"))
            self._alone(ctx, label, sql, counts=counts, counted=counted)
        return sum(counts)

    def _alone(self, ctx: Context, label: str, sql: str, *, counts: list[int], counted: bool) -> None:
        if not needs_autocommit(sql, dialect=ctx.db.dialect):
            ctx.patiently(label, lambda work: counts.extend(self._send_all(work, [sql], counted=counted)))
        elif label not in ctx.db.committed():
            self._outside(ctx, label, sql, counts=counts, counted=counted)

    def _outside(self, ctx: Context, label: str, sql: str, *, counts: list[int], counted: bool) -> None:
        """Run one statement in autocommit, between two commits of labels, so that a crash in between leaves a visible doubt.

        The window can't be closed: the statement may take effect and the process die before the second label commits. So a start
        without an end is never repeated on its own authority, but settled by `applied_if` or a person.
        """

        def act(work: Work) -> None:
            with settings.applied(work, self.wanted, local=False):
                counts.append(self._send(work, sql, counted=counted))

        vain = given_up(label, ctx.db.committed())
        with contextlib.suppress(AlreadyCommitted), ctx.db.commit(begun_label(label, vain)):
            pass
        try:
            ctx.patiently_outside(label, act, bounded=waits_in_the_way(lock_of(sql)))
        except DatabaseFault as fault:
            if fault.sqlstate == LOCK_NOT_AVAILABLE:  # it certainly did nothing, so no doubt is left behind
                with ctx.db.commit(f"{label}{GIVEN_UP} {vain + 1}"):
                    pass
            raise
        with contextlib.suppress(AlreadyCommitted), ctx.db.commit(label):
            pass

    def _send_all(self, work: Work, pieces: list[str], *, counted: bool) -> list[int]:
        with settings.applied(work, self.wanted, local=True):
            return [self._send(work, sql, counted=counted) for sql in pieces]

    def _send(self, work: Work, sql: str, *, counted: bool) -> int:
        rows = work.execute(sql, self._values(sql, work.dialect))
        if not (counted and is_dml(sql, work.dialect)):
            return 0
        wanted = self.expect_rows
        if (wanted == "some" and rows == 0) or (isinstance(wanted, int) and rows != wanted):
            raise StepError(
                f"cannot go on: {cutting.on_one_line(sql, 80)!r} touched {rows} rows and expect_rows is {wanted}; "
                "it was rolled back"
            )
        return max(rows, 0)

    # ─── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _statement(self, sql: str, dialect: Dialect) -> Statement:
        alone = needs_autocommit(sql, dialect=dialect)
        lock = lock_of(sql) if dialect is Dialect.POSTGRESQL else ""
        note = f"with {settings.shown(self.wanted)}" if self.wanted else ""
        return Statement(sql, self._values(sql, dialect), lock=lock, transactional=not alone, note=note)

    def _why_void(self, text: str, dialect: Dialect) -> str:
        """Why one of the statements would have no effect as written (see void); "" where all have, or can't be parsed."""
        with contextlib.suppress(BadSql):
            found = (void(piece.text, dialect, together=self.transaction == "one") for piece in split(text, dialect))
            return next((str(one) for one in found if one is not None), "")
        return ""

    def _values(self, sql: str, dialect: Dialect) -> dict[str, Value]:
        return {name: self._value(self.params[name]) for name in parameters(sql, dialect) if name in self.params}

    def _value(self, given: str | float | bool | Figure | None) -> Value:  # noqa: FBT001 - a value, no flag
        if isinstance(given, Figure):
            return self._bound[given.figure] if given.figure in self._bound else str(given)
        return given

    def _all_texts(self) -> tuple[Text, ...]:
        """All texts that may be sent, those of the undo included."""
        own = [text for one in self.statement_list for text in (one.run, *(one.revert or ()))]
        return (*((self.text,) if self.text else ()), *own, *(self.way_back or ()))

    def _pieces(self, dialect: Dialect) -> list[str]:
        return pieces((self.text,) if self.text else [one.run for one in self.statement_list], dialect)

    def _back(self, dialect: Dialect) -> list[str]:
        """All statements of the undo."""
        return self._due({*self._labels(dialect)}, dialect)

    def _due(self, done: set[str], dialect: Dialect) -> list[str]:
        """The statements of the undo that are due, given the committed labels of `apply`."""
        # a start without an end counts as done: a person has settled it so, else no undo would run
        known = {*done, *(label.partition(BEGUN)[0] for label in done)}
        if self.way_back is not None:
            return pieces(self.way_back, dialect) if known else []
        if self.one_way():
            return []
        labels = [TOGETHER] * len(self.statement_list) if self.transaction == "one" else self._labels(dialect)
        items = reversed(list(zip(labels, self.statement_list, strict=True)))
        return [sql for label, one in items if label in known for sql in pieces(one.revert or (), dialect)]

    def _labels(self, dialect: Dialect) -> list[str]:
        return [TOGETHER] if self.transaction == "one" else numbered(self._pieces(dialect))

    def _texts_for_reading(self) -> list[str]:
        return [
            next(iter(one.texts.values()))
            for one in ((self.text,) if self.text else [one.run for one in self.statement_list])
        ]


def _asked(look: Look, query: Query, *, some: bool) -> Effect:
    answer = next(iter(look.row(query.text(look.dialect)).values()), None)
    name = query.name or "applied_if"
    if answer is None:
        return Effect(State.UNKNOWN, f"{name} answers NULL")
    if answer:
        return Effect(State.DONE, f"{name} is true")
    return Effect(State.PARTLY if some else State.NOT_DONE, f"{name} is false")


def _unkept(value: Value) -> str:
    """Why SQLite can't store the value; "" where it can."""
    try:
        for_sqlite(value)
    except NoPlace as error:
        return str(error)
    return ""


def _refuse_unreadable(texts: Iterable[Text]) -> None:
    for one in texts:
        for dialect, text in one.texts.items():
            _refuse(text, [Dialect(dialect)] if dialect else list(Dialect))


def _refuse(text: str, dialects: list[Dialect]) -> None:
    """Raises ValueError unless at least one of the dialects can parse the text into statements."""
    reasons = [_why_not(text, dialect) for dialect in dialects]
    if all(reasons):
        raise ValueError(reasons[0])


def _why_not(text: str, dialect: Dialect) -> str:
    try:
        if not split(text, dialect):
            return "cannot run an empty text: write a statement"
    except BadSql as fault:
        return str(fault)
    return ""
