"""Fills a table with rows from a query, in batches that commit rows, cursor, undo and counters together."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from steps.catalog import touched_tables
from steps.contract import (
    Context,
    Effect,
    Identifier,
    Identifiers,
    Look,
    RunningFigures,
    RunPosition,
    State,
    Statement,
    Step,
    StepError,
    StepResult,
    TakenBack,
    Value,
)
from steps.contract.direction import OFF, ladder
from steps.contract.look import Trace
from steps.sql.queries import ReadQuery
from steps.types.backfill import store
from steps.types.backfill import undo as taking_back
from steps.types.backfill.limits import BatchSize, DeadLetters
from steps.types.backfill.progress import share
from steps.types.backfill.throttle import UNTHROTTLED, Throttle
from steps.types.fill import sql
from steps.types.fill.passes import FillPass, FillSettings, FillState
from steps.types.fill.preflight import faults
from steps.types.fill.progress import RUNNING
from steps.types.fill.shape import FillFields, FillShape, read_shape, work_table
from steps.types.fill.undo import Filled, take_back


class FillResult(StepResult):
    """The counters of a fill. visited = written + already + no_key + deferred + dead; each row of the source counts once.

    in_range: the source's rows; already: the table had their key; no_key: their key is NULL; dead: the table refused them, or the
    source can't compute them; deferred: others held them to the end; late: came into the source after the start; left: rows that
    were seen and are not in the table at the end; seconds: from the first batch to the last, without the time in which no process
    worked on it.
    """

    in_range: int
    visited: int
    written: int
    already: int
    no_key: int
    deferred: int
    dead: int
    dead_pct: float
    left: int
    late: int
    seconds: float
    rows_per_second: float
    batches: int


class FillTable(Step[Filled]):
    """Writes rows of a query into a table, each by its key: one that the table has already is left as it is.

    The source is evaluated once, into a work table beside the ledger (it may be an aggregate), and again at the end for rows that
    came meanwhile. A row that the table refuses, or whose values the source can't compute, is dead: it never stops the others. The
    undo deletes exactly the rows that were written, where nobody has changed them and nothing refers to them.
    key: unique columns of the table, which are among `columns`; the primary key by default.
    """

    kind: ClassVar[str] = "fill_table"
    summary: ClassVar[str] = "writes a query's rows into a table, in batches that can be resumed and taken back"
    Result: ClassVar[type[StepResult]] = FillResult
    running_figures: ClassVar[RunningFigures] = RUNNING

    table: Identifier
    source: ReadQuery
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    key: Identifiers = ()
    on_conflict: Literal["skip", "refuse"] = "skip"
    batch: BatchSize = BatchSize()
    throttle: Throttle | Literal["none"] = Throttle()
    expect_work: Annotated[bool, OFF] = True
    dead_letters: DeadLetters = DeadLetters()
    triggers: Annotated[Literal["refuse", "acknowledged"], ladder("refuse", "acknowledged")] = "refuse"

    def describe(self) -> str:
        there = "those with a known key skipped" if self.on_conflict == "skip" else "none of which may be there"
        return f"fill {self.table} ({', '.join(self.columns)}) from {self.source.name or 'a query'}, {there}"

    # ─── before ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("rows", self.table),)

    def preflight(self, look: Look) -> list[str]:
        try:
            shape = self._shape(look)
        except StepError as fault:
            return [str(fault)]
        return faults(look, self.table, shape, triggers_acknowledged=self.triggers == "acknowledged")

    def statements(self, look: Look) -> list[Statement]:
        """The work table, and a batch as it will be sent; all batches differ only in their bounds."""
        shape, work = self._shape(look), work_table(look.dialect, look.place)
        bounds: dict[str, Value] = {"run": "", "step": "", "n": 1, "lo": 0, "hi": 1000}
        batches = [sql.statement(shape, work)] if shape.pg else sql.sqlite_statements(shape, work)
        note = (
            f"once per batch of about {self.batch.time * 1000:.0f} ms, in the order of {', '.join(self._names(shape))}"
        )
        kept = "the source's rows, read once; dropped when the step is done or taken back"
        made = [Statement(one, note=kept) for one in sql.create_work(shape, work)[1:]]
        lock = "ROW EXCLUSIVE" if shape.pg else ""
        for one in batches:
            params = {name: value for name, value in bounds.items() if f":{name}" in one}
            made.append(Statement(one, params, lock=lock, length="instant", table=self.table, note=note))
        return made

    def verify(self, look: Look) -> Effect:
        place = look.place
        text = store.document(look, RunPosition(place.run, place.step, "apply")) if place else None
        if place is None or text is None:
            return Effect(State.NOT_DONE, f"no fill of {self.table} has begun")
        return self._found(look, place, FillState.model_validate_json(text))

    def _found(self, look: Look, place: RunPosition, state: FillState) -> Effect:
        totals = store.totals(look, RunPosition(place.run, place.step, "apply"))
        back = taking_back.state_of(look, run=place.run, step=place.step)
        evidence = (
            f"{totals.seen:,} of {state.in_range:,} rows visited, {totals.written:,} written, {totals.already:,} there before, "
            f"{totals.dead} dead"
        )
        if back.taken or back.ended:
            taken = State.NOT_DONE if back.ended else State.PARTLY
            return Effect(taken, f"{evidence}; {back.taken} of {back.kept} batches taken back")
        if totals.deferred:
            evidence += f"; {totals.deferred} held by others to the end"
        if state.finished and not totals.deferred:
            return Effect(State.DONE, f"{evidence}; {state.left} left")
        return Effect(State.PARTLY, f"{evidence}; not finished")

    # ─── the change ─────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> FillResult:
        under_way = self._pass(ctx)
        shape = under_way.shape
        ctx.remember(
            Filled(
                table=shape.table,
                name=self.table,
                key=shape.key_columns,
                whole=shape.whole,
                work=under_way.work,
                oid=shape.oid,
            )
        )
        state = under_way.run()
        with ctx.db.look() as look:
            return _result(look, under_way.place, state)

    def _pass(self, ctx: Context) -> FillPass:
        with ctx.db.look() as look:
            place = look.place
            if place is None:
                raise StepError(f"cannot fill {self.table} outside of a run")
            shape = self._shape(look)
        return FillPass(ctx, place, shape, work=work_table(shape.dialect, place), settings=self._settings())

    def aside(self, look: Look) -> int:
        place = look.place
        if place is None or store.document(look, place) is None:
            return 0
        found = store.totals(look, place)
        return found.dead + found.deferred

    def reopen(self, ctx: Context) -> None:
        """Ask the source for the dead and the deferred rows again; those that still can't be written are skipped again."""
        self._pass(ctx).reopen()

    def result(self, look: Look) -> FillResult:
        """The counters from the ledger: sums of committed batches, so that a resume can't count a row twice."""
        place = look.place
        text = store.document(look, place) if place is not None else None
        if place is None or text is None:
            raise StepError(f"no fill of {self.table} has begun")
        return _result(look, place, FillState.model_validate_json(text))

    def revert(self, ctx: Context, before: Filled) -> TakenBack:
        """Delete the rows that were written, where they are as they were."""
        taken = take_back(ctx, before, throttle=self._throttle)
        return TakenBack(restored=taken.restored, refused=taken.refused)

    def back_if(self, look: Look | None) -> str:
        del look
        return "but for rows that somebody changes by then, or that others refer to"

    def rests(self) -> float:
        return self._throttle.rest

    def _shape(self, look: Look) -> FillShape:
        skip = self.on_conflict == "skip"
        return read_shape(look, FillFields(self.table, self.source, self.columns, self.key, skip))

    @staticmethod
    def _names(shape: FillShape) -> list[str]:
        return [one.name for one in shape.key_columns]

    @property
    def _throttle(self) -> Throttle:
        return self.throttle if isinstance(self.throttle, Throttle) else UNTHROTTLED

    def _settings(self) -> FillSettings:
        return FillSettings(
            batch=self.batch, throttle=self._throttle, dead=self.dead_letters, expect_work=self.expect_work
        )


def _result(look: Look, place: RunPosition, state: FillState) -> FillResult:
    totals, seconds = store.totals(look, place), store.seconds(look, place)
    return FillResult(
        in_range=state.in_range,
        visited=totals.seen,
        written=totals.written,
        already=totals.already,
        no_key=totals.no_key,
        deferred=totals.deferred,
        dead=totals.dead,
        dead_pct=share(totals.dead, totals.seen),
        left=state.left,
        late=state.late,
        seconds=round(seconds, 3),
        rows_per_second=round(totals.seen / seconds, 1) if seconds else 0.0,
        batches=totals.batches,
    )
