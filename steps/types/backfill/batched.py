"""What the steps that write in batches share: their keys, checks, result and undo; data, cursor and undo commit together."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from steps.catalog import catalog, touched_tables
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
    Text,
    Value,
)
from steps.contract.direction import HIGHER, OFF, UNSET, ladder
from steps.contract.look import Trace
from steps.ledger import skipped_rows
from steps.types.backfill import store
from steps.types.backfill import undo as taking_back
from steps.types.backfill.batch import BatchSpec, batch_params, sqlite_statements, statement
from steps.types.backfill.limits import BatchSize, DeadLetters, PauseAfter
from steps.types.backfill.passes import Pass
from steps.types.backfill.preflight import faults
from steps.types.backfill.progress import RUNNING, share
from steps.types.backfill.ranges import Route, begin, choose, window
from steps.types.backfill.spec import BackfillFields, read_shape
from steps.types.backfill.sql import Shape
from steps.types.backfill.throttle import UNTHROTTLED, Throttle
from steps.types.backfill.undo import Written
from steps.types.backfill.worker import PassSettings, PassState


class PassResult(StepResult):
    """The counters of a pass; each row visited counts once.

    in_range: all rows that the pass had to visit: visited + left, where left are those it missed; at_start: rows in range when
    it began; already: nothing to write; deferred: locked or changed by others until the end; unreadable: the dead rows at which
    the playbook's SQL fails; late: visited only by the final sweep; seconds: from the first batch to the last, with rests and
    holds, without the time in which no process worked on it.
    """

    in_range: int
    at_start: int
    visited: int
    written: int
    already: int
    deferred: int
    dead: int
    dead_pct: float
    unreadable: int
    left: int
    late: int
    seconds: float
    rows_per_second: float
    batches: int


class Batched(Step[Written]):
    """A step that goes over a table in batches. Every row is visited once, in heap order or in the order of a key.

    Bounds are fixed at the start, and a final sweep covers the whole table. The undo restores exactly the rows written.
    """

    running_figures: ClassVar[RunningFigures] = RUNNING

    table: Identifier
    key: Identifiers = ()
    where: Text | None = None
    batch: BatchSize = BatchSize()
    order: Annotated[str, Field(min_length=1)] = "auto"
    workers: Annotated[int, Field(ge=1, le=16), HIGHER] = 1
    throttle: Throttle | Literal["none"] = Throttle()
    pause_after: Annotated[PauseAfter | None, UNSET] = None
    stop_after: PauseAfter | None = None
    expect_work: Annotated[bool, OFF] = True
    undo: Annotated[bool, OFF] = True
    dead_letters: DeadLetters = DeadLetters()
    triggers: Annotated[Literal["refuse", "acknowledged"], ladder("refuse", "acknowledged")] = "refuse"

    @model_validator(mode="after")
    def _one_gate(self) -> Batched:
        if self.stop_after is not None and self.pause_after is not None:
            raise ValueError(
                "cannot both pause and stop: write pause_after (resume goes on) or stop_after (the pass ends there)"
            )
        return self

    @property
    def _scope(self) -> str:
        """The playbook's `where` in words of `describe`."""
        return f" where {' '.join(next(iter(self.where.texts.values())).split())}" if self.where else ""

    def _fields(self) -> BackfillFields:
        """What is written, for `read_shape`."""
        raise NotImplementedError

    # ─── before ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def rows(self, look: Look) -> int | None:
        found = catalog.relation(look, self.table)
        return None if found is None else found.estimated_rows

    def touches(self, look: Look) -> tuple[str, ...]:
        return touched_tables.qualified(look, self.table)

    def leaves(self, look: Look) -> tuple[Trace, ...]:
        del look
        return (Trace("rows", self.table),)

    def connections(self) -> int:
        return self.workers + 1  # each worker's, and that of the thread which counts

    def preflight(self, look: Look) -> list[str]:
        try:
            shape = self._shape(look)
        except StepError as fault:
            return [str(fault)]
        acknowledged = self.triggers == "acknowledged"
        return faults(
            look, self.table, shape, route=lambda: self._route(look, shape), triggers_acknowledged=acknowledged
        )

    def statements(self, look: Look) -> list[Statement]:
        """The first batch as it will be sent; all others differ only in their bounds."""
        shape = self._shape(look)
        route = self._route(look, shape)
        start = begin(look, shape, route, counted=False)
        if not start.ranges:
            return []
        part = start.ranges[0]
        first = window(shape, route, part, lo=part.lo, start=start, rows=1000)
        texts = [statement(shape, first)] if shape.pg else sqlite_statements(shape, first)
        params = batch_params(look.place or RunPosition("", "", "apply"), BatchSpec(1, 0, part.lo, first))
        crew = f", by {self.workers} workers" if self.workers > 1 and shape.pg else ""
        note = f"once per batch of about {self.batch.time * 1000:.0f} ms{crew}, in {route.kind} order: {route.why}"
        if shape.touched_columns:
            note += f"; {', '.join(shape.touched_columns)} set to themselves, which spares their indexes a search"
        return [
            Statement(
                text, params, lock="ROW EXCLUSIVE" if shape.pg else "", length="instant", table=self.table, note=note
            )
            for text in texts
        ]

    def verify(self, look: Look) -> Effect:
        place = look.place
        text = store.document(look, RunPosition(place.run, place.step, "apply")) if place else None
        if place is None or text is None:
            rows = self.rows(look)
            return Effect(
                State.NOT_DONE, f"no pass over {self.table} has begun" + (f"; about {rows:,} rows" if rows else "")
            )
        return self._found(look, place, PassState.model_validate_json(text))

    def _found(self, look: Look, place: RunPosition, document: PassState) -> Effect:
        totals = store.totals(look, RunPosition(place.run, place.step, "apply"))
        back = taking_back.state_of(look, run=place.run, step=place.step)
        evidence = (
            f"{totals.seen:,} of {document.start.rows:,} rows visited, {totals.written:,} written, {totals.dead} dead"
        )
        if back.taken or back.ended:
            state = State.NOT_DONE if back.ended else State.PARTLY
            return Effect(state, f"{evidence}; {back.taken} of {back.kept} batches taken back")
        if totals.deferred:
            evidence += f"; {totals.deferred} held by others to the end"
        if document.ended(self._settings(), deferred=totals.deferred):
            return Effect(State.DONE, f"{evidence}; {document.left} left")
        return Effect(State.PARTLY, f"{evidence}; {f'{document.left} left' if document.finished else 'not finished'}")

    # ─── the change ─────────────────────────────────────────────────────────────────────────────────────────────────
    def apply(self, ctx: Context) -> StepResult:
        under_way = self._pass(ctx)
        if self.undo:
            shape = under_way.shape
            ctx.remember(Written(table=shape.table, key=shape.key, fill=shape.fill, oid=shape.oid, clears=shape.clears))
        document = under_way.run()
        with ctx.db.look() as look:
            return self._result(look, under_way.place, document)

    def _pass(self, ctx: Context) -> Pass:
        with ctx.db.look() as look:
            place = look.place
            if place is None:
                raise StepError(f"cannot backfill {self.table} outside of a run")
            shape = self._shape(look)
            route = self._route(look, shape)
        return Pass(ctx, place, shape, self._settings(), route)

    def aside(self, look: Look) -> int:
        place = look.place
        if place is None or store.document(look, place) is None:
            return 0
        found = store.totals(look, place)
        return found.dead + found.deferred

    def reopen(self, ctx: Context) -> None:
        """Retry the dead and the deferred rows; those that still can't be written are skipped again."""
        self._pass(ctx).reopen()

    def result(self, look: Look) -> StepResult:
        """The counters from the ledger: sums of committed batches, so that a resume can't count a row twice."""
        place = look.place
        text = store.document(look, place) if place is not None else None
        if place is None or text is None:
            raise StepError(f"no pass over {self.table} has begun")
        return self._result(look, place, PassState.model_validate_json(text))

    def revert(self, ctx: Context, before: Written) -> TakenBack:
        taken = taking_back.take_back(ctx, before, throttle=self._throttle)
        return TakenBack(restored=taken.restored, refused=taken.refused)

    def one_way(self) -> str:
        return "" if self.undo else "undo: false keeps no record of what it writes"

    def _shape(self, look: Look) -> Shape:
        return read_shape(look, self._fields())

    def _route(self, look: Look, shape: Shape) -> Route:
        return choose(look, self.table, shape, wish=self.order)

    def rests(self) -> float:
        return self._throttle.rest

    @property
    def _throttle(self) -> Throttle:
        return self.throttle if isinstance(self.throttle, Throttle) else UNTHROTTLED

    def _settings(self) -> PassSettings:
        pause = self.stop_after or self.pause_after or PauseAfter.model_construct(written=None, batches=None)
        return PassSettings(
            seconds=self.batch.time,
            fewest=self.batch.rows[0],
            most=self.batch.rows[1],
            workers=self.workers,
            throttle=self._throttle,
            pause_written=pause.written,
            pause_batches=pause.batches,
            ends=self.stop_after is not None,
            expect_work=self.expect_work,
            dead_max=self.dead_letters.max,
            dead_pct=self.dead_letters.pct,
        )

    def _result(self, look: Look, place: RunPosition, document: PassState) -> StepResult:
        totals = store.totals(look, place)
        # negative where the sweep settled nothing but deferred rows that were deleted meanwhile
        late = max(store.totals(look, place, worker=store.SWEEP).seen, 0)
        seconds = store.seconds(look, place)
        figures: dict[str, Value] = {
            "in_range": totals.seen + document.left,
            "at_start": document.start.rows,
            "visited": totals.seen,
            "written": totals.written,
            "already": totals.already,
            "no_key": totals.no_key,
            "not_in_source": totals.not_in_source,
            "deferred": totals.deferred,
            "dead": totals.dead,
            "dead_pct": share(totals.dead, totals.seen),
            "unreadable": skipped_rows.unreadable(look, place),
            "left": document.left,
            "late": late,
            "seconds": round(seconds, 3),
            "rows_per_second": round(totals.seen / seconds, 1) if seconds else 0.0,
            "batches": totals.batches,
        }
        return self.Result.model_validate({name: figures[name] for name in self.Result.model_fields})
